"""What measure.py tells of commands whose time and memory are known, and how peers.py compares."""

import contextlib
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
MB = 1_000_000


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def test_wall_and_processor_time_of_the_command_and_its_children() -> None:
    import measure

    busy = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"
    run = measure.run(python(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\n{busy}"))
    assert run.status == 0
    assert 0.6 <= run.cpu_s < 1.5
    assert run.wall_s >= 0.6
    assert run.peak_bytes is None


def test_memory_is_of_the_whole_tree_and_counts_shared_pages_once() -> None:
    import measure

    alone = measure.run(python("import time; time.sleep(0.3)"), sample_memory=True)
    program = python("""
            import mmap, os, time
            shared, own = mmap.mmap(-1, 60_000_000), bytearray(b"x") * 40_000_000
            shared.write(bytes(60_000_000))
            child = os.fork()
            if child == 0:
                mine = bytearray(b"y") * 50_000_000
                sum(shared[::4096])  # maps it here too
                time.sleep(0.5)
                os._exit(0)
            os.waitpid(child, 0)
        """)
    # Each process is looked at in its own moment, which can only make the sum too large.
    shared_bytes = min(measure.run(program, sample_memory=True).peak_bytes or 0 for _ in range(3))
    assert alone.peak_bytes is not None
    # 60 shared + 40 of the parent + 50 of the child; for a moment the parent also holds the zeros that it writes.
    assert 150 * MB <= shared_bytes - alone.peak_bytes < 170 * MB


def test_a_descendant_that_left_the_session_is_still_counted() -> None:
    import measure

    run = measure.run(
        python("""
            import subprocess, sys
            subprocess.run([sys.executable, "-c", "import time; b = bytearray(b'x') * 80_000_000; time.sleep(0.5)"],
                           start_new_session=True)
        """),
        sample_memory=True,
    )
    assert run.peak_bytes is not None
    assert run.peak_bytes > 80 * MB


def test_failure_and_timeout_are_told() -> None:
    import measure

    failed = measure.run(python("import sys; print('out'); print('one\\ntwo', file=sys.stderr); sys.exit(3)"))
    assert (failed.status, failed.output, failed.complaint) == (3, "out\n", "two")
    started = time.monotonic()
    stopped = measure.run(["sleep", "60"], timeout_s=0.2)
    assert (stopped.status, stopped.complaint) == (-9, "not finished after 0.2 s")
    assert time.monotonic() - started < 5


def test_ratios_are_taken_within_a_round() -> None:
    import peers

    slow, fast = peers.Row("slow", wall_s=[2.0, 8.0, 3.0]), peers.Row("fast", wall_s=[1.0, 4.0, 1.0])
    assert peers.ratio(slow, fast) == 2.0
    assert peers.ratio(fast, slow) == 0.5


def test_a_prefix_is_scaled_but_not_its_start() -> None:
    import measure
    import peers
    import roster

    peer = roster.Peer("some", lambda source, target: [], writes=False, prefix_packets=100)
    run = measure.Run(3.0, 3.0, 0, json.dumps({"packets": 100, "flows": 7, "loop_s": 2.0}), "")
    row = peers.Row("some")
    row.add(run, peer, packets=1000)
    assert row.wall_s == [1.0 + 2.0 * 10]
    assert row.notes == ["scaled from the first 100 packets"]
    whole = peers.Row("some")
    whole.add(run, peer, packets=100)
    assert (whole.wall_s, whole.notes) == ([3.0], ["7 flows"])


def test_what_starting_takes_is_shown_apart() -> None:
    import peers

    rows = {
        "small64": [peers.Row("filter", wall_s=[3.0, 2.0]), peers.Row("tcpdump-filter", wall_s=[4.0])],
        "start": [peers.Row("filter", wall_s=[1.5, 1.0]), peers.Row("tcpdump-filter", wall_s=[1.0])],
    }
    assert peers.apart(rows) == ["  small64: filter, times tcpdump's: 3.00"]
    assert peers.apart({"small64": rows["small64"]}) == []


def test_a_changed_packet_is_seen(tmp_path: Path) -> None:
    import peers

    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(24) + b"packets" * 1000)
    other.write_bytes(b"snap length differs     " + b"packets" * 1000)
    assert peers.same_packets(one, other)
    other.write_bytes(bytes(24) + b"packets" * 999 + b"packetz")
    assert not peers.same_packets(one, other)
    other.write_bytes(bytes(24) + b"packets" * 999)
    assert not peers.same_packets(one, other)


def test_prototypes_are_compiled_and_what_does_not_compile_is_named(tmp_path: Path) -> None:
    import roster

    sources = tmp_path / "sources"
    sources.mkdir()
    copy = 'char *strcat(); int system(); int main(int c, char **v) { char b[999] = "cp "; strcat(b, v[1]);'
    (sources / "copies.c").write_text(copy + ' strcat(b, " "); strcat(b, v[2]); return system(b) != 0; }')
    (sources / "library.c").write_text("int no_main;")
    found, missing = roster.prototypes([sources], tmp_path)
    assert [peer.name for peer in found] == ["copies"]
    assert list(missing) == ["library.c"]
    (tmp_path / "in").write_bytes(b"x" * 30)
    subprocess.run(found[0].command(tmp_path / "in", tmp_path / "out"), check=True)
    assert (tmp_path / "out").read_bytes() == b"x" * 30


def test_the_command_compares_what_is_there_and_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    command = [sys.executable, BENCH / "peers.py", "--directory", directory, "--rounds", "2", "--packets", "1000"]
    run = subprocess.run(
        [*command, "--peers", "cp,nosuch,dpkt,filter,split", "--captures", "small64,start", "--json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "nosuch left out: no peer of that name" in run.stderr
    sections = json.loads(run.stdout)["sections"]
    assert {name: section["packets"] for name, section in sections.items()} == {"small64": 1000, "start": 100}
    for section in sections.values():
        assert [row["name"] for row in section["rows"]] == ["cp", "dpkt", "filter", "split"]
        assert all(len(row["wall_s"]) == 2 and min(row["wall_s"]) > 0 for row in section["rows"])
    assert not directory.exists()


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return found


def test_a_stopped_comparison_leaves_neither_files_nor_processes(tmp_path: Path) -> None:
    source = tmp_path / "sleeps.c"
    source.write_text("int sleep(); int main() { sleep(97); }")
    directory = tmp_path / "made"
    flags = ["--captures", "start", "--peers", "none", "--limits", source, "--directory", directory]
    process = subprocess.Popen([sys.executable, BENCH / "peers.py", *flags], stderr=subprocess.PIPE)

    def running() -> bool:
        return any(command.startswith(str(directory)) for command in command_lines())

    try:
        until = time.monotonic() + 60
        while not running():
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    until = time.monotonic() + 60
    while running():  # what was killed is gone a moment later; by itself it would sleep on
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not directory.exists()


def test_what_stood_in_the_directory_stays(tmp_path: Path) -> None:
    command = [sys.executable, BENCH / "peers.py", "--directory", tmp_path, "--rounds", "1", "--captures", "start"]
    (tmp_path / "out-mine").write_text("mine")
    subprocess.run([*command, "--peers", "cp", "--keep"], check=True, capture_output=True, timeout=60)
    names = {"out-mine", "start-100-us.pcap"}
    assert {path.name for path in tmp_path.iterdir()} == names
    subprocess.run([*command, "--peers", "cp"], check=True, capture_output=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_wrong_usage_is_one_line() -> None:
    run = subprocess.run(
        [sys.executable, BENCH / "peers.py", "--captures", "large"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert "no capture called large; there are small64, imix, tcp1514, start" in run.stderr
