"""The service `count`: packets and bytes by protocol, flow and time. Workers group packets in native code and report
once per segment; the main process merges the reports.

Bytes are counted as on the wire. Whatever a list leaves out is in its entry `other`, so every list adds up to the
total.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, ClassVar, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamcore.service._count import FLOW, Flows, by_protocol, by_time
from streamcore.service.figures import Figure
from streamcore.service.options import integer
from streamcore.service.protocol import Effect, SegmentView, Service

REPORT_BYTES_MAX = 400_000  # flows in one report: messages with results have a bounded size
REPORT_BINS_MAX = 4096
NOT_IP = 256
NAMES = {1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6",
         89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", NOT_IP: "not_ip"}  # fmt: skip

# A flow as it is sent, for IPv4 and for IPv6. IPv4 addresses are sent without the IPv4-mapped prefix.
NUMBERS = [("ends", "<u8"), ("packets", "<u4"), ("bytes", "<u8")]
SHORT = np.dtype([("low", "<u4"), ("high", "<u4"), *NUMBERS])
LONG = np.dtype([("low_high", "<u8"), ("low_low", "<u8"), ("high_high", "<u8"), ("high_low", "<u8"), *NUMBERS])
UP_TO_ALL, UP_TO_BINS = msgspec.Meta(max_length=NOT_IP + 1), msgspec.Meta(max_length=REPORT_BINS_MAX + 1)
MAPPED = np.uint64(0xFFFF_0000_0000)


class Report(TypedDict):
    """What is reported of a segment; everywhere packets come before bytes."""

    protocols: Annotated[list[tuple[Annotated[int, msgspec.Meta(ge=0, le=NOT_IP)], Figure, Figure]], UP_TO_ALL]
    bins: Annotated[list[tuple[int | None, Figure, Figure]], UP_TO_BINS]  # bin number; None: those that did not fit
    flows: tuple[bytes, bytes, tuple[Figure, Figure]]  # of IPv4, of IPv6, and those that did not fit


class Count(Service):
    """Count packets and bytes by protocol, flow and time.

    top: how many flows are shown, the largest by bytes; bin-ms: length of a time bin; flows: how many are kept at once;
    when there are more, the smaller half is added to `other`; bins: how many are kept.
    """

    name: ClassVar[str] = "count"
    effect: ClassVar[Effect] = "observe"
    reads_checksums: ClassVar[bool] = False
    groups: ClassVar[tuple[str, ...]] = ("headers", "addresses")
    report_type: ClassVar[Any] = Report

    def __init__(self, top: Any = 10, bin_ms: Any = 1000, flows: Any = 100_000, bins: Any = 10_000) -> None:
        self._top = integer("top", top, 0, 1_000_000)
        self._bin_ns = integer("bin-ms", bin_ms, 1, 1_000_000_000) * 1_000_000
        self._flows_max = integer("flows", flows, 1, 10_000_000)
        self._bins_max = integer("bins", bins, 1, 1_000_000)
        self._scratch: Flows | None = None  # in a worker
        self._flows: Flows | None = None  # from here on: in the main process
        self._protocols = np.zeros((NOT_IP + 1, 2), np.uint64)
        self._bins: dict[int, list[int]] = {}
        self._other_flows = [0, 0]
        self._other_bins = [0, 0]
        self._folded = False

    # In a worker.

    def process(self, segment: SegmentView) -> None:
        if not len(segment):
            return
        protocol, version = segment.column("protocol"), segment.column("ip_version")
        protocols = by_protocol(protocol, version, segment.wire_length)
        used = np.flatnonzero(protocols[:, 0])
        if self._scratch is None or self._scratch.entries_max < len(segment):
            self._scratch = Flows(len(segment))
        self._scratch.clear()
        self._scratch.add_packets(
            segment.column("source_address"),
            segment.column("target_address"),
            segment.column("source_port"),
            segment.column("target_port"),
            protocol,
            version,
            segment.wire_length,
        )
        runs = by_time(segment.column("timestamp_ns"), segment.wire_length, self._bin_ns)
        segment.report(
            {
                "protocols": np.column_stack([used.astype(np.uint64), protocols[used]]).tolist(),
                "bins": _merged_runs(runs, REPORT_BINS_MAX),
                "flows": _packed(self._scratch.rows()),
            }
        )

    # In the main process.

    def check_report(self, report: Any) -> None:
        super().check_report(report)
        if any(number is not None and abs(number) * self._bin_ns > 2**63 for number, _, _ in report["bins"]):
            raise ValueError("a report of a time that no packet can have")
        short, long, _ = report["flows"]
        if len(short) % SHORT.itemsize or len(long) % LONG.itemsize or len(short) + len(long) > REPORT_BYTES_MAX:
            raise ValueError("a report with parts of flows, or too many")

    def merge(self, report: Any) -> None:
        self.check_report(report)
        for number, packets, byte_count in report["protocols"]:
            self._protocols[number] += np.array([packets, byte_count], np.uint64)
        self._merge_bins(report["bins"])
        short, long, other = report["flows"]
        rows = _unpacked(short, long)
        _add(self._other_flows, *other)
        self._folded |= other[0] > 0
        room = 2 * self._flows_max
        for start in range(0, len(rows), self._flows_max):
            part = rows[start : start + self._flows_max]
            self._flows = self._flows or Flows(room)
            if self._flows.used + len(part) > room:
                self._fold()
            self._flows.add_rows(part)

    def _merge_bins(self, runs: list[list[int]]) -> None:
        for number, packets, byte_count in runs:
            if number in self._bins:
                _add(self._bins[number], packets, byte_count)
            elif number is not None and len(self._bins) < self._bins_max:
                self._bins[number] = [packets, byte_count]
            else:
                _add(self._other_bins, packets, byte_count)

    def _fold(self) -> None:
        """Keep the largest flows, as many as allowed; add the others to `other`."""
        assert self._flows is not None
        rows = self._flows.rows().copy()
        order = _by_size(rows)
        rest = rows[order[self._flows_max :]]
        _add(self._other_flows, int(rest["packets"].sum()), int(rest["bytes"].sum()))
        self._folded |= len(rest) > 0
        self._flows.clear()
        self._flows.add_rows(rows[order[: self._flows_max]])

    def summary(self) -> dict[str, Any]:
        packets, byte_count = (int(total) for total in self._protocols.sum(axis=0))
        return {
            "packets": packets,
            "bytes": byte_count,
            "protocols": {
                NAMES.get(int(n), f"protocol_{n}"): _pair(*self._protocols[n])
                for n in np.flatnonzero(self._protocols[:, 0])
            },
            "flows": self._flow_summary(),
            "time": {
                "bin_ms": self._bin_ns // 1_000_000,
                "bins": [
                    {"start_ms": n * self._bin_ns // 1_000_000, **_pair(*self._bins[n])} for n in sorted(self._bins)
                ],
                "other": _pair(*self._other_bins),
            },
        }

    def _flow_summary(self) -> dict[str, Any]:
        rows = self._flows.rows() if self._flows is not None else np.empty(0, FLOW)
        order = _by_size(rows)
        rest = rows[order[self._top :]]
        other = [self._other_flows[0] + int(rest["packets"].sum()), self._other_flows[1] + int(rest["bytes"].sum())]
        return {
            "count": len(rows),
            "count_is_exact": not self._folded,  # false: there were more than are kept at once
            "top": [_shown(row) for row in rows[order[: self._top]]],
            "other": _pair(*other),
        }


def _packed(rows: NDArray[np.void]) -> tuple[bytes, bytes, tuple[int, int]]:
    """(IPv4 flows, IPv6 flows, packets and bytes of those that did not fit: the smallest)."""
    is_short = (rows["ends"] & np.uint64(0xFF)) == 4
    several = [rows, rows[:0]] if is_short.all() else [rows[is_short], rows[~is_short]]
    size = len(several[0]) * SHORT.itemsize + len(several[1]) * LONG.itemsize
    other = [0, 0]
    if size > REPORT_BYTES_MAX:
        for place, each in enumerate(several):
            several[place], rest = _largest(each, len(each) * REPORT_BYTES_MAX // size)
            _add(other, *rest)
    short, long = np.empty(len(several[0]), SHORT), np.empty(len(several[1]), LONG)
    for target, source in ((short, several[0]), (long, several[1])):
        for name in ("ends", "packets", "bytes"):
            target[name] = source[name]
    short["low"], short["high"] = several[0]["low_low"], several[0]["high_low"]  # the last 32 bits
    for name in ("low_high", "low_low", "high_high", "high_low"):
        long[name] = several[1][name]
    return short.tobytes(), long.tobytes(), (other[0], other[1])


def _largest(rows: NDArray[np.void], count: int) -> tuple[NDArray[np.void], tuple[int, int]]:
    """(the `count` rows with the most bytes, packets and bytes of the others), not sorted. Among equal rows the choice
    depends on the rows alone.
    """
    if count >= len(rows):
        return rows, (0, 0)
    order = np.argpartition(~rows["bytes"], count)[:count]
    taken = (
        np.ascontiguousarray(rows).view(np.uint64).reshape(-1, FLOW.itemsize // 8)[order].view(FLOW)[:, 0]
    )  # ties are broken by whole rows
    packets, byte_count = (int(rows[name].sum()) - int(taken[name].sum()) for name in ("packets", "bytes"))
    return taken, (packets, byte_count)


def _unpacked(short_bytes: bytes, long_bytes: bytes) -> NDArray[np.void]:
    """FLOW[n] from the output of _packed. Raises ValueError for bytes that _packed cannot have made."""
    short, long = np.frombuffer(short_bytes, SHORT), np.frombuffer(long_bytes, LONG)
    rows = np.zeros(len(short) + len(long), FLOW)
    first, last = rows[: len(short)], rows[len(short) :]
    for name in ("ends", "packets", "bytes"):
        first[name], last[name] = short[name], long[name]
    first["low_low"], first["high_low"] = MAPPED | short["low"], MAPPED | short["high"]
    for name in ("low_high", "low_low", "high_high", "high_low"):
        last[name] = long[name]
    return rows


def _merged_runs(runs: NDArray[np.int64], bins_max: int) -> list[Any]:
    """[bin, packets, bytes] for each bin; those beyond bins_max are added up, with None as the bin."""
    bins, place = np.unique(runs[:, 0], return_inverse=True)
    totals = np.zeros((len(bins), 2), np.int64)
    np.add.at(totals, place, runs[:, 1:])
    rows: list[Any] = np.column_stack([bins, totals])[:bins_max].tolist()
    if len(bins) > bins_max:
        rows.append([None, *totals[bins_max:].sum(axis=0).tolist()])
    return rows


def _by_size(rows: NDArray[np.void]) -> NDArray[np.intp]:
    """Indices of the rows, most bytes first, then by key, so that the order does not depend on how the rows arrived."""
    keys = [rows[name] for name in ("ends", "high_low", "high_high", "low_low", "low_high")]
    return np.lexsort([*keys, ~rows["packets"], ~rows["bytes"]])


def _shown(row: np.void) -> dict[str, Any]:
    ends = int(row["ends"])
    version, protocol = ends & 0xFF, ends >> 8 & 0xFF
    addresses = [int(row[f"{end}_high"]) << 64 | int(row[f"{end}_low"]) for end in ("low", "high")]
    if version == 4:
        texts = [str(ipaddress.IPv4Address(address & 0xFFFF_FFFF)) for address in addresses]
    else:
        texts = [str(ipaddress.IPv6Address(address)) for address in addresses]
    return {
        "addresses": texts,
        "ports": [ends >> 48, ends >> 32 & 0xFFFF],
        "protocol": NAMES.get(protocol, f"protocol_{protocol}"),
        **_pair(row["packets"], row["bytes"]),
    }


def _add(total: list[int], packets: int, byte_count: int) -> None:
    total[0] += packets
    total[1] += byte_count


def _pair(packets: Any, byte_count: Any) -> dict[str, int]:
    return {"packets": int(packets), "bytes": int(byte_count)}
