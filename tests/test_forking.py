"""Commands forked from the prepared process are to a test what new processes are."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forking

OFFICE = Path(__file__).parents[1] / "examples" / "office.pcapng"
SERVE = [sys.executable, "-m", "auction", "serve", "--json", "--listen", "127.0.0.1:0", "--store"]


def command(*words, **more):
    more = {"capture_output": True, "text": True, "timeout": 60} | more
    return subprocess.run([sys.executable, "-m", *map(str, words)], check=False, **more)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def market(tmp_path):
    """A served market: (process, what it says first)."""
    process = subprocess.Popen([*SERVE, f"sqlite:///{tmp_path / 'market.db'}"], stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_is_forked_and_ends_as_it_is_told_to(market):
    process, line = market
    assert "listening" in line
    assert parent_of(process.pid) == forking.prepared.pid
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(20) == process.poll() == 0


def test_a_kill_shows_in_the_status_and_the_dead_stays_until_it_is_asked_for(market):
    process, _ = market
    ended = os.pidfd_open(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert select.select([ended], [], [], 20)[0]
    assert Path(f"/proc/{process.pid}").exists()  # nobody has its number yet
    assert process.wait(20) == -signal.SIGKILL
    os.close(ended)


@pytest.mark.new_processes
def test_where_the_marker_stands_it_is_a_new_process(market):
    process, line = market
    assert "listening" in line
    assert parent_of(process.pid) == os.getpid()


def test_what_only_a_new_process_has_is_one(tmp_path):
    """What runs before the program, and other variables of the interpreter."""
    told = tmp_path / "told"
    done = command("streamcore", "--version", preexec_fn=lambda: told.write_text(str(os.getppid())))
    assert (done.returncode, told.read_text()) == (0, str(os.getpid()))
    assert forking.job_of(asked_for({"PYTHONOPTIMIZE": "2"})) is None
    assert forking.job_of(asked_for({"PLAIN": "2"})) is not None


def asked_for(variables):
    asked = dict.fromkeys(forking.PARAMETERS) | forking.UNASKED
    return asked | {"args": [sys.executable, "-m", "auction"], "env": os.environ | variables}


CASES = (
    ["streamcore", "run", "-r", OFFICE, "-w", "out.pcapng", "-n", "2", "--service", "slice:60", "udp"],
    ["streamcore", "run", "-r", "none.pcap", "-w", "out.pcap"],
    ["streamcore", "run", "-r", OFFICE, "-w", "-", "-q"],
    ["streamcore", "services"],
    ["streamcore"],
    ["auction", "--help"],
    ["auction", "bid", "place"],
    ["auction", "verify", "--json", "--store", "sqlite:///none/market.db"],
)


@pytest.mark.parametrize("words", CASES, ids=lambda words: " ".join(map(str, words[:2])))
def test_it_says_writes_and_ends_as_a_new_one(words, tmp_path, monkeypatch):
    told = []
    for name in ("forked", "new"):
        (place := tmp_path / name).mkdir()
        done = command(*words, cwd=place, text=False)
        files = {path.name: path.read_bytes() for path in place.iterdir()}
        told.append((done.returncode, without_times(done.stdout), without_times(done.stderr), files))
        monkeypatch.setenv(forking.NEW_PROCESSES, "1")
    assert told[0] == told[1]
    assert told[0][1] + told[0][2]


def without_times(text):
    return re.sub(rb"\d+\.\d+ s", b"", text)
