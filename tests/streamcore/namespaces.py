"""Network namespaces for tests of live interfaces: made, joined by veth pairs, and gone with the test, or with the
process that ran it, however it ended. Nothing here is captured or sent.
"""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

TOOLS = ("unshare", "nsenter", "ip", "ss", "ethtool")
CLONE_NEWNET = 0x40000000
REJECTS_ALL = "0x06 0 0 0,"  # a filter, as ss shows it
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro")  # what merges packets, or leaves their checksums to hardware


def why_not() -> str:
    """Why there can be no namespaces here; "" where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}: run scripts/system-packages test"
    if (tried := subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)).returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    return ""


@pytest.fixture(scope="session")
def root_and_namespaces() -> None:
    """Skips with the reason where there can be no namespaces."""
    if reason := why_not():
        pytest.skip(reason)


class Namespace:
    """One network namespace, held by a process that ends with our end of its standard input."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin
        assert self._holder.stdout
        self._holder.stdin.write(b"\n")
        self._holder.stdin.flush()
        self._holder.stdout.read(1)  # it is in its namespace
        self.path = f"/proc/{self._holder.pid}/ns/net"
        self.pid = self._holder.pid
        # Without router solicitations and the like there are only the packets that a test sends.
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up")

    def command(self, *arguments: object) -> list[str]:
        """What to execute so that a command runs in here; its process id is that of the command."""
        return ["nsenter", f"--net={self.path}", "--", *map(str, arguments)]

    def run(self, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
        """Run a command in here to its end; fails with its words where it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60, **more)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{arguments}: {done.stderr or done.stdout}"
        return done  # type: ignore[no-any-return]

    def start(self, *arguments: object, **more: object) -> subprocess.Popen[str]:
        """Start a command in here. The caller waits for it or kills it."""
        return subprocess.Popen(self.command(*arguments), **({"text": True} | more))  # type: ignore[call-overload,no-any-return]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread in here: a socket that is made meanwhile stays in here."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as ours, open(self.path) as theirs:
            assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def set_link(self, interface: str, *words: str) -> None:
        """`ip link set INTERFACE …`, as: up, down, mtu 9000."""
        self.run("ip", "link", "set", interface, *words)

    def until_heard(self, process: subprocess.Popen[str], interfaces: int = 1) -> None:
        """Wait until packet sockets are bound to so many interfaces in here, and all let packets in: a run binds its
        own before it lets anything in. Fails if the process of the run ended."""
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, process.communicate()[1]
            sockets = [line.split() for line in self.run("cat", "/proc/net/packet").stdout.splitlines()]
            if len({words[4] for words in sockets if words[3] == "0003"}) >= interfaces:
                filters = re.findall(r"bpf filter \(\d+\): *(.*?) *$", self.run("ss", "-0bn").stdout, re.MULTILINE)
                if not filters:  # this kernel shows none
                    time.sleep(0.5)
                    return
                if REJECTS_ALL not in filters:
                    return
            assert time.monotonic() < deadline, "nobody hears"
            time.sleep(0.02)

    def close(self) -> None:
        assert self._holder.stdin
        assert self._holder.stdout
        self._holder.stdin.close()
        self._holder.wait(10)
        self._holder.stdout.close()


def join(
    left: Namespace, left_name: str, right: Namespace, right_name: str, *, mtu: int = 1500, offloads: bool = False
) -> None:
    """A veth pair between two namespaces, both ends up; with its offloads off, packets arrive as they were sent."""
    left.run(
        "ip", "link", "add", left_name, "mtu", mtu, "type", "veth",
        "peer", "name", right_name, "mtu", mtu, "netns", right.pid,
    )  # fmt: skip
    for namespace, name in ((left, left_name), (right, right_name)):
        if not offloads:
            namespace.run("ethtool", "-K", name, *(word for offload in OFFLOADS for word in (offload, "off")))
        namespace.set_link(name, "up")
    deadline = time.monotonic() + 5
    for namespace, name in ((left, left_name), (right, right_name)):
        while "LOWER_UP" not in namespace.run("ip", "link", "show", name).stdout:
            assert time.monotonic() < deadline, f"{name} has no carrier"
            time.sleep(0.01)


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """So many namespaces, gone afterwards."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Namespace())
            stack.callback(made[-1].close)
        yield made


@pytest.fixture
def pair(root_and_namespaces: None) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces; `near` of the first is joined to `far` of the second. No addresses."""
    with namespaces(2) as (left, right):
        join(left, "near", right, "far")
        yield left, right


@pytest.fixture
def bump(root_and_namespaces: None) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """Three namespaces in a row: left's `end` (10.9.0.1/24) - middle's `west`, `east` - right's `end` (10.9.0.2/24).

    Nothing forwards in the middle: packets get through only if somebody carries them there.
    """
    with namespaces(3) as (left, middle, right):
        join(left, "end", middle, "west")
        join(right, "end", middle, "east")
        left.run("ip", "address", "add", "10.9.0.1/24", "dev", "end")
        right.run("ip", "address", "add", "10.9.0.2/24", "dev", "end")
        yield left, middle, right
