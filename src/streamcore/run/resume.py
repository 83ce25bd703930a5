"""Resumes an interrupted run. A point is a length of the output, with the part of the first stream that it covers.

Once a second, a run writes a point to a note beside its output (OUT.resume); it removes the note when it finishes.
`--resume` truncates the output at the last point and continues from there. The note does not have the state that
services keep between segments, so a run with such a service starts from the beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

import msgspec

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.packets import Outgoing
from streamcore.sink.protocol import Place, Sink

ENDING = ".resume"
POINT_S = 1.0  # between points
NOTE_BEGINS = b'{"run":"'
SHAPING = ("policy", "filter", "segment_packets", "segment_bytes", "segment_ms", "chunk_bytes", "chunk_rows", "lanes",
           "decode_as", "flow_key", "match", "follow_fragments", "fragments_max", "inputs", "count", "skip", "from_",
           "until", "shift", "sort_s", "loop", "source_mac", "target_mac", "vlan", "mtu", "over_mtu")  # fmt: skip


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to `place`, the output covers the first `packets` packets of the first stream."""

    run: str  # a digest of everything that decides the output
    packets: int
    place: Place


class Points:
    """Writes the points of one run. The output already covers `skip` packets of the first stream, up to `place`."""

    def __init__(self, config: Config, chains: list[Any]) -> None:
        self._path = os.path.abspath(config.write) + ENDING
        self._run = digest_of(config, chains)
        self._next_s = time.monotonic() + POINT_S
        self.skip = 0
        self.place: Place | None = None
        if config.resume:
            self._find(config.write)
        else:
            self.forget()

    def _find(self, output: str) -> None:
        try:
            with open(self._path, "rb") as file:
                point = msgspec.json.decode(file.read(), type=Point)
            size = os.stat(output).st_size
        except FileNotFoundError:
            return  # interrupted before the first point: start from the beginning
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"cannot resume: {self._path} is not a note of streamcore ({error})") from None
        if point.run != self._run:
            raise UsageError(
                "cannot resume: the input, the services or the segments differ from those of the interrupted run (give "
                "keys that were drawn at random)"
            )
        if size < point.place.size:
            raise UsageError(f"cannot resume: {output} is shorter than {self._path} records: run without --resume")
        self.skip, self.place = point.packets, point.place

    def passed(self, outgoing: Outgoing, sink: Sink) -> None:
        """Notes that these packets were written, and all before them in the first stream."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        sink.flush()
        place = sink.place
        if place is None:
            return
        self._next_s = now_s + POINT_S
        point = Point(run=self._run, packets=covered(outgoing), place=place)
        with open(self._path + ".new", "wb") as file:
            file.write(msgspec.json.encode(point))
        os.replace(self._path + ".new", self._path)

    def forget(self) -> None:
        """Removes the note: the output is complete, or starts again."""
        for path in (self._path, self._path + ".new"):
            if is_note(path):
                os.unlink(path)


def is_note(path: str) -> bool:
    """Whether this file is a note of ours, whole or not."""
    try:
        with open(path, "rb") as file:
            return file.read(len(NOTE_BEGINS)) == NOTE_BEGINS
    except OSError:
        return False


def points_of(config: Config, chains: list[Any], drops_by_keys: bool, deterministic: bool) -> Points | None:
    """The points of a run; None if it cannot be resumed. Raises UsageError if `resume` is set and it cannot."""
    why = ""
    if config.order != "total":
        why = 'only with order = "total" does the output say how far it came'
    elif not config.captures or not all(map(os.path.isfile, config.captures)):
        why = "the first stream is not a file"
    elif config.write in ("", "-") or (os.path.exists(config.write) and not os.path.isfile(config.write)):
        why = "the second stream is not a file"
    elif config.rotates or config.split or any(each.write for each in config.stream):
        why = "the second stream goes into several files"
    elif os.path.exists(config.write + ENDING) and not is_note(config.write + ENDING):
        why = f"{config.write + ENDING} is not a note of streamcore"
    elif not deterministic:
        why = "a service does not give the same result again"
    if why and config.resume:
        raise UsageError(f"cannot resume: {why}")
    if why or drops_by_keys:  # such a service depends on all packets before: start from the beginning
        return None
    return Points(config, chains)


def digest_of(config: Config, chains: list[Any]) -> str:
    """The digest of the input and of all keys that affect the result."""
    statuses = [os.stat(path) for path in config.captures]
    parts = [
        [os.path.abspath(path) for path in config.captures],
        [[status.st_size, status.st_mtime_ns] for status in statuses],
        os.path.abspath(config.write),
        [getattr(config, name) for name in SHAPING],
        [[stream.select, stream.match, stream.on_failure] for stream in config.streams],
        chains,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()  # ASCII, whatever bytes the names have


def covered(outgoing: Outgoing) -> int:
    """How many packets of the first stream are done once these have left, in order `total`."""
    batch = outgoing.batch
    if batch.interleaved:
        return batch.first_number + batch.count
    segment = outgoing.hold[-1].segment
    rows = batch.rows
    last = segment.stop - 1 if rows is None else int(rows[segment.stop - 1])
    return batch.first_number + last + 1
