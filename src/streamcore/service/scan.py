"""The service `scan`: searches packets for patterns. Hyperscan finds candidates in a whole segment at once; `re` finds
where each match begins.

Without Hyperscan (PyPI: hyperscan), `re` searches every packet and finds the same matches about fifty times as slowly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import ABSENT
from streamcore.service.figures import Figure
from streamcore.service.options import choice, integer
from streamcore.service.patterns import Pattern, read_patterns
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.specification import parse_specification

FILE_BYTES_MAX = 1 << 20
CANDIDATES_PER_PACKET = 4  # if there are more on average, looking at packets one by one is faster
TCP, UDP = 6, 17


class Report(TypedDict):
    """What is reported of a segment: packets, those with a match, comments beyond the limit, packets by pattern."""

    packets: Figure
    matched: Figure
    left_out: Figure
    patterns: dict[str, Figure]


class Scan(Service):
    """Find patterns in the payload of TCP and UDP packets (in=packet: in whole packets of any kind), and add packet
    comments.

    patterns: a file with one pattern per line (see docs/services.md), or text: the lines themselves. A pattern counts
    once per packet, at its first match: "scan: NAME at OFFSET", counted from the payload's first byte. comments: how
    many a packet may get. engine: hyperscan, re, or auto (Hyperscan if it is installed).
    """

    name: ClassVar[str] = "scan"
    effect: ClassVar[Effect] = "observe"
    groups: ClassVar[tuple[str, ...]] = ("headers",)
    paths: ClassVar[tuple[str, ...]] = ("patterns",)
    report_type: ClassVar[Any] = Report

    def __init__(
        self, patterns: Any = "", text: Any = "", in_: Any = "payload", comments: Any = 16, engine: Any = "auto"
    ) -> None:
        if bool(patterns) == bool(text):
            raise ValueError("give patterns=FILE, or the patterns themselves as text=LINES")
        self._text = str(text) if text else _read(str(patterns))
        try:
            self._patterns = read_patterns(self._text)
        except ValueError as error:
            raise ValueError(f"{patterns or 'text'}: {error}") from error
        self._whole_packet = choice("in", in_, ("payload", "packet")) == "packet"
        self._comments_max = integer("comments", comments, 0, 1000)
        self._engine: Engine | None = None
        self._engine_name = choice("engine", engine, ("auto", "hyperscan", "re"))
        if self._engine_name != "re":
            self._engine_name = "hyperscan" if _has_hyperscan(must=self._engine_name == "hyperscan") else "re"
        if self._engine_name == "hyperscan":
            self._engine = Hyperscan(self._patterns)  # here, so that an expression it refuses is a usage error
        self._counts = {"packets": 0, "packets_matched": 0, "comments_left_out": 0}
        self._matched: dict[str, int] = {pattern.name: 0 for pattern in self._patterns}

    def prepared(self, specification: Any) -> Any:
        """Adds the patterns: a worker elsewhere does not have the file."""
        name, options = parse_specification(specification)
        kept = {key: value for key, value in options.items() if key in ("in", "comments", "engine")}
        return {"name": name, **kept, "text": self._text}

    def process(self, segment: SegmentView) -> None:
        if self._engine is None:
            self._engine = EachPacket(self._patterns)
        starts, stops = self._places(segment)
        found: dict[int, list[tuple[int, int]]] = {}  # packet -> (offset of the match, pattern)
        data = np.ascontiguousarray(segment.data).data
        for packet, number in self._engine.candidates(segment.data, starts, stops):
            matched = self._patterns[number].compiled.search(data[starts[packet] : stops[packet]])
            if matched is not None:
                found.setdefault(packet, []).append((matched.start(), number))
        self._tell(segment, found)

    def _places(self, segment: SegmentView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[n] each: where the searched bytes of each packet begin and end in `data`; equal if there are none."""
        offset = segment.offset.astype(np.int64)
        stops = offset + segment.captured_length
        if self._whole_packet:
            return offset, stops
        payload, protocol = segment.column("payload_offset"), segment.column("protocol")
        has_payload = (payload != ABSENT) & ((protocol == TCP) | (protocol == UDP))
        return np.where(has_payload, np.minimum(offset + payload, stops), stops), stops

    def _tell(self, segment: SegmentView, found: dict[int, list[tuple[int, int]]]) -> None:
        counts: dict[str, int] = {}
        left_out = 0
        for packet, matches in sorted(found.items()):
            matches.sort()
            for place, (offset, number) in enumerate(matches):
                name = self._patterns[number].name
                counts[name] = counts.get(name, 0) + 1
                if place < self._comments_max:
                    segment.comment(packet, f"scan: {name} at {offset}")
                else:
                    left_out += 1
        segment.report({"packets": len(segment), "matched": len(found), "left_out": left_out, "patterns": counts})

    def check_report(self, report: Any) -> None:
        super().check_report(report)
        if not report["patterns"].keys() <= self._matched.keys():
            raise ValueError("a report of a pattern that does not exist")

    def merge(self, report: Any) -> None:
        self.check_report(report)
        for total, part in (("packets", "packets"), ("packets_matched", "matched"), ("comments_left_out", "left_out")):
            self._counts[total] += report[part]
        for name, packets in report["patterns"].items():
            self._matched[name] += packets

    def summary(self) -> dict[str, Any]:
        return {**self._counts, "engine": self._engine_name, "patterns": self._matched}


class Engine(Protocol):
    """Finds candidates: (packet, number of a pattern) pairs, each at most once, that include every match."""

    def candidates(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]: ...


class EachPacket(Engine):
    """With `re`: one search for all patterns together, then pattern by pattern if it finds anything."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self._any = []
        for flags in sorted({pattern.flags for pattern in patterns}):
            numbers = [number for number, pattern in enumerate(patterns) if pattern.flags == flags]
            alternatives = b"|".join(b"(?:" + patterns[number].expression + b")" for number in numbers)
            self._any.append((re.compile(alternatives, flags), numbers))

    def candidates(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        view = np.ascontiguousarray(data).data
        for packet in np.flatnonzero(stops > starts).tolist():
            looked_at = view[starts[packet] : stops[packet]]
            for compiled, numbers in self._any:
                if compiled.search(looked_at):
                    yield from ((packet, number) for number in numbers)


class Hyperscan(Engine):
    """One pass over all of the segment's bytes, headers included. A hit that ends in a payload is a candidate.

    Patterns that look beyond their match (bound) are searched packet by packet, and so are segments in which the pass
    finds too much.
    """

    def __init__(self, patterns: list[Pattern]) -> None:
        import hyperscan

        self._library = hyperscan
        numbers = range(len(patterns))
        self._free = self._compile(patterns, [n for n in numbers if not patterns[n].bound], 0)
        self._bound = self._compile(patterns, [n for n in numbers if patterns[n].bound], hyperscan.HS_FLAG_SINGLEMATCH)
        self._all = self._compile(patterns, list(numbers), hyperscan.HS_FLAG_SINGLEMATCH)

    def _compile(self, patterns: list[Pattern], numbers: list[int], more: int) -> Any:
        library = self._library
        if not numbers:
            return None
        database = library.Database(mode=library.HS_MODE_BLOCK)
        flags = {
            re.IGNORECASE: library.HS_FLAG_CASELESS,
            re.DOTALL: library.HS_FLAG_DOTALL,
            re.MULTILINE: library.HS_FLAG_MULTILINE,
        }
        try:
            database.compile(
                expressions=[patterns[number].expression for number in numbers],
                ids=numbers,
                elements=len(numbers),
                flags=[
                    sum(theirs for ours, theirs in flags.items() if patterns[n].flags & ours) | more for n in numbers
                ],
            )
        except library.HyperscanError as error:
            raise ValueError(f"Hyperscan refuses the patterns ({error}): change them, or give engine=re") from error
        return database

    def candidates(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        if self._free is not None:
            found = self._in_one_pass(data, starts, stops)
            if found is None:
                yield from self._one_by_one(self._all, data, starts, stops)
                return
            yield from found
        if self._bound is not None:
            yield from self._one_by_one(self._bound, data, starts, stops)

    def _in_one_pass(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> list[tuple[int, int]] | None:
        """None: there are too many hits, or the packets are too far apart."""
        order = np.flatnonzero(stops > starts)
        if not len(order):
            return []
        order = order[np.argsort(starts[order], kind="stable")]
        first, last = int(starts[order[0]]), int(stops[order].max())
        ordered_starts, ordered_stops = starts[order], stops[order]
        if (
            last - first > 8 * (ordered_stops - ordered_starts).sum() + 65536 * 2
            or (ordered_starts[1:] < ordered_stops[:-1]).any()
        ):
            return None
        hits: list[tuple[int, int]] = []
        hits_max = CANDIDATES_PER_PACKET * len(order) + 1000

        def hit(number: int, start: int, stop: int, flags: int, context: Any) -> bool:
            hits.append((stop, number))
            return len(hits) > hits_max

        try:
            self._free.scan(np.ascontiguousarray(data[first:last]), match_event_handler=hit)
        except self._library.ScanTerminated:
            return None
        if not hits:
            return []
        found = np.array(hits, np.int64)
        ends = found[:, 0] + first
        place = np.searchsorted(ordered_starts, ends - 1, "right") - 1
        inside = (place >= 0) & (ends <= ordered_stops[place])
        pairs = np.unique(np.column_stack([order[place[inside]], found[inside, 1]]), axis=0)
        return [(packet, number) for packet, number in pairs.tolist()]

    def _one_by_one(
        self, database: Any, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        numbers: list[int] = []

        def hit(number: int, start: int, stop: int, flags: int, context: Any) -> None:
            numbers.append(number)

        for packet in np.flatnonzero(stops > starts).tolist():
            database.scan(data[starts[packet] : stops[packet]], match_event_handler=hit)
            if numbers:
                yield from ((packet, number) for number in numbers)
                numbers.clear()


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ValueError(f"{path} has more than {FILE_BYTES_MAX} bytes: use fewer patterns")
        return raw.decode()
    except OSError as error:
        raise ValueError(f"patterns {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"patterns {path} is not UTF-8 text: write other bytes as /\\xHH/") from error


def _has_hyperscan(must: bool) -> bool:
    from importlib.util import find_spec

    if find_spec("hyperscan") is not None:
        return True
    if must:
        raise ValueError("Hyperscan is not installed: type pip install 'streamcore-auction[scan]', or give engine=re")
    return False
