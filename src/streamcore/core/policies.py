"""The segmentation policies: one row each. Whoever needs to know something of a policy asks its row.

The rows stand in core because the configuration checks names and takes defaults from them. The cutters themselves live
in segment/, and are loaded when a run uses them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How the first stream is divided into segments, beside the bounds on packets and bytes, which always hold."""

    words: str  # for --help
    groups: tuple[str, ...] = ()  # header columns that lanes or the cutter read: names of COLUMN_GROUPS
    lanes: bool = False  # packets are sorted into lanes by flow_hash; segments of one lane go to one worker
    cutter: str = ""  # "module:Class" of a segment.cutter.Cutter; "": the bounds alone decide
    segment_ms: int = 0  # the default of that key
    owns_segment_ms: bool = False  # the cutter interprets segment_ms; otherwise it is one more bound


POLICIES: dict[str, Policy] = {
    "run": Policy("consecutive packets"),
    "flow": Policy("a flow stays with one worker", groups=("flow",), lanes=True),
    "time": Policy(
        "windows of capture time",
        cutter="streamcore.segment._windows:Windows",
        segment_ms=1000,
        owns_segment_ms=True,
    ),
}
