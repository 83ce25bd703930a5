"""The counters of a run. At every stage in = out + dropped(reason), in packets and in captured bytes.

NAMES lists the counters with their texts. Services add their own reasons for dropping under `service.`. Durations are
counted here, too. Other modules decide which packets are dropped.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

SCHEMA = 1  # of as_json; raise it when a field is removed or changes its meaning


class Name(NamedTuple):
    """kind: "stage" (packets passed it), "dropped" (on purpose), "lost" (exit status 3) or "note" (none dropped)."""

    kind: str
    words: str


NAMES: dict[str, Name] = {
    "kernel.received": Name("stage", "received by the kernel for this run"),
    "kernel.dropped": Name("lost", "dropped by the kernel: the run read too slowly, or the workers fell behind"),
    "source.unread": Name("dropped", "left in the ring at the end"),
    "source.read": Name("stage", "read from the first stream"),
    "source.segmented": Name("note", "more packets than were received, because larger ones were cut into segments"),
    "source.not_framed": Name("lost", "no Ethernet frame can be made of them: they do not say what they carry"),
    "filter.not_matched": Name("dropped", "did not match the expression"),
    "limits.outside_time": Name("dropped", "not between `from` and `until`"),
    "limits.skipped": Name("dropped", "among the first, which `skip` leaves out"),
    "limits.beyond_count": Name("dropped", "read with the last one that `count` lets through, and left out"),
    "resume.delivered_before": Name("dropped", "delivered by the run that this one resumes"),
    "segment.cut": Name("stage", "cut into segments"),
    "disperse.dead_lettered": Name("lost", "no worker could process them: kept in the dead-letter capture"),
    "overload.spooled": Name("note", "kept in the spool until workers had time"),
    "overload.passed_unprocessed": Name("note", "the workers had fallen behind: forwarded unprocessed"),
    "disperse.passed_unprocessed": Name("note", "no worker could process them: forwarded unprocessed"),
    "pipeline.undelivered": Name("lost", "read but not delivered before the run was stopped"),
    "service.resized": Name("note", "bytes that services added, less those that they cut"),
    "sink.replaced": Name("note", "written into files that later ones of this run have replaced"),
    "sink.in_rest": Name("note", "belonged to no file of the split: they are in that of the rest"),
    "sink.not_due": Name("dropped", "not due yet when the run was interrupted: not sent"),
    "sink.too_long": Name("lost", "longer than the MTU of the outgoing interface"),
    "sink.too_short": Name("lost", "shorter than an Ethernet header: no interface sends them"),
    "sink.interface_down": Name("lost", "not sent: the interface was down"),
    "sink.queue_full": Name("lost", "not sent: the interface's queue was full, or it had no carrier"),
    "sink.written": Name("stage", "written to the second stream"),
}
EVENTS: dict[str, str] = {
    "segments.dispersed": "segments sent to workers",
    "segments.resent": "segments sent again after a fault",
    "segments.discarded": "results that came too late",
    "segments.dead_lettered": "segments that no worker could process",
    "subcontract.audited": "segments of providers that were processed again in-house",
    "subcontract.audits_failed": "audits that found another result",
    "workers.started": "workers started",
    "workers.lost": "workers that died or hung",
    "workers.refused": "requests to join that were refused",
    "workers.given_up": "workers elsewhere that were given up",
    "workers.keys_added": "keys of workers that became known during the run",
    "workers.keys_struck": "keys of workers that were struck during the run",
    "workers.keys_unread": "key files, or their folder, that could not be read",
    "workers.audited": "segments of workers elsewhere that were processed again on this machine",
    "workers.audits_failed": "audits of workers elsewhere that found another result",
    "disperse.bad_message": "messages that no worker sends",
    "kernel.freezes": "times that the kernel found the ring full",
    "source.interface_down": "times that an interface went down",
    "source.checksum_missing": "packets without a checksum, which was left to the hardware, and cut short",
    "source.not_segmented": "super-packets that could not be cut into segments",
    "sink.sent_cut": "packets sent shorter than they were on the wire",
    "sink.files_removed": "files of the ring removed, because the disk had no room for the next one",
    "source.cut_to_mtu": "packets cut off at the MTU",
    "source.late": "packets later than sort_s allows: they stand where they came",
    "source.blocks_skipped": "pcapng blocks without a packet",
    "source.times_clamped": "packets whose time does not fit 64 bits of nanoseconds",
    "sink.beyond_files": "packets of files after the last one that split_files allows, written to the rest",
    "sink.beyond_ends": "media addresses of calls for which there was no room: their packets are in other files",
    "sink.copies": "packets that were written into a second file, too",
    "sink.without_time": "packets without a time, written with that of 1970",
    "parse.malformed": "packets with a header that contradicts itself",
    "parse.truncated": "packets truncated within a header",
    "parse.orphan_fragments": "fragments whose first fragment was not seen",
    "filter.orphan_fragments": "fragments that the filter matched alone, because their first one was not seen in time",
    "stream.orphan_fragments": "fragments sorted into streams alone, because their first one was not seen in time",
    "parse.link_unknown": "packets of a link type that is not parsed",
}
SERVICE = "service."
DURATION_BOUNDS_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BEFORE_READ = ("kernel.dropped", "source.unread")  # for a live source: received = these + source.read


def words_for(name: str) -> str:
    """A counter's text. A service's reason for dropping is its name with spaces."""
    return NAMES[name].words if name in NAMES else EVENTS.get(name, name.removeprefix(SERVICE).replace("_", " "))


BEFORE_CUT = (
    "source.not_framed",
    "filter.not_matched",
    "limits.outside_time",
    "limits.skipped",
    "limits.beyond_count",
    "resume.delivered_before",
)


class Counters:
    """Thread-safe. `count` is for packets, `bump` for events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.live = False  # whether the packets come from a live interface, whose kernel counters are added
        self._packets: dict[str, int] = dict.fromkeys(NAMES, 0)
        self._bytes: dict[str, int] = dict.fromkeys(NAMES, 0)
        self._events: dict[str, int] = dict.fromkeys(EVENTS, 0)

    def count(self, name: str, packets: int, byte_count: int) -> None:
        """Adds packets and captured bytes under a name of NAMES, or under "service.REASON".

        Bytes count as read, except under sink.written; service.resized has the difference.
        """
        if name not in NAMES and not name.startswith(SERVICE):
            raise KeyError(f"no counter {name!r}")
        with self._lock:
            self._packets[name] = self._packets.get(name, 0) + packets
            self._bytes[name] = self._bytes.get(name, 0) + byte_count

    def bump(self, name: str, count: int = 1) -> None:
        """Adds to an event of EVENTS."""
        if name not in EVENTS:
            raise KeyError(f"no counter {name!r}")
        with self._lock:
            self._events[name] += count

    def copy(self) -> Counters:
        """A consistent copy of all counters."""
        copy = Counters()
        copy.live = self.live
        with self._lock:
            copy._packets, copy._bytes, copy._events = self._packets.copy(), self._bytes.copy(), self._events.copy()
        return copy

    def under_way(self) -> int:
        """Packets that were read and are not yet written or dropped."""
        left = sum(count for name, count in self.dropped().items()) + self._packets["sink.written"]
        return max(0, self._packets["source.read"] - left)

    def packets(self, name: str) -> int:
        return self._packets.get(name, 0)

    def bytes(self, name: str) -> int:
        return self._bytes.get(name, 0)

    def events(self, name: str) -> int:
        return self._events[name]

    @property
    def lost(self) -> bool:
        """Whether anything was lost or left unprocessed, so that the run must say so in its exit status."""
        lost = any(self._packets[name] for name, (kind, _) in NAMES.items() if kind == "lost")
        passed = self._packets["disperse.passed_unprocessed"] + self._packets["overload.passed_unprocessed"]
        return lost or bool(passed) or bool(self._events["segments.dead_lettered"])

    def dropped(self) -> dict[str, int]:
        """Packets that did not reach the second stream, by name, without zeros."""
        with self._lock:
            return {
                name: count
                for name, count in self._packets.items()
                if count and self._leaves(name) and name not in BEFORE_READ
            }

    def unread(self) -> dict[str, int]:
        """Packets that the kernel received for a live source and the run did not read, by name, without zeros."""
        with self._lock:
            return {name: self._packets[name] for name in BEFORE_READ if self._packets[name]}

    def missing(self) -> tuple[int, int]:
        """(packets, bytes) that were cut into segments and that no counter accounts for. (0, 0) after every run."""
        before = (*BEFORE_CUT, *BEFORE_READ)
        after = [name for name in self._packets if self._leaves(name) and name not in before]
        packets = self._packets["segment.cut"] - self._packets["sink.written"] - sum(self._packets[n] for n in after)
        byte_count = self._bytes["segment.cut"] - self._bytes["sink.written"] - sum(self._bytes[n] for n in after)
        return packets, byte_count + self._bytes["service.resized"]

    def balance(self) -> list[str]:
        """One line for each sum that does not add up: empty after every run that reached its end."""
        violations = []
        received = self._packets["kernel.received"] + self._packets["source.segmented"]
        read = self._packets["source.read"]
        if self.live and received != read + sum(self.unread().values()):
            violations.append(f"the kernel received {received:,} packets, but {read:,} were read and {self.unread()}")
        for unit, counts, missing in (
            ("packets", self._packets, self.missing()[0]),
            ("bytes", self._bytes, self.missing()[1]),
        ):
            read, cut = counts["source.read"], counts["segment.cut"]
            if read != cut + (filtered := sum(counts[name] for name in BEFORE_CUT)):
                violations.append(f"{read:,} {unit} read, but {filtered:,} not matched and {cut:,} cut into segments")
            if missing:
                violations.append(f"{cut:,} {unit} cut into segments, of which {missing:,} are not accounted for")
        return violations

    def _leaves(self, name: str) -> bool:
        """Whether packets under this name leave the run."""
        return NAMES[name].kind in ("dropped", "lost") if name in NAMES else True

    def as_json(self) -> dict[str, Any]:
        """The counters' part of the object that --json prints; docs/accounting.md describes it."""
        dropped = self.dropped()
        notes = {name: count for name, count in self._packets.items() if self._kind(name) == "note"}
        notes |= {n: c for n, c in self._events.items() if not n.startswith(("segments.", "workers."))}
        received = self._packets["kernel.received"]
        live = {"live": {"received": received, "dropped": self.unread()}} if self.live else {}
        return live | {
            "schema": SCHEMA,
            "packets": {
                "read": self._packets["source.read"],
                "written": self._packets["sink.written"],
                "dropped": dropped,
            },
            "bytes": {
                "read": self._bytes["source.read"],
                "written": self._bytes["sink.written"],
                "dropped": {name: self._bytes[name] for name in dropped},
                "resized": self._bytes["service.resized"],
            },
            "segments": self._part("segments."),
            "workers": self._part("workers."),
            "notes": {name: count for name, count in notes.items() if count},
        }

    def _kind(self, name: str) -> str:
        return NAMES[name].kind if name in NAMES else "dropped"

    def _part(self, prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): count for name, count in self._events.items() if name.startswith(prefix)}


class Histogram:
    """A histogram of durations with the bounds DURATION_BOUNDS_S. One thread observes, any may read."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS_S) + 1)  # the last one: above all bounds
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def add(self, counts: Sequence[int], sum_s: float) -> None:
        """Adds another histogram's counts."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, counts, strict=True)]
        self.sum_s += sum_s

    def copy(self) -> Histogram:
        copy = Histogram()
        copy.counts, copy.sum_s = list(self.counts), self.sum_s
        return copy
