"""The frame in which a segment leaves the machine: what comes out is what went in, and a damaged one is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.packets import Arena, PacketBatch, Segment, gather_records
from streamcore.disperse._inline import InlineError, frame_bytes, frame_bytes_max, pack_frame, unpack_frame
from streamcore.disperse.inline import Digest, FramePool, Outlet, unpack_segment
from streamcore.source.capture import CaptureSource
from tests.examples import examples
from tests.streamcore.conftest import udp_frame, write_pcap

COLUMNS = ("timestamp_ns", "captured_length", "wire_length", "interface", "record")
OFFICE = Path(__file__).parents[3] / "src" / "streamcore" / "data" / "office.pcapng"
ROWS_MAX, BYTES_MAX = 4096, 1 << 20


def a_batch(path):
    arena = Arena(1, BYTES_MAX, ROWS_MAX)
    return arena, next(iter(CaptureSource(str(path), arena)))


@pytest.fixture(params=["pcap", "pcapng"])
def read(request, tmp_path):
    path = write_pcap(tmp_path / "in.pcap", [udp_frame(i % 5, i) for i in range(300)])
    return a_batch(path if request.param == "pcap" else OFFICE)


@pytest.mark.parametrize("arranged", [False, True])
def test_a_segment_comes_out_as_it_went_in(read, arranged):
    arena, batch = read
    if arranged:
        batch.arrange(np.arange(batch.count - 1, -1, -3, dtype=np.uint32))
    segment = Segment(7, batch, 2, batch.row_count - 1)
    frame, _ = Outlet(arena, FramePool(2, frame_bytes_max(ROWS_MAX, BYTES_MAX)), b"key").pack(segment, 1)
    target = Arena(1, BYTES_MAX, ROWS_MAX)
    again = unpack_segment(7, len(segment), frame.tobytes(), target, None, 3)
    assert (again.number, again.stream, len(again)) == (7, 3, len(segment))
    records, offset = gather_records(segment)
    assert (again.batch.data[: len(records)] == records).all()
    assert (again.batch.offset == offset).all()
    for name in COLUMNS:
        assert (getattr(again.batch, name) == getattr(batch, name)[segment.index]).all()
    for interface in range(len(batch.interfaces)):
        assert target.link_type(interface) == arena.link_type(interface)


def test_a_frame_of_another_size_is_not_written_to(read):
    _, batch = read
    segment = Segment(0, batch, 0, 10)
    links = np.zeros(len(batch.interfaces), np.uint16)
    for size in (0, 8, frame_bytes(segment) - 1, frame_bytes(segment) + 1):
        with pytest.raises(ValueError, match="bytes"):
            pack_frame(segment, links, np.zeros(size, np.uint8))


def outside(batch, size):
    """Whether a slow look finds anything in the columns that lies outside the records; the twin of the check."""
    end = 0
    for row in range(batch.count):
        kind, offset, captured = int(batch.record[row]), int(batch.offset[row]), int(batch.captured_length[row])
        head = (16, 16, 28, 28, 12, 12, 28, 28, 24, 24, 0)[kind] if kind < 11 else None
        if head is None or offset != end + head or offset + captured > size:
            return True
        total = head + captured
        if 2 <= kind <= 7:
            raw = batch.data[end + 4 : end + 8].tobytes()
            total = int.from_bytes(raw, "big" if kind % 2 else "little")
        if total < head + captured or end + total > size:
            return True
        end += total
    return end != size


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    path = write_pcap(tmp_path_factory.mktemp("inline") / "in.pcap", [udp_frame(i % 5, i) for i in range(20)])
    made = []
    for each in (path, OFFICE):
        arena, batch = a_batch(each)
        segment = Segment(0, batch, 0, 20)
        made.append(Outlet(arena, FramePool(1, 1 << 20), b"key").pack(segment, 1)[0].tobytes())
    return made


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(0, 1),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
    st.integers(0, 30),
)
def test_a_damaged_frame_is_refused_or_harmless(frames, which, damage, cut, count):
    frame = bytearray(frames[which])
    for place, value in damage:
        frame[place % min(len(frame), 600)] = value  # the columns stand in front
    frame = frame[: len(frame) - cut] if cut <= 20 else frame
    count = count if count < 30 else 20
    batch = PacketBatch(Arena(1, BYTES_MAX, 64).chunk(0), count, 0, [])
    size = int.from_bytes(frame[4:8], "little")
    try:
        links = unpack_frame(batch, np.frombuffer(bytes(frame), np.uint8))
    except InlineError:
        return
    assert not outside(batch, size)
    assert count == 0 or int(batch.interface.max()) < len(links)


def test_a_frame_larger_than_agreed_is_refused(frames):
    with pytest.raises(InlineError):
        unpack_segment(0, 20, frames[0], Arena(1, 64, 64), None)
    with pytest.raises(InlineError):
        unpack_segment(0, 20, frames[0], Arena(1, BYTES_MAX, 19), None)


def test_a_segment_is_read_where_it_was_received(frames):
    content = bytearray(frames[0])
    segment = unpack_segment(0, 20, memoryview(content), Arena(1, BYTES_MAX, ROWS_MAX), None)
    content[-65] ^= 0xFF  # the last byte of the last packet
    assert segment.batch.packet(19)[-1] == content[-65]
    with pytest.raises(BufferError):
        content.clear()  # while somebody looks at the packets


def test_a_frame_without_what_a_parser_may_load_behind_it_is_refused(frames):
    with pytest.raises(InlineError):
        unpack_segment(0, 20, frames[0][:-1], Arena(1, BYTES_MAX, ROWS_MAX), None)


def test_a_digest_is_of_one_input_one_lease_and_one_connection():
    digests = [
        Digest(key)(number, attempt, frame)
        for key in (bytes(8), b"k" * 8)
        for number, attempt in ((1, 1), (1, 2), (2, 1))
        for frame in (b"a" * 40, b"a" * 39 + b"b")
    ]
    assert len(set(digests)) == len(digests)
    assert {len(each) for each in digests} == {16}
