"""The spool: what goes in comes out, in order, within its bounds, whatever the sequence. The twin is a deque."""

import collections
import random

import pytest

from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena, PacketBatch
from streamcore.source._spool import Spool

ROWS, DATA = 64, 1 << 14
BYTES = 5 * (DATA + 32 * ROWS)


def batch_of(chunk, packets):
    at = 0
    batch = PacketBatch(chunk, len(packets), 0, [], span_stop=sum(map(len, packets)) + 16 * len(packets))
    for row, packet in enumerate(packets):
        batch.data[at + 16 : at + 16 + len(packet)] = list(packet)
        batch.offset[row], batch.captured_length[row], batch.wire_length[row] = at + 16, len(packet), len(packet) + 7
        batch.timestamp_ns[row], batch.interface[row] = row * 10**9 + len(packet), row % 3
        at += 16 + len(packet)
    batch.offloads = len(packets) % 2 == 1
    if batch.offloads:
        batch.offload[:] = [[row % 256] * 10 for row in range(len(packets))]
    return batch


def told(batch):
    return [
        (batch.packet(i).tobytes(), int(batch.wire_length[i]), int(batch.timestamp_ns[i]), int(batch.interface[i]),
         batch.offload[i].tobytes() if batch.offloads else b"")
        for i in range(batch.count)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_first_in_first_out_within_the_bound(tmp_path, seed):
    draw = random.Random(seed)
    arena, staging = Arena(2, DATA, ROWS), Arena(1, DATA, ROWS).acquire()
    spool, twin = Spool(str(tmp_path), BYTES), collections.deque()
    assert list(tmp_path.iterdir()) == []  # it has no name
    refused = 0
    for _ in range(400):
        if draw.random() < 0.55:
            if not spool.has_room_for(staging):
                refused += 1
                assert len(spool) >= 2  # five full ones fit, and a hole or two cost no more than that
                continue
            batch = batch_of(staging, [draw.randbytes(draw.randrange(1, 200)) for _ in range(draw.randrange(1, ROWS))])
            twin.append(told(batch))
            assert spool.put(batch) == batch.count
        elif twin:
            batch = spool.take(arena.acquire(0), [], 5)
            assert told(batch) == twin.popleft()
            assert batch.first_number == 5
            assert not batch.record.any()
            del batch
        assert len(spool) == len(twin)
    assert refused > 10
    packets = sum(len(each) for each in twin)
    assert spool.close() == (packets, sum(len(packet[0]) for each in twin for packet in each))


def test_where_it_cannot_be(tmp_path):
    with pytest.raises(SourceError, match="cannot spool in /nosuch: no such file"):
        Spool("/nosuch", BYTES)
    with pytest.raises(SourceError, match="cannot spool in"):
        Spool(str(tmp_path), 1 << 60)
