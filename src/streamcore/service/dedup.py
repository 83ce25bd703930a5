"""The service `dedup`: drops exact duplicates. Workers hash packets; the main process decides which ones to drop, in
the order of the second stream.

So the result does not depend on how the stream was cut, which workers processed it, or how often.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamcore.service._dedup import KEY_WORDS, Window, hash_packets
from streamcore.service.options import integer, key_bytes
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.specification import parse_specification

KEY_BYTES = 16
PACKETS_DEFAULT = 1024  # if neither option is given: copies made by a mirroring switch are close together
PACKETS_MAX = 1 << 20
PACKETS_OF_TIME = 1 << 18  # how far back a window by time alone can look; its tables take 32 MiB


class Dedup(Service):
    """Drop packets whose last copy is at most PACKETS packets and at most MS milliseconds back.

    A copy has the same captured bytes, captured length and wire length; interface and time do not matter. packets:
    1024 if neither option is given; ms alone looks back at most 262,144 packets. A dropped copy counts as a copy,
    too.
    """

    name: ClassVar[str] = "dedup"
    effect: ClassVar[Effect] = "filter"
    drops_by_keys: ClassVar[bool] = True
    reasons: ClassVar[Mapping[str, str]] = {"duplicate": "a copy of a recent packet"}

    def __init__(self, packets: Any = None, ms: Any = None, key: Any = None) -> None:
        self._ms = None if ms in (None, "") else integer("ms", ms, 0, 86_400_000)
        if packets in (None, ""):
            packets = PACKETS_DEFAULT if self._ms is None else PACKETS_OF_TIME
        self._packets = integer("packets", packets, 1, PACKETS_MAX)
        self._key = os.urandom(KEY_BYTES) if key in (None, "") else key_bytes("key", key, KEY_BYTES)
        self._window: Window | None = None  # made at first use, because workers need none
        self._counts = {"packets": 0, "duplicates": 0}

    def prepared(self, specification: Any) -> Any:
        """Adds the key: all workers must hash alike, because hashes are compared across workers."""
        name, options = parse_specification(specification)
        return {"name": name, **options, "key": self._key.hex()}

    def start(self) -> None:
        raw = hashlib.shake_256(b"streamcore dedup" + self._key).digest(8 * KEY_WORDS)
        self._key_words = np.frombuffer(raw, "<u8").astype(np.uint64)

    def process(self, segment: SegmentView) -> None:
        keys = np.empty((len(segment), 2), np.uint64)
        hash_packets(segment.data, segment.offset, segment.captured_length, segment.wire_length, self._key_words, keys)
        segment.keys(keys)

    def drop_by_keys(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str]:
        if self._window is None:
            self._window = Window(self._packets, -1 if self._ms is None else self._ms * 1_000_000)
        mask = self._window.duplicates(np.ascontiguousarray(keys), np.ascontiguousarray(timestamp_ns))
        self._counts["packets"] += len(mask)
        self._counts["duplicates"] += int(np.count_nonzero(mask))
        return mask, "duplicate"

    def summary(self) -> dict[str, Any]:
        return {**self._counts, "window_packets": self._packets, "window_ms": self._ms}
