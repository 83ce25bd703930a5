"""A policy is added by a row and a cutter: the example policy in a segmenter, and in a whole run."""

import dpkt
import numpy as np
import pytest

from streamcore import Config, Pipeline, UsageError
from streamcore.core.policies import POLICIES
from streamcore.segment._segmenter import Segmenter
from streamcore.segment.cutter import Preceding
from tests.streamcore.batches import make_batch
from tests.streamcore.conftest import read_pcap, udp_frame
from tests.streamcore.segment import example_policy

SECOND_NS = 1_000_000_000


@pytest.fixture
def gaps(monkeypatch):
    monkeypatch.setitem(POLICIES, "gaps", example_policy.GAPS)


def test_a_cutter_decides_within_the_bounds_and_hears_what_preceded(gaps, monkeypatch):
    made = []
    monkeypatch.setattr(example_policy.Gaps, "__init__", remembered(example_policy.Gaps.__init__, made))
    segmenter = Segmenter("gaps", packets_max=2, time_ms=1000)
    first = make_batch([b"x" * 10] * 6, times_ns=[at * SECOND_NS for at in (0, 1, 5, 5, 5, 9)])
    assert [(s.start, s.stop) for s in segmenter.cut(first)] == [(0, 2), (2, 4), (4, 5), (5, 6)]
    second = make_batch([b"x" * 7] * 3, times_ns=[at * SECOND_NS for at in (10, 11, 99)])
    second.arrange(np.array([0, 2], np.uint32))  # as a filter leaves it
    assert [(s.start, s.stop) for s in segmenter.cut(second)] == [(0, 1), (1, 2)]
    segmenter.cut(make_batch([b"x"], times_ns=[200 * SECOND_NS]))
    _, used = made  # the first was made to see whether it takes the bounds
    assert used.given == [None, Preceding(1, 10, 0), Preceding(1, 7, 0)]


def test_each_stream_has_its_own_cutter(gaps):
    segmenter = Segmenter("gaps", time_ms=1000, streams=2)
    batch = make_batch([b"x"] * 4, times_ns=[at * SECOND_NS for at in (0, 1, 50, 51)])
    batch.arrange(np.array([0, 2, 1, 3], np.uint32))
    segments = segmenter.cut(batch, [2, 4])
    assert [(s.stream, s.start, s.stop) for s in segments] == [(0, 0, 1), (0, 1, 2), (1, 2, 3), (1, 3, 4)]


@pytest.mark.parametrize("places", [[0], [4], [-1], [3, 2], [2, 2], [[1, 2]]])
def test_places_that_a_batch_does_not_have_are_refused(places, monkeypatch):
    monkeypatch.setitem(POLICIES, "wrong", example_policy.WRONG)
    monkeypatch.setattr(example_policy.Wrong, "places", places)
    with pytest.raises(ValueError, match="the cutter of policy wrong gave place"):
        Segmenter("wrong").cut(make_batch([b"x"] * 4))


def test_a_run_with_the_example_policy(gaps, tmp_path):
    """Ten groups of packets, a second apart: with the row's own default of 500 ms each is one segment."""
    frames = [udp_frame(i, i) for i in range(50)]
    source = tmp_path / "in.pcap"
    with open(source, "wb") as file:
        writer = dpkt.pcap.Writer(file, nano=True)
        for i, frame in enumerate(frames):
            writer.writepkt(frame, 1_700_000_000 + i // 5 + i / 1000)
    config = Config(read=source, write=tmp_path / "out.pcap", policy="gaps", workers=1)
    account = Pipeline(config).run()
    assert account.json()["segments"]["dispersed"] == 10
    assert account.exit_status == 0
    assert read_pcap(tmp_path / "out.pcap") == read_pcap(source)


def test_a_name_without_a_row_is_refused():
    with pytest.raises(UsageError, match="policy must be flow, run or time, not 'gaps'"):
        Config(read="in.pcap", write="out.pcap", policy="gaps")


def remembered(make, made):
    def __init__(self, bounds):
        make(self, bounds)
        made.append(self)

    return __init__
