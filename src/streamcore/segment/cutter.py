"""The protocol of a cutter, which decides where the packets of one stream are divided into segments.

The rows of core/policies.py name the cutters. The segmenter enforces the bounds on packets and bytes with any cutter.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import PacketBatch
from streamcore.core.policies import Policy


class Bounds(NamedTuple):
    """The run's bounds on the size of its segments."""

    packets_max: int
    bytes_max: int
    segment_ms: int


class Preceding(NamedTuple):
    """The preceding segment of the same stream and lane."""

    packets: int
    byte_count: int  # captured
    span_ns: int  # capture time from its first packet to its last


class Cutter(Protocol):
    """A run makes one for each stream and lane: `Class(bounds)`, which raises ValueError for bounds that it cannot
    use."""

    def feed(self, batch: PacketBatch, start: int, stop: int, preceding: Preceding | None) -> NDArray[np.int64]:
        """Returns the places at which a new segment begins, ascending, each between start and stop (both excluded).

        The packets are at places start..stop of `batch.rows`, or are the rows start..stop themselves while `batch.rows`
        is None. Each packet is passed once, in order. preceding: None at first. Runs in the feeding thread, and may
        keep figures but neither the batch nor views of it.
        """


def cutter_class(policy: Policy) -> type | None:
    """The class that a policy's row names, loaded now; None: the policy has no cutter."""
    if not policy.cutter:
        return None
    module, _, name = policy.cutter.partition(":")
    found: type = getattr(import_module(module), name)
    return found
