"""The meter beside one that keeps everything it is told, and looks through all of it for every interval."""

import random

import pytest

from streamcore.subcontract.meter import Meter

INTERVAL_MS, ALLOWANCE_MS = 100, 250


def played(seed, meter):
    """Segments that come and come back over some seconds: [(time, bytes)], [(time, bytes, latency)], and the end."""
    numbers = random.Random(seed)
    now_ms, asked, got, out = 1_000, [], [], []
    for _ in range(numbers.randrange(1, 400)):
        now_ms += numbers.choice((0, 0, 1, 7, 40, 350))
        if out and numbers.random() < 0.45:
            came_ms, byte_count = out.pop(0)
            got.append((now_ms, byte_count, now_ms - came_ms))
            meter.got(byte_count, now_ms - came_ms, now_ms)
        else:
            asked.append((now_ms, numbers.randrange(1, 2_000)))
            out.append(asked[-1])
            meter.asked(asked[-1][1], now_ms)
    return asked, got, now_ms + numbers.randrange(1, 300)


def expected(asked, got, begin_ms, end_ms):
    """(bits asked, bits got, worst latency) of one interval; what nobody has got is asked of each until it is got."""
    returned = sum(size for at_ms, size, _ in got if at_ms < begin_ms)
    due = sum(size for at_ms, size in asked if at_ms <= end_ms - ALLOWANCE_MS and at_ms < end_ms)
    here = [(size, latency) for at_ms, size, latency in got if begin_ms <= at_ms < end_ms]
    delivered = sum(size for size, _ in here)
    return 8 * max(delivered, due - returned), 8 * delivered, max((latency for _, latency in here), default=None)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_measured_of_an_interval_is_what_was_told_of_it(seed):
    meter = Meter(1_000, INTERVAL_MS, ALLOWANCE_MS)
    asked, got, ends_ms = played(seed, meter)
    report = meter.report(ends_ms)
    assert report.intervals[0].starts_ms == 1_000
    assert report.intervals[-1].ends_ms == ends_ms
    for before, after in zip(report.intervals, report.intervals[1:], strict=False):
        assert before.ends_ms == after.starts_ms
    for each in report.intervals:
        told = (each.asked_bits, each.got_bits, each.latency_ms)
        assert told == expected(asked, got, each.starts_ms, each.ends_ms), each
    assert report.segments == len(got)
    if got:
        latencies = sorted(latency for _, _, latency in got)
        assert (report.latency_ms["p50"], report.latency_ms["max"]) == (latencies[len(latencies) // 2], latencies[-1])
