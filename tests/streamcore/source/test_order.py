"""Captures merged, one after the other, sorted and shifted: beside slow twins, mergecap, reordercap and editcap."""

import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SourceError, UsageError
from streamcore.core.packets import Arena
from streamcore.run.pipeline import Pipeline
from streamcore.source import merged
from streamcore.source._supply import Chunks
from streamcore.source.capture import CaptureSource
from streamcore.source.merged import MergedSource
from streamcore.source.sorted import SortedSource
from tests.examples import examples
from tests.streamcore import twin
from tests.streamcore.source.test_capture import encode, packets_of
from tests.streamcore.twin import Interface, Packet, Read

SECOND = 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("order")


def packets_with(ticks):
    return st.tuples(ticks, st.binary(max_size=40), st.integers(0, 2**32 - 1)).map(lambda drawn: Packet(*drawn))


def pcaps():
    """(bytes, packets as they should be read) of a pcap of either precision and byte order."""

    def made(packets, order, kind, link_type):
        expected = [Read(twin.nanoseconds(p.ticks, kind), p.wire_length, p.data, link_type) for p in packets]
        return twin.pcap_bytes(packets, order, kind, link_type), expected

    packets = st.lists(packets_with(st.integers(0, 9)), max_size=12)
    return st.builds(made, packets, st.sampled_from("<>"), st.sampled_from([6, 9]), st.integers(0, 300))


def pcapngs():
    """The same of a pcapng with up to two sections and packet blocks of all kinds."""

    def made(sections):
        data, expected, _ = encode([(order, [*interfaces, *packets]) for order, interfaces, packets in sections])
        return data, expected

    interface = st.tuples(st.integers(0, 300), st.sampled_from([6, 9])).map(lambda drawn: Interface(*drawn))

    def block_of(kind, packet):  # a simple block says nothing of bytes that were cut off
        return kind, packet._replace(wire_length=len(packet.data)) if kind == 3 else packet

    block = st.builds(block_of, st.sampled_from([2, 3, 6]), packets_with(st.integers(0, 9)))
    section = st.tuples(st.sampled_from("<>"), st.lists(interface, min_size=1, max_size=2), st.lists(block, max_size=8))
    return st.builds(made, st.lists(section, min_size=1, max_size=2))


def merged_by_heads(captures):
    """The slow twin: takes the earliest of the captures' next packets, of equal ones that of the first capture. Packets
    without a time (0) follow the one before them at once."""
    captures = [list(each) for each in captures]
    latest = [-1] * len(captures)
    while any(captures):
        due = [(max(each[0].timestamp_ns, latest[i]), i) for i, each in enumerate(captures) if each]
        time, number = min(due)
        latest[number] = time
        yield captures[number].pop(0)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.one_of(pcaps(), pcapngs()), min_size=2, max_size=5), st.booleans(), st.integers(1, 7), st.integers(0, 3)
)
def test_merged(folder, drawn, by_time, rows_max, kept_open):
    """Whatever the formats, chunks and how many stay open; by_time or one after the other."""
    paths = []
    for number, (data, _) in enumerate(drawn):
        paths.append(folder / f"{number}")
        paths[-1].write_bytes(data)
    captures = [expected for _, expected in drawn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merged, "KEPT_OPEN", kept_open)
        with MergedSource(paths, Arena(2, 1 << 12, rows_max), by_time=by_time, keep_blocks=True) as source:
            read = list(packets_of(source))
    expected = list(merged_by_heads(captures)) if by_time else [packet for each in captures for packet in each]
    assert read == expected
    assert source.form.family == ("pcapng" if any(data[:1] == b"\n" for data, _ in drawn) else "pcap")
    assert source.damage is None


def run(target, *paths, **more):
    """The account of a run over these captures into target."""
    config = Config(read=[str(path) for path in paths], write=str(target), workers=1, **more)
    account = Pipeline(config).run()
    assert not account.unbalanced
    return account


def pcap(path, times_us, mark=0, kind=6, link_type=1):
    """A capture with a packet for each of these times, whose bytes tell it from all others."""
    packets = [
        Packet(time if kind == 6 else time * 1000, struct.pack("<IQ", mark, i) * 3, 36)
        for i, time in enumerate(times_us)
    ]
    path.write_bytes(twin.pcap_bytes(packets, "<", kind, link_type))
    return path


def program(name, *arguments):
    """Runs one of wireshark's programs."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    subprocess.run([name, *map(str, arguments)], check=True, capture_output=True)


def test_as_mergecap_does(tmp_path):
    """The same file, byte by byte, where no two packets have one time; and to a pcapng with all interfaces."""
    paths = [
        pcap(tmp_path / f"{number}.pcap", [number + 7 * SECOND * i // (number + 2) * 10 for i in range(300)], number)
        for number in range(4)
    ]
    program("mergecap", "-F", "pcap", "-w", tmp_path / "mergecap.pcap", *paths)
    run(tmp_path / "ours.pcap", *paths)
    assert (tmp_path / "ours.pcap").read_bytes()[24:] == (tmp_path / "mergecap.pcap").read_bytes()[24:]
    program("mergecap", "-a", "-F", "pcap", "-w", tmp_path / "mergecap.pcap", *paths)
    run(tmp_path / "ours.pcap", *paths, inputs="chain")
    assert (tmp_path / "ours.pcap").read_bytes()[24:] == (tmp_path / "mergecap.pcap").read_bytes()[24:]

    pcap(paths[1], [5, 5 * SECOND + 1], 1, kind=9, link_type=101)
    run(tmp_path / "ours.pcapng", *paths)
    program("mergecap", "-I", "none", "-w", tmp_path / "mergecap.pcapng", *paths)
    (ours, _, interfaces), (theirs, _, also) = (
        twin.read_pcapng((tmp_path / name).read_bytes(), []) for name in ("ours.pcapng", "mergecap.pcapng")
    )
    assert ours == theirs
    assert [each.link_type for each in interfaces] == [each.link_type for each in also] == [1, 101, 1, 1]


def test_what_is_said_of_inputs(tmp_path):
    """Damage, each on a line of its own, and nothing delivered is lost; what cannot be opened ends the run first."""
    good = pcap(tmp_path / "good.pcap", range(0, 100, 2))
    for name in ("torn", "cut"):
        whole = pcap(tmp_path / f"{name}.pcap", range(1, 21, 2), 1).read_bytes()
        (tmp_path / f"{name}.pcap").write_bytes(whole[:-5])
    account = run(tmp_path / "out.pcap", tmp_path / "torn.pcap", good, tmp_path / "cut.pcap")
    assert account.exit_status == 3
    lines = [line for line in account.text().splitlines() if "damaged" in line]
    assert [line.partition(": at byte")[0].rpartition("/")[2] for line in lines] == ["torn.pcap", "cut.pcap"]
    assert account.json()["damage"].count("ends within a record") == 2
    assert len(twin.read_pcap((tmp_path / "out.pcap").read_bytes())[0]) == 50 + 9 + 9
    (tmp_path / "text.pcap").write_text("this is no capture")
    for name, words in (("none.pcap", "cannot open"), ("text.pcap", "is not a pcap")):
        with pytest.raises(SourceError, match=words):
            run(tmp_path / "other.pcap", good, tmp_path / name)
        assert not (tmp_path / "other.pcap").exists()
    for more, words in (
        ({"inputs": "chain"}, "inputs has no effect"),
        ({"from_": "yesterday"}, "from must be"),
        ({"from_": "2026"}, "might be a date; 2026.0 is seconds"),
        ({"until": "20261127"}, "might be a date"),
        ({"shift": "1.0000000001"}, "shift must be"),
        ({"from_": "5", "until": "5"}, "until must be later"),
    ):
        with pytest.raises(UsageError, match=words):
            Pipeline(Config(read=str(good), write="out.pcap", workers=1, **more))


def test_no_input_is_the_output(tmp_path):
    paths = [pcap(tmp_path / f"{number}.pcap", [1]) for number in range(2)]
    with pytest.raises(Exception, match="it is also the input"):
        run(paths[1], *paths)


def test_more_overlap_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(merged, "OPEN_MAX", 3)
    monkeypatch.setattr(merged, "KEPT_OPEN", 0)
    paths = [pcap(tmp_path / f"{number}.pcap", [number, 100]) for number in range(4)]
    with pytest.raises(SourceError, match="more than 3"), MergedSource(paths, Chunks()) as source:
        list(source)
    for number, path in enumerate(paths):  # one after the other: any number
        pcap(path, [number * 10, number * 10 + 9], number)
    with MergedSource(paths, Chunks()) as source:
        assert sum(batch.count for batch in source) == 8


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 20), st.integers(1, 9), st.integers(2, 6))
def test_sorted(folder, times, window, rows_max, held_max):
    """By the slow twin: a packet leaves when one is more than the window newer; what is older than that is late."""
    path = pcap(folder / "sort", times)
    counters = Counters()
    inner = CaptureSource(path, Chunks(1 << 12, rows_max))
    with SortedSource(inner, Arena(2, 1 << 12, 5), window * 1000, counters) as source:
        read = [packet.timestamp_ns // 1000 for packet in packets_of(source)]
    waiting, expected, late, newest = [], [], 0, -1
    for number, time in enumerate(times):
        newest = max(newest, time)
        late += time < newest - window
        waiting.append((max(time, newest - window), number))
    expected = [times[number] for _, number in sorted(waiting)]
    assert read == expected
    assert counters.events("source.late") == late


def test_sorted_with_bounded_memory(folder, monkeypatch):
    """If more waits than may, the older half leaves early; nothing is lost, and what comes too late is counted."""
    from streamcore.source import sorted as sorting

    monkeypatch.setattr(sorting, "HELD_MAX", 4)
    times = [*range(100, 200), 5, *range(200, 300)]
    counters = Counters()
    inner = CaptureSource(pcap(folder / "held", times), Chunks(1 << 12, 10))
    with SortedSource(inner, Arena(2, 1 << 12, 16), 10**9, counters) as source:
        read = [packet.timestamp_ns // 1000 for packet in packets_of(source)]
    assert sorted(read) == sorted(times)
    assert read.index(5) > 0
    assert counters.events("source.late") == 1


def test_as_reordercap_and_editcap_do(tmp_path):
    times = [(i * 7919) % 1000 * 1000 + i for i in range(1000)]
    given = pcap(tmp_path / "in.pcap", times)
    program("reordercap", given, tmp_path / "theirs.pcap")
    run(tmp_path / "ours.pcap", given, sort_s=3600)
    (ours, _), theirs = twin.read_pcap((tmp_path / "ours.pcap").read_bytes()), tmp_path / "theirs.pcap"
    program("editcap", "-F", "pcap", theirs, tmp_path / "pcap")
    assert ours == twin.read_pcap((tmp_path / "pcap").read_bytes())[0]
    for shift in ("3600", "0.000001", "12345.678901"):
        program("editcap", "-F", "pcap", "-t", shift, given, tmp_path / "pcap")
        run(tmp_path / "ours.pcap", given, shift=shift)
        assert (tmp_path / "ours.pcap").read_bytes() == (tmp_path / "pcap").read_bytes(), shift
    program(
        "editcap",
        "-F",
        "pcap",
        "-A",
        "1970-01-01T00:00:00.25Z",
        "-B",
        "1970-01-01T00:00:00.75Z",
        given,
        tmp_path / "pcap",
    )
    account = run(tmp_path / "ours.pcap", given, from_="0.25", until="1970-01-01T00:00:00.75Z")
    assert (tmp_path / "ours.pcap").read_bytes() == (tmp_path / "pcap").read_bytes()
    left = account.counters.packets("limits.outside_time")
    assert left == sum(not 250_000 <= time < 750_000 for time in times)
    assert f"{left:,} dropped: not between" in account.text()


def test_shifted_pcapng(folder):
    """Times of every kind of block and resolution, whatever the byte order; a simple block has none."""
    for order in "<>":
        interfaces = [Interface(1, 6, 0), Interface(1, 9, 0), Interface(1, 0x80 | 10, 0, 5), Interface(1, 3, 0)]
        blocks = [(kind, Packet(10**11, b"x", 1, number)) for number in range(4) for kind in (6, 2)]
        data, expected, _ = encode([(order, [*interfaces, *blocks, (3, Packet(0, b"s", 1))])])
        (folder / "in.pcapng").write_bytes(data)
        run(folder / "out.pcapng", folder / "in.pcapng", shift="-5")
        read, _, _ = twin.read_pcapng((folder / "out.pcapng").read_bytes())
        moved = [each._replace(timestamp_ns=each.timestamp_ns - 5 * 10**9) for each in expected[:-1]]
        assert read == [*moved, expected[-1]]
    for shift, words in (("0.0001", "no whole number of ticks"), ("-200", "cannot be moved")):
        with pytest.raises(SourceError, match=words):
            run(folder / "out.pcapng", folder / "in.pcapng", shift=shift)


def test_count_and_skip(tmp_path):
    """They count what matches and lies within the times, as tcpdump counts what matches; each packet has its reason."""
    frame = bytes(12) + b"\x08\x06" + bytes(28)
    other = bytes(12) + b"\x86\xdd" + bytes(40)
    packets = [Packet(i, other if i % 3 else frame, 60) for i in range(3000)]
    (tmp_path / "in.pcap").write_bytes(twin.pcap_bytes(packets))
    account = run(
        tmp_path / "out.pcap", tmp_path / "in.pcap", filter="arp", skip=10, count=20, from_="0.000300", chunk_rows=1024
    )
    read, _ = twin.read_pcap((tmp_path / "out.pcap").read_bytes())
    assert [each.timestamp_ns // 1000 for each in read] == [300 + 3 * i for i in range(10, 30)]
    assert account.exit_status == 0
    dropped = account.json()["packets"]["dropped"]
    assert account.counters.packets("source.read") == 1024  # of 3,000: the rest is not read
    assert dropped["limits.outside_time"] == 100
    assert dropped["limits.skipped"] == 10
    assert dropped["limits.beyond_count"] == sum(1 for i in range(1024) if i % 3 == 0) - 100 - 30
    if shutil.which("tcpdump"):
        command = ["tcpdump", "-r", tmp_path / "in.pcap", "-w", tmp_path / "t.pcap", "-c", "7", "arp"]
        subprocess.run(command, check=True, capture_output=True)
        run(tmp_path / "out.pcap", tmp_path / "in.pcap", filter="arp", count=7)
        assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "t.pcap").read_bytes()
