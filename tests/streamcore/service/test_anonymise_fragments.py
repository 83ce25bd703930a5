"""Later fragments follow what was decided of their first one in the same segment; alone they are not understood."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore import read
from streamcore.core.packets import Segment
from streamcore.service.anonymise import Anonymise
from tests.streamcore.fuzz.inputs import SHIPPED
from tests.streamcore.fuzz.pieces import pieces4, pieces6

KEY = bytes(range(7, 39)).hex()
UDP, ICMP, SCTP, OSPF = 17, 1, 132, 89
NEEDLE = ipaddress.ip_address("198.51.100.23").packed


def udp(body: bytes, source: int = 5000, target: int = 6000) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(body), 0) + body


def echo(body: bytes) -> bytes:
    return b"\x08\0\0\0\0\1\0\1" + body


def anonymise(packets: list[bytes], **options: str) -> tuple[list[bool], list[bytes]]:
    """(which are kept, all as they are then)."""
    service = Anonymise(key=KEY, **options)
    service.start()
    view = run(make_segment(packets), service)
    keep = view.result().keep
    return [True] * len(packets) if keep is None else [bool(each) for each in keep], packets_of(view)


BODY = bytes(range(200))


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
@pytest.mark.parametrize(("protocol", "datagram"), [(UDP, udp(BODY)), (ICMP, echo(BODY))])
@pytest.mark.parametrize("reverse", [False, True])
def test_fragments_whose_first_one_is_there_pass_in_any_order(pieces, protocol, datagram, reverse):
    packets = pieces(datagram, 58 if protocol == ICMP and pieces is pieces6 else protocol, 7, 64)
    if protocol == ICMP and pieces is pieces6:
        packets = pieces(b"\x80" + datagram[1:], 58, 7, 64)
    ordered = packets[::-1] if reverse else packets
    kept, got = anonymise(ordered)
    assert all(kept)
    payload = 34 if pieces is pieces4 else 62
    assert [each[payload + 8 :] for each in got] == [each[payload + 8 :] for each in ordered]
    assert not any(each[26:34] == before[26:34] for each, before in zip(got, ordered, strict=True))


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
@pytest.mark.parametrize("options", [{}, {"payload": "zero"}, {"preset": "share"}])
def test_without_its_first_one_a_fragment_is_not_understood(pieces, options):
    packets = pieces(udp(BODY), UDP, 7, 64)
    assert anonymise(packets[1:], **options)[0] == [False] * (len(packets) - 1)
    others = pieces(udp(BODY), UDP, 8, 64)
    assert anonymise([others[0], *packets[1:]], **options)[0] == [True] + [False] * (len(packets) - 1)


def test_fragments_that_are_not_of_ip_are_not_understood():
    """PPP's multilink has fragments, too; the first of these is whole and has an IP header."""
    first = bytes.fromhex("ff03003d800000000021") + pieces4(udp(BODY), UDP, 7, 2000)[0][14:]
    service = Anonymise(key=KEY)
    service.start()
    result = run(make_segment([first, bytes.fromhex("ff03003d00000001")], link_type=9), service).result()
    assert list(result.keep) == [True, False]
    assert {reason: count for reason, (count, _) in result.drops.items()} == {"not_understood": 1}


def test_those_whose_first_one_is_elsewhere_are_counted_apart():
    """Not those whose first one is there and says that more than payload may follow, nor one that an error quotes: they
    are not understood.
    """
    service = Anonymise(key=KEY)
    service.start()
    alone, told = pieces4(udp(BODY), UDP, 7, 64)[1:], pieces4(udp(BODY, 67, 68), UDP, 8, 64)
    quoting = pieces4(b"\x03" + bytes(7) + alone[0][14:], ICMP, 9, 2000)
    inner = pieces6(udp(BODY), UDP, 7, 64)[1:]
    result = run(make_segment([*alone, *told, *quoting, *inner]), service).result()
    assert result.drops["first_fragment_elsewhere"][0] == len(alone) + len(inner)
    assert result.drops["not_understood"][0] == len(told) - 1 + 1
    for _, report in result.reports:
        service.merge(report)
    dropped = service.summary()["dropped"]
    assert dropped["first fragment elsewhere"] == len(alone) + len(inner)
    assert sum(dropped.values()) == sum(packets for packets, _ in result.drops.values())


def test_a_fragment_that_overlaps_its_first_ones_headers_is_not_understood():
    first, *later = pieces4(udp(BODY), UDP, 7, 64)
    overlapping = bytearray(later[0])
    overlapping[20:22] = b"\x20\x00"  # offset 0: a second first one, with a TCP header's worth of anything
    tiny = bytearray(later[0])
    tiny[20:22] = b"\x20\x01"  # offset 8, where the UDP header ends
    assert anonymise([first, bytes(tiny)])[0] == [True, True]
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 5 << 4, 2, 9, 0, 0)
    first = pieces4(tcp + BODY, 6, 7, 64)[0]
    over_tcp = bytearray(pieces4(tcp + BODY, 6, 7, 64)[1])
    for offset, kept in ((1, False), (2, False), (3, True)):  # in words of 8 bytes: 20 bytes are the header's
        over_tcp[20:22] = struct.pack(">H", 0x2000 | offset)
        assert anonymise([first, bytes(over_tcp)])[0] == [True, kept]


@pytest.mark.parametrize(
    ("protocol", "datagram", "options"),
    [
        (UDP, udp(bytes(236) + b"\x63\x82\x53\x63" + BODY, 67, 68), {}),  # DHCP: options go on
        (UDP, udp(BODY, 53, 4000), {"names": "replace"}),  # DNS
        (UDP, udp(b"INVITE sip:a@b SIP/2.0\r\n" + BODY, 4000, 4001), {"names": "replace"}),
        (SCTP, bytes(12) + BODY, {}),  # chunks
        (ICMP, b"\x03\0\0\0\0\0\0\0\x45" + BODY, {}),  # an error: what it quotes
        (OSPF, b"\x02\x04\0\xd0" + BODY, {}),
        (UDP, udp(BODY, 4000, 4789), {}),  # no VXLAN that is believed
        (99, BODY, {}),
    ],
)
def test_what_may_tell_addresses_further_on_is_not_passed(protocol, datagram, options):
    packets = pieces4(datagram, protocol, 7, 256 if protocol == UDP and len(datagram) > 300 else 64)
    kept, _ = anonymise(packets, **options)
    assert not any(kept[1:])


def test_with_payloads_zeroed_nothing_of_a_later_fragment_is_left():
    packets = pieces4(bytes(12) + NEEDLE * 40, SCTP, 7, 64)
    kept, got = anonymise(packets, payload="zero")
    assert all(kept)
    assert not any(NEEDLE in each for each in got)
    kept, got = anonymise(packets, payload="truncate")
    assert [len(each) for each in got[1:]] == [34] * (len(packets) - 1)


def test_two_first_ones_of_one_datagram_that_contradict_each_other():
    first, *later = pieces4(udp(BODY), UDP, 7, 64)
    liar = pieces4(udp(BODY, 67, 68), UDP, 7, 64)[0]
    for order in ([first, liar], [liar, first]):
        assert anonymise([*order, *later])[0][2:] == [False] * len(later)


def test_the_table_is_bounded_and_nothing_outlives_a_segment():
    """More datagrams than there is room for: those that found none lose their later fragments, and the next segment
    starts anew.
    """
    count, room = 20_000, 1 << 14
    pairs = [pieces4(udp(BODY[:100]), UDP, number % 65536, 64) for number in range(count)]
    service = Anonymise(key=KEY)
    service.start()
    view = run(make_segment([packet for pair in pairs for packet in pair]), service)
    assert int(view.result().keep.sum()) == count + room
    view = run(make_segment([pairs[-1][0], pairs[-1][1], pairs[0][1]]), service)
    assert view.result().keep.tolist() == [1, 1, 0]


def test_the_pings_of_the_shipped_capture():
    """Their later fragments were dropped once: 16 packets."""
    service = Anonymise(key=KEY)
    service.start()
    dropped = packets = 0
    with read(SHIPPED) as reader:
        for batch in reader:
            view = run(Segment(0, batch, 0, len(batch)), service)
            packets += int((batch.fragment_offset > 0).sum())
            keep = view.result().keep
            dropped += 0 if keep is None else int((keep[batch.fragment_offset > 0] == 0).sum())
    assert packets > 0
    assert dropped == 0


def test_whatever_the_order_the_same_fragments_pass():
    rng = random.Random(5)
    packets = [each for number in range(20) for each in pieces4(udp(BODY), UDP, number, 8 * rng.randrange(1, 9))]
    packets = [each for each in packets if rng.random() > 0.1]
    kept = dict(zip(packets, anonymise(packets)[0], strict=True))
    assert set(kept.values()) == {True, False}
    for _ in range(5):
        rng.shuffle(packets)
        assert dict(zip(packets, anonymise(packets)[0], strict=True)) == kept
