"""A bump in the wire carries what Linux sends by default: packets whose checksums and segments are left to hardware.
TCP arrives byte for byte, whatever the offloads of the interfaces and the services of the run.
"""

import contextlib
import hashlib
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.streamcore.conftest import COMMAND, MARK, finish_run
from tests.streamcore.namespaces import join, namespaces

pytestmark = pytest.mark.usefixtures("nothing_left", "root_and_namespaces")

SERVICES = f"{Path(__file__).parents[1] / 'services_for_tests.py'}"
PATIENCE_S = 60
LEFT, RIGHT = "10.9.0.1", "10.9.0.2"


@contextlib.contextmanager
def bump(*, offloads=True, mtu=1500, gro=False, east=()):
    """left - middle - right, nothing forwards in the middle. east: offloads that are off there."""
    with namespaces(3) as (left, middle, right):
        for end, name in ((left, "west"), (right, "east")):
            join(end, "end", middle, name, mtu=mtu, offloads=offloads)
        if gro:
            for where, name in ((left, "end"), (middle, "west"), (middle, "east"), (right, "end")):
                where.run("ethtool", "-K", name, "gro", "on")
        if east:
            middle.run("ethtool", "-K", "east", *(word for offload in east for word in (offload, "off")))
        for end, address in ((left, LEFT), (right, RIGHT)):
            end.run("ip", "address", "add", f"{address}/24", "dev", "end")
        yield left, middle, right


@contextlib.contextmanager
def running(middle, *arguments):
    """A run between west and east, both ways; afterwards the list has its account."""
    environment = dict([MARK.split("=")])
    process = middle.start(
        "env", *map("=".join, environment.items()), *COMMAND, "run", "-i", "west", "-o", "east", "--both", "-n", "1",
        "--json", "-q", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    accounts = []
    try:
        middle.until_heard(process, 2)
        yield accounts
        process.send_signal(signal.SIGTERM)
        run = finish_run(process)
        assert run.status in (130, 3), run.stderr
        assert "unbalanced" not in run.json
        accounts.append(run.json)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def exchange(left, right, size, seed=1):
    """A stream each way at the same time over one connection: fails unless both arrive as they were sent."""
    told = [random.Random(seed + i).randbytes(size) for i in range(2)]
    with right.entered():
        listener = socket.create_server((RIGHT, 5001))
    listener.settimeout(PATIENCE_S)
    with left.entered():
        caller = socket.create_connection((RIGHT, 5001), timeout=PATIENCE_S)
    called = listener.accept()[0]
    called.settimeout(PATIENCE_S)
    heard = [b"", b""]

    def hear(which, connection):
        with contextlib.suppress(TimeoutError):
            while len(heard[which]) < size and (part := connection.recv(1 << 18)):
                heard[which] += part

    with listener, caller, called:
        threads = [
            threading.Thread(target=caller.sendall, args=(told[0],)),
            threading.Thread(target=called.sendall, args=(told[1],)),
            threading.Thread(target=hear, args=(0, called)),
            threading.Thread(target=hear, args=(1, caller)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [hashlib.sha256(each).hexdigest() for each in heard] == [hashlib.sha256(each).hexdigest() for each in told]


CASES = {  # every second one without --all
    "defaults, identity": ({}, ["--service", "identity"]),
    "defaults": ({}, []),
    "gro": ({"gro": True}, []),
    "defaults, count": ({}, ["--service", "count"]),
    "offloads off": ({"offloads": False}, []),
    "gro, but east cuts nothing": ({"gro": True, "east": ("tso", "gso", "tx")}, []),
    "rewritten": ({"gro": True}, ["--service", f"{SERVICES}:Hop"]),
    "rewritten, but east cuts nothing": ({"east": ("tso", "gso", "tx")}, ["--service", f"{SERVICES}:Hop"]),
    "resized": ({"gro": True}, ["--service", "slice:100000,from=packet"]),
    "segments": ({"gro": True}, ["--segments", "wire"]),
    "dropped": ({}, ["--service", f"{SERVICES}:DropsEvery"]),
    "jumbo": ({"mtu": 9000}, []),
}


def test_what_is_only_observed_goes_on_before_it_is_observed():
    """A service that fails on every segment delays and drops nothing, and the account says that nobody saw them."""
    with bump() as (left, middle, right):
        with running(middle, "--service", f"{SERVICES}:Raises:every=1", "--dead-letter", "/dev/null") as accounts:
            exchange(left, right, 1 << 16)
        (account,) = accounts
    assert account["packets"]["dropped"] == {}
    assert account["notes"]["disperse.passed_unprocessed"] == account["packets"]["read"]
    assert account["exit_status"] in (3, 130)


def test_a_download_over_http_arrives_byte_for_byte(tmp_path, pytestconfig):
    """With curl, which is given the file by Python's server: 200 MB with --all."""
    size = 200_000_000 if pytestconfig.getoption("--all") else 20_000_000
    path = tmp_path / "file"
    with path.open("wb") as file:
        for seed in range(size // 1_000_000):
            file.write(random.Random(seed).randbytes(1_000_000))
    with bump(gro=True) as (left, middle, right), running(middle, "--service", "identity") as accounts:
        server = right.start(
            sys.executable, "-m", "http.server", "-d", tmp_path, "-b", RIGHT, "8080",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            got = left.start(
                "curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-m", "300",
                f"http://{RIGHT}:8080/file", stdout=subprocess.PIPE, text=False,
            )  # fmt: skip
            digest = hashlib.file_digest(got.stdout, "sha256").hexdigest()
            assert got.wait(PATIENCE_S) == 0
            got.stdout.close()
        finally:
            server.kill()
            server.wait()
    with path.open("rb") as file:
        assert digest == hashlib.file_digest(file, "sha256").hexdigest()
    assert accounts[0]["packets"]["dropped"] == {}


def test_tcp_arrives_byte_for_byte_both_ways(some):
    for name in some(list(CASES), 2):
        keys, arguments = CASES[name]
        with bump(**keys) as (left, middle, right):
            with running(middle, *arguments) as accounts:
                exchange(left, right, 1 << 20)
            (account,) = accounts
        dropped = account["packets"]["dropped"]
        assert set(dropped) == ({"service.every"} if name == "dropped" else set()), name
        assert account["live"]["dropped"] == {}, name
        if name in ("resized", "segments"):
            assert account["notes"]["source.segmented"] > 0, name
        assert "source.checksum_missing" not in account["notes"], name
