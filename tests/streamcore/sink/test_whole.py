"""No torn record, whatever happens: full disks, closed pipes, a process that is killed. And other programs read it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.errors import SinkError
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink.seal import seal
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource
from tests.streamcore import twin
from tests.streamcore.sink.test_writer import all_of, capture_of, copy, inner
from tests.streamcore.twin import Packet

PACKETS = [Packet(1_700_000_000_000_000 + i, bytes([i % 256]) * (i % 1400), i % 1400) for i in range(4000)]
ENDINGS = ["pcap", "pcapng", "pcap.gz", "pcapng.zst", "pcap.lz4"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.pcap"
    path.write_bytes(twin.pcap_bytes(PACKETS))
    return path


def packets_in(path):
    """Packets of a capture that a sink wrote, read by the twin, which fails on a torn record."""
    data = inner(path)
    return (twin.read_pcapng(data) if data[:1] == b"\x0a" else twin.read_pcap(data))[0]


def in_parts(size):
    return lambda batch: [Outgoing(batch, i, min(i + size, len(batch))) for i in range(0, len(batch), size)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_commit_is_a_whole_capture(ending, source, tmp_path):
    """Cut at every committed length, as `seal` does for a process that was killed."""
    target, commits = tmp_path / f"out.{ending}", []
    counts = []

    def outgoings(batch):
        for outgoing in in_parts(97)(batch):
            counts.append(len(commits))
            yield outgoing

    copy(source, target, outgoings, on_commit=commits.append)
    assert commits == sorted(commits)
    assert commits[-1] == target.stat().st_size
    data, sizes = target.read_bytes(), []
    for commit in commits[:: max(1, len(commits) // 20)] + commits[-1:]:
        target.write_bytes(data[: commit + 7])  # a torn piece behind it
        assert seal(str(target), commit) == (commit < len(data))
        sizes.append(len(packets_in(target)))
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] == len(PACKETS)


def test_seal_leaves_alone_what_is_not_ours(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"somebody else's")
    assert not seal(str(path), 0)
    assert not seal(str(path), 100)
    assert path.read_bytes() == b"somebody else's"
    assert not seal(str(tmp_path / "missing"), 5)
    assert not seal("/dev/null", 5)


def test_seal_imports_nothing_of_ours():
    code = (
        "import sys; from streamcore.sink import seal; print({'numpy', 'streamcore.core.packets'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_in_the_middle_of_writing(ending, source, tmp_path):
    """kill -9 at some moment: cut at what was committed last, the file is whole."""
    target, note = tmp_path / f"out.{ending}", tmp_path / "committed"
    code = f"""
import mmap, os, struct
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource
note = os.open({str(note)!r}, os.O_RDWR | os.O_CREAT)
commit = lambda size: os.pwrite(note, struct.pack('<Q', size), 0)
source = CaptureSource({str(source)!r}, Arena(2, 1 << 16, 1 << 10))
batch = next(source)
sink = open_capture({str(target)!r}, interfaces=source.interfaces, form=source.form, on_commit=commit)
print(flush=True)
while True:
    for start in range(0, len(batch), 7):
        sink.write(Outgoing(batch, start, min(start + 7, len(batch))))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    while not note.read_bytes():
        time.sleep(0.001)
    time.sleep(random.Random(ending).uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    committed = int.from_bytes(note.read_bytes(), "little")
    assert committed > 0
    seal(str(target), committed)
    assert target.stat().st_size == committed
    if ending in ("pcap", "pcapng"):
        assert len(packets_in(target)) > 100
    else:
        packets_in(target)


def test_a_full_device_is_one_line(source):
    with pytest.raises(SinkError, match=r"^cannot write /dev/full: no space left on device$"):
        copy(source, "/dev/full")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small tmpfs can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("ending", ["pcap", "pcapng", "pcap.gz", "pcap.lz4"])
@pytest.mark.parametrize("size", [50, 5000])
def test_a_full_disk_keeps_what_was_delivered(ending, size, small_disk, tmp_path):
    packets = [Packet(i, os.urandom(700), 700) for i in range(3000)]
    source, target = tmp_path / "in.pcap", small_disk / f"out.{ending}"
    source.write_bytes(twin.pcap_bytes(packets))
    commits = []
    with pytest.raises(SinkError, match=r"no space left on device; the packets written before are intact$"):
        copy(source, target, in_parts(size), chunk_bytes=100_000, on_commit=commits.append)
    assert target.stat().st_size == commits[-1]
    kept = packets_in(target)
    assert [r.data for r in kept] == [p.data for p in packets[: len(kept)]]
    if ending in ("pcap", "pcapng"):
        assert len(kept) > 500


def test_a_closed_pipe_is_one_line(source, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: open(fifo, "rb").close())
    reader.start()
    with pytest.raises(SinkError, match=r"its reader has closed it$"):
        copy(source, fifo)
    reader.join()


def test_a_pipe_that_does_not_block_gets_everything(source):
    """Short writes and EAGAIN: standard output is a pipe that somebody made non-blocking, and its reader is slow."""
    code = "import os, sys; from tests.streamcore.sink.test_writer import copy; os.set_blocking(1, False); "
    code += "copy(sys.argv[1], '-')"
    process = subprocess.Popen([sys.executable, "-c", code, source], stdout=subprocess.PIPE)
    assert process.stdout is not None
    got = bytearray()
    while piece := os.read(process.stdout.fileno(), 30_000):
        got.extend(piece)
        time.sleep(0.001)
    process.stdout.close()
    assert process.wait() == 0
    assert bytes(got) == source.read_bytes()


def test_standard_output_in_the_form_of_the_input(source, tmp_path):
    """Also behind what already stands in the file that standard output is."""
    code = "import sys; from tests.streamcore.sink.test_writer import copy; copy(sys.argv[1], '-')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code, source], stdout=out, check=True)
        subprocess.run([sys.executable, "-c", code, source], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == source.read_bytes() * 2


def test_what_cannot_be_written_is_refused_early_in_one_line(source, tmp_path):
    with CaptureSource(source, Arena(2, 1 << 16, 1 << 10)) as capture:
        (tmp_path / "link.pcap").symlink_to(source)
        for path, words in (
            (tmp_path / "none" / "out.pcap", "there is no directory"),
            (tmp_path, "it is a directory"),
            (source, "it is also the input"),
            (tmp_path / "link.pcap", "it is also the input"),
            (source / "out.pcap", "not a directory|there is no directory"),
        ):
            with pytest.raises(SinkError, match=words) as caught:
                open_capture(path, interfaces=capture.interfaces, form=capture.form)
            assert "\n" not in str(caught.value)
    assert source.read_bytes() == twin.pcap_bytes(PACKETS)


def test_abandoned_output_is_whole_and_further_writes_are_refused(source, tmp_path):
    target = tmp_path / "out.pcap.gz"
    with CaptureSource(source, Arena(2, 1 << 16, 1 << 10)) as capture:
        sink = open_capture(target, interfaces=capture.interfaces, form=capture.form)
        batch = next(capture)
        sink.write(all_of(batch)[0])
        sink.flush()
        kept = len(batch)
        sink.write(all_of(batch)[0])
        sink.abandon()
        sink.abandon()
        sink.close()
        with pytest.raises(SinkError, match="closed"):
            sink.write(all_of(batch)[0])
    assert len(packets_in(target)) == kept


def test_nothing_is_opened_that_is_never_written(tmp_path):
    sink = open_capture(tmp_path / "out.pcap", interfaces=[Interface(1)], form=CaptureForm("pcap"))
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize("family", ["pcap", "pcapng"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
def test_tcpdump_reads_the_same(family, order, ending, tmp_path):
    source, target = tmp_path / "in", tmp_path / f"out.{ending}"
    source.write_bytes(capture_of(family, order, PACKETS[:500]))
    copy(source, target)
    shown = [
        subprocess.run(["tcpdump", "-tt", "-n", "-xx", "-r", path], capture_output=True, text=True, check=True).stdout
        for path in (source, target)
    ]
    assert shown[0] == shown[1]
    assert shown[0].count("\n") > 500


@pytest.mark.skipif(shutil.which("capinfos") is None, reason="capinfos is not installed")
@pytest.mark.parametrize("ending", ENDINGS)
def test_capinfos_counts_the_same(ending, source, tmp_path):
    target = tmp_path / f"out.{ending}"
    copy(source, target, in_parts(1000))
    told = subprocess.run(["capinfos", "-TrmcaeS", source, target], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",")[1:] for line in told.splitlines()]
    assert rows[0] == rows[1]
    assert rows[0][0] == "4000"
