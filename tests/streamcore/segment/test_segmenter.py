"""The segmenter beside a slow, obvious twin: lists instead of columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.segment._segmenter import ANY_LANE, Segmenter
from tests.examples import examples
from tests.streamcore.batches import make_batch

packets = st.lists(
    st.tuples(st.integers(0, 40), st.integers(-3_000_000, 20_000_000), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=60,
)


def twin(policy, rows, lanes, packets_max, bytes_max, time_ms, window):
    """(lane, rows) for each segment. rows: (row, length, time, hash); window: [start] carried from batch to batch."""
    by_lane = {}
    for row in rows:
        lane = row[3] * lanes // 2**32 if policy == "flow" else ANY_LANE
        by_lane.setdefault(lane, []).append(row)
    segments = []
    for lane in sorted(by_lane):
        current = []
        for row in by_lane[lane]:
            begins = len(current) == packets_max or sum(r[1] for r in current) >= bytes_max
            if policy == "time":
                if not window:
                    window.append(row[2])
                while row[2] - window[0] >= time_ms * 10**6:
                    window[0] += time_ms * 10**6
                    begins = True
            elif time_ms and current and row[2] - current[0][2] >= time_ms * 10**6:
                begins = True
            if begins and current:
                segments.append((lane, [r[0] for r in current]))
                current = []
            current.append(row)
        segments.append((lane, [r[0] for r in current]))
    return segments


@given(
    st.sampled_from(["run", "flow", "time"]), st.lists(packets, min_size=1, max_size=3), st.integers(1, 5),
    st.integers(1, 20),
    st.integers(1, 200), st.integers(0, 8), st.randoms(),
)  # fmt: skip
def test_cuts_as_the_twin_does(policy, batches, lanes, packets_max, bytes_max, time_ms, random):
    time_ms = max(time_ms, 1) if policy == "time" else time_ms
    segmenter = Segmenter(policy, lanes=lanes, packets_max=packets_max, bytes_max=bytes_max, time_ms=time_ms)
    window, number, now = [], 0, 10**15
    for drawn in batches:
        times = []
        for _, step, _ in drawn:
            now += step
            times.append(now)
        batch = make_batch([bytes(size) for size, _, _ in drawn], times_ns=times, hashes=[h for _, _, h in drawn])
        rows = [(i, size, times[i], h) for i, (size, _, h) in enumerate(drawn)]
        if random.random() < 0.5:  # as a filter leaves it
            rows = [row for row in rows if random.random() < 0.6]
            batch.arrange(np.array([row[0] for row in rows], np.uint32))
        want = twin(policy, rows, lanes, packets_max, bytes_max, time_ms, window)
        if policy == "flow" and lanes == 1:
            want = [(0, rows) for _, rows in want]
        segments = segmenter.cut(batch)
        every = np.arange(len(drawn))
        assert [(s.lane, list(every[s.index])) for s in segments] == want
        assert [s.number for s in segments] == list(range(number, number + len(segments)))
        assert [s.byte_count for s in segments] == [sum(drawn[i][0] for i in rows) for _, rows in want]
        assert batch.segment_count == len(segments)
        number += len(segments)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 50, 5_000]))
@settings(max_examples=examples(60))
def test_windows_over_many_blocks_are_those_of_the_twin(seed, time_ms):
    """More packets than the cutter passes over at once, with times that also go back, and the earliest and latest."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 1500))
    times = 10**15 + np.cumsum(1000 * rng.integers(-1_000, 3_000, count))
    times[rng.integers(0, count, 2)] = [0, (2**32 - 1) * 10**9] if rng.random() < 0.2 else times[0]
    segmenter = Segmenter("time", packets_max=10_000, time_ms=time_ms)
    segments = segmenter.cut(make_batch([b""] * count, times_ns=[int(time) for time in times]))
    start, places = int(times[0]), [0]
    for place, now in enumerate(map(int, times)):
        if now - start >= time_ms * 10**6:
            start += (now - start) // (time_ms * 10**6) * (time_ms * 10**6)
            places += [place] * (place > 0)
    assert [segment.start for segment in segments] == places


def test_every_packet_is_in_one_segment_and_flows_do_not_split():
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 2**32, 50, dtype=np.uint32)[rng.integers(0, 50, 5000)]
    batch = make_batch([b"x" * 60] * 5000, hashes=hashes)
    segments = Segmenter("flow", lanes=3, packets_max=100).cut(batch)
    rows = np.concatenate([np.asarray(batch.rows[s.start : s.stop]) for s in segments])
    assert sorted(rows) == list(range(5000))
    lane_of = {}
    for segment in segments:
        for value in batch.flow_hash[segment.index]:
            assert lane_of.setdefault(int(value), segment.lane) == segment.lane


@pytest.mark.parametrize(
    "arguments",
    [{"policy": "stream"}, {"policy": "time"}, {"policy": "run", "packets_max": 0}, {"policy": "flow", "lanes": 0},
     {"policy": "run", "bytes_max": 0}, {"policy": "run", "time_ms": -1}],
)  # fmt: skip
def test_refuses_bounds_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match=r"polic|bound"):
        Segmenter(arguments.pop("policy"), **arguments)
