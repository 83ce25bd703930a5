"""Inputs that cannot be read and outputs that cannot be written, through the whole command.

One line that says what to do, the right status, what was delivered is whole, and nothing is left behind.
"""

import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streamcore.conftest import COMMAND, finish_run, read_pcap, run_command, start_run, udp_frame, write_pcap

OFFICE = Path(__file__).parents[3] / "examples" / "office.pcapng"
HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
RECORD = struct.pack("<IIII", 1, 0, 4, 4) + b"abcd"

pytestmark = pytest.mark.usefixtures("nothing_left")


def the_line(run, status=1):
    assert run.status == status, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("streamcore: ")
    return line.removeprefix("streamcore: ")


def no_output(tmp_path):
    """A run that could not read its input leaves no output, nor empties the one that was there."""
    assert not (tmp_path / "out.pcap").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot open {}: no such file or directory"),
        (b"", "{} is empty, not a capture"),
        (b"this is a letter, not a capture\n" * 100, "{} is not a pcap or pcapng capture: it looks like text"),
        (bytes(range(1, 200)), "{} is not a pcap or pcapng capture"),
        (HEADER[:10], "{} is not a pcap or pcapng capture"),
        (b"\x0a\x0d\x0d\x0a" + b"\xff" * 20, "{} is not a pcap or pcapng capture"),
        (b"\x1f\x8b\x08" + bytes(50), "{}"),  # gzip, of nothing
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "{}"),  # zstd, damaged
    ],
)
def test_what_is_no_capture(content, words, tmp_path):
    source = tmp_path / "in.pcap"
    if content is not None:
        source.write_bytes(content)
    run = run_command("-r", source, "-w", tmp_path / "out.pcap")
    assert the_line(run).startswith(words.format(source))
    no_output(tmp_path)


def test_what_is_no_capture_on_standard_input(tmp_path):
    run = finish_run(start_run("-r", "-", "-w", tmp_path / "out.pcap"))
    assert the_line(run) == "standard input is empty, not a capture"
    no_output(tmp_path)


def test_a_directory(tmp_path):
    run = run_command("-r", tmp_path, "-w", tmp_path / "out.pcap")
    assert the_line(run) == f"{tmp_path} is a directory: name a capture file"
    run = run_command("-r", OFFICE, "-w", tmp_path)
    assert the_line(run) == f"cannot write {tmp_path}: it is a directory, name a file"
    run = run_command("-r", OFFICE, "-w", tmp_path / "nosuch" / "out.pcap")
    assert the_line(run) == f"cannot write {tmp_path}/nosuch/out.pcap: there is no directory {tmp_path}/nosuch"


def without_privilege(*arguments):
    """A run that may not override permissions, though root started it."""
    prefix = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root reads everything, and there is no setpriv to give that up")
        prefix = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    command = [*prefix, sys.executable, "-m", "streamcore", "run", *map(str, arguments)]
    return finish_run(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def test_what_may_not_be_read_or_written(tmp_path):
    source = tmp_path / "in.pcap"
    shutil.copy(OFFICE, source)
    source.chmod(0)
    assert (
        the_line(without_privilege("-r", source, "-w", tmp_path / "out.pcap"))
        == f"cannot open {source}: permission denied"
    )
    no_output(tmp_path)
    target = tmp_path / "kept.pcap"
    target.write_bytes(b"mine")
    target.chmod(0o444)
    assert the_line(without_privilege("-r", OFFICE, "-w", target)) == f"cannot write {target}: permission denied"
    assert target.read_bytes() == b"mine"


def test_the_input_is_not_overwritten(tmp_path):
    source = tmp_path / "in.pcap"
    shutil.copy(OFFICE, source)
    os.link(source, tmp_path / "same.pcap")
    for name in ("in.pcap", "same.pcap"):
        line = the_line(run_command("-r", source, "-w", tmp_path / name))
        assert "it is also the input, name another file" in line
    assert source.read_bytes() == OFFICE.read_bytes()


@pytest.mark.parametrize(
    ("content", "offset", "packets"),
    [
        (HEADER + RECORD + struct.pack("<IIII", 1, 0, 0x7FFFFFFF, 0x7FFFFFFF) + bytes(99), 44, 1),  # absurd
        (HEADER + RECORD * 3 + struct.pack("<IIII", 1, 0, 0xFFFFFFFF, 4) + bytes(99), 84, 3),
        (HEADER + RECORD * 2 + RECORD[:-1], 64, 2),  # cut in a packet
        (HEADER + RECORD * 2 + RECORD[:7], 64, 2),  # cut in a record's header
        (HEADER + RECORD[:3], 24, 0),
    ],
)
def test_damage_is_named_by_its_offset_and_what_came_before_is_delivered(content, offset, packets, tmp_path):
    source = tmp_path / "in.pcap"
    source.write_bytes(content)
    run = run_command("-r", source, "-w", tmp_path / "out.pcap")
    assert run.status == 3
    assert f"the input is damaged: at byte {offset} " in run.stderr
    assert run.json["damage"].startswith(f"at byte {offset} ")
    assert run.json["packets"] == {"read": packets, "written": packets, "dropped": {}}
    assert [frame for _, frame in read_pcap(tmp_path / "out.pcap")] == [b"abcd"] * packets


def test_a_full_device():
    assert the_line(run_command("-r", OFFICE, "-w", "/dev/full")) == "cannot write /dev/full: no space left on device"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """(frames, a capture of them) that no compression makes small."""
    chance = random.Random(1)
    frames = [udp_frame(i, i) + chance.randbytes(1400) for i in range(8_000)]
    return frames, write_pcap(tmp_path_factory.mktemp("large") / "in.pcap", frames)


@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng", "out.pcap.gz"])
def test_no_more_space_keeps_what_was_written_whole(large, tmp_path, name):
    frames, source = large
    small = tmp_path / "small.toml"
    small.write_text("chunks = 2\nchunk_bytes = 524288\nchunk_rows = 1024\n")  # the limit is for them too
    output, limit = tmp_path / name, 6_000_000

    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start_run("-r", source, "-w", output, "--config", small, "--json", preexec_fn=no_space)
    run = finish_run(process)
    assert the_line(run).startswith(f"cannot write {output}: file too large")
    assert run.json["exit_status"] == 1
    assert 0 < output.stat().st_size <= limit
    again = run_command("-r", output, "-w", tmp_path / "again.pcap")
    assert again.status == 0, again.stderr  # damage would be 3
    written = [frame for _, frame in read_pcap(tmp_path / "again.pcap")]
    assert 0 < len(written) < len(frames)
    assert written == frames[: len(written)]


def test_no_room_for_the_run_itself(tmp_path):
    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = finish_run(start_run("-r", OFFICE, "-w", tmp_path / "out.pcap", preexec_fn=no_space))
    assert the_line(run) == "cannot run: file too large (see 'streamcore doctor')"
    no_output(tmp_path)


def test_a_reader_that_goes_away(tmp_path):
    source = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i, 400) for i in range(20_000)])
    process = start_run("-r", source, "-w", "-", "--segment-packets", "500", text=False)
    assert len(process.stdout.read(1_000)) == 1_000
    process.stdout.close()
    error = process.stderr.read().decode()
    assert (process.wait(20), error) == (-signal.SIGPIPE, "")


def test_a_table_whose_reader_goes_away(tmp_path):
    source = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i, 40) for i in range(5_000)])
    for words in (["packets", "--tsv", "-"], ["flows", "--csv"]):
        process = subprocess.Popen(
            [*COMMAND, *words, "-r", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        process.stdout.close()
        error = process.stderr.read().decode()
        process.stderr.close()
        assert (process.wait(20), error) == (-signal.SIGPIPE, ""), words


@pytest.mark.new_processes
def test_little_of_what_a_process_needs(tmp_path):
    """Few files may be open, or there are few addresses: one line."""
    source = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i, 40) for i in range(9)])
    run_words = f"run -r {source} -w {tmp_path / 'out.pcap'} -n 2 --service slice:50"
    for limit, words, line in (
        ("-n 20", run_words, "cannot run: 20 files may be open at once (ulimit -n), and the run needs 56"),
        ("-n 56", run_words, ""),
        ("-v 60000", run_words, "not enough memory: the address space is limited to 58 MiB (ulimit -v)"),
        ("-v 150000", run_words, "not enough memory: the address space is limited to 146 MiB (ulimit -v)"),
        ("-v 150000", f"flows -r {source}", "not enough memory: the address space is limited to 146 MiB (ulimit -v)"),
    ):
        run = subprocess.run(
            ["sh", "-c", f"ulimit {limit}; exec {' '.join(COMMAND)} {words}"],
            capture_output=True, timeout=60, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if line:
            assert (run.returncode, run.stderr) == (1, f"streamcore: {line}\n"), (limit, words)
        else:
            assert run.returncode == 0, run.stderr


def test_names_of_any_bytes(tmp_path):
    """Names of files need not be UTF-8; nothing is said of them but as they are."""
    source = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i, 40) for i in range(9)])
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pcap")
    shutil.copy(source, odd)
    run = run_command("-r", odd, "-w", odd + ".out.pcap", "-n", "1")
    assert (run.status, Path(odd + ".out.pcap").read_bytes()) == (0, source.read_bytes()), run.stderr
    table = tmp_path / "table.tsv"
    packets = [*COMMAND, "packets", "-r", odd, "--tsv", table]
    assert subprocess.run(packets, timeout=60, check=False).returncode == 0
    assert table.read_bytes().splitlines()[1].startswith(b"\xff.pcap\t1\t")
    run = run_command("-i", os.fsdecode(b"\xff0"), "-w", tmp_path / "out.pcap")
    assert the_line(run).startswith("cannot capture on ")
    run = run_command("-i", "a-name-of-more-than-15-bytes", "-w", tmp_path / "out.pcap")
    assert the_line(run).endswith("there is no such interface (see 'ip link')")


@pytest.mark.new_processes
def test_closed_standard_streams(tmp_path):
    """They are closed before the interpreter starts, as `<&-` does it: one line, or no difference at all."""
    source = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i, 40) for i in range(9)])
    from_it, to_it = f"-r {source} -n 1", f"-w {tmp_path / 'out.pcap'} -n 1"
    for words, status, error, output in (
        (f"run -r - {to_it} <&-", 1, "streamcore: cannot read standard input: it is closed\n", b""),
        (f"run {from_it} -w - >&-", 1, "streamcore: cannot write standard output: it is closed\n", b""),
        (f"run {from_it} {to_it} -q --json >&-", 1, "streamcore: cannot write standard output: it is closed\n", b""),
        ("services >&-", 1, "streamcore: cannot write standard output: it is closed\n", b""),
        ("run --help >&-", 1, "streamcore: cannot write standard output: it is closed\n", b""),
        (f"packets -r {source} --tsv - >&-", 1, "streamcore: cannot write standard output: it is closed\n", b""),
        (f"run {from_it} {to_it} <&- >&- 2>&-", 0, "", b""),
        (f"run {from_it} -w - <&- 2>&-", 0, "", source.read_bytes()),
        ("run 2>&-", 2, "", b""),
    ):
        (tmp_path / "out.pcap").unlink(missing_ok=True)
        run = subprocess.run(
            ["sh", "-c", f"{' '.join(COMMAND)} {words}"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL
        )
        *account, last = ["", *run.stderr.decode().splitlines(keepends=True)]  # a run that failed has an account, too
        assert (run.returncode, last, run.stdout) == (status, error, output), words
        assert not account[1:] or "read, 0 written" in account[1], words
        if status == 0 and "-w -" not in words:
            assert (tmp_path / "out.pcap").read_bytes() == source.read_bytes()


def test_an_error_of_the_disk_while_reading(tmp_path):
    """/proc/self/mem opens, and its first page cannot be read."""
    run = run_command("-r", "/proc/self/mem", "-w", tmp_path / "out.pcap")
    assert the_line(run) == "cannot read /proc/self/mem: input/output error"
    no_output(tmp_path)
