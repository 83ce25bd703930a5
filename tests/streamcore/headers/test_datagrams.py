"""Fragments that follow each other closely stay together where the source ends a chunk, and the segmenter a segment."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from streamcore.core.packets import Arena, PacketBatch
from streamcore.segment._segmenter import Segmenter
from streamcore.service.anonymise import Anonymise
from streamcore.service.view import View
from streamcore.source.capture import CaptureSource
from tests.streamcore import batches, twin
from tests.streamcore.conftest import udp_frame
from tests.streamcore.fuzz.pieces import datagrams_in_pieces, pieces4, pieces6

UDP = 17


def make_batch(frames: list[bytes], **more: object) -> PacketBatch:
    batch = batches.make_batch(frames, **more)
    batch.chunk.arena.set_link_type(0, 1)
    return batch


def datagram(size: int) -> bytes:
    return struct.pack(">HHHH", 5000, 6000, 8 + size, 0) + bytes(size)


def in_vxlan(frame: bytes) -> bytes:
    inside = struct.pack(">HHHHII", 9999, 4789, 16 + len(frame), 0, 0x08000000, 7 << 8) + frame
    return pieces4(inside, UDP, 0, 8 * (1 + len(inside) // 8))[0]


def traffic(rng: random.Random, count: int, within: int) -> tuple[list[bytes], list[list[int]]]:
    """So many frames, some of them fragments, and the places of each datagram's, whose first one comes first."""
    frames: list[bytes] = []
    places: list[list[int]] = []
    number = 0
    while len(frames) < count:
        burst: list[tuple[float, int, bytes]] = []
        interleaved = rng.random() < 0.3
        for _ in range(rng.randrange(1, 4)):
            number += 1
            pieces = rng.choice((pieces4, pieces6))(datagram(rng.randrange(100, 500)), UDP, number, 64)
            pieces = [in_vxlan(each) for each in pieces] if rng.random() < 0.3 else pieces
            if rng.random() < 0.2:
                rest = pieces[1:]
                rng.shuffle(rest)
                pieces = [pieces[0], *rest]
            times = sorted(rng.random() for _ in pieces)
            burst += [(at, number, each) for at, each in zip(times, pieces, strict=True)]
        burst.sort(key=lambda each: each[:2] if interleaved else each[1:2])
        others = [(0, 0, udp_frame(i % 7, i)) for i in range(rng.randrange(within))]
        at = rng.randrange(len(others) + 1)
        for _, owner, frame in [*others[:at], *burst, *others[at:]]:
            if owner:
                while len(places) < owner:
                    places.append([])
                places[owner - 1].append(len(frames))
            frames.append(frame)
    return frames, places


def divided(places: list[list[int]], cuts: list[int]) -> list[list[int]]:
    """The datagrams of which one fragment stands before a cut, and another after it."""
    return [each for each in places if any(min(each) < cut <= max(each) for cut in cuts)]


@pytest.mark.parametrize("seed", range(4))
def test_a_segment_ends_between_datagrams(seed):
    frames, places = traffic(random.Random(seed), 3000, 40)
    batch = make_batch(frames)
    segments = Segmenter("run", packets_max=300).cut(batch)
    assert [s.start for s in segments] == [0] + [s.stop for s in segments[:-1]]
    assert segments[-1].stop == len(frames)
    assert all(150 <= len(s) <= 300 for s in segments[:-1])
    assert [s.byte_count for s in segments] == [sum(map(len, frames[s.start : s.stop])) for s in segments]
    assert divided(places, list(range(300, len(frames), 300))), "the seed tests nothing"
    assert not divided(places, [s.stop for s in segments[:-1]])


def test_a_segment_of_a_lane_ends_between_datagrams_within_its_bytes():
    frames, places = traffic(random.Random(5), 3000, 40)
    lane = [i % 2 for i in range(len(frames))]
    for number, each in enumerate(places):
        for at in each:
            lane[at] = number % 2
    batch = make_batch(frames, hashes=[each << 31 for each in lane])
    segments = Segmenter("flow", lanes=2, bytes_max=20_000).cut(batch)
    assert len(segments) > 10
    segment_of = {}
    for segment in segments:
        rows = batch.rows[segment.start : segment.stop].tolist()
        assert segment.byte_count == sum(len(frames[row]) for row in rows) < 20_000 + max(map(len, frames))
        assert {lane[row] for row in rows} == {segment.lane}
        segment_of |= dict.fromkeys(rows, segment.number)
    assert all(len({segment_of[at] for at in each}) == 1 for each in places)


def test_of_ordinary_packets_and_by_time_nothing_changes():
    frames = [udp_frame(i, i) for i in range(1000)]
    assert [len(s) for s in Segmenter("run", packets_max=300).cut(make_batch(frames))] == [300, 300, 300, 100]
    pieces = pieces4(datagram(6400), UDP, 7, 64) * 10
    times = [i * 1_000_000 for i in range(len(pieces))]
    by_time = Segmenter("time", time_ms=100).cut(make_batch(pieces, times_ns=times))
    assert all(len(s) == 100 for s in by_time[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_fragments_every_packet_is_in_one_segment(seed):
    """Datagrams without an end, fragments that lie: a segment is at least half of what the bounds allow."""
    rng = random.Random(seed)
    frames = datagrams_in_pieces(rng, 1000)
    if seed == 0:
        frames = [pieces4(datagram(100), UDP, i, 64)[0] for i in range(1000)]  # all begin, none ends
    for most in (1, 3, 100, 900):
        segments = Segmenter("run", packets_max=most).cut(make_batch(frames))
        assert [s.start for s in segments] == [0] + [s.stop for s in segments[:-1]]
        assert segments[-1].stop == len(frames)
        assert all((most + 1) // 2 <= len(s) <= most for s in segments[:-1])


def written(path, frames, form):
    packets = [twin.Packet(i, each, len(each)) for i, each in enumerate(frames)]
    if form == "pcap":
        path.write_bytes(twin.pcap_bytes(packets))
    else:
        blocks = [twin.enhanced_bytes("<", each) for each in packets]
        path.write_bytes(twin.section_bytes() + twin.interface_bytes("<", twin.Interface()) + b"".join(blocks))
    return path


@pytest.mark.parametrize(("form", "chunk_bytes", "rows_max"), [("pcap", 1 << 20, 512), ("pcapng", 64 << 10, 4096)])
def test_a_chunk_ends_between_datagrams_and_anonymise_finds_every_first_fragment(tmp_path, form, chunk_bytes, rows_max):
    frames, places = traffic(random.Random(9), 4000, 40)
    path = written(tmp_path / "in", frames, form)
    service = Anonymise(key=bytes(32).hex())
    service.start()
    segmenter = Segmenter("run", packets_max=300)
    read, cuts, chunks = [], [], []
    with CaptureSource(path, Arena(2, chunk_bytes, rows_max)) as source:
        for batch in source:
            chunks.append(len(read) + len(batch))
            for segment in segmenter.cut(batch):
                read += [batch.packet(row).tobytes() for row in range(segment.start, segment.stop)]
                cuts.append(len(read))
                view = View(segment, np.empty(2 * chunk_bytes, np.uint8), [service])
                view.turn(service)
                service.process(view)
                assert "first_fragment_elsewhere" not in view.result().drops
    assert read == frames
    assert not source.damage
    assert len(chunks) > 4
    assert not divided(places, cuts[:-1])


def test_a_capture_of_nothing_but_beginnings_is_read_whole(tmp_path):
    frames = [pieces4(datagram(3000), UDP, i, 1480)[0] for i in range(3000)]
    path = written(tmp_path / "in.pcap", frames, "pcap")
    with CaptureSource(path, Arena(2, 64 << 10, 1024)) as source:
        assert [batch.packet(row).tobytes() for batch in source for row in range(len(batch))] == frames
