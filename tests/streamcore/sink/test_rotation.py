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
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink.rotation import RotatingSink
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


def test_without_a_time_in_the_name_each_file_overwrites_the_one_before(capture, tmp_path):
    _, ours = rotated(capture, tmp_path / "ours", "-G", "60")
    assert list(ours) == ["out.pcap"]
    assert len(read_pcap(tmp_path / "ours" / "out.pcap")) == 600


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
