"""The frames that tests make are those that dpkt makes."""

import random

from tests.streamcore.conftest import frame_by_dpkt, udp_frame


def test_frames_are_dpkts():
    chance = random.Random(1)
    for number in (0, 1, 0xFFFF, 2**64 - 1, *(chance.getrandbits(64) for _ in range(2000))):
        flow, size = chance.randrange(1 << 16), chance.choice((0, 1, 20, 1400))
        assert udp_frame(flow, number, size) == frame_by_dpkt(flow, number, size)
