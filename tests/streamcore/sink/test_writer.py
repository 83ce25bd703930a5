"""The sink beside readers that use `struct` alone and beside dpkt: what went in comes out, in whichever format."""

import gzip
import io
import struct

import dpkt
import lz4.frame
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.aggregate._aggregator import Aggregator
from streamcore.core.capture_form import Block, Blocks, CaptureForm
from streamcore.core.capture_form import Interface as StreamInterface
from streamcore.core.errors import SinkError
from streamcore.core.packets import Arena, Outgoing
from streamcore.disperse._results import KEEP, KEYS, LENGTHS, PACKED, read_result, write_result
from streamcore.segment._segmenter import Segmenter
from streamcore.sink.sections import Sections
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource
from tests.examples import examples
from tests.streamcore import twin
from tests.streamcore.source.test_capture import encode, sections
from tests.streamcore.twin import Interface, Packet, Read

EVERYTHING = PACKED | LENGTHS | KEEP | KEYS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sink")


def all_of(batch):
    return [Outgoing(batch, 0, len(batch))]


def copy(source_path, target_path, outgoings=all_of, chunk_bytes=1 << 16, whole=None, **more):
    """Source to sink, through Outgoings that a test makes of each batch: (packets, bytes) as the sink counted them.

    whole: sections stay, or the other blocks alone; None: neither.
    """
    counts = np.zeros(2, int)
    with CaptureSource(source_path, Arena(2, chunk_bytes, 1 << 10), keep_blocks=whole is not None) as source:
        sections = Sections(source.blocks, whole, False) if whole is not None else None
        sink = open_capture(target_path, interfaces=source.interfaces, form=source.form, sections=sections, **more)
        for batch in source:
            for outgoing in outgoings(batch):
                counts += sink.write(outgoing)
            del batch, outgoing
        sink.close()
    return tuple(counts.tolist())


def inner(path):
    """A file's bytes, decompressed by other libraries than our reader uses."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    if path.suffix == ".lz4":
        return lz4.frame.open(io.BytesIO(data)).read()
    return data


PCAPS = st.tuples(
    st.lists(
        st.builds(Packet, st.integers(0, (2**32 - 1) * 10**6), st.binary(max_size=100), st.integers(0, 2**32 - 1)),
        max_size=30,
    ),
    st.sampled_from("<>"), st.sampled_from([6, 9, "kuznetzov"]), st.integers(0, 65535),
    st.sampled_from(["", ".gz", ".zst", ".lz4"]),
)  # fmt: skip


@given(PCAPS)
def test_pcap_to_pcap(folder, made):
    packets, order, kind, link_type, compression = made
    source, target = folder / "in", folder / f"out.pcap{compression}"
    source.write_bytes(twin.pcap_bytes(packets, order, kind, link_type))
    assert copy(source, target) == (len(packets), sum(len(p.data) for p in packets))
    digits = 9 if kind == 9 else 6
    expected = [Read(twin.nanoseconds(p.ticks, digits), p.wire_length, p.data, link_type) for p in packets]
    assert twin.read_pcap(inner(target)) == (expected, digits)
    if order == "<" and kind != "kuznetzov":
        assert inner(target) == source.read_bytes()


@given(PCAPS)
def test_pcap_to_pcapng(folder, made):
    packets, order, kind, link_type, compression = made
    source, target = folder / "in", folder / f"out.pcapng{compression}"
    source.write_bytes(twin.pcap_bytes(packets, order, kind, link_type))
    copy(source, target)
    digits = 9 if kind == 9 else 6
    got, _, interfaces = twin.read_pcapng(inner(target))
    assert got == [Read(twin.nanoseconds(p.ticks, digits), p.wire_length, p.data, link_type) for p in packets]
    assert interfaces == [Interface(link_type, digits, 65535)]
    with (folder / "plain").open("w+b") as file:
        file.write(inner(target))
        file.seek(0)
        theirs = [(round(t * 10**digits), data) for t, data in dpkt.pcapng.Reader(file)] if packets else []
    if all(p.ticks < 2**50 for p in packets):  # dpkt has times as floats
        assert theirs == [(p.ticks, p.data) for p in packets]


@settings(max_examples=examples(150), deadline=None)
@given(sections(), st.sampled_from([1 << 13, 1 << 16]), st.sampled_from([None, True, False]))
def test_pcapng_to_pcapng(folder, made, chunk_bytes, whole):
    """Several sections of both byte orders, which stay or become one; what enhanced blocks say stays, to the last tick
    and option, and other blocks stay if they are kept and their byte order can be turned."""
    source, target = folder / "in", folder / "out.pcapng"
    data, expected, _ = encode(made)
    source.write_bytes(data)
    copy(source, target, chunk_bytes=chunk_bytes, whole=whole)
    got, options, interfaces = twin.read_pcapng(target.read_bytes(), others := [])
    assert got == list(expected_times(made, expected, whole))
    kinds = {"custom": 0xBAD, "names": 4, "huge": 0x80000001}
    strange = [(order, kinds[item]) for order, items in made for item in items if isinstance(item, str)]
    assert others == [kind for order, kind in strange if whole is not None and (order, kind) != (">", 0x80000001)]
    if whole and all(order == "<" for order, _ in made):
        written = target.read_bytes()
        assert [written[at : at + 4] for at in range(0, len(written), 4)].count(b"\x0a\x0d\x0d\x0a") >= len(made)
    assert interfaces == [item for _, items in made for item in items if isinstance(item, Interface)]
    drawn = [item for _, items in made for item in items if not isinstance(item, Interface | str)]
    assert options == [p.options if kind != 3 else () for kind, p in drawn]


def expected_times(made, expected, whole):
    """Simple blocks have no time. Where one becomes an enhanced block, because its interface is not the first of the
    output's section, it says tick 0, which an interface's offset moves."""
    at = before = 0
    for _, items in made:
        interfaces = [item for item in items if isinstance(item, Interface)]
        for item in items:
            if isinstance(item, Interface | str):
                continue
            kind, _ = item
            read = expected[at]
            at += 1
            moved = twin.nanoseconds(0, 6, interfaces[0].offset_s) if not whole and before else 0
            yield read._replace(timestamp_ns=moved) if kind == 3 else read
        before += len(interfaces)


LIMIT = 2**32 * 10**9  # of a pcap's times, in nanoseconds


@given(st.lists(st.tuples(st.integers(0, LIMIT - 1), st.binary(max_size=100)), max_size=30), st.sampled_from("<>"))
def test_pcapng_to_pcap_keeps_nanoseconds(folder, drawn, order):
    source, target = folder / "in", folder / "out.pcap"
    items = [Interface(1, 9), *[(6, Packet(ticks, data, len(data))) for ticks, data in drawn]]
    source.write_bytes(encode([(order, items)])[0])
    copy(source, target)
    got, digits = twin.read_pcap(target.read_bytes())
    assert digits == 9
    assert [(r.timestamp_ns, r.data) for r in got] == drawn


def pcapng_of(path, *interfaces_and_ticks):
    """A pcapng whose packets are of these (interface, ticks), and its first interfaces."""
    interfaces = [each for each in interfaces_and_ticks if isinstance(each, Interface)]
    packets = [each for each in interfaces_and_ticks if not isinstance(each, Interface)]
    items = [*interfaces, *[(6, Packet(ticks, b"abcd", 4, number)) for number, ticks in packets]]
    path.write_bytes(encode([("<", items)])[0])
    return path


def test_a_time_that_a_pcap_cannot_hold_is_an_error(folder):
    """What came before it is in the file, whole. A time before 1970 is made by an interface's offset."""
    target = folder / "held.pcap"
    for interface, ticks in ((Interface(1, 9), LIMIT), (Interface(1, 6, 0, -10), 5), (Interface(1, 6), LIMIT)):
        source = pcapng_of(folder / "in", Interface(1, 6), interface, (0, 7), (1, ticks))
        with pytest.raises(SinkError, match=r"since 1970, which a pcap cannot hold: write \.pcapng$"):
            copy(source, target)
        got, _ = twin.read_pcap(target.read_bytes())
        assert [r.timestamp_ns for r in got] == [7000]


def test_the_precision_of_a_pcap(folder):
    """Microseconds if no interface that is known has more, what --precision says, and never less than a packet has."""
    target = folder / "precise.pcap"
    micro, nano = Interface(1, 6), Interface(1, 9)
    for interfaces, ticks, precision, digits, times in (
        ([micro, micro], [(0, 5), (1, 6)], "", 6, [5000, 6000]),
        ([Interface(1, 3)], [(0, 5)], "", 6, [5_000_000]),
        ([micro, nano], [(0, 5), (1, 6)], "", 9, [5000, 6]),
        ([micro], [(0, 5)], "ns", 9, [5000]),
        ([nano], [(0, 5678)], "us", 6, [5000]),
    ):
        copy(pcapng_of(folder / "in", *interfaces, *ticks), target, precision=precision)
        got, found = twin.read_pcap(target.read_bytes())
        assert (found, [r.timestamp_ns for r in got]) == (digits, times)
    for source_digits, precision, digits in ((6, "", 6), (9, "", 9), (6, "ns", 9), (9, "us", 6)):
        data = twin.pcap_bytes([Packet(10**source_digits + 1234, b"abcd", 4)], kind=source_digits)
        (folder / "in").write_bytes(data)
        copy(folder / "in", target, precision=precision)
        got, found = twin.read_pcap(target.read_bytes())
        exact = 10**9 + 1234 * 10 ** (9 - source_digits)
        assert (found, got[0].timestamp_ns) == (digits, exact // 10 ** (9 - digits) * 10 ** (9 - digits))


def captures_with_blocks(folder):
    """A capture of two sections, with other blocks before, between and behind the packets."""
    end = bytes(4)
    secrets = twin.block("<", 10, (0x544C534B).to_bytes(4, "little") + (8).to_bytes(4, "little") + b"CLIENT 1")
    statistics = twin.block("<", 5, bytes(12) + twin.option("<", 4, (9).to_bytes(8, "little")) + end)
    custom = twin.block("<", 0xBAD, (32473).to_bytes(4, "little") + b"ours")
    packets = [(6, Packet(i, bytes([i]) * (20 + i), 99, 0, ((1, b"x"),) if i % 3 else ())) for i in range(40)]
    simple = [(3, Packet(0, b"12345", 5))]
    data = encode([("<", [Interface(1, 9, 0, 0, "a"), *packets[:20], *simple])])[0] + secrets + custom
    data += encode([("<", [Interface(1, 9, 0, 0, "b"), *packets[20:]])])[0]
    data += twin.block(
        "<", 0x0A0D0D0A, bytes.fromhex("4d3c2b1a01000000ffffffffffffffff")
    )  # a section that says nothing
    data += twin.interface_bytes("<", Interface(1, 6)) + statistics + statistics + custom
    path = folder / "blocks"
    path.write_bytes(data)
    return path, data


def test_blocks_without_packets_and_sections_stay_in_place(folder):
    """Byte for byte, whatever the chunk or the arrangement, and behind a point of a resumed run."""
    path, data = captures_with_blocks(folder)
    target = folder / "blocks.pcapng"
    for chunk_bytes in (1 << 10, 1 << 16):
        for outgoings in (all_of, lambda batch: [Outgoing(batch, i, i + 1) for i in range(len(batch))]):
            copy(path, target, outgoings, chunk_bytes, whole=True)
            assert target.read_bytes() == data
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 10), keep_blocks=True) as source:
        (batch,) = source
        sections = Sections(source.blocks, True, False)
        more = {"interfaces": source.interfaces, "form": source.form, "sections": sections}
        sink = open_capture(target, **more)
        sink.write(Outgoing(batch, 0, 30))
        sink.flush()
        place = sink.place
        sink.abandon()
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 10), keep_blocks=True) as source:
        (batch,) = source
        more = {"interfaces": source.interfaces, "form": source.form, "place": place}
        sink = open_capture(target, sections=Sections(source.blocks, True, False), **more)
        sink.write(Outgoing(batch, 30, 41))
        sink.close()
    assert target.read_bytes() == data


def test_a_filter_leaves_the_blocks_and_a_bare_form_none(folder):
    path, data = captures_with_blocks(folder)
    target = folder / "blocks.pcapng"
    copy(path, target, lambda batch: [Outgoing(batch, 25, 26)], whole=True)
    got, _, interfaces = twin.read_pcapng(target.read_bytes(), others := [])
    assert (len(got), [interface.name for interface in interfaces], others) == (
        1,
        ["a", "b", ""],
        [10, 0xBAD, 5, 5, 0xBAD],
    )
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 10), keep_blocks=True) as source:
        form = source.form._replace(bare=True)
        sections = Sections(source.blocks, True, True)
        sink = open_capture(target, interfaces=source.interfaces, form=form, sections=sections)
        for batch in source:
            sink.write(Outgoing(batch, 0, len(batch)))
        sink.close()
    for needle in (b"twin", b"CLIENT", b"ours", b"\x01\0\x01\0x"):
        assert needle in data
        assert needle not in target.read_bytes()
    _, _, interfaces = twin.read_pcapng(target.read_bytes(), others := [])
    assert (others, [interface.name for interface in interfaces]) == ([], ["", "", ""])
    comments = data.count(b"\x01\0\x01\0x")
    assert sink.metadata_removed == 2 + 2 + 5 + comments  # programs, names, blocks, comments


def test_a_pcap_of_long_packets_is_read_again(folder):
    long = Packet(5, bytes(400_000), 400_000)
    (folder / "in").write_bytes(encode([("<", [Interface(1, 9, 0), (6, long)])])[0])
    copy(folder / "in", folder / "long.pcap", chunk_bytes=1 << 20)
    with CaptureSource(folder / "long.pcap", Arena(2, 1 << 20, 1 << 10)) as source:
        assert [batch.captured_length.tolist() for batch in source] == [[400_000]]
        assert source.damage is None


def test_blocks_that_forbid_copying_stay_unless_packets_may_change():
    def custom(kind):
        return struct.pack("<IIIII", kind, 20, 32_473, 7, 20)

    for changed, kept in ((False, [0xBAD, 0x40000BAD]), (True, [0xBAD])):
        blocks = Blocks()
        for kind in (0xBAD, 0x40000BAD):
            blocks.put(Block(0, custom(kind)))
        sections = Sections(blocks, True, False, changed)
        written = [block for block in sections.due(0) if block]
        assert written == [custom(kind) for kind in kept]
        assert sections.removed == 2 - len(kept)


def test_a_section_that_is_joined_to_another_is_counted():
    """Also one that says nothing of itself."""

    def of_three(whole):
        blocks = Blocks()
        for _ in range(3):
            blocks.put(Block(0, CaptureForm("pcapng")))
        return Sections(blocks, whole, False)

    for whole, headers, removed in ((True, 3, 0), (False, 0, 2)):
        sections = of_three(whole)
        assert len([block for block in sections.due(0) if block]) == headers
        assert sections.removed == removed
    for_a_pcap = of_three(True)
    for_a_pcap.lose()
    assert for_a_pcap.removed == 2


def test_what_a_pcap_cannot_say_is_counted(folder):
    """Comments of packets, names of interfaces, other blocks."""
    data = encode(
        [("<", ["custom", Interface(1, 6, 0, 0, "eth0"), (6, Packet(1, b"x", 1, 0, ((1, b"a"), (1, b"b"))))])]
    )[0]
    (folder / "in").write_bytes(data)
    with CaptureSource(folder / "in", Arena(2, 1 << 16, 1 << 10), keep_blocks=True) as source:
        sections = Sections(source.blocks, True, False)
        sink = open_capture(folder / "said.pcap", interfaces=source.interfaces, form=source.form, sections=sections)
        for batch in source:
            sink.write(Outgoing(batch, 0, len(batch)))
        sink.close()
    assert sink.metadata_removed == 5  # and the name of the program that wrote it


def test_identical_pcapng_is_copied_byte_for_byte(folder):
    made = [
        (
            "<",
            [Interface(1, 9, 0, 0, "eth0"), *[(6, Packet(i, bytes(i % 50), 60, 0, ((1, b"x"),))) for i in range(9000)]],
        )
    ]
    source, target = folder / "in", folder / "out.pcapng"
    source.write_bytes(encode(made)[0])
    copy(source, target)
    assert target.read_bytes() == source.read_bytes()


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from(["pcap", "pcapng"]), st.sampled_from("<>"))
def test_rows_in_any_order(folder, drawn, ending, order):
    """Arranged rows: some of them, shuffled."""
    packets = [Packet(i, bytes([i]) * i, i) for i in range(len(drawn))]
    source, target = folder / "in", folder / f"out.{ending}"
    source.write_bytes(twin.pcap_bytes(packets, order))
    rows = [i for i, kept in enumerate(drawn) if kept]
    rows = rows[len(rows) // 2 :] + rows[: len(rows) // 2]

    def arranged(batch):
        from streamcore.core.packets import PacketBatch

        again = PacketBatch(
            batch.chunk, len(batch), 0, batch.interfaces, span_stop=batch.span_stop, arranged=True, row_count=len(rows)
        )
        again.rows[:] = rows
        half = len(rows) // 2
        return [Outgoing(again, 0, half), Outgoing(again, half, len(rows))]

    copy(source, target, arranged)
    got = twin.read_pcap(target.read_bytes())[0] if ending == "pcap" else twin.read_pcapng(target.read_bytes())[0]
    assert [(r.timestamp_ns, r.data) for r in got] == [(i * 1000, packets[i].data) for i in rows]


def capture_of(family, order, packets):
    if family == "pcap":
        return twin.pcap_bytes(packets, order)
    return encode([(order, [Interface(), *[(6, packet) for packet in packets]])])[0]


def changed(batch, edit):
    """The Outgoings of a batch whose packets a service replaced: edit(bytes) -> bytes, None drops."""
    segmenter = Segmenter("run", lanes=1, packets_max=7)
    aggregator = Aggregator("total")
    segments = segmenter.cut(batch)
    aggregator.expect(batch, segments)
    for segment in segments:
        after = [edit(batch.packet(row).tobytes()) for row in range(segment.start, segment.stop)]
        keep = np.array([a is not None for a in after], np.uint8)
        after = [a or b"" for a in after]
        packed = b"".join(after)
        region = np.zeros(1 << 20, np.uint8)
        region[: len(packed)] = np.frombuffer(packed, np.uint8)
        lengths = np.array([len(a) for a in after], np.uint32)
        wires = batch.wire_length[segment.start : segment.stop]
        flags = write_result(region, len(packed), None, np.cumsum(lengths) - lengths, lengths, wires, keep)
        yield from aggregator.accept(read_result(segment, region, len(packed), flags, EVERYTHING, region))


@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("family", ["pcap", "pcapng"])
def test_changed_packets(folder, family, order, ending):
    packets = [Packet(i * 7, bytes([i]) * i, 200, 0, ((1, b"kept"), (2, b"\1\0\0\0"))) for i in range(1, 100)]
    data = capture_of(family, order, packets)
    source, target = folder / "in", folder / f"out.{ending}"
    source.write_bytes(data)

    def edit(packet):
        if packet[0] % 5 == 0:
            return None
        return packet * 2 if packet[0] % 2 else packet[: len(packet) // 2]

    counts = copy(source, target, lambda batch: changed(batch, edit))
    expected = [Read(p.ticks * 1000, 200, edit(p.data), 1) for p in packets if edit(p.data) is not None]
    assert counts == (len(expected), sum(len(r.data) for r in expected))
    if ending == "pcap":
        assert twin.read_pcap(target.read_bytes())[0] == expected
    else:
        got, options, _ = twin.read_pcapng(target.read_bytes())
        assert got == expected
        kept = packets[0].options if family == "pcapng" else ()
        assert options == [kept] * len(expected)


@pytest.mark.parametrize("family", ["pcap", "pcapng"])
def test_comments_are_added_behind_those_that_are_there(folder, family):
    packets = [Packet(i, b"abc"[: i % 4], 3, 0, ((1, b"mine"),) if i == 3 else ()) for i in range(6)]
    data = capture_of(family, "<", packets)
    source, target = folder / "in", folder / "out.pcapng"
    source.write_bytes(data)

    def commented(batch):
        outgoing = Outgoing(batch, 0, len(batch))
        outgoing.comments = {1: [b"first", "zweite – ü".encode()], 3: [b"x" * 70_000]}
        return [outgoing]

    copy(source, target, commented)
    got, options, _ = twin.read_pcapng(target.read_bytes())
    assert [r.data for r in got] == [p.data for p in packets]
    mine = ((1, b"mine"),) if family == "pcapng" else ()
    assert options == [(), ((1, b"first"), (1, "zweite – ü".encode())), (), (*mine, (1, b"x" * 65_535)), (), ()]


def test_interfaces_stand_before_their_first_packet_and_all_are_there(folder):
    made = [("<", [Interface(1), (6, Packet(1, b"a", 1)), Interface(101), Interface(113), (6, Packet(2, b"b", 1, 1))])]
    source, target = folder / "in", folder / "out.pcapng"
    source.write_bytes(encode(made)[0])
    copy(source, target)
    got, _, interfaces = twin.read_pcapng(target.read_bytes())
    assert [r.link_type for r in got] == [1, 101]
    assert [i.link_type for i in interfaces] == [1, 101, 113]


def test_two_link_types_do_not_fit_one_pcap(folder):
    made = [("<", [Interface(101), Interface(1), (6, Packet(1, b"a", 1, 1)), (6, Packet(2, b"b", 1, 0))])]
    source, target = folder / "in", folder / "out.pcap"
    source.write_bytes(encode(made)[0])
    one_by_one = lambda batch: [Outgoing(batch, i, i + 1) for i in range(len(batch))]  # noqa: E731
    with pytest.raises(SinkError, match=r"link types 1 and 101 cannot share one pcap file; write \.pcapng instead"):
        copy(source, target, one_by_one)
    assert [r.link_type for r in twin.read_pcap(target.read_bytes())[0]] == [1]  # what was delivered before stays


def test_frame_check_sequences_stay_said(folder):
    source, out = folder / "in", folder / "checked.pcap"
    source.write_bytes(twin.pcap_bytes([Packet(1, b"abcd", 4)], link_type=0x2400_0001))
    copy(source, folder / "between.pcapng")
    copy(folder / "between.pcapng", out)
    assert int.from_bytes(out.read_bytes()[20:24], "little") == 0x2400_0001


@pytest.mark.parametrize(
    ("name", "family", "pcapng"),
    [("x.pcap", "pcapng", False), ("x.CAP", "pcapng", False), ("x.dmp.gz", "pcapng", False), ("x.pcapng", "pcap", True),
     ("x.ntar.zst", "pcap", True), ("x", "pcap", False), ("x.out.lz4", "pcapng", True)],
)  # fmt: skip
def test_the_name_says_the_format(folder, name, family, pcapng):
    target = folder / name
    sink = open_capture(target, interfaces=[StreamInterface(1)], form=CaptureForm(family))
    assert not target.exists()  # it is opened with the first packet, or at the end
    sink.close()
    data = inner(target) if target.suffix in (".gz", ".zst", ".lz4") else target.read_bytes()
    assert (data[:4] == b"\x0a\x0d\x0d\x0a") == pcapng
    target.unlink()
