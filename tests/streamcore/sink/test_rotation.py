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
from streamcore.sink.nameless import Nameless
from streamcore.sink.names import free_name, is_taken
from streamcore.sink.rotation import RotatingSink
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


def test_time_cuts_by_the_packets_own(capture, tmp_path):
    """Files of a minute, from the first packet on, and named by their first packet."""
    run, ours = rotated(capture, tmp_path / "ours", "-G", "60", name="%Y%m%d-%H%M%S.pcap")
    assert run.status == 0, run.stderr
    names = [time.strftime("%Y%m%d-%H%M%S.pcap", time.localtime(START_S + 60 * minute)) for minute in range(10)]
    assert sorted(ours) == names
    times = [[at_s for at_s, _ in read_pcap(tmp_path / "ours" / name)] for name in names]
    assert [[round((at_s - START_S) * 10) for at_s in minute] for minute in times] == [
        list(range(600 * minute, 600 * minute + 600)) for minute in range(10)
    ]
    assert frames_in(tmp_path / "ours", *names) == [frame for _, frame in read_pcap(capture)]


def test_a_name_that_is_taken_gets_a_number(capture, tmp_path):
    """Within a run and from run to run. --overwrite does what tcpdump does, and says how much it replaced."""
    directory = tmp_path / "ours"
    _, ours = rotated(capture, directory, "-G", "60")
    names = ["out.pcap", *(f"out-{number}.pcap" for number in range(1, 10))]
    assert sorted(ours) == sorted(names)
    assert frames_in(directory, *names) == [frame for _, frame in read_pcap(capture)]
    assert run_command("-r", capture, "-w", directory / "out.pcap", "-G", "300").status == 0
    assert {name: data for name, data in files_in(directory).items() if name in ours} == ours
    assert len(frames_in(directory, "out-10.pcap", "out-11.pcap")) == PACKETS
    run = run_command("-r", capture, "-w", directory / "out.pcap", "-G", "60", "--overwrite")
    assert len(frames_in(directory, "out.pcap")) == 600
    assert run.json["notes"]["sink.replaced"] == PACKETS - 600
    assert f"{PACKETS - 600:,} of them written into files that later ones of this run have replaced" in run.stderr


def made(directory, batches, source, **keys):
    """What a rotation writes of these batches, in this process: its counters."""
    counters = Counters()
    sink = RotatingSink(
        Config(read="-", write=str(directory), **keys), interfaces=source.interfaces, form=source.form,
        counters=counters, on_commit=lambda _: None, on_file=lambda _: None, on_last=lambda: None,
    )  # fmt: skip
    for batch in batches:
        sink.write(Outgoing(batch, 0, len(batch)))
    sink.close()
    return counters


def test_what_was_written_lies_on_the_disk_whatever_the_clock_does(tmp_path, monkeypatch):
    """Random times, back and forth across a change of the clock; random rotations; restarts. Every packet lies in a
    file, but for those that a ring has replaced, which are counted; and no file of an earlier run has changed."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    chance = random.Random(7)
    for attempt in range(40):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        ring = chance.choice([0, 0, 2, 3])
        keys = {"rotate_s": chance.choice([0, 600, 3600]), "rotate_mb": chance.choice([0, 1])}
        keys["rotate_mb"] = keys["rotate_mb"] or int(not keys["rotate_s"] or bool(ring))
        name = chance.choice(["out.pcap", "%H.pcap.gz", "%Y%m%d-%H%M.pcap", "all"])
        written, replaced, total = [], 0, 0
        for restart in range(3):
            frames = [udp_frame(1, 1000 * attempt + 100 * restart + i, 60_000) for i in range(40)]
            start_s, path = 1_667_084_400 + 60 * chance.randrange(60), tmp_path / "in.pcap"  # 30 October 2022
            with open(path, "wb") as file:
                writer = dpkt.pcap.Writer(file)
                for frame in frames:
                    start_s += chance.choice([1, 60, 900, 3000, -600])
                    writer.writepkt(frame, start_s)
            before = files_in(directory)
            with CaptureSource(path, Arena(4, 1 << 20, 1 << 12)) as source:
                counters = made(directory / name, source, source, rotate_files=ring, **keys)
            replaced += counters.packets("sink.replaced")
            after = files_in(directory)
            if not ring or keys["rotate_s"]:
                assert {each: after.get(each) for each in before} == before, (attempt, keys, name)
            written += frames
        for each in directory.iterdir():
            data = each.read_bytes()
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            total += len(list(dpkt.pcap.Reader(io.BytesIO(data))))
        if not ring or keys["rotate_s"]:
            assert total + replaced == len(written), (attempt, keys, name, ring)
        else:
            assert len(list(directory.iterdir())) <= ring
    monkeypatch.undo()
    time.tzset()


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


def test_time_and_count_end_the_run(capture, tmp_path):
    run, ours = rotated(capture, tmp_path / "ours", "-G", "60", "-W", "3", name="%s.pcap")
    assert run.status == 0, run.stderr
    assert sorted(ours) == [f"{START_S + 60 * minute}.pcap" for minute in range(3)]
    assert run.json["packets"]["written"] == 1800
    dropped = run.json["packets"]["dropped"]
    assert dropped == {"sink.after_last_file": run.json["packets"]["read"] - 1800}


def test_time_and_size(capture, tmp_path):
    """Numbers begin again with every time."""
    run, ours = rotated(capture, tmp_path / "ours", "-G", "300", "-C", "1", name="%s.pcap")
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
        counters=Counters(), on_commit=on_commit, on_file=on_file, on_last=lambda: None,
    )  # fmt: skip
    written = [sink.write(Outgoing(batch, 0, len(batch)))[0] for batch in source]
    sink.close()
    assert sum(written) == PACKETS
    assert lengths.count(0) == len(list(tmp_path.iterdir())) == 5


def test_a_stream_without_packets_gets_a_file(capture, tmp_path):
    _, ours = rotated(capture, tmp_path / "ours", "-C", "1", "-W", "20", "tcp port 1")
    assert list(ours) == ["out.pcap00"]
    assert len(ours["out.pcap00"]) == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-w", "-", "-C", "1"], "rotate_mb and rotate_s need write, with a file name"),
        (["-w", "out.pcap", "-C", "1", "--resume"], "cannot resume: the second stream goes into several files"),
        (["-w", "out.pcap", "-W", "1"], "rotate_files needs rotate_mb or rotate_s"),
        (["-w", "out.pcap", "-C", "-1"], "rotate_mb must be a whole number from 0 to 1000000, not -1"),
    ],
)
def test_wrong_usage_is_one_line(capture, tmp_path, flags, words):
    run = finish_run(start_run("-r", capture, *flags, cwd=tmp_path))
    assert (run.status, run.stderr) == (2, f"streamcore: {words}\n")


def until_gone(processes):
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{process}") for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)
