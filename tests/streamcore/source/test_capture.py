"""The source beside captures that `struct` wrote: every packet, whatever the format, the chunk and the damage."""

import struct

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena
from streamcore.source.capture import CaptureSource
from tests.examples import examples
from tests.streamcore import twin
from tests.streamcore.twin import Interface, Packet, Read

DATA = st.binary(max_size=200)


def packets_of(source):
    """Every packet that a source delivers, as the twin has them."""
    number = 0
    for batch in source:
        assert batch.first_number == number
        number += len(batch)
        for row in range(len(batch)):
            interface = source.interfaces[batch.interface[row]]
            yield Read(
                int(batch.timestamp_ns[row]),
                int(batch.wire_length[row]),
                batch.packet(row).tobytes(),
                interface.link_type,
            )


def read_all(path, chunk_bytes=1 << 20, rows_max=1 << 12):
    """(packets, damage) of a capture, read with a chunk of that size."""
    with CaptureSource(path, Arena(2, chunk_bytes, rows_max)) as source:
        return list(packets_of(source)), source.damage


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("source") / "capture"


def some_packets(ticks_max):
    return st.lists(
        st.builds(Packet, st.integers(0, ticks_max), DATA, st.integers(0, 2**32 - 1)), min_size=0, max_size=40
    )


@given(
    some_packets((2**32 - 1) * 10**6), st.sampled_from("<>"), st.sampled_from([6, 9, "kuznetzov"]),
    st.integers(256, 2000), st.integers(1, 50), st.integers(0, 65535),
)  # fmt: skip
def test_pcap(path, packets, order, kind, chunk_bytes, rows_max, link_type):
    path.write_bytes(twin.pcap_bytes(packets, order, kind, link_type))
    digits = 9 if kind == 9 else 6
    expected = [Read(twin.nanoseconds(p.ticks, digits), p.wire_length, p.data, link_type) for p in packets]
    assert read_all(path, chunk_bytes, rows_max) == (expected, None)


def test_packets_as_long_as_the_header_allows(path):
    """Longer than 262,144 bytes if it says so, or sets no limit in a pcapng; otherwise they are damage, as before."""
    long = Packet(1, bytes(700_000), 700_000)
    for data, read in (
        (twin.pcap_bytes([long], snap_length=1 << 20), True),
        (twin.pcap_bytes([long], snap_length=65_535), False),
        (encode([("<", [Interface(1, 6, 0), (6, long)])])[0], True),
        (encode([(">", [Interface(1, 6, 1 << 20), (6, long)])])[0], True),
        (encode([("<", [Interface(1, 6, 65_535), (6, long)])])[0], False),
    ):
        path.write_bytes(data)
        with CaptureSource(path, Arena(2, 1 << 20, 1 << 10)) as source:
            assert [batch.captured_length.tolist() for batch in source] == ([[700_000]] if read else [])
            assert bool(source.damage) != read


def test_more_interfaces_than_a_column_can_number(path, monkeypatch):
    """Over a file's sections. Those beyond share the number of one that is read alike."""
    monkeypatch.setattr("streamcore.source.capture.INTERFACES_MAX", 3)
    kinds = [Interface(1, 6), Interface(101, 9), Interface(1, 6, 96), Interface(1, 6), Interface(101, 9)]
    path.write_bytes(encode([("<", [kind, (6, Packet(5, b"x", 1))]) for kind in kinds])[0])
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 10)) as source:
        (batch,) = source
        assert (batch.interface.tolist(), batch.timestamp_ns.tolist()) == ([0, 1, 2, 0, 1], [5000, 5, 5000, 5000, 5])
        assert source.damage is None
    path.write_bytes(path.read_bytes() + encode([("<", [Interface(113, 6), (6, Packet(5, b"x", 1))])])[0])
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 10)) as source:
        assert sum(len(batch) for batch in source) == 5
        assert "an interface of another kind than the 3 before it" in str(source.damage)


def test_a_capture_behind_a_capture_is_named(path):
    """As `cat a.pcap b.pcap` makes it: the second header is no packet."""
    for order in "<>":
        one = twin.pcap_bytes([Packet(1, b"abcd", 4)], order)
        path.write_bytes(one * 2)
        with CaptureSource(path, Arena(2, 1 << 16, 1 << 10)) as source:
            assert sum(len(batch) for batch in source) == 1
            assert str(source.damage).startswith(
                f"at byte {len(one)} another capture begins: join captures with mergecap"
            )


def test_pcap_fields_that_overflow_count_on(path):
    """Microseconds beyond a second, and seconds beyond 2038, as wireshark takes them."""
    head = twin.pcap_bytes([])
    path.write_bytes(head + struct.pack("<IIII", 2**32 - 1, 2**32 - 1, 0, 60))
    assert read_all(path)[0] == [Read((2**32 - 1) * 10**9 + (2**32 - 1) * 1000, 60, b"", 1)]


RESOLUTIONS = st.sampled_from([0, 3, 6, 9, 10, 12, 19, 28, 29, 40, 0x80, 0x81, 0x80 | 10, 0x80 | 32, 0x80 | 64, 0xFF])
INTERFACES = st.builds(
    Interface, st.integers(0, 65535), RESOLUTIONS, st.sampled_from([0, 10, 100, 65535]),
    st.sampled_from([0, 0, 1, -1, 2**62, -(2**62)]), st.sampled_from(["", "eth0", "ein Gerät"]),
)  # fmt: skip
STRANGE = st.sampled_from(["custom", "names", "huge"])


@st.composite
def sections(draw):
    """[(byte order, [interface | (kind, packet) | strange block])]; interfaces stand before their packets."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        items, interfaces = [], []
        for _ in range(draw(st.integers(0, 12))):
            what = draw(st.sampled_from(["interface", "packet", "packet", "packet", "strange"]))
            if what == "interface" or (what == "packet" and not interfaces):
                interfaces.append(draw(INTERFACES))
                items.append(interfaces[-1])
            elif what == "packet":
                number = draw(st.integers(0, len(interfaces) - 1))
                data, kind = draw(DATA), draw(st.sampled_from([6, 6, 2, 3]))
                if kind == 3:
                    number = 0
                    snap = interfaces[0].snap_length
                    data = data[:snap] if snap else data
                    wire = draw(st.integers(len(data), 2**32 - 1)) if len(data) == snap and snap else len(data)
                else:
                    wire = draw(st.integers(0, 2**32 - 1))
                options = draw(st.sampled_from([(), ((1, b"a comment"),), ((2, bytes(4)), (1, b""))]))
                items.append((kind, Packet(draw(st.integers(0, 2**64 - 1)), data, wire, number, options)))
            else:
                items.append(draw(STRANGE))
        made.append((draw(st.sampled_from("<>")), items))
    return made


def encode(made):
    """(bytes, packets as they should be read, strange blocks) of drawn sections."""
    parts, expected, strange = [], [], 0
    for order, items in made:
        parts.append(twin.section_bytes(order))
        interfaces = []
        for item in items:
            if isinstance(item, Interface):
                interfaces.append(item)
                parts.append(twin.interface_bytes(order, item))
            elif isinstance(item, str):
                size = {"custom": 40, "names": 8, "huge": 5000}[item]
                parts.append(twin.block(order, {"custom": 0xBAD, "names": 4, "huge": 0x80000001}[item], bytes(size)))
                strange += 1
            else:
                kind, packet = item
                interface = interfaces[packet.interface]
                parts.append(
                    twin.simple_bytes(order, packet) if kind == 3 else twin.enhanced_bytes(order, packet, kind)
                )
                ns = 0 if kind == 3 else twin.nanoseconds(packet.ticks, interface.resolution, interface.offset_s)
                expected.append(Read(ns, packet.wire_length, packet.data, interface.link_type))
    return b"".join(parts), expected, strange


@settings(max_examples=examples(100), deadline=None)
@given(sections(), st.integers(512, 6000), st.integers(1, 50))
def test_pcapng(path, made, chunk_bytes, rows_max):
    data, expected, strange = encode(made)
    path.write_bytes(data)
    with CaptureSource(path, Arena(2, chunk_bytes, rows_max)) as source:
        assert list(packets_of(source)) == expected
        assert source.damage is None
        assert source.blocks_skipped == strange
        described = [item for _, items in made for item in items if isinstance(item, Interface)]
        assert [(i.link_type, i.resolution, i.snap_length, i.offset_s, i.name) for i in source.interfaces] == described


@settings(max_examples=examples(25), deadline=None)
@given(sections(), st.integers(512, 6000))
def test_a_capture_that_is_cut_anywhere_gives_what_came_before(path, made, chunk_bytes):
    data, expected, _ = encode(made)
    whole_sections = data.find(b"\x0a\x0d\x0d\x0a") + int.from_bytes(data[4:8], "little" if data[8] == 0x4D else "big")
    for cut in range(whole_sections, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:cut])
        got, damage = read_all(path, chunk_bytes)
        assert got == expected[: len(got)]
        if damage is not None:
            assert whole_sections <= damage.offset < cut
            assert "ends within" in damage.reason


def test_a_pcap_that_is_cut_anywhere_gives_what_came_before(path):
    packets = [Packet(i, bytes(i), i + 4) for i in range(12)]
    data = twin.pcap_bytes(packets)
    ends = [24]
    for packet in packets:
        ends.append(ends[-1] + 16 + len(packet.data))
    for cut in range(24, len(data) + 1):
        path.write_bytes(data[:cut])
        got, damage = read_all(path, 4096)
        whole = sum(end <= cut for end in ends) - 1
        assert [p.data for p in got] == [p.data for p in packets[:whole]]
        assert (damage is None) == (cut in ends)
        assert damage is None or damage.offset == ends[whole]


def test_dpkt_sees_the_same(path):
    """An independent reader of pcapng, for what it can read."""
    made = [("<", [Interface(), *[(6, Packet(i * 10**6, bytes([i]) * i, i)) for i in range(50)]])]
    path.write_bytes(encode(made)[0])
    with path.open("rb") as file:
        theirs = [(round(t * 10**9), data) for t, data in dpkt.pcapng.Reader(file)]
    assert [(p.timestamp_ns, p.data) for p in read_all(path)[0]] == theirs


DAMAGED = {  # what is put behind one good packet -> the reason
    "pcap": {
        "a packet of 262145 bytes": (struct.pack("<IIII", 0, 0, 262_145, 262_145) + bytes(300_000), "more than 262144"),
        "a packet of 4 GiB": (struct.pack("<IIII", 0, 0, 2**32 - 1, 60) + bytes(99), "4294967295 captured bytes"),
        "half a header": (bytes(7), "ends within a record, 7 bytes"),
    },
    "pcapng": {
        "an odd length": (struct.pack("<III", 0xBAD, 13, 0) + bytes(99), "a block of 13 bytes"),
        "a length of 0": (struct.pack("<III", 6, 0, 0) + bytes(99), "a block of 0 bytes"),
        "lengths that differ": (struct.pack("<IIII", 0xBAD, 16, 0, 20), "says 20 at its end"),
        "a packet beyond its block": (
            twin.block("<", 6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + bytes(8)), "9 captured bytes in a block",
        ),
        "an interface that was not described": (
            twin.block("<", 6, struct.pack("<IIIII", 1, 0, 0, 0, 0)), "interface 1, and 1 interfaces",
        ),
        "an enhanced block without room": (twin.block("<", 6, bytes(16)), "a block of 28 bytes"),
        "a simple block without room": (twin.block("<", 3, b""), "a block of 12 bytes"),
        "a packet block larger than a chunk": (struct.pack("<II", 6, 1 << 24) + bytes(99), "more than a chunk"),
        "an unknown block of 2 GiB": (struct.pack("<II", 0xBAD, 1 << 31) + bytes(99), "more than 134217728"),
        "a section without byte order": (
            struct.pack("<III", 0x0A0D0D0A, 28, 0) + bytes(12) + struct.pack("<I", 28), "without a byte order",
        ),
        "a section whose lengths differ": (twin.section_bytes()[:-4] + bytes(4), "two lengths differ"),
        "an interface whose lengths differ": (twin.interface_bytes("<", Interface())[:-4] + bytes(4), "lengths differ"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("family", "what"), [(family, what) for family in DAMAGED for what in DAMAGED[family]])
def test_damage_ends_the_capture_where_it_is(path, family, what):
    good = Packet(5, b"good", 4)
    data = {
        "pcap": twin.pcap_bytes([good]),
        "pcapng": twin.section_bytes() + twin.interface_bytes("<", Interface()) + twin.enhanced_bytes("<", good),
    }[family]
    damage, reason = DAMAGED[family][what]
    path.write_bytes(data + damage)
    got, found = read_all(path)
    assert got == [Read(5000, 4, b"good", 1)]
    assert found is not None
    assert found.offset == len(data)
    assert reason in found.reason


def test_a_byte_changed_anywhere_is_never_an_error_beyond_damage(path):
    """Every byte of two small captures, set to three values: damage at most, nothing else is raised."""
    made = [
        ("<", [Interface(), (6, Packet(1, b"one", 3)), "custom", (3, Packet(0, b"two", 3)), (2, Packet(3, b"333", 3))]),
        (">", [Interface(101), (6, Packet(4, b"four", 4, 0, ((1, b"note"),)))]),
    ]
    for data in (encode(made)[0], twin.pcap_bytes([Packet(i, bytes(i), i) for i in range(5)])):
        for at in range(len(data)):
            for value in (0, 0x7F, 0xFF):
                path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
                try:
                    read_all(path, 4096, 64)
                except SourceError as error:
                    assert at < 40, "only the very beginning may keep it from being a capture"
                    assert "\n" not in str(error)  # noqa: PT017


def test_batches_say_when_their_records_touch(path):
    """What the sink copies in one piece must be one kind of record, gapless, under its own interface number."""
    packets = [(6, Packet(i, bytes(i), i)) for i in range(8)]

    def flags(made, rows_max=100):
        path.write_bytes(encode(made)[0])
        with CaptureSource(path, Arena(4, 1 << 16, rows_max)) as source:
            return [batch.contiguous for batch in source]

    assert flags([("<", [Interface(), *packets])]) == [True]
    assert flags([("<", [Interface(), *packets])], 3) == [True, True, True]
    assert flags([("<", [Interface(), *packets[:4], "custom", *packets[4:]])]) == [False]
    assert flags([("<", [Interface(), *packets[:4], Interface(), *packets[4:]])]) == [False]
    assert flags([("<", [Interface(), (6, packets[0][1]), (2, packets[1][1])])]) == [False]
    assert flags([("<", [Interface()]), ("<", [Interface(), *packets])]) == [False]
    path.write_bytes(twin.pcap_bytes([p for _, p in packets]))
    with CaptureSource(path, Arena(4, 1 << 16, 3)) as source:
        assert [batch.contiguous for batch in source] == [True, True, True]
