"""`dedup` beside a list of the last packets, whatever the segments; and the hash beside its own definition in Python
integers.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from packets_by_hand import make_segment, run

from streamcore.core.errors import UsageError
from streamcore.service._dedup import KEY_WORDS, Window, hash_packets
from streamcore.service.dedup import Dedup
from streamcore.service.load import load


def twin(packets, wire, times, window_packets, window_ms):
    """Which are duplicates: the last equal packet is near enough."""
    last: dict = {}
    found = []
    for number, packet in enumerate(zip(packets, wire, strict=True)):
        before = last.get(packet)
        found.append(
            before is not None
            and number - before <= window_packets
            and (window_ms is None or abs(times[number] - times[before]) <= window_ms * 1_000_000)
        )
        last[packet] = number
    return found


def traffic(seed: int, count: int = 3000):
    rng = random.Random(seed)
    pool = [rng.randbytes(rng.choice([0, 1, 15, 16, 17, 60, 300])) for _ in range(200)]
    packets = [rng.choice(pool) for _ in range(count)]
    wire = [len(packet) + rng.choice([0, 0, 0, 4]) for packet in packets]
    times = [(rng.randrange(0, 20) + i // 20) * 1_000_000 for i in range(count)]
    return packets, wire, times


@pytest.mark.parametrize(
    "options", [{}, {"packets": 1}, {"packets": 50}, {"ms": 3}, {"ms": 0}, {"packets": "90", "ms": "12"}]
)
@pytest.mark.parametrize("seed", range(3))
def test_duplicates_whatever_the_segments(options, seed):
    packets, wire, times = traffic(seed)
    main = load({"name": "dedup", **options})
    workers = [load(main.prepared({"name": "dedup", **options})) for _ in range(2)]
    for worker in workers:
        worker.start()
    window_packets = int(options.get("packets", 1024 if "ms" not in options else 1 << 18))
    expected = twin(packets, wire, times, window_packets, int(options["ms"]) if "ms" in options else None)
    rng = random.Random(seed + 100)
    got: list[bool] = []
    while len(got) < len(packets):
        part = slice(len(got), len(got) + rng.randrange(1, 700))
        segment = make_segment(packets[part], wire_length=wire[part])
        keys = run(segment, rng.choice(workers)).result().keys
        mask, reason = main.drop_by_keys(keys, np.array(times[part], np.int64))
        assert reason in Dedup.reasons
        got.extend(mask.tolist())
    assert got == expected
    assert 0 < sum(expected) < len(packets)
    assert main.summary()["duplicates"] == sum(expected)


def test_a_single_bit_makes_a_difference():
    packet = bytes(200)
    packets = [packet]
    for bit in range(1600):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        packets.append(bytes(changed))
    service = Dedup()
    service.start()
    keys = run(make_segment(packets), service).result().keys
    assert len({tuple(key) for key in keys.tolist()}) == len(packets)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 1514, 70_000])
def test_the_hash_is_what_it_says(length):
    rng = random.Random(length)
    packet, key = rng.randbytes(length), [rng.getrandbits(64) for _ in range(KEY_WORDS)]
    words = [int.from_bytes(packet[at : at + 8].ljust(8, b"\0"), "little") for at in range(0, length, 8)]
    words = [length, 9999, *words, *[0] * (len(words) % 2)]
    expected = []
    for lane in range(2):
        k = key[8 + 2 * lane :]
        total = sum(((words[i] + k[i]) % 2**64) * ((words[i + 1] + k[i + 1]) % 2**64) for i in range(0, len(words), 2))
        total %= 2**128
        parts = [total >> 32 * i & 0xFFFFFFFF for i in range(4)]
        prime = 2**61 - 1
        expected.append(sum(part * (c % prime) for part, c in zip(parts, key[4 * lane :], strict=False)) % prime)
    result = np.empty((1, 2), np.uint64)
    one = np.array([0], np.uint32)
    hash_packets(
        np.frombuffer(packet or b"\0", np.uint8),
        one,
        one + np.uint32(length),
        one + np.uint32(9999),
        np.array(key, np.uint64),
        result,
    )
    assert result[0].tolist() == expected


def test_packets_outside_the_data_are_refused():
    one = np.array([1], np.uint32)
    with pytest.raises(ValueError, match="outside"):
        hash_packets(np.zeros(1, np.uint8), one, one, one, np.zeros(KEY_WORDS, np.uint64), np.zeros((1, 2), np.uint64))


def test_the_window_is_bounded_and_takes_turns():
    window = Window(100, -1)
    keys = np.arange(2_000, dtype=np.uint64).reshape(1000, 2)
    times = np.zeros(1000, np.int64)
    assert not window.duplicates(keys, times).any()
    assert window.duplicates(keys[-100:], times[:100]).all()  # each is exactly 100 back
    assert not window.duplicates(keys[-202:-200], times[:2]).any()


def test_times_far_apart_do_not_wrap():
    window = Window(10, 1)
    ends = np.iinfo(np.int64)
    mask = window.duplicates(np.ones((3, 2), np.uint64), np.array([ends.min, ends.max, ends.max], np.int64))
    assert mask.tolist() == [False, False, True]


@pytest.mark.parametrize("wrong", ["dedup:packets=0", "dedup:ms=-1", "dedup:packets=many", "dedup:key=1"])
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="must"):
        load(wrong)
