"""What a worker left in its region: rewritten records whose headers are not those that were read are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from streamcore.core.packets import Segment
from streamcore.disperse._results import PACKED, ResultError, read_result
from tests.streamcore.batches import make_batch

HEADER = struct.Struct("<IIII")


def batch_of(kind: str):
    """20 packets with times in microseconds, nanoseconds, whole seconds, or one with two in its second field."""
    batch = make_batch([bytes([i]) * (i + 1) for i in range(20)])
    data = batch.data
    for row in range(20):
        at = int(batch.offset[row]) - 16
        _, _, size, wire = HEADER.unpack(data[at : at + 16].tobytes())
        seconds, fraction = 1_700_000_000 + row, {"us": 7 * row, "ns": 999_999_990 + row % 10, "s": 0, "two": 5}[kind]
        fraction += 2_000_000 if kind == "two" and row == 3 else 0
        data[at : at + 16] = np.frombuffer(HEADER.pack(seconds, fraction, size, wire), np.uint8)
        batch.timestamp_ns[row] = seconds * 10**9 + fraction * (1 if kind == "ns" else 1000)
    return batch


@pytest.mark.parametrize("kind", ["us", "ns", "s", "two"])
def test_every_byte_of_a_record_header_is_compared(kind):
    batch = batch_of(kind)
    size = batch.span_stop
    region = np.zeros(size + 8, np.uint8)
    region[:size] = batch.data[:size]
    segment = Segment(0, batch, 0, 20)
    for row in range(20):
        region[int(batch.offset[row])] ^= 0xFF  # the packets may change
    read_result(segment, region, size, PACKED, PACKED, None)
    for row in range(20):
        for at in range(int(batch.offset[row]) - 16, int(batch.offset[row])):
            for change in (1, 0x80, 0xFF):
                region[at] ^= change
                with pytest.raises(ResultError):
                    read_result(segment, region, size, PACKED, PACKED, None)
                region[at] ^= change
    read_result(segment, region, size, PACKED, PACKED, None)
