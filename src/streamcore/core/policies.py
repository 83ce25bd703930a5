"""The segmentation policies, one row each. All code that depends on a policy reads its row.

The table is in core because the configuration checks names and takes defaults from it. The cutters are in segment/; a
run loads the one that it uses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How a stream is divided into segments. The bounds on packets and bytes hold with every policy."""

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
