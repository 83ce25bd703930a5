"""The service `dedup`: drops copies of packets. Workers hash packets; the main process decides which ones to drop, in
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

from streamcore.service._dedup import (
    IGNORE_LINK,
    IGNORE_PADDING,
    IGNORE_TTL,
    KEEP_EMPTY_TCP,
    KEY_WORDS,
    Window,
    hash_packets,
)
from streamcore.service.options import choice, integer, key_bytes
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.specification import parse_specification

KEY_BYTES = 16
MS_DEFAULT = 50  # if neither option is given: copies made by mirroring are micro- to milliseconds apart
PACKETS_MAX = 1 << 20
PACKETS_OF_TIME = 1 << 18  # how far back a window by time alone can look; its tables take 32 MiB
IGNORED = {"link": IGNORE_LINK, "ttl": IGNORE_TTL, "padding": IGNORE_PADDING}


class Dedup(Service):
    """Drop packets whose last copy is at most PACKETS packets and at most MS milliseconds back.

    A copy has the same captured bytes, captured length and wire length; interface and time do not matter. ms: 50 if
    neither option is given; without packets, it looks back at most 262,144 packets. ignore: what copies may differ in,
    of link (all before the IP or ARP header: addresses, tags), ttl (and the header checksum) and padding (all behind
    the IP packet), as in ignore=link,ttl,padding. acks=drop: drop copies of TCP segments without payload, too, which
    senders repeat on purpose. A dropped copy counts as a copy, too.
    """

    name: ClassVar[str] = "dedup"
    effect: ClassVar[Effect] = "filter"
    drops_by_keys: ClassVar[bool] = True
    reasons: ClassVar[Mapping[str, str]] = {"duplicate": "a copy of a recent packet"}

    def __init__(
        self, packets: Any = None, ms: Any = None, ignore: Any = "", acks: Any = "keep", key: Any = None
    ) -> None:
        if packets in (None, "") and ms in (None, ""):
            ms = MS_DEFAULT
        self._ms = None if ms in (None, "") else integer("ms", ms, 0, 86_400_000)
        if packets in (None, ""):
            packets = PACKETS_OF_TIME
        words = [str(word) for word in ignore] if isinstance(ignore, list) else str(ignore).replace("+", ",").split(",")
        self._ignored = sorted({choice("ignore", word.strip(), ("", *IGNORED)) for word in words} - {""})
        self._how = sum(IGNORED[word] for word in self._ignored)
        self._how |= KEEP_EMPTY_TCP if choice("acks", acks, ("keep", "drop")) == "keep" else 0
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
        hash_packets(
            segment.data, np.ascontiguousarray(segment.offset), np.ascontiguousarray(segment.captured_length),
            np.ascontiguousarray(segment.wire_length), self._key_words, keys,
            self._how, segment.link_type(), segment.ports,
        )  # fmt: skip
        segment.keys(keys)

    def drop_by_keys(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str]:
        if self._window is None:
            self._window = Window(self._packets, -1 if self._ms is None else self._ms * 1_000_000)
        mask = self._window.duplicates(np.ascontiguousarray(keys), np.ascontiguousarray(timestamp_ns))
        self._counts["packets"] += len(mask)
        self._counts["duplicates"] += int(np.count_nonzero(mask))
        return mask, "duplicate"

    def summary(self) -> dict[str, Any]:
        ignored = {"ignored": " ".join(self._ignored)} if self._ignored else {}
        return {**self._counts, "window_packets": self._packets, "window_ms": self._ms, **ignored}
