"""Measures one provider under one agreement: demand and delivery per interval, latencies, audits.

It reads no clock and knows no prices: figure.py converts measurements to money.
"""

from __future__ import annotations

import itertools
import threading
from bisect import insort

from streamcore.subcontract.allocator import Interval, Report

INTERVALS_MAX = 600  # of one report: beyond that, two are merged into one
LATENCIES_MAX = 4096  # kept for percentiles; beyond that, every second one


class Meter:
    """One thread feeds it, another may call `report`. Times are in milliseconds of the market's clock.

    The bits asked of a provider in an interval are those that waited for it or that it held at any time of the
    interval, except those that came too late to be due (allowance_ms before the end). So a provider cannot hide delays
    behind its credit.
    """

    def __init__(self, starts_ms: int, interval_ms: int, allowance_ms: int) -> None:
        self._lock = threading.Lock()
        self._starts_ms = starts_ms
        self._interval_ms = interval_ms
        self._allowance_ms = allowance_ms
        self._asked: dict[int, int] = {}  # bits by arrival: in this interval, or not yet due before it
        self._asked_bits = 0  # of earlier intervals
        self._returned_bits = 0  # before this interval
        self._got_bits = 0
        self._worst_ms: int | None = None
        self._intervals: list[Interval] = []
        self._latencies: list[int] = []
        self._stride, self._seen = 1, 0
        self.segments = self.bytes = 0
        self.audited = self.audits_failed = 0
        self._wrong = 0  # results of this interval that an audit found wrong
        self.failures: list[str] = []

    def asked(self, byte_count: int, now_ms: int) -> None:
        """Notes segments of so many bytes that wait for the provider."""
        with self._lock:
            if now_ms - self._starts_ms >= self._interval_ms:
                self._turn(now_ms)
            self._asked[now_ms] = self._asked.get(now_ms, 0) + 8 * byte_count

    def got(self, byte_count: int, latency_ms: int, now_ms: int) -> None:
        """Notes a result that came and passed the checks."""
        with self._lock:
            if now_ms - self._starts_ms >= self._interval_ms:
                self._turn(now_ms)
            self._got_bits += 8 * byte_count
            self._worst_ms = max(latency_ms, self._worst_ms or 0)
            self.segments += 1
            self.bytes += byte_count
            self._seen += 1
            if self._seen % self._stride == 0:
                insort(self._latencies, latency_ms)
                if len(self._latencies) > LATENCIES_MAX:
                    self._latencies = self._latencies[::2]
                    self._stride *= 2

    def audit(self, same: bool) -> None:
        """Notes an audit. It counts in the interval in which it finishes."""
        with self._lock:
            self.audited += 1
            self.audits_failed += not same
            self._wrong += not same

    def report(self, ends_ms: int) -> Report:
        """The measurements until ends_ms."""
        with self._lock:
            self._turn(ends_ms)
            self._end_interval(ends_ms)
            latencies = self._latencies
            latency_ms = {}
            if latencies:
                latency_ms = {
                    f"p{p}": latencies[min(len(latencies) - 1, len(latencies) * p // 100)] for p in (50, 95, 99)
                }
                latency_ms["max"] = latencies[-1]
            return Report(
                tuple(self._intervals),
                self.segments,
                self.audited,
                self.audits_failed,
                latency_ms,
                tuple(self.failures),
            )

    def _turn(self, now_ms: int) -> None:
        """Ends the intervals that are over."""
        while now_ms >= self._starts_ms + self._interval_ms:
            idle = not (self._asked or self._got_bits or self._wrong or self._asked_bits > self._returned_bits)
            length = self._interval_ms
            if idle:  # nothing happened until now: one interval covers it
                length *= (now_ms - self._starts_ms) // self._interval_ms
            self._end_interval(self._starts_ms + length)

    def _end_interval(self, ends_ms: int) -> None:
        if ends_ms <= self._starts_ms:
            return
        due_ms = ends_ms - self._allowance_ms
        due = list(itertools.takewhile(lambda at_ms: at_ms <= due_ms, self._asked))
        self._asked_bits += sum(map(self._asked.pop, due))
        asked = max(self._got_bits, self._asked_bits - self._returned_bits)
        self._intervals.append(Interval(self._starts_ms, ends_ms, asked, self._got_bits, self._worst_ms, self._wrong))
        self._returned_bits += self._got_bits
        self._starts_ms, self._got_bits, self._worst_ms, self._wrong = ends_ms, 0, None, 0
        if len(self._intervals) > INTERVALS_MAX:
            self._halve()

    def _halve(self) -> None:
        """Merges each two intervals into one, so that a long block's report stays short."""
        pairs = zip(self._intervals[::2], self._intervals[1::2], strict=False)
        joined = [
            Interval(
                a.starts_ms,
                b.ends_ms,
                max(a.asked_bits, a.got_bits + b.asked_bits),
                a.got_bits + b.got_bits,
                max((each for each in (a.latency_ms, b.latency_ms) if each is not None), default=None),
                a.wrong + b.wrong,
            )
            for a, b in pairs
        ]
        self._intervals = joined + self._intervals[len(joined) * 2 :]
        self._interval_ms *= 2
