"""The aggregator beside a slow, obvious twin, with results in every order and of every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.packets import Result
from streamcore.disperse._results import (
    FLAGS_OF_CHANGE,
    KEEP,
    KEYS,
    LENGTHS,
    PACKED,
    ResultError,
    read_result,
    write_result,
)
from streamcore.segment._segmenter import Segmenter
from tests.streamcore.batches import make_batch

EVERYTHING = PACKED | LENGTHS | KEEP | KEYS


def raw_records(batch):
    """Each packet's whole record, header and all."""
    data = batch.data.tobytes()
    return [data[o - 16 : o + n] for o, n in zip(batch.offset.tolist(), batch.captured_length.tolist(), strict=True)]


def made(segment, kind, rng):
    """(Result, what should leave: row -> bytes or None) of one kind for a segment."""
    batch = segment.batch
    rows = np.arange(batch.count)[segment.index].tolist()
    records = raw_records(batch)
    region = np.zeros(1 << 16, np.uint8)
    before = {row: records[row][16:] for row in rows}
    if kind == "same":
        return read_result(segment, region, 0, 0, EVERYTHING, None), before
    if kind == "dead":
        return Result(segment, dead=True), dict.fromkeys(rows)
    if kind == "keep":
        keep = rng.integers(0, 2, len(rows)).astype(np.uint8)
        flags = write_result(region, 0, None, None, None, None, keep)
        after = {row: before[row] if k else None for row, k in zip(rows, keep, strict=True)}
        return read_result(segment, region, 0, flags, EVERYTHING, region), after
    if kind == "rewrite":
        after = {row: bytes(b ^ 0x55 for b in before[row]) for row in rows}
        packed = b"".join(records[row][:16] + after[row] for row in rows)
        region[: len(packed)] = np.frombuffer(packed, np.uint8)
        flags = write_result(region, len(packed), None, None, None, None, None)
        return read_result(segment, region, len(packed), flags, EVERYTHING, region), after
    if kind == "cut":
        lengths = np.array([len(before[row]) // 2 for row in rows], np.uint32)
        after = {row: before[row][: len(before[row]) // 2] for row in rows}
        flags = write_result(
            region, 0, None, batch.offset[segment.index], lengths, batch.wire_length[segment.index], None
        )
        return read_result(segment, region, 0, flags, EVERYTHING, region), after
    after = {row: bytes(rng.integers(0, 256, rng.integers(0, 90), np.uint8)) for row in rows}
    packed = b"".join(after.values())
    lengths = np.array([len(a) for a in after.values()], np.uint32)
    region[: len(packed)] = np.frombuffer(packed, np.uint8)
    if not packed:
        return read_result(segment, region, 0, 0, EVERYTHING, None), before
    flags = write_result(region, len(packed), None, np.cumsum(lengths) - lengths, lengths, lengths, None)
    return read_result(segment, region, len(packed), flags, EVERYTHING, region), after


KINDS = ["same", "dead", "keep", "rewrite", "cut", "replace"]


@given(
    st.lists(st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 2**32 - 1)), min_size=1, max_size=20),
    min_size=1, max_size=3),
    st.sampled_from(["total", "flow", "none"]), st.sampled_from(["run", "flow"]), st.integers(1, 4), st.integers(1, 8),
    st.integers(0, 2**32), st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
)  # fmt: skip
def test_orders_as_asked(batches, order, policy, lanes, packets_max, seed, kinds):
    rng = np.random.default_rng(seed)
    segmenter = Segmenter(policy, lanes=lanes, packets_max=packets_max)
    aggregator = Aggregator(order)
    results, wanted, number = [], {}, 0
    for drawn in batches:
        batch = make_batch([p for p, _ in drawn], hashes=[h for _, h in drawn], first_number=number)
        batch.contiguous = bool(rng.integers(2))  # they are: then a whole result leaves as one run
        segments = segmenter.cut(batch)
        aggregator.expect(batch, segments)
        for segment in segments:
            result, after = made(segment, kinds[rng.integers(len(kinds))], rng)
            results.append(result)
            wanted |= {number + row: (segment.lane, after[row]) for row in after}
        number += len(drawn)
    rng.shuffle(results)
    left = []
    for result in results:
        for outgoing in aggregator.accept(result):
            left += outgoing.packets()
    assert len(aggregator) == 0
    there = [(n, p) for n, (_, p) in sorted(wanted.items()) if p is not None]
    assert sorted(left) == there
    if order == "total":
        assert left == there
    elif order == "flow":
        for lane in {lane for lane, _ in wanted.values()}:
            of_lane = [n for n, _ in left if wanted[n][0] == lane]
            assert of_lane == sorted(of_lane)


def test_drop_by_keys_sees_all_packets_in_order_and_drops():
    seen, counted = [], []

    def drop(keys, times):
        seen.extend(keys[:, 0].tolist())
        return keys[:, 0] % 3 == 0, "third"

    batch = make_batch([bytes([i]) * 20 for i in range(12)], hashes=[i << 28 for i in range(12)])
    segments = Segmenter("flow", lanes=4).cut(batch)
    aggregator = Aggregator("total", [drop], lambda *told: counted.append(told))
    aggregator.expect(batch, segments)
    left = []
    for segment in reversed(segments):
        rows = np.arange(12)[segment.index]
        region = np.zeros(4096, np.uint8)
        keys = np.stack([rows, rows], axis=1).astype(np.uint64)
        flags = write_result(region, 0, keys, None, None, None, None)
        for outgoing in aggregator.accept(read_result(segment, region, 0, flags, EVERYTHING, region)):
            left += outgoing.packets()
    assert seen == list(range(12))
    assert [n for n, _ in left] == [n for n in range(12) if n % 3]
    assert counted == [(0, "third", 4, 80)]


def test_results_that_lie_are_refused():
    batch = make_batch([b"a" * 30, b"b" * 40])
    (segment,) = Segmenter("run").cut(batch)
    region = np.zeros(4096, np.uint8)
    records = b"".join(raw_records(batch))
    region[: len(records)] = np.frombuffer(records, np.uint8)

    def refused(packed, flags, allowed, match):
        with pytest.raises(ResultError, match=match):
            read_result(segment, region, packed, flags, allowed, region)

    assert not read_result(segment, region, len(records), PACKED, EVERYTHING, region).unchanged
    refused(len(records), PACKED, FLAGS_OF_CHANGE["drops"], "did not declare")
    refused(len(records) - 1, PACKED, EVERYTHING, "without declaring")
    refused(len(records) + 1, PACKED, EVERYTHING, "without declaring")
    refused(5000, PACKED, EVERYTHING, "larger than its region")
    region[4] ^= 1  # the first record's timestamp
    refused(len(records), PACKED, EVERYTHING, "record headers")
    region[:2] = 2
    refused(0, KEEP, EVERYTHING, "mask")
    lengths = np.array([30, 41], np.uint32)
    flags = write_result(region, 0, None, batch.offset, lengths, lengths, None)
    refused(0, flags, EVERYTHING, "outside")
    lengths = np.array([5000, 1], np.uint32)
    flags = write_result(region, 8, None, np.array([0, 0], np.uint32), lengths, lengths, None)
    refused(8, flags, EVERYTHING, "outside")
