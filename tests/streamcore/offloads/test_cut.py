"""Super-packets are cut as scapy, the twin, would have made the segments; checksums are completed as they should be."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from streamcore.offloads._cut import completed, cut_packet
from tests.examples import examples
from tests.streamcore.offloads import twin

ETHERNET = 1
MSS = ("MSS", 1460)
STAMP = ("Timestamp", (1, 2))


def super_packet(link, version, tcp, payload, segment_bytes, *, ecn=False, options=(), sequence=1, extension=False):
    """(bytes as the kernel gives them, what they leave to hardware, the segments by scapy)."""

    def make(part, beyond, number, *, first=False, last=False):
        flags = "A" + ("F" if last else "") + ("P" if last else "") + ("C" if ecn and first else "")
        made = twin.packet(
            twin.link(link), version, tcp, part, flags=flags, sequence=(sequence + beyond) % 2**32,
            options=options, identification=65_530, extension=extension,
        )  # fmt: skip
        twin.identify(made, number)
        return bytes(twin.rebuilt(made))

    whole = make(payload, 0, 0, first=True, last=True)
    transport = len(whole) - len(payload) - ((20 + option_bytes(options)) if tcp else 8)
    offset = 16 if tcp else 6
    kind = (twin.TCP4 if version == 4 else twin.TCP6) if tcp else twin.UDP_SEGMENTS
    told = (twin.NEEDS_CHECKSUM, kind | twin.ECN * ecn, 0, segment_bytes, transport, offset)
    return twin.partial(whole, transport, transport + offset), told, twin.cut(make, payload, segment_bytes)


def option_bytes(options):
    return len(bytes(TCP(options=list(options)))) - 20


@settings(max_examples=examples(400), deadline=None)
@given(
    link=st.sampled_from(twin.LINKS),
    version=st.sampled_from([4, 6]),
    tcp=st.booleans(),
    size=st.integers(1, 3_000),
    segment_bytes=st.integers(1, 1_500),
    ecn=st.booleans(),
    options=st.sampled_from([(), (STAMP,), (MSS, STAMP)]),
    sequence=st.sampled_from([1, 2**31, 2**32 - 5]),
    extension=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_super_packet_is_cut_as_scapy_would_have_sent_it(
    link, version, tcp, size, segment_bytes, ecn, options, sequence, extension, seed
):
    segment_bytes = max(segment_bytes, size // 40)
    payload = random.Random(seed).randbytes(size)
    hidden = link == "vxlan of linux"  # then the header before the transport must be a plain one
    data, told, wanted = super_packet(
        link, version, tcp, payload, segment_bytes, ecn=ecn and tcp, options=options if tcp else (),
        sequence=sequence, extension=extension and not hidden,
    )  # fmt: skip
    found = cut_packet(data, ETHERNET, told)
    assert found is not None
    assert [each.hex() for each in found] == [each.hex() for each in wanted]


def test_the_longest_packet_is_cut():
    payload = random.Random(7).randbytes(65_535 - 40)
    data, told, wanted = super_packet("vlan", 4, True, payload, 1448)
    assert cut_packet(data, ETHERNET, told) == wanted
    assert len(wanted) == 46


def test_without_a_checksum_left_to_hardware_the_addresses_give_the_sum():
    data, told, wanted = super_packet("plain", 6, True, bytes(3000), 1000)
    assert cut_packet(wanted[0][:54] + data[54:], ETHERNET, (0, *told[1:4], 0, 0)) is not None
    field = told[4] + told[5]
    whole = completed(data, told[4], told[5])
    assert cut_packet(whole, ETHERNET, (0, *told[1:4], 0, 0)) == wanted
    assert whole[field : field + 2] != data[field : field + 2]


def test_datagrams_without_a_checksum_get_none():
    whole = bytes(twin.packet(twin.link("plain"), 4, False, bytes(100)))
    whole = whole[:40] + b"\0\0" + whole[42:]
    segments = cut_packet(whole, ETHERNET, (0, twin.UDP_SEGMENTS, 0, 60, 0, 0))
    assert [len(each) for each in segments] == [102, 82]
    assert all(each[40:42] == b"\0\0" for each in segments)


@pytest.mark.parametrize(
    "told",
    [
        (1, 1, 0, 0, 34, 16),  # segments of no byte
        (1, 1, 0, 1, 34, 16),  # more segments than one packet may have
        (1, 1, 0, 500, 33, 16),  # no header begins there
        (1, 1, 0, 500, 34, 14),  # the checksum is elsewhere
        (1, 4, 0, 500, 65_535, 16),
        (1, 5, 0, 500, 34, 6),  # it is TCP
        (1, 3, 0, 500, 34, 6),  # fragments of UDP, which nobody sends
        (1, 77, 0, 500, 34, 16),
    ],
)
def test_what_contradicts_the_packet_is_not_cut(told):
    data, _, _ = super_packet("plain", 4, True, bytes(3000), 1448)
    assert cut_packet(data, ETHERNET, told) is None


def test_no_beginning_of_a_packet_is_read_beyond():
    data, told, _ = super_packet("vxlan", 4, True, bytes(50), 20)
    for size in range(len(data)):
        cut_packet(data[:size], ETHERNET, told)  # an over-read ends the process under make fuzz
        assert completed(data[:size], told[4], told[5]) is None or size > told[4] + told[5] + 1


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from(twin.LINKS), st.sampled_from([4, 6]), st.booleans(), st.binary(max_size=80))
def test_a_checksum_is_completed(link, version, tcp, payload):
    whole = bytes(twin.packet(twin.link(link), version, tcp, payload))
    start = len(whole) - len(payload) - (20 if tcp else 8)
    offset = 16 if tcp else 6
    found = completed(twin.partial(whole, start, start + offset), start, offset)
    field = slice(start + offset, start + offset + 2)
    assert found[: field.start] + found[field.stop :] == whole[: field.start] + whole[field.stop :]
    assert found[field] == whole[field] or (found[field], whole[field]) == (b"\xff\xff", b"\0\0")
