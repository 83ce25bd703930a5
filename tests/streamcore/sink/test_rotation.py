"""Rotation: names and cuts are tcpdump's, each file is whole, and together they are the file that was not rotated.

tcpdump is the oracle for -C and -W, which it applies to captures too; for -G, which it takes from the clock, the times
that dpkt reads.
"""

import gzip
import io
import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

import dpkt
import pytest

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.core.packets import Arena, Outgoing
from streamcore.run.pipeline import Pipeline
from streamcore.sink.after_file import Commands
from streamcore.sink.nameless import Nameless
from streamcore.sink.names import free_name, is_taken
from streamcore.sink.rotation import RotatingSink
from streamcore.sink.windows import window_of
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource
from tests.streamcore.conftest import children, finish_run, read_pcap, run_command, start_run, udp_frame

pytestmark = pytest.mark.usefixtures("nothing_left")

START_S = 1_700_000_000
PACKETS = 6000  # some 4.3 MB


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Ten packets a second, in microseconds, as tcpdump writes them."""
    path = tmp_path_factory.mktemp("rotation") / "in.pcap"
    chance = random.Random(1)
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=262144)
        for number in range(PACKETS):
            writer.writepkt(udp_frame(number % 7, number, chance.randrange(1300)), START_S + number / 10)
    return path


def tcpdump(capture, directory, *arguments):
    """{name: bytes} of the files that tcpdump makes of a capture."""
    directory.mkdir()
    subprocess.run(
        ["tcpdump", "-r", capture, "-w", "out.pcap", "-Z", "root", *arguments],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    return files_in(directory)


def files_in(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def rotated(capture, directory, *arguments, name="out.pcap"):
    """(run, {name: bytes}) of ours."""
    directory.mkdir()
    run = run_command("-r", capture, "-w", directory / name, *arguments)
    assert "unbalanced" not in run.json
    return run, files_in(directory)


def frames_in(directory, *names):
    return [frame for name in names for _, frame in read_pcap(directory / name)]


@pytest.mark.parametrize(
    ("ring", "service"),
    [
        ([], []),
        (["-W", "1"], []),
        (["-W", "3"], ["--policy", "run", "--segment-packets", "77"]),
        (["-W", "12"], ["--service", "slice:500"]),
        ([], ["--service", "slice:500"]),
    ],
)
def test_size_and_count_cut_and_name_files_as_tcpdump_does(capture, tmp_path, ring, service):
    whole = tmp_path / "whole.pcap"
    assert run_command("-r", capture, "-w", whole, *service).status == 0
    run, ours = rotated(capture, tmp_path / "ours", "-C", "1", *ring, *service)
    assert run.status == 0, run.stderr
    assert run.json["packets"]["written"] == PACKETS
    assert ours == tcpdump(whole, tmp_path / "theirs", "-C", "1", *ring)
    if not ring:
        assert len(ours) > 2
        names = ["out.pcap", *(f"out.pcap{number}" for number in range(1, len(ours)))]
        assert b"".join([ours["out.pcap"], *(ours[name][24:] for name in names[1:])]) == whole.read_bytes()


@pytest.mark.parametrize("flags", [[], ["--no-rotate-aligned"]])
def test_time_cuts_by_the_packets_own(capture, tmp_path, flags):
    """Files of a minute of the clock, or from the first packet on, named by their begin."""
    run, ours = rotated(capture, tmp_path / "ours", "-G", "60", *flags, name="%Y%m%d-%H%M%S.pcap")
    assert run.status == 0, run.stderr
    begin_s = START_S if flags else START_S - 20
    minutes = 10 if flags else 11
    names = [time.strftime("%Y%m%d-%H%M%S.pcap", time.localtime(begin_s + 60 * minute)) for minute in range(minutes)]
    assert sorted(ours) == names
    times = [[at_s for at_s, _ in read_pcap(tmp_path / "ours" / name)] for name in names]
    numbers = [[round((at_s - START_S) * 10) for at_s in minute] for minute in times]
    assert [number for minute in numbers for number in minute] == list(range(PACKETS))
    assert [{int((START_S - begin_s + n / 10) // 60) for n in minute} for minute in numbers] == [
        {minute} for minute in range(minutes)
    ]
    assert frames_in(tmp_path / "ours", *names) == [frame for _, frame in read_pcap(capture)]


def test_windows_on_the_clock(monkeypatch):
    """Beside the hands of the clock, over two days in which it changes: an hour begins at the full hour, a day at
    midnight, and every moment belongs to the window that it begins."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    for start_s, hours in ((1_667_080_800, 25), (1_679_785_200, 23)):  # 30 October 2022, 26 March 2023, at midnight
        for moment_s in range(start_s, start_s + hours * 3600, 617):
            assert window_of(moment_s * 10**9, 86_400, True) == (start_s * 10**9, (start_s + hours * 3600) * 10**9)
            begin_ns, end_ns = window_of(moment_s * 10**9 + 5, 3600, True)
            assert end_ns - begin_ns == 3600 * 10**9
            assert begin_ns <= moment_s * 10**9 + 5 < end_ns
            begin = time.localtime(begin_ns // 10**9)
            assert (begin.tm_min, begin.tm_sec) == (0, 0)
            assert begin[:4] == time.localtime(moment_s)[:4]
            window = window_of(moment_s * 10**9, 6 * 3600, True)
            assert window.begin_ns <= moment_s * 10**9 < window.end_ns
            assert window_of(window.end_ns, 6 * 3600, True).begin_ns == window.end_ns
    monkeypatch.undo()
    time.tzset()


def test_a_name_that_is_taken_gets_a_number(capture, tmp_path):
    """Within a run and from run to run. --overwrite does what tcpdump does, and says how much it replaced."""
    directory = tmp_path / "ours"
    _, ours = rotated(capture, directory, "-G", "60", "--no-rotate-aligned")
    names = ["out.pcap", *(f"out-{number}.pcap" for number in range(1, 10))]
    assert sorted(ours) == sorted(names)
    assert frames_in(directory, *names) == [frame for _, frame in read_pcap(capture)]
    assert run_command("-r", capture, "-w", directory / "out.pcap", "-G", "300", "--no-rotate-aligned").status == 0
    assert {name: data for name, data in files_in(directory).items() if name in ours} == ours
    assert len(frames_in(directory, "out-10.pcap", "out-11.pcap")) == PACKETS
    run = run_command("-r", capture, "-w", directory / "out.pcap", "-G", "60", "--overwrite", "--no-rotate-aligned")
    assert len(frames_in(directory, "out.pcap")) == 600
    assert run.json["notes"]["sink.replaced"] == PACKETS - 600
    assert f"{PACKETS - 600:,} of them written into files that later ones of this run have replaced" in run.stderr


def made(directory, batches, source, **keys):
    """What a rotation writes of these batches, in this process: its counters."""
    counters = Counters()
    sink = RotatingSink(
        Config(read="-", write=str(directory), **keys), interfaces=source.interfaces, form=source.form,
        counters=counters, on_commit=lambda _: None, on_file=lambda _: None,
    )  # fmt: skip
    for batch in batches:
        sink.write(Outgoing(batch, 0, len(batch)))
    sink.close()
    return counters


def test_what_was_written_lies_on_the_disk_whatever_the_clock_does(tmp_path, monkeypatch):
    """Random times, back and forth across a change of the clock; random rotations, rings and commands; restarts.

    Every packet lies in a file, but for those that a ring has removed, which are counted, and were the oldest files. No
    file of an earlier run has changed, and the command has seen each complete file under its name."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    chance = random.Random(7)
    seen = tmp_path / "seen"
    command = tmp_path / "command"
    command.write_text(f'#!/bin/sh\ncksum < "$1" >> {seen}\n')
    command.chmod(0o755)
    for attempt in range(40):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        ring = chance.choice([0, 0, 2, 3])
        keys = {"rotate_s": chance.choice([0, 600, 3600]), "rotate_mb": chance.choice([0, 1])}
        keys["rotate_mb"] = keys["rotate_mb"] or int(not keys["rotate_s"])
        keys["rotate_aligned"] = bool(chance.randrange(2))
        with_command = attempt % 10 == 0
        keys["after_file"] = str(command) if with_command else ""
        name = chance.choice(["out.pcap", "%H.pcap.gz", "%Y%m%d-%H%M.pcap", "all"])
        context = (attempt, keys, name, ring)
        written, replaced = [], 0
        for restart in range(3):
            frames = [udp_frame(1, 1000 * attempt + 100 * restart + i, 60_000) for i in range(40)]
            start_s, path = 1_667_084_400 + 60 * chance.randrange(60), tmp_path / "in.pcap"  # 30 October 2022
            with open(path, "wb") as file:
                writer = dpkt.pcap.Writer(file)
                for frame in frames:
                    start_s += chance.choice([1, 60, 900, 3000, -600])
                    writer.writepkt(frame, start_s)
            before = files_in(directory)
            seen.unlink(missing_ok=True)
            with CaptureSource(path, Arena(4, 1 << 20, 1 << 12)) as source:
                counters = made(directory / name, source, source, rotate_files=ring, **keys)
            replaced += counters.packets("sink.replaced")
            after = files_in(directory)
            assert not [each for each in after if each.endswith(".part")], context
            kept = {each: after.get(each) for each in before}
            if not ring:
                assert kept == before, context
            else:
                assert len(after) <= ring or ("%" not in name and keys["rotate_s"]), context
            if with_command and not ring:
                sums = sorted(seen.read_text().split("\n")[:-1])
                files = [directory / each for each in after if each not in before]
                assert sums == sorted(f"{zlib_sum(each)} {each.stat().st_size}" for each in files), context
            written += frames
        number, left = {frame: number for number, frame in enumerate(written)}, []
        for each in directory.iterdir():
            data = each.read_bytes()
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            left += [number[frame] for _, frame in dpkt.pcap.Reader(io.BytesIO(data))]
        begin = len(written) - len(left)
        if ring and "%" not in name and keys["rotate_s"]:  # each run's own files are a ring
            assert (len(set(left)), replaced) == (len(left), begin), context
        else:
            assert sorted(left) == list(range(begin, len(written))), context
        assert ring or not replaced, context
    monkeypatch.undo()
    time.tzset()


def zlib_sum(path):
    return int(subprocess.run(["cksum", path], capture_output=True, check=True).stdout.split()[0])


def test_commands_are_few_at_a_time_and_their_failures_named(tmp_path):
    """Never more than said; what fails, does not exist or does not end is counted, the first by name."""
    marks = tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "one"
    script.write_text(
        f"#!/bin/sh\nmkdir {marks}/$$ && ls {marks} | wc -l >> {tmp_path}/at_once; sleep 0.05; rmdir {marks}/$$\n"
    )
    script.chmod(0o755)
    commands = Commands(str(script), at_once=2)
    for number in range(7):
        commands.run(f"file-{number}")
    commands.close()
    assert commands.incomplete == []
    at_once = [int(line) for line in (tmp_path / "at_once").read_text().split()]
    assert (len(at_once), max(at_once) <= 2) == (7, True)

    failing = Commands("sh -c 'test \"$1\" = ./a' sh", at_once=1)
    for name in ("a", "-b; touch x", "c"):
        failing.run(name)
    failing.close()
    assert failing.incomplete == ["after_file: 2 commands failed, the first: sh -b; touch x: status 1"]
    assert not os.path.exists("x")

    endless = Commands("sh -c 'sleep 1000'", at_once=1, patience_s=0.2)
    endless.run("1000")
    endless.run("1000")
    endless.close()
    assert endless.incomplete == ["after_file: 2 files without their command: too many at once, or it took too long"]


def test_a_file_gets_its_name_when_it_is_complete(capture, tmp_path):
    """Until then it is a part. The name goes to nobody's file; a part that a killed run left is kept."""
    names = []
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        batch = next(source)
        sink = RotatingSink(
            Config(read="-", write=str(tmp_path / "out.pcap"), rotate_mb=1), interfaces=source.interfaces,
            form=source.form, counters=Counters(), on_commit=lambda _: None, on_file=names.append,
        )  # fmt: skip
        sink.write(Outgoing(batch, 0, 100))
        assert [each.name for each in tmp_path.iterdir()] == ["out.pcap.part"]
        assert names == [os.fsencode(tmp_path / "out.pcap.part")]
        (tmp_path / "out.pcap").write_bytes(b"another's")
        sink.close()
        assert (tmp_path / "out.pcap").read_bytes() == b"another's"
        assert len(read_pcap(tmp_path / "out-1.pcap")) == 100
        (tmp_path / "out-1.pcap").rename(tmp_path / "out.pcap1.part")
        made(tmp_path / "out.pcap", [batch], source, rotate_mb=1000)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.pcap", "out.pcap1.part", "out.pcap2"]


def test_a_live_file_is_complete_though_nobody_sends(capture, tmp_path, monkeypatch):
    """The packets are of 2023, so the clock is past the end of their file; one that comes later begins the next."""
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        batch = next(source)
        for interface, complete in (("", False), ("lo", True)):
            path = tmp_path / f"{interface or 'file'}.pcap"
            keys = {"interface": interface} if interface else {"read": "-"}
            sink = RotatingSink(
                Config(write=str(path), rotate_s=10_000, **keys), interfaces=source.interfaces, form=source.form,
                counters=Counters(), on_commit=lambda _: None, on_file=lambda _: None,
            )  # fmt: skip
            sink.write(Outgoing(batch, 0, 50))
            sink.flush()
            assert path.exists() == complete
            sink.write(Outgoing(batch, 50, 60))
            sink.close()
            sizes = [len(read_pcap(each)) for each in sorted(tmp_path.glob(f"{path.stem}*"))]
            assert sorted(sizes) == ([10, 50] if complete else [60])


def test_a_ring_takes_over_the_part_of_a_killed_run(capture, tmp_path):
    (tmp_path / "out.pcap1.part").write_bytes(capture.read_bytes())
    (tmp_path / "20231114-2100.pcap.part").write_bytes(capture.read_bytes())
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        batch = next(source)
        made(tmp_path / "out.pcap", [batch], source, rotate_mb=1000, rotate_files=3)
        made(tmp_path / "%Y%m%d-%H%M.pcap", [batch], source, rotate_s=86_400, rotate_files=2)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["20231114-0000.pcap", "20231114-2100.pcap", "out.pcap0", "out.pcap1"]
    assert (
        (tmp_path / "out.pcap1").read_bytes() == (tmp_path / "20231114-2100.pcap").read_bytes() == capture.read_bytes()
    )


def test_several_sections_in_several_files(tmp_path):
    """Each file begins with the section that it stands in, and packets keep their interfaces."""
    source = tmp_path / "in.pcapng"
    sections = []
    for section, interfaces in enumerate((("one", "two"), ("three",), ("four", "five", "six"))):
        blocks = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        for name in interfaces:
            option = struct.pack("<HH", 2, len(name)) + name.encode() + bytes(-len(name) % 4) + bytes(4)
            blocks += block(1, struct.pack("<HHI", 1, 0, 0) + option)
        for number in range(300):
            at = (START_S + 600 * section + number) * 10**6
            frame = udp_frame(1, number, 4000)
            head = struct.pack("<IIIII", number % len(interfaces), at >> 32, at & 0xFFFFFFFF, len(frame), len(frame))
            blocks += block(6, head + frame + bytes(-len(frame) % 4))
        sections.append(blocks)
    source.write_bytes(b"".join(sections))

    directory = tmp_path / "out"
    directory.mkdir()
    config = Config(read=str(source), write=str(directory / "out.pcapng"), workers=1, rotate_s=250, rotate_mb=1)
    assert Pipeline(config).run().json()["packets"]["written"] == 900
    parts = sorted(map(packets_in_sections, directory.iterdir()))  # a packet begins with its time
    assert len(parts) > 5
    assert tuple(packet for part in parts for packet in part) == packets_in_sections(source)


def packets_in_sections(path):
    """((time, name of the interface, bytes) of each packet) of a pcapng in this machine's byte order."""
    data, at, names, packets = path.read_bytes(), 0, [], []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 0x0A0D0D0A:
            names = []
        elif kind == 1:
            names.append(data[at + 20 : at + 20 + struct.unpack_from("<H", data, at + 18)[0]])
        elif kind == 6:
            number, high, low, length = struct.unpack_from("<IIII", data, at + 8)
            packets.append((high << 32 | low, names[number], data[at + 28 : at + 28 + length]))
        at += size
    return tuple(packets)


def block(kind, body):
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def test_a_ring_goes_on_at_its_oldest_file(capture, tmp_path):
    for number, age in ((0, 20), (1, 30), (2, 10)):
        path = tmp_path / f"out.pcap{number}"
        path.write_bytes(b"x" * 30)
        os.utime(path, (START_S - age, START_S - age))
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        made(tmp_path / "out.pcap", [next(source)], source, rotate_mb=1000, rotate_files=3)
    assert [len(path.read_bytes()) > 30 for path in sorted(tmp_path.iterdir())] == [False, True, False]
    (tmp_path / "out.pcap2").unlink()
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        made(tmp_path / "out.pcap", [next(source)], source, rotate_mb=1000, rotate_files=3)
    assert (tmp_path / "out.pcap2").exists()


@pytest.mark.parametrize(
    ("name", "write", "keys"),
    [
        ("in.pcap", "in.pcap", {"rotate_s": 3600, "overwrite": True}),
        ("in-2023.pcap", "in-%Y.pcap", {"rotate_s": 3600, "rotate_files": 1}),
        ("in.pcap0", "in.pcap", {"rotate_mb": 1, "rotate_files": 1}),
        ("in.pcap1", "in.pcap", {"rotate_mb": 1, "rotate_files": 2}),
        ("in.pcap1", "in.pcap", {"rotate_mb": 1, "overwrite": True}),
        ("in-2.pcap", "link.pcap", {"rotate_s": 3600, "overwrite": True}),
    ],
)
def test_the_input_is_neither_replaced_nor_removed(capture, tmp_path, name, write, keys):
    """Not by the name of a file, not through a link, and not as the oldest file of a ring."""
    before = capture.read_bytes()
    (tmp_path / name).write_bytes(before)
    (tmp_path / "link.pcap").symlink_to(name)
    with CaptureSource(tmp_path / name, Arena(4, 1 << 20, 1 << 12)) as source:
        made(tmp_path / write, source, source, **keys)
    assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) > 2


def test_a_part_that_is_the_input_is_not_written(capture, tmp_path):
    path = tmp_path / "in.pcap.part"
    path.write_bytes(capture.read_bytes())
    with CaptureSource(path, Arena(4, 1 << 20, 1 << 12)) as source, pytest.raises(SinkError, match="also the input"):
        made(tmp_path / "in.pcap", source, source, rotate_s=3600, overwrite=True)
    assert path.read_bytes() == capture.read_bytes()


def test_numbers_go_on_behind_those_that_are_taken(capture, tmp_path):
    for _ in range(2):
        with CaptureSource(capture, Arena(4, 1 << 20, 1 << 12)) as source:
            made(tmp_path / "out.pcap", source, source, rotate_mb=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pcap", *(f"out.pcap{n}" for n in range(1, 6))]
    names = ["out.pcap", *(f"out.pcap{n}" for n in range(1, 6))]
    assert frames_in(tmp_path, *names) == 2 * [frame for _, frame in read_pcap(capture)]


def test_two_runs_into_one_file_or_ring(capture, tmp_path):
    """The second is refused, before it writes and even if both began before there was a file."""
    with CaptureSource(capture, Arena(4, 1 << 22, 1 << 16)) as source:
        batch = next(source)
        path = tmp_path / "out.pcap"
        first, second = (open_capture(path, interfaces=source.interfaces, form=source.form) for _ in range(2))
        first.write(Outgoing(batch, 0, 5))
        with pytest.raises(SinkError, match="another run is writing it"):
            second.write(Outgoing(batch, 0, 5))
        with pytest.raises(SinkError, match="another run is writing it"):
            open_capture(path, interfaces=source.interfaces, form=source.form)
        with pytest.raises(SinkError, match="another run is writing it"):
            made(path, [batch], source, rotate_mb=1, rotate_files=1, overwrite=True)
        first.close()
        assert len(read_pcap(path)) == 5
        third = open_capture(path, interfaces=source.interfaces, form=source.form)
        third.write(Outgoing(batch, 0, 7))
        third.close()
        assert len(read_pcap(path)) == 7
        both = [Nameless(str(tmp_path / "new.pcap")) for _ in range(2)]
        both[0].appear(replace=False)
        with pytest.raises(FileExistsError):
            both[1].appear(replace=False)
        for each in both:
            each.forget()
            os.close(each.descriptor)


def test_free_names(tmp_path):
    taken = {"a/out.pcap.gz", *(f"a/out-{n}.pcap.gz" for n in range(1, 12)), "log", ".pcap"}
    for path, free in (
        ("a/out.pcap.gz", "a/out-12.pcap.gz"), ("log", "log-1"), (".pcap", ".pcap-1"), ("b.pcap", "b.pcap"),
    ):  # fmt: skip
        assert free_name(path, taken.__contains__) == free
    (tmp_path / "empty.pcap").touch()
    assert not is_taken(str(tmp_path / "empty.pcap"))
    assert not is_taken("/dev/null")


def test_time_and_count_keep_the_last_files(capture, tmp_path):
    run, ours = rotated(capture, tmp_path / "ours", "-G", "60", "-W", "3", "--no-rotate-aligned", name="%s.pcap")
    assert run.status == 0, run.stderr
    assert sorted(ours) == [f"{START_S + 60 * minute}.pcap" for minute in range(7, 10)]
    assert run.json["packets"]["written"] == PACKETS
    assert run.json["notes"]["sink.replaced"] == PACKETS - 1800


def test_time_and_size(capture, tmp_path):
    """Numbers begin again with every time."""
    run, ours = rotated(capture, tmp_path / "ours", "-G", "300", "-C", "1", "--no-rotate-aligned", name="%s.pcap")
    assert run.status == 0, run.stderr
    names = [f"{START_S + begin}.pcap{number}" for begin in (0, 300) for number in ("", 1, 2)]
    assert sorted(ours) == names
    assert [1_000_000 < len(ours[name]) < 1_002_000 for name in names] == [True, True, False] * 2
    assert frames_in(tmp_path / "ours", *names) == [frame for _, frame in read_pcap(capture)]


@pytest.mark.parametrize("name", ["out.pcapng", "out.pcap.gz"])
def test_every_file_is_whole_in_every_form(capture, tmp_path, name):
    """tcpdump reads each; together they hold what the capture holds."""
    _, ours = rotated(capture, tmp_path / "ours", "-G", "200", name="%s" + name)
    shown = b""
    assert len(ours) == 3
    for file in sorted(ours):
        data = gzip.decompress(ours[file]) if name.endswith(".gz") else ours[file]
        shown += subprocess.run(
            ["tcpdump", "-nn", "-tt", "-xx", "-r", "-"], input=data, capture_output=True, check=True
        ).stdout
    assert (
        shown == subprocess.run(["tcpdump", "-nn", "-tt", "-xx", "-r", capture], capture_output=True, check=True).stdout
    )


def test_killed_in_between_every_file_is_whole(capture, tmp_path):
    """kill -9 of the run: the workers cut the file that was being written, under whichever name."""
    source = tmp_path / "in.pcap"
    data = capture.read_bytes()
    source.write_bytes(data + data[24:] * 30)
    wholes = 0
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        run = start_run("-r", source, "-w", directory / "out.pcap", "-C", "1", "--service", "slice:1300", "-n", "1")
        while len(list(directory.iterdir())) < 4 + 10 * attempt:
            assert run.poll() is None
            time.sleep(0.001)
        workers = children(run.pid)
        run.send_signal(signal.SIGKILL)
        finish_run(run)
        until_gone(workers)
        numbers = []
        for number in range(len(list(directory.iterdir()))):
            path = directory / f"out.pcap{number or ''}"
            path = path if path.exists() else path.with_name(path.name + ".part")
            numbers += [struct.unpack_from(">Q", frame, 42)[0] for _, frame in read_pcap(path)]
            assert path.stat().st_size == 24 + sum(16 + len(frame) for _, frame in read_pcap(path))
        assert numbers == [number % PACKETS for number in range(len(numbers))]
        wholes += len(numbers)
    assert wholes > 3 * 4000


def test_what_workers_would_cut_is_whole_at_every_moment(capture, tmp_path):
    """Whenever the sink says how much of which file is whole, it is."""
    said = {"path": b"", "committed": 0}
    lengths = []

    def on_file(path):
        assert said["committed"] == 0, "nobody cuts the new file at the old one's length"
        said["path"] = path

    def on_commit(committed):
        said["committed"] = committed
        if committed:
            data = Path(os.fsdecode(said["path"])).read_bytes()[:committed]
            assert len(data) == committed
            lengths.append(len(list(dpkt.pcap.Reader(io.BytesIO(data)))))

    source = CaptureSource(capture, Arena(4, 1 << 20, 1 << 12))
    sink = RotatingSink(
        Config(read="-", write=str(tmp_path / "out.pcap"), rotate_mb=1), interfaces=source.interfaces, form=source.form,
        counters=Counters(), on_commit=on_commit, on_file=on_file,
    )  # fmt: skip
    written = [sink.write(Outgoing(batch, 0, len(batch)))[0] for batch in source]
    sink.close()
    assert sum(written) == PACKETS
    assert lengths.count(0) == len(list(tmp_path.iterdir())) == 5
    assert said["path"].endswith(b"out.pcap4.part")


def test_a_stream_without_packets_gets_a_file(capture, tmp_path):
    _, ours = rotated(capture, tmp_path / "ours", "-C", "1", "-W", "20", "tcp port 1")
    assert list(ours) == ["out.pcap00"]
    assert len(ours["out.pcap00"]) == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-w", "-", "-C", "1"], "rotate_mb and rotate_s need write, with a file name"),
        (["-w", "out.pcap", "-C", "1", "--resume"], "cannot resume: the second stream goes into several files"),
        (
            ["-w", "out.pcap", "-z", "true"],
            "after_file has no effect in this run: it is for outputs of several files (-C, -G, --split)",
        ),
        (["-w", "out.pcap", "-C", "1", "-z", "/no/such"], "after_file: there is no command '/no/such' that may be run"),
        (["-w", "out.pcap", "-C", "1", "-z", "'"], 'after_file: "\'" is not a command: No closing quotation'),
        (["-w", "out.pcap", "-W", "1"], "rotate_files needs rotate_mb or rotate_s"),
        (["-w", "out.pcap", "-C", "-1"], "rotate_mb must be a whole number from 0 to 1000000, not -1"),
    ],
)
def test_wrong_usage_is_one_line(capture, tmp_path, flags, words):
    run = finish_run(start_run("-r", capture, *flags, cwd=tmp_path))
    assert (run.status, run.stderr) == (2, f"streamcore: {words}\n")


@pytest.mark.parametrize("keys", [{"rotate_mb": 1}, {"rotate_s": 60}, {"rotate_s": 60, "rotate_aligned": False}])
def test_the_latest_time_there_is_begins_no_file_after_file(tmp_path, keys):
    """A pcapng may tell 2**64 - 1 ticks of a microsecond, which is cut to the latest time of a packet."""
    source = tmp_path / "in.pcapng"
    header = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    packet = struct.pack("<IIIIIII60sI", 6, 92, 0, 2**32 - 1, 2**32 - 1, 60, 60, bytes(60), 92)
    source.write_bytes(header + interface + packet * 3)
    config = Config(read=str(source), write=str(tmp_path / "out.pcapng"), workers=1, **keys)
    account = Pipeline(config).run().json()
    assert account["packets"]["written"] == 3
    assert len(list(tmp_path.glob("out*"))) == 1


def test_blocks_that_leave_no_room_for_a_packet_end_the_run(tmp_path):
    """Each file of a rotation repeats the secrets: here more than a file may have."""
    source, secret_bytes = tmp_path / "in.pcapng", 2_000_000
    header = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    size = 20 + secret_bytes
    secrets = struct.pack("<IIII", 10, size, 0x544C534B, secret_bytes) + bytes(secret_bytes) + struct.pack("<I", size)
    packet = struct.pack("<IIIIIII60sI", 6, 92, 0, 0, 5, 60, 60, bytes(60), 92)
    source.write_bytes(header + interface + secrets + packet * 3)
    with pytest.raises(SinkError, match="leaves no room for one"):
        Pipeline(Config(read=str(source), write=str(tmp_path / "out.pcapng"), workers=1, rotate_mb=1)).run()
    assert len(list(tmp_path.glob("out*"))) == 1


def until_gone(processes):
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{process}") for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)
