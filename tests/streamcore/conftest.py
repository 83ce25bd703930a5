"""What many tests need: captures made by dpkt (not by our own writer), the command as a process, and a look at what a
run leaves behind.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import dpkt
import pytest

from tests import forking
from tests.streamcore.namespaces import bump, pair, root_and_namespaces  # noqa: F401  fixtures for live tests

MARK = f"STREAMCORE_TEST_RUN={uuid.uuid4().hex}"  # in the environment of every process that a test starts
forking.prepared.environment |= dict([MARK.split("=")])
COMMAND = [sys.executable, "-m", "streamcore"]


def udp_frame(flow, number, size=20):
    """An Ethernet frame of UDP over IPv4 with right checksums; `flow` chooses addresses and ports, `number` stands in
    the payload.
    """
    frame, words = frame_without_number(flow, size)
    words += sum(number >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    while words > 0xFFFF:
        words = (words & 0xFFFF) + (words >> 16)
    checksum = 0xFFFF ^ words or 0xFFFF
    return frame[:40] + checksum.to_bytes(2, "big") + number.to_bytes(8, "big") + frame[50:]


@functools.lru_cache(4096)
def frame_without_number(flow, size):
    """(frame with the number 0, sum of its UDP words): dpkt takes a while for each, and many differ by the number."""
    frame = frame_by_dpkt(flow, 0, size)
    return frame, 0xFFFF ^ int.from_bytes(frame[40:42], "big")


def frame_by_dpkt(flow, number, size):
    udp = dpkt.udp.UDP(sport=1024 + flow % 50000, dport=5060, data=number.to_bytes(8, "big") + bytes(size))
    udp.ulen = len(udp)
    ip = dpkt.ip.IP(src=bytes([10, 0, flow >> 8 & 255, flow & 255]), dst=b"\xc0\x00\x02\x01", p=17, data=udp)
    ip.len = len(ip)
    return bytes(dpkt.ethernet.Ethernet(src=b"\2" * 6, dst=b"\4" * 6, type=0x0800, data=ip))


def write_pcap(path, frames, start_s=1_700_000_000):
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file, nano=True)
        for i, frame in enumerate(frames):
            writer.writepkt(frame, start_s + i / 1000)
    return path


def read_pcap(path):
    """[(time, bytes)] as dpkt reads them; fails where a record is torn."""
    with open(path, "rb") as file:
        return list(dpkt.pcap.UniversalReader(file))


@dataclass
class Run:
    status: int
    stderr: str
    json: dict


def children(pid):
    """Process ids of the workers of a run."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start_run(*arguments, **more):
    environment = os.environ | dict([MARK.split("=")])
    more = {
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
        "text": True,
    } | more
    return subprocess.Popen([*COMMAND, "run", *map(str, arguments)], **more)


def finish_run(process, timeout_s=60):
    stdout, stderr = process.communicate(timeout=timeout_s)
    lines = (stdout or "").strip().splitlines()
    told = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Run(process.returncode, stderr, told)


def run_command(*arguments, timeout_s=60):
    """`streamcore run … --json`, to its end."""
    return finish_run(start_run(*arguments, "--json"), timeout_s)


def ours():
    """What runs of this test process can leave: processes with their sockets, and files in shared memory.

    Our workers' socket addresses are abstract: they are gone with the process that holds them.
    """
    left = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), forking.prepared.pid):
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and MARK.encode() in (entry / "environ").read_bytes():
                    left.add(f"process {entry.name} {(entry / 'cmdline').read_bytes()!r}")
            except OSError:
                continue
    shared = {
        str(path) for path in Path("/dev/shm").glob("*streamcore*") if not path.name.startswith("streamcore-bench")
    }
    return left | shared | {str(path) for path in Path(tempfile.gettempdir()).glob("*streamcore*") if path.is_socket()}


@pytest.fixture
def nothing_left():
    """Fails a test whose runs leave something behind."""
    before = ours()
    yield
    deadline = time.monotonic() + 5
    while (left := ours() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False
