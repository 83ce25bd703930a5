"""`anonymise` beside yacryptopan, and beside a slow rewrite of whole packets with every checksum made anew."""

from __future__ import annotations

import functools
import ipaddress
import random
import struct

import numpy as np
import pytest
from packets_by_hand import make_segment, packets_of, run
from yacryptopan import CryptoPAn

from streamcore.core.errors import UsageError
from streamcore.service._address_table import AddressTable
from streamcore.service.anonymise import Anonymise, CryptoPan
from streamcore.service.load import load

KEY = bytes(range(100, 132))
ORACLE = CryptoPAn(KEY)


@functools.cache  # the oracle takes a hundred times as long as we do, and most addresses come again
def map4(address: bytes) -> bytes:
    return ORACLE.anonymize_bin(int.from_bytes(address, "big"), 4).to_bytes(4, "big")


@functools.cache
def map6(address: bytes) -> bytes:
    return ORACLE.anonymize_bin(int.from_bytes(address, "big"), 6).to_bytes(16, "big")


def same(address: bytes) -> bytes:
    return address


def anonymised(packets, *, link_type: int = 1, rows=None) -> list[bytes]:
    service = Anonymise(key=KEY.hex(), unknown="pass")
    service.start()
    return packets_of(run(make_segment(packets, rows, link_type=link_type), service))


# The addresses themselves.


def test_the_published_example():
    cipher = CryptoPan(bytes(range(32)))  # the example in the documentation of yacryptopan
    assert cipher.map4(np.array([0xC0000201], np.uint32))[0] == int(ipaddress.ip_address("2.90.93.17"))


@pytest.mark.parametrize("seed", range(3))
def test_addresses_equal_yacryptopan(seed):
    rng = random.Random(seed)
    key = rng.randbytes(32)
    ours, oracle = CryptoPan(key), CryptoPAn(key)
    fours = [0, 1, 0xFFFFFFFF, 0x7F000001, *(rng.getrandbits(32) for _ in range(1500))]
    assert ours.map4(np.array(fours, np.uint32)).tolist() == [oracle.anonymize_bin(a, 4) for a in fours]
    sixes = [0, 1, (1 << 128) - 1, *(rng.getrandbits(128) for _ in range(300))]
    halves = np.array([[a >> 64, a & (1 << 64) - 1] for a in sixes], np.uint64)
    assert [(h << 64) | low for h, low in ours.map6(halves).tolist()] == [oracle.anonymize_bin(a, 6) for a in sixes]


# Whole packets: built twice from the same parts, once with the addresses that the oracle gives. Checksums are summed up
# each time.


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_checksum(data: bytes, at: int, pseudo: bytes = b"", wrong_by: int = 0) -> bytes:
    """data with its checksum in place; made wrong by adding to it in ones' complement."""
    value = checksum(pseudo + data[:at] + b"\0\0" + data[at + 2 :])
    value += wrong_by
    value = (value & 0xFFFF) + (value >> 16)
    return data[:at] + struct.pack(">H", value) + data[at + 2 :]


class Maker:
    """Makes packets; every address goes through `m4` or `m6`."""

    def __init__(self, m4, m6, seed: int) -> None:
        self.m4, self.m6 = m4, m6
        self.rng = random.Random(seed)

    def address4(self) -> bytes:
        return self.m4(self.rng.choice([self.rng.randbytes(4), bytes(4), b"\xff" * 4]))

    def address6(self) -> bytes:
        return self.m6(self.rng.choice([self.rng.randbytes(16), bytes(16), b"\xff\x02" + bytes(13) + b"\1"]))

    def payload(self) -> bytes:
        return self.rng.randbytes(self.rng.randrange(0, 40))

    def upper(self, protocol: int, pseudo_addresses: bytes, version: int, wrong_by: int = 0, keep: int = 0) -> bytes:
        rng, body = self.rng, self.payload()
        if protocol == 6:
            data, at = rng.randbytes(12) + b"\x50" + rng.randbytes(7) + body, 16
        elif protocol == 17:
            data, at = rng.randbytes(4) + struct.pack(">HH", 8 + len(body), 0) + body, 6
        elif protocol == 132:  # one chunk of data
            return rng.randbytes(12) + struct.pack(">BBH", 0, 3, 4 + len(body)) + body + bytes(-len(body) % 4)
        else:
            return body
        length = struct.pack(">HBB", 0, 0, protocol)
        pseudo = pseudo_addresses + (
            struct.pack(">BBH", 0, protocol, len(data)) if version == 4 else struct.pack(">I", len(data)) + length
        )
        data = with_checksum(data, at, pseudo, wrong_by)
        if protocol == 17 and data[6:8] == b"\0\0":
            data = data[:6] + b"\xff\xff" + data[8:]
        return data[:keep] if keep else data

    def ip4(self, protocol: int, upper, *, options=None, wrong_by: int = 0, final: int | None = None) -> bytes:
        """upper: bytes, or a function of the pseudo header's addresses."""
        ends = self.address4(), self.address4()
        option, addresses = options() if options else (b"", [])
        addresses = [*ends, *addresses]
        body = upper(addresses[0] + addresses[1 if final is None else final]) if callable(upper) else upper
        words = 5 + len(option) // 4
        identity = self.rng.randbytes(2)
        head = struct.pack(">BBH", 0x40 | words, 0, 4 * words + len(body)) + identity + b"\x40\0"
        head += bytes([64, protocol]) + b"\0\0" + b"".join(ends) + option
        return with_checksum(head, 10, wrong_by=wrong_by) + body

    def ip6(
        self, protocol: int, upper, *, extension: bytes = b"", first: int | None = None, final: bytes = b""
    ) -> bytes:
        ends = self.address6(), self.address6()
        body = upper(ends[0] + (final or ends[1])) if callable(upper) else upper
        head = struct.pack(">IHBB", 0x60000000, len(extension) + len(body), protocol if first is None else first, 60)
        return head + b"".join(ends) + extension + body

    def transport4(self, protocol: int, **options) -> bytes:
        keep, wrong_by = options.pop("keep", 0), options.pop("wrong_by", 0)
        return self.ip4(
            protocol, lambda ends: self.upper(protocol, ends, 4, wrong_by, keep), wrong_by=wrong_by, **options
        )

    def transport6(self, protocol: int, *, keep: int = 0, **options) -> bytes:
        return self.ip6(protocol, lambda ends: self.upper(protocol, ends, 6, keep=keep), **options)

    def icmp4(self, body: bytes) -> bytes:
        return self.ip4(1, with_checksum(body, 2))

    def icmp6(self, body: bytes, **options) -> bytes:
        def made(ends: bytes) -> bytes:
            return with_checksum(body, 2, ends + struct.pack(">IHBB", len(body), 0, 0, 58))

        return self.ip6(58, made, **options)

    def route4(self, kind: int, pointer: int, shift: int):
        """A route option of three addresses behind `shift` no-operations."""

        def made():
            addresses = [self.address4() for _ in range(3)]
            option = b"\1" * shift + bytes([kind, 15, pointer]) + b"".join(addresses)
            return option + bytes(-len(option) % 4), addresses

        return made


def quoted4(m: Maker, keep: int) -> bytes:
    return m.transport4(m.rng.choice([6, 17]), keep=keep)


def icmp_error(m: Maker, kind: int, keep: int) -> bytes:
    gateway = m.address4() if kind == 5 else bytes(4)
    return m.icmp4(bytes([kind, 1, 0, 0]) + gateway + quoted4(m, keep))


def nested_error(m: Maker) -> bytes:
    """An error that quotes an error: all the checksums depend on one another."""
    return m.icmp4(b"\x0b\0\0\0\0\0\0\0" + icmp_error(m, 3, 0))


def gre(m: Maker, ethernet: bool) -> bytes:
    inner = bytes(12) + b"\x08\0" + m.transport4(17) if ethernet else m.transport6(17)
    kind = 0x6558 if ethernet else 0x86DD
    return m.ip4(47, with_checksum(struct.pack(">HHHH", 0x8000, kind, 0, 0) + inner, 4))


def routing6(m: Maker, kind: int, left: int) -> bytes:
    route = [m.address6() for _ in range(2)]
    extension = bytes([17, 4, kind, left, 1, 0, 0, 0]) + b"".join(route)
    final = route[0 if kind == 4 else -1] if left else b""
    return m.transport6(17, extension=extension, first=43, final=final)


def redirect6(m: Maker) -> bytes:
    quoted = m.transport6(6)
    quoted += bytes(-len(quoted) % 8)
    options = bytes([2, 1]) + b"\2" * 6 + bytes([4, 1 + len(quoted) // 8]) + bytes(6) + quoted
    return m.icmp6(b"\x89\0\0\0\0\0\0\0" + m.address6() + m.address6() + options)


def advertisement6(m: Maker) -> bytes:
    prefix = bytes([3, 4, 64, 0xC0]) + bytes(12) + m.address6()
    servers = bytes([25, 5, 0, 0, 0, 0, 0, 9]) + m.address6() + m.address6()
    return m.icmp6(b"\x86\0\0\0" + bytes(12) + bytes([1, 1]) + b"\2" * 6 + prefix + servers)


def igmp3(m: Maker) -> bytes:
    records = [
        bytes([4, 1, 0, 2]) + m.address4() + m.address4() + m.address4() + bytes(4),
        bytes([3, 0, 0, 0]) + m.address4(),
    ]
    return m.ip4(2, with_checksum(b"\x22\0\0\0\0\0\0\2" + b"".join(records), 2))


def mld2(m: Maker) -> bytes:
    records = [bytes([4, 0, 0, 1]) + m.address6() + m.address6(), bytes([3, 0, 0, 0]) + m.address6()]
    return m.icmp6(b"\x8f\0\0\0\0\0\0\2" + b"".join(records))


IP4 = {
    "tcp": lambda m: m.transport4(6),
    "udp": lambda m: m.transport4(17),
    "sctp": lambda m: m.transport4(132),
    "wrong by 1": lambda m: m.transport4(6, wrong_by=1),
    "wrong by 0x8000": lambda m: m.transport4(17, wrong_by=0x8000),
    "record route": lambda m: m.transport4(6, options=m.route4(7, 4, 1)),
    "record route, odd": lambda m: m.transport4(6, options=m.route4(7, 4, 2)),
    "loose route on its way": lambda m: m.transport4(17, options=m.route4(131, 8, 0), final=4),
    "strict route, odd": lambda m: m.transport4(17, options=m.route4(137, 13, 1), final=4),
    "route at its end": lambda m: m.transport4(17, options=m.route4(131, 16, 0)),
    "unreachable": lambda m: icmp_error(m, 3, 8),
    "time exceeded, all quoted": lambda m: icmp_error(m, 11, 0),
    "redirect": lambda m: icmp_error(m, 5, 8),
    "error in error": nested_error,
    "echo": lambda m: m.icmp4(b"\x08\0\0\0" + m.payload()),
    "router advertisement": lambda m: m.icmp4(
        b"\x09\0\0\0\2\2\0\x10" + m.address4() + bytes(4) + m.address4() + bytes(4)
    ),
    "ip in ip": lambda m: m.ip4(4, m.ip4(4, m.transport4(6))),
    "6in4": lambda m: m.ip4(41, m.transport6(17)),
    "gre": lambda m: gre(m, False),
    "gre with ethernet": lambda m: gre(m, True),
    "igmp": lambda m: m.ip4(2, with_checksum(b"\x16\0\0\0" + m.address4(), 2)),
    "igmp 3": igmp3,
}
IP6 = {
    "tcp 6": lambda m: m.transport6(6),
    "udp 6": lambda m: m.transport6(17),
    "hop by hop": lambda m: m.transport6(6, first=0, extension=bytes([6, 0]) + b"\1\4" + bytes(4)),
    "first fragment": lambda m: m.transport6(17, first=44, extension=bytes([17, 0, 0, 1]) + b"abcd"),
    "later fragment": lambda m: m.ip6(44, bytes([17, 0, 0, 9]) + b"abcd" + m.payload()),
    "route 0": lambda m: routing6(m, 0, 2),
    "route 0 done": lambda m: routing6(m, 0, 0),
    "segment route": lambda m: routing6(m, 4, 1),
    "solicitation": lambda m: m.icmp6(b"\x87\0\0\0\0\0\0\0" + m.address6() + b"\1\1" + b"\2" * 6),
    "advertisement": lambda m: m.icmp6(b"\x88\0\0\0\0\0\0\0" + m.address6()),
    "router advertisement 6": advertisement6,
    "redirect 6": redirect6,
    "unreachable 6": lambda m: m.icmp6(b"\1\0\0\0\0\0\0\0" + m.transport6(17)),
    "time exceeded 6, cut": lambda m: m.icmp6(b"\3\0\0\0\0\0\0\0" + m.transport6(6, keep=8)),
    "listener report": lambda m: m.icmp6(b"\x83\0\0\0\0\0\0\0" + m.address6()),
    "listener report 2": mld2,
    "4in6": lambda m: m.ip6(4, m.transport4(17)),
}
LINKS = {
    "ethernet": (1, lambda kind: bytes(12) + kind),
    "one tag": (1, lambda kind: bytes(12) + b"\x81\0\0\2" + kind),
    "vlan": (1, lambda kind: bytes(12) + b"\x88\xa8\0\1\x81\0\0\2" + kind),
    "mpls": (1, lambda kind: bytes(12) + b"\x88\x47\0\0\x10\x40\0\0\x21\x40"),
    "pppoe": (1, lambda kind: bytes(12) + b"\x88\x64\x11\0\0\1\0\0" + (b"\0\x21" if kind == b"\x08\0" else b"\0\x57")),
    "snap": (1, lambda kind: bytes(12) + b"\0\x50\xaa\xaa\3\0\0\0" + kind),
    "frame in frame": (1, lambda kind: bytes(12) + b"\x88\xe7" + bytes(16) + kind),
    "fabric": (1, lambda kind: bytes(12) + b"\x89\x03" + bytes(14) + kind),
    "port tags": (1, lambda kind: bytes(12) + b"\x89\x26" + bytes(4) + b"\x89\x3f" + bytes(6) + kind),
    "pseudowire": (1, lambda kind: bytes(12) + b"\x88\x47\0\0\x11\x40" + bytes(4) + bytes(12) + kind),
    "llc": (1, lambda kind: bytes(12) + b"\0\x50\x06\x06\x03"),
    "forty tags": (1, lambda kind: bytes(12) + b"\x81\0\0\1" * 40 + kind),
    "loop with a type": (108, lambda kind: b"\0\0" + kind),
    "raw": (101, lambda kind: b""),
    "cooked": (113, lambda kind: bytes(14) + kind),
    "cooked 2": (276, lambda kind: kind + bytes(18)),
    "null": (0, lambda kind: b"\2\0\0\0"),
    "loop": (108, lambda kind: b"\0\0\0\2"),
}


def both(make, seed: int) -> tuple[bytes, bytes]:
    """A packet, and the same with every address mapped and every checksum summed up again."""
    return make(Maker(same, same, seed)), make(Maker(map4, map6, seed))


@pytest.mark.parametrize("name", [*IP4, *IP6])
def test_packets_equal_the_slow_twin(name):
    make, kind = (IP4[name], b"\x08\0") if name in IP4 else (IP6[name], b"\x86\xdd")
    pairs = [both(make, seed) for seed in range(40)]
    head = bytes(12) + kind
    got = anonymised([head + before for before, _ in pairs])
    for ours, (before, expected) in zip(got, pairs, strict=True):
        assert ours == head + expected
        assert ours != head + before or name == "later fragment"


@pytest.mark.parametrize("link", LINKS)
def test_link_layers(link):
    link_type, head = LINKS[link]
    packets, expected = [], []
    for name, make in {**IP4, **IP6}.items():
        before, after = both(make, 7)
        start = head(b"\x08\0" if name in IP4 else b"\x86\xdd")
        packets.append(start + before)
        expected.append(start + after)
    assert anonymised(packets, link_type=link_type) == expected


def test_rows_that_are_not_consecutive():
    pairs = [both(IP4["udp"], seed) for seed in range(10)]
    got = anonymised([pair[0] for pair in pairs], link_type=101, rows=[8, 3, 5])
    assert got == [pairs[row][1] for row in (8, 3, 5)]


@pytest.mark.parametrize("hardware", [6, 5, 8])
def test_arp(hardware):
    def arp(m4):
        mac = bytes(range(hardware))
        head = struct.pack(">HHBBH", 1, 0x0800, hardware, 4, 1)
        return head + mac + m4(b"\x0a\1\2\3") + mac + m4(bytes(4)) + b"trailer"

    head = bytes(12) + b"\x08\x06"
    assert anonymised([head + arp(same)]) == [head + arp(map4)]


def test_udp_without_a_checksum_stays_without():
    before, after = both(IP4["udp"], 3)
    cleared = [p[:26] + b"\0\0" + p[28:] for p in (before, after)]
    assert anonymised([cleared[0]], link_type=101) == [cleared[1]]


def test_udp_never_gets_a_checksum_of_zero():
    """Wanted: packets whose checksum comes out as zero. The payload is chosen so that the new sum is 0xFFFF."""
    ends = b"\x0a\0\0\1", b"\x0a\0\0\2"
    mapped = b"".join(map4(end) for end in ends)
    zeros = struct.pack(">HHHH", 1, 2, 10, 0) + b"\0\0"
    fill = checksum(mapped + struct.pack(">BBH", 0, 17, 10) + zeros)
    body = zeros[:8] + struct.pack(">H", fill)
    assert checksum(mapped + struct.pack(">BBH", 0, 17, 10) + body) == 0
    packet = struct.pack(">BBHHHBBH", 0x45, 0, 30, 0, 0, 64, 17, 0)
    body = with_checksum(body, 6, b"".join(ends) + struct.pack(">BBH", 0, 17, 10))
    got = anonymised([with_checksum(packet + b"".join(ends), 10) + body], link_type=101)[0]
    assert got[26:28] == b"\xff\xff"


@pytest.mark.parametrize("name", [*IP4, *IP6])
def test_what_is_captured_of_a_packet(name):
    """Every length of every kind: bytes before the cut are those of the whole packet, but for checksums that cover
    what was cut.
    """
    make = {**IP4, **IP6}[name]
    before, _ = both(make, 11)
    cuts = [before[:length] for length in range(len(before) + 1)]
    got = anonymised(cuts, link_type=101)
    assert [len(packet) for packet in got] == [len(cut) for cut in cuts]
    if name in IP4:
        whole = map4(before[12:16]) + map4(before[16:20])
        assert all(packet[12:20] == whole[: max(len(packet) - 12, 0)] for packet in got)
    else:
        whole = map6(before[8:24]) + map6(before[24:40])
        assert all(packet[8:40] == whole[: max(len(packet) - 8, 0)] for packet in got)


def test_bytes_that_are_no_packet_do_no_harm():
    rng = random.Random(5)
    packets = []
    for _ in range(4000):
        make = rng.choice([*IP4.values(), *IP6.values()])
        raw = bytearray(make(Maker(same, same, rng.randrange(20))))
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        packets.append(bytes(raw[: rng.randrange(len(raw) + 1)]))
    segment = make_segment(packets, link_type=101, gap=8)
    segment.batch.data[:] |= 0xA0  # what stands between the packets shows whether anything is written there
    for i, packet in enumerate(packets):
        segment.batch.packet(i)[:] = np.frombuffer(packet, np.uint8)
    service = Anonymise(key=KEY.hex(), unknown="pass")
    service.start()
    view = run(segment, service)
    outside = np.ones(len(view.data), bool)
    for i, (at, length) in enumerate(zip(view.offset.tolist(), view.captured_length.tolist(), strict=True)):
        outside[at : at + length] = False
        record = segment.batch.offset[i] - 16
        assert (view.data[at - 16 : at] == segment.batch.data[record : record + 16]).all()
    assert [len(packet) for packet in packets_of(view)] == [len(packet) for packet in packets]
    assert np.count_nonzero(outside) == 16 * len(packets)


# The bounded table.


def test_a_table_that_is_full_starts_anew_and_the_result_is_the_same(monkeypatch):
    monkeypatch.setattr("streamcore.service.anonymise.CACHE_ENTRIES", 4 * 65536)
    rng = random.Random(1)
    service = Anonymise(key=KEY.hex(), unknown="pass")
    service.start()
    cipher = CryptoPan(KEY)
    for _ in range(3):
        ends = np.array([rng.getrandbits(32) for _ in range(200_000)], ">u4").tobytes()
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20, 0, 0, 64, 253, 0)
        packets = [head + ends[at : at + 8] for at in range(0, len(ends), 8)]
        got = packets_of(run(make_segment(packets, link_type=101), service))
        mapped = cipher.map4(np.frombuffer(ends, ">u4").astype(np.uint32)).astype(">u4").tobytes()
        assert b"".join(packet[12:20] for packet in got) == mapped
        assert service._table.used4 <= 4 * 65536


def test_the_table_refuses_more_than_it_may_hold():
    table = AddressTable(4096)
    with pytest.raises(ValueError, match="4096"):
        table.learn4(np.arange(1, 5000, dtype=np.uint32), np.zeros(4999, np.uint32))


# The key.


def test_the_key_may_be_given_in_several_ways(tmp_path):
    text = "0123456789abcdefghijklmnopqrstuv"
    (tmp_path / "hex").write_text(KEY.hex() + "\n")
    (tmp_path / "raw").write_bytes(KEY)
    given = [
        Anonymise(key_file=str(tmp_path / "hex")),
        load(f"anonymise:key-file={tmp_path / 'raw'}"),
        Anonymise(key=KEY.hex()),
    ]
    assert {service._key for service in given} == {KEY}
    assert Anonymise(key=text)._key == text.encode()
    assert "random" not in given[0].summary()["key"]


def test_without_a_key_all_workers_share_a_random_one():
    service = load("anonymise")
    assert "random" in service.summary()["key"]
    workers = [load(service.prepared("anonymise")) for _ in range(2)]
    assert {worker._key for worker in workers} == {service._key}
    assert load("anonymise")._key != service._key


@pytest.mark.parametrize("wrong", ["anonymise:key=short", "anonymise:key-file=/nowhere", "anonymise:key=zz" + "0" * 62])
def test_wrong_keys(wrong):
    with pytest.raises(UsageError, match=r"32 bytes|cannot be read"):
        load(wrong)
