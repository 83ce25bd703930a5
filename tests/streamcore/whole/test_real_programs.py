"""Programs of others talk through a pipeline in the middle, while its workers are killed, one hangs and an interface
goes down and up: what they transfer is right, every packet is accounted for, nothing is left behind.
"""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from tests.streamcore.conftest import COMMAND, MARK, children, kill
from tests.streamcore.real_programs import NAMES, Dns, Http, Sip, Ssh, converse, missing

pytestmark = pytest.mark.usefixtures("nothing_left")
LEASE_MS = 300
KILL_EVERY_S, HANG_AT_S, DOWN_AT_S, DOWN_S = 1.0, 2.3, 3.4, 0.5


class Faults:
    """What happens to a run meanwhile: a worker is killed every second; once one hangs, once an interface goes down."""

    def __init__(self, pid, middle):
        self.pid, self.middle = pid, middle
        self.killed = self.hung = self.downs = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        self._thread.join()

    def _run(self):
        begin_s = kill_s = time.monotonic()
        while not self._ended.wait(0.05):
            now_s = time.monotonic()
            workers = children(self.pid)
            if now_s >= kill_s + KILL_EVERY_S and workers:
                self.killed += kill(workers[self.killed % len(workers)])
                kill_s += KILL_EVERY_S
            if not self.hung and now_s >= begin_s + HANG_AT_S and workers:
                self.hung += kill(workers[-1], signal.SIGSTOP)  # until its lease is over and it is replaced
            if not self.downs and now_s >= begin_s + DOWN_AT_S:
                self.middle.set_link("west", "down")
                time.sleep(DOWN_S)
                self.middle.set_link("west", "up")
                self.downs += 1


def begin(middle, *more):
    """A pipeline between west and east, both ways, that carries packets. Without a service it had no workers."""
    command = [
        *COMMAND, "run", "-i", "west", "-o", "east", "--both", "-n", "2", "--segment-ms", "1",
        "--lease-ms", str(LEASE_MS), "--service", "slice:65535", "--json", *more,
    ]  # fmt: skip
    environment = os.environ | dict([MARK.split("=")])
    return middle.start(*command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_carrying(left, seconds=20):
    deadline = time.monotonic() + seconds
    ping = left.command("ping", "-c", "1", "-W", "1", "10.9.0.2")
    while subprocess.run(ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        assert time.monotonic() < deadline, "nothing gets through"


def finish(run):
    """The account of a run that is told to end."""
    run.send_signal(signal.SIGINT)
    output, words = run.communicate(timeout=60)
    told = json.loads(output.splitlines()[-1])
    assert run.returncode == (3 if told["packets"]["dropped"] else 130), words
    return told


def check_account(told):
    """Every packet is somewhere."""
    assert "unbalanced" not in told
    packets, live = told["packets"], told["live"]
    assert live["received"] == packets["read"] + sum(live["dropped"].values())
    assert packets["read"] == packets["written"] + sum(packets["dropped"].values())


def converse_under_faults(bump, tmp_path, megabytes, lines, calls, rate):
    left, middle, right = bump
    if lacking := missing():
        pytest.skip(f"needs {', '.join(lacking)}: run scripts/system-packages test")
    sip, dns = Sip(tmp_path, calls, 3000), Dns(tmp_path, 0.12)
    programs = {
        "http": Http(tmp_path, megabytes * 1_000_000, rate),
        "ssh": Ssh(tmp_path, lines, 0.1),
        "sip": sip,
        "dns": dns,
    }
    run = begin(middle)
    try:
        wait_for_carrying(left)
        with Faults(run.pid, middle) as faults:
            wrong = converse(left, right, programs)
        told = finish(run)
    finally:
        run.kill()
        run.communicate()
    assert wrong == dict.fromkeys(programs, "")
    assert faults.killed >= 3
    assert (faults.hung, faults.downs) == (1, 1)
    assert told["workers"]["lost"] >= faults.killed
    check_account(told)
    assert told["segments"]["dead_lettered"] == 0
    return sip, dns, told


def test_http_ssh_sip_and_dns_under_faults(bump, tmp_path):
    sip, dns, told = converse_under_faults(bump, tmp_path, 15, 40, 2, 3_000_000)
    assert sip.voice > 50  # most of it came, though some was lost while the interface was down
    assert dns.asked_again < NAMES
    assert told["packets"]["written"] > 10_000
