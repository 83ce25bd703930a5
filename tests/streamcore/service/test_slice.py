"""`slice` beside slicing bytes one packet at a time."""

from __future__ import annotations

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.load import load

PACKETS = [bytes(range(length)) for length in (0, 1, 54, 60, 118, 119, 250)]
PAYLOAD = [65535, 65535, 54, 42, 54, 65535, 54]
BEHIND_IP = [65535, 65535, 34, 34, 34, 34, 34]


def parser(batch, groups):
    """Fills the two columns that slice reads."""
    batch.groups |= groups
    batch.payload_offset[:] = PAYLOAD
    batch.l4_offset[:] = BEHIND_IP


@pytest.mark.parametrize("count", [0, 1, 64, 1000])
def test_payload_is_cut(count):
    segment = make_segment(PACKETS, parser=parser, wire_length=[300] * 7)
    service = load(f"slice:{count}")
    view = run(segment, service)
    for _, report in view.result().reports:
        service.merge(report)
    begins = [0, 0, 54, 42, 54, 34, 54]
    assert packets_of(view) == [p[: begin + count] for p, begin in zip(PACKETS, begins, strict=True)]
    assert view.wire_length.tolist() == [300] * 7
    left = sum(len(packet) for packet in packets_of(view))
    assert service.summary()["bytes_cut"] == sum(len(packet) for packet in PACKETS) - left
    if count == 1000:
        assert view.result().captured_length is None


@pytest.mark.parametrize("count", [0, 60, 4_000_000_000])
def test_packets_are_cut(count):
    view = run(make_segment(PACKETS), load({"name": "slice", "bytes": count, "from": "packet"}))
    assert packets_of(view) == [p[:count] for p in PACKETS]
