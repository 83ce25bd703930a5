"""Frames of other link types, with other addresses and tags, at an MTU, in turns: beside slow twins and dpkt."""

import itertools
import struct

import dpkt
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SourceError, UsageError
from streamcore.run.pipeline import Pipeline
from tests.streamcore import twin
from tests.streamcore.source.test_capture import encode
from tests.streamcore.twin import Interface, Packet

SOURCE, TARGET = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
MACS = {"source_mac": "02:00:00:00:00:01", "target_mac": "02-00-00-00-00-02"}
SENDER = bytes.fromhex("0a0b0c0d0e0f")
IP4, IP6 = bytes([0x45]) + bytes(30), bytes([0x60]) + bytes(44)
TAG, STACKED = b"\x81\x00\x60\x05", b"\x88\xa8\x20\x09\x81\x00\x00\x05"
PACKETS = {
    1: [bytes(range(12)) + tags + b"\x08\x00" + IP4 for tags in (b"", TAG, STACKED)],
    101: [IP4, IP6],
    12: [IP4],
    228: [IP4],
    229: [IP6],
    0: [struct.pack("<I", 2) + IP4, struct.pack(">I", 30) + IP6],
    108: [struct.pack(">I", 2) + IP4],
    113: [struct.pack(">HHH", 0, 1, 6) + SENDER + b"\0\0" + tag + b"\x08\x00" + IP4 for tag in (b"", TAG)],
    276: [struct.pack(">HHIHBB", 0x86DD, 0, 1, 1, 0, 6) + SENDER + b"\0\0" + IP6],
}  # fmt: skip


def framed(data, link_type, source, target, vlan):
    """The slow twin: the frame of a packet."""
    addresses = bytes(12)
    if link_type == 1:
        addresses, kind, rest = data[:12], data[12:14], data[14:]
    elif link_type == 113:
        addresses, kind, rest = bytes(6) + data[6:12], data[14:16], data[16:]
    elif link_type == 276:
        addresses, kind, rest = bytes(6) + data[12:18], data[:2], data[20:]
    else:
        rest = data[4:] if link_type in (0, 108) else data
        kind = b"\x08\x00" if rest[0] >> 4 == 4 else b"\x86\xdd"
    addresses = (target or addresses[:6]) + (source or addresses[6:])
    if vlan is not None:
        priority = 0
        if kind in (b"\x81\x00", b"\x88\xa8"):
            tag_kind, priority, kind, rest = kind, rest[0] & 0xF0, rest[2:4], rest[4:]
        else:
            tag_kind = b"\x81\x00"
        if vlan:
            addresses += tag_kind + struct.pack(">H", priority << 8 | vlan)
    return addresses + kind + rest


def run(target, path, **more):
    account = Pipeline(Config(read=str(path), write=str(target), workers=1, **more)).run()
    assert not account.unbalanced
    return account


def test_frames(tmp_path):
    """Every link type, with and without addresses and tags, from pcaps and pcapngs of both byte orders."""
    for order, vlan in itertools.product("<>", (None, 0, 7)):
        interfaces = [Interface(link_type, 6, 0) for link_type in PACKETS]
        packets = [
            Packet(number, data, len(data) + 5, interface, ((1, b"a comment"),) if number == 0 else ())
            for interface, kinds in enumerate(PACKETS.values())
            for number, data in enumerate(kinds)
        ]
        data, read, _ = encode([(order, [*interfaces, *((6, packet) for packet in packets)])])
        (tmp_path / "in.pcapng").write_bytes(data)
        more = MACS | ({} if vlan is None else {"vlan": vlan})
        run(tmp_path / "out.pcapng", tmp_path / "in.pcapng", **more)
        expected = []
        for packet in read:
            frame = framed(packet.data, packet.link_type, SOURCE, TARGET, vlan)
            wire_length = packet.wire_length + len(frame) - len(packet.data)
            expected.append(packet._replace(data=frame, link_type=1, wire_length=wire_length))
        got, options, _ = twin.read_pcapng((tmp_path / "out.pcapng").read_bytes())
        assert got == expected, (order, vlan)
        assert sum(b"a comment" in value for each in options for _, value in each) == len(PACKETS)
    for link_type, kinds in PACKETS.items():
        packets = [Packet(number, data, len(data)) for number, data in enumerate(kinds)]
        (tmp_path / "in.pcap").write_bytes(twin.pcap_bytes(packets, ">", 6, link_type))
        run(tmp_path / "out.pcap", tmp_path / "in.pcap", target_mac="02:00:00:00:00:02", source_mac=MACS["source_mac"])
        read, _ = twin.read_pcap((tmp_path / "out.pcap").read_bytes())
        assert [each.data for each in read] == [framed(data, link_type, SOURCE, TARGET, None) for data in kinds]


def test_what_cannot_be_framed(tmp_path):
    for link_type, more, words in (
        (101, {"target_mac": MACS["target_mac"]}, "give source_mac"),
        (113, {"vlan": 3}, "give target_mac"),
        (147, MACS, "cannot make Ethernet frames of packets of link type 147"),
    ):
        (tmp_path / "in.pcap").write_bytes(twin.pcap_bytes([Packet(1, IP4, 40)], "<", 6, link_type))
        with pytest.raises(SourceError, match=words):
            run(tmp_path / "out.pcap", tmp_path / "in.pcap", **more)
    packets = [Packet(1, IP4, 31), Packet(2, b"\x00junk", 5), Packet(3, b"", 0), Packet(4, IP6, 45)]
    (tmp_path / "in.pcap").write_bytes(twin.pcap_bytes(packets, "<", 6, 101))
    account = run(tmp_path / "out.pcap", tmp_path / "in.pcap", **MACS)
    assert account.exit_status == 3
    assert account.json()["packets"] == {"read": 4, "written": 2, "dropped": {"source.not_framed": 2}}
    for more, words in (
        ({"mtu": 60}, "mtu must be 0, or 68"), ({"source_mac": "02:00"}, "source_mac must be an Ethernet address"),
        ({"loop": 0}, "loop 0 would fill"), ({"over_mtu": "cut"}, "over_mtu has no effect"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            run(tmp_path / "out.pcap", tmp_path / "in.pcap", **more)


def tcp_packet(payload, tags=b""):
    tcp = dpkt.tcp.TCP(sport=80, dport=5000, seq=2**32 - 1000, ack=7, flags=0x19, data=payload)
    ip = dpkt.ip.IP(src=b"\x0a\0\0\x01", dst=b"\x0a\0\0\x02", p=6, ttl=9, id=65535, data=tcp, len=40 + len(payload))
    return bytes(12) + tags + b"\x08\x00" + bytes(ip)


def test_longer_than_the_mtu(tmp_path):
    """TCP in segments whose sums dpkt finds true, and everything else cut off, with its length on the wire."""
    payload = bytes(i * 7 % 256 for i in range(4000))
    udp = bytes(12) + b"\x08\x00" + bytes(dpkt.ip.IP(src=b"\x0a\0\0\x01", dst=b"\x0a\0\0\x02", p=17, data=bytes(2980)))
    fits = tcp_packet(bytes(1460))
    for tags, mtu in ((b"", 1500), (TAG, 1500), (b"", 576)):
        packets = [Packet(1, tcp_packet(payload, tags), 0), Packet(2, udp, 0), Packet(3, fits, 0)]
        packets = [packet._replace(wire_length=len(packet.data)) for packet in packets]
        packets.append(Packet(5, tcp_packet(payload)[:3000], 4054))
        (tmp_path / "in.pcap").write_bytes(twin.pcap_bytes(packets))
        account = run(tmp_path / "out.pcap", tmp_path / "in.pcap", mtu=mtu)
        read, _ = twin.read_pcap((tmp_path / "out.pcap").read_bytes())
        assert all(len(each.data) <= mtu + 14 + len(tags) for each in read)
        segments = [each.data for each in read if each.timestamp_ns == 1000]
        assert len(segments) == -(-4000 // (mtu - 40))
        sent, sequence = b"", 2**32 - 1000
        for number, frame in enumerate(segments):
            assert frame[: 14 + len(tags)] == tcp_packet(b"", tags)[: 14 + len(tags)]
            raw = frame[14 + len(tags) :]
            ip = dpkt.ip.IP(raw)
            assert (ip.len, ip.id, ip.data.seq) == (len(raw), (65535 + number) % 65536, sequence % 2**32)
            assert ip.data.flags == (0x19 if number + 1 == len(segments) else 0x10)
            sums = ip.sum, ip.data.sum
            ip.sum = ip.data.sum = 0
            again = dpkt.ip.IP(bytes(ip))
            assert sums == (again.sum, again.data.sum)
            sent, sequence = sent + ip.data.data, sequence + len(ip.data.data)
        assert sent == payload
        (cut,) = [each for each in read if each.timestamp_ns == 2000]
        assert (cut.data, cut.wire_length) == (udp[: mtu + 14], len(udp))
        (torn,) = [each for each in read if each.timestamp_ns == 5000]
        assert (torn.data, torn.wire_length) == (packets[3].data[: mtu + 14], 4054)
        assert account.counters.packets("source.segmented") == len(read) - len(packets)
        assert account.counters.events("source.cut_to_mtu") == 2
        run(tmp_path / "out.pcap", tmp_path / "in.pcap", mtu=mtu, over_mtu="cut")
        read, _ = twin.read_pcap((tmp_path / "out.pcap").read_bytes())
        assert [each.data for each in read] == [
            packet.data[: mtu + 14 + (len(tags) if number == 0 else 0)] for number, packet in enumerate(packets)
        ]


def test_loops(tmp_path):
    """Each turn begins after the newest packet of the last, by the mean gap; of several captures as of one."""
    times = [10, 30, 20, 70]  # mean gap 20
    (tmp_path / "a.pcap").write_bytes(twin.pcap_bytes([Packet(time, b"x", 1) for time in times]))
    data, _, _ = encode([(">", [Interface(1, 6, 0), *((6, Packet(time, b"x", 1)) for time in times)])])
    (tmp_path / "a.pcapng").write_bytes(data)
    for name in ("a.pcap", "a.pcapng"):
        run(tmp_path / f"out-{name}", tmp_path / name, loop=3, shift="0.000005")
        read = (tmp_path / f"out-{name}").read_bytes()
        packets = twin.read_pcap(read)[0] if name == "a.pcap" else twin.read_pcapng(read)[0]
        expected = [5 + time + turn * 80 for turn in range(3) for time in times]
        assert [each.timestamp_ns // 1000 for each in packets] == expected
    account = run(tmp_path / "out.pcap", tmp_path / "a.pcap", loop=0, count=10, from_="0.000020")
    read, _ = twin.read_pcap((tmp_path / "out.pcap").read_bytes())
    assert [each.timestamp_ns // 1000 for each in read] == [
        time + turn * 80 for turn in range(4) for time in times if time >= 20
    ][:10]
    assert account.counters.packets("limits.outside_time") == 4
    paths = [str(tmp_path / name) for name in ("a.pcap", "a.pcapng")]
    account = Pipeline(Config(read=paths, write=str(tmp_path / "both.pcapng"), workers=1, loop=2)).run()
    assert account.json()["packets"]["written"] == 16
    with pytest.raises(UsageError, match="loop needs files"):
        Config(read="-", write="out.pcap", loop=2, workers=1)
