"""`dedup` beside a list of the last packets, whatever the segments; and the hash beside its own definition in Python
integers.
"""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from packets_by_hand import make_segment, run

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.run.pipeline import Pipeline
from streamcore.service._dedup import BLOCK_BYTES, KEY_WORDS, Window, hash_packets
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
    window_ms = options.get("ms", None if "packets" in options else 50)
    window_packets = int(options.get("packets", 1 << 18))
    expected = twin(packets, wire, times, window_packets, None if window_ms is None else int(window_ms))
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


@pytest.mark.parametrize(
    "length", [0, 1, 7, 15, 16, 17, 33, 1514, 70_000, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 40]
)
def test_the_hash_is_what_it_says(length):
    rng = random.Random(length)
    packet, key = rng.randbytes(length), [rng.getrandbits(64) for _ in range(KEY_WORDS)]
    prime = 2**61 - 1
    expected = []
    for lane in range(2):
        k = key[8 + 2 * lane :]
        digits = []
        for begin in range(0, max(length, 1), BLOCK_BYTES):
            block = packet[begin : begin + BLOCK_BYTES]
            words = [int.from_bytes(block[at : at + 8].ljust(8, b"\0"), "little") for at in range(0, len(block), 8)]
            words = [length, 9999, *words, *[0] * (len(words) % 2)]
            total = sum(
                ((words[i] + k[i]) % 2**64) * ((words[i + 1] + k[i + 1]) % 2**64) for i in range(0, len(words), 2)
            ) % 2**128  # fmt: skip
            parts = [total >> 32 * i & 0xFFFFFFFF for i in range(4)]
            digits.append(sum(part * (c % prime) for part, c in zip(parts, key[4 * lane :], strict=False)) % prime)
        number = digits[0]
        for digit in digits[1:]:
            number = (number * (key[KEY_WORDS - 2 + lane] % prime) + digit) % prime
        expected.append(number)
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


def with_link(packet, target=b"\2" * 6, tags=b"", kind=0x0800, padding=b""):
    return target + b"\4" * 6 + tags + kind.to_bytes(2, "big") + packet + padding


def ipv4(payload, ttl=64, protocol=17):
    head = struct.pack(
        ">BBHHHBBH8s", 0x45, 0, 20 + len(payload), 7, 0, ttl, protocol, 1000 + ttl, b"\x0a\0\0\1\x0a\0\0\2"
    )
    return head + payload


def ipv6(payload, limit=64):
    return struct.pack(">IHBB", 6 << 28, len(payload), 17, limit) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


def test_what_copies_may_differ_in():
    """Copies of a mirror: each option ignores exactly what its name says, for IPv4, IPv6 and ARP."""
    udp = struct.pack(">HHHH", 5000, 5001, 8 + 4, 0) + b"data"
    arp = bytes.fromhex("0001080006040001") + b"\2" * 6 + b"\x0a\0\0\1" + bytes(6) + b"\x0a\0\0\2"
    tag = b"\x81\0\0\5"
    for packet, hop, kind in (
        (ipv4(udp), ipv4(udp, 63), 0x0800),
        (ipv6(udp), ipv6(udp, 63), 0x86DD),
        (arp, arp, 0x0806),
    ):
        other = bytearray(packet)
        other[-1] ^= 1
        copies = [
            with_link(packet, kind=kind),
            with_link(packet, b"\6" * 6, kind=kind),
            with_link(packet, tags=tag, kind=kind),
            with_link(hop, kind=kind),
            with_link(packet, kind=kind, padding=b"\0" * 9),
            with_link(hop, b"\6" * 6, tags=tag, kind=kind, padding=b"\7" * 3),
            with_link(bytes(other), kind=kind),
        ]
        same_hop = packet == hop  # ARP has no TTL: the fourth is equal to the first anyway
        for ignore, expected in (
            ("", [same_hop and at == 3 for at in range(7)]),
            ("link", [False, True, True, same_hop, False, False, False]),
            ("ttl", [False, False, False, True, False, False, False]),
            ("padding", [False, False, False, same_hop, True, False, False]),
            ("link,ttl", [False, True, True, True, False, False, False]),
            ("link,ttl,padding", [False, True, True, True, True, True, False]),
        ):
            service = load(f"dedup:ignore={ignore}" if ignore else "dedup")
            service.start()
            keys = run(make_segment(copies), service).result().keys
            mask, _ = service.drop_by_keys(keys, np.zeros(7, np.int64))
            assert mask.tolist() == expected, (hex(kind), ignore)


def test_a_segment_without_payload_is_no_copy():
    """Equal acknowledgements tell the sender of a loss. They stay, unless it is said otherwise, also with padding and
    in a tunnel; a segment whose payload was not captured is not one of them."""
    tcp = struct.pack(">HHIIBBHHH", 80, 5000, 1, 2, 5 << 4, 0x10, 100, 0, 0)
    ack = ipv4(tcp, protocol=6)
    tunnelled = ipv4(b"\0\0\x08\0" + ack, protocol=47)
    data = ipv4(tcp + b"x", protocol=6)
    frames = [with_link(each, padding=padding) for each in (ack, tunnelled, data) for padding in (b"", b"\0" * 6)]
    cut = with_link(data)[:54]
    packets = [each for frame in (*frames, cut) for each in (frame, frame)]
    wire = [len(each) for each in packets[:-2]] + [55, 55]
    for option, expected in (("dedup", [False] * 8 + [False, True] * 3), ("dedup:acks=drop", [False, True] * 7)):
        service = load(option)
        service.start()
        keys = run(make_segment(packets, wire_length=wire), service).result().keys
        assert service.drop_by_keys(keys, np.zeros(len(packets), np.int64))[0].tolist() == expected


def test_towards_an_interface_it_is_refused():
    for keys in ({"service": ["dedup"]}, {"stream": [{"name": "web", "select": "tcp", "service": ["dedup:ms=1"]}]}):
        with pytest.raises(UsageError, match="dedup is for files"):
            Pipeline(Config(read="-", output_interface="lo", **keys))


@pytest.mark.parametrize(
    "wrong",
    ["dedup:ignore=mac", "dedup:acks=no", "dedup:packets=0", "dedup:ms=-1", "dedup:packets=many", "dedup:key=1"],
)
def test_wrong_options(wrong):
    with pytest.raises(UsageError, match="must"):
        load(wrong)
