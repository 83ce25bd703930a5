"""Commands that tests start are forked from a process that has imported both packages: a start then costs hundredths of
a second, not tenths. tests/conftest.py puts this Popen into `subprocess`; to a test, nothing else changes.

Each pytest process keeps one such prepared process. What it forks has the standard streams, the directory and the
environment that were asked for, and nothing else that is open. A command forks its own workers. Programs that are not
ours, and tests marked `new_processes`, are started as always.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import inspect
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("streamcore", "auction")
# What disperse/local.py and worker/provider.py start.
WORKERS = {
    "from streamcore.worker.local import main; main()",
    "from streamcore.worker.provider_worker import main; main()",
}
CLONE_NEWNET = 0x40000000
NEW_PROCESSES = "TESTS_NEW_PROCESSES"  # in the environment of what must not fork
# What commands of ours import when they need it.
LATER = ("asyncio", "runpy", "zmq.auth", "rich.progress")
REQUEST_BYTES_MAX = 1 << 18
PARAMETERS = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
# What a fork does not do, with the values of a Popen that does not ask for it.
UNASKED = {"executable": None, "preexec_fn": None, "pass_fds": (), "shell": False, "gid": None, "gids": None,
           "uid": None, "umask": -1, "process_group": -1, "close_fds": True}  # fmt: skip


class Job(NamedTuple):
    """What is to run: the words after `python`, the network namespace ("" for that of the starter), the directory, the
    environment, and whether as a session of its own."""

    words: list[str]
    network: str
    directory: str
    environment: dict[str, str]
    new_session: bool


def job_of(asked: dict[str, Any]) -> Job | None:
    """None where it is no command of ours, or where only a new process will do."""
    if not isinstance(asked["args"], list | tuple) or any(asked[name] != none for name, none in UNASKED.items()):
        return None
    python, *words = map(os.fsdecode, asked["args"])
    network = ""
    if python == "nsenter" and words[0].startswith("--net=") and words[1] == "--":
        network, python, *words = [words[0].removeprefix("--net="), *words[2:]]
    environment = dict(os.environ if asked["env"] is None else asked["env"])
    of_module = words[:1] == ["-m"] and words[1:2] and words[1] in PACKAGES
    ours = of_module or (words[:1] == ["-c"] and words[1:2] and words[1] in WORKERS)
    interpreters = {name for name in environment.keys() | os.environ.keys() if name.startswith("PYTHON")}
    if any(environment.get(name) != os.environ.get(name) for name in interpreters):
        return None
    if python != sys.executable or not ours or NEW_PROCESSES in environment:
        return None
    return Job(words, network, os.path.abspath(asked["cwd"] or "."), environment, bool(asked["start_new_session"]))


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """As subprocess.Popen; a command of ours is forked."""

    fork: Callable[[Job, list[int]], tuple[int, socket.socket | None] | None]  # the pid, and who tells how it ends
    _teller: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        asked = dict(zip(PARAMETERS, given, strict=True))
        streams = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        job = job_of(asked)
        forked = None if job is None else Popen.fork(job, [n if each == -1 else each for n, each in enumerate(streams)])
        if forked is None:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        self.pid, self._teller = forked
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in PIPES))  # type: ignore[attr-defined]

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if self._teller is None:
            return super()._internal_poll(*given, **named)  # type: ignore[misc,no-any-return]
        return self._told(0.0)

    def _wait(self, timeout: float | None) -> int:
        if self._teller is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        if self._told(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def _told(self, timeout_s: float | None) -> int | None:
        """The status, if it comes within the time; the dead child stays until it is asked for, as with waitpid."""
        if self.returncode is None and self._teller is not None:
            if not select.select([self._teller], [], [], timeout_s)[0]:
                return None
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    message = self._teller.recv(4)
                    self.returncode = struct.unpack("i", message)[0] if message else -signal.SIGKILL
                    with contextlib.suppress(OSError):
                        self._teller.send(b"!")  # like waitpid: from now on its process id may be another's
        return self.returncode


def begin(job: Job, streams: list[int]) -> None:
    """In a fork: makes this process what a new one would be. streams: descriptors of the three standard streams."""
    gc.freeze()  # nothing that holds a descriptor of the starter's is finalised here
    for place, each in enumerate([fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in streams]):
        os.dup2(each, place)
    os.closerange(3, 1 << 20)
    if job.new_session:
        os.setsid()
    if job.network:
        enter(job.network)
    os.chdir(job.directory)
    os.environ.clear()
    os.environ.update(job.environment)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = output(1, os.isatty(1))
    sys.stderr = sys.__stderr__ = output(2, True, "backslashreplace")
    Popen.fork = staticmethod(fork_here)


def enter(network: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(network) as namespace:
        assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def output(descriptor: int, by_line: bool, errors: str = "strict") -> io.TextIOWrapper:
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    file = open(descriptor, "wb", buffering=0 if at_once else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(file, errors=errors, line_buffering=by_line, write_through=at_once)  # type: ignore[arg-type]


def run(words: list[str]) -> None:
    kind, what, *more = words
    sys.argv = [kind, *more]
    sys.path.insert(0, os.getcwd() if kind == "-m" else "")
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def run_and_exit(words: list[str]) -> None:
    """Ends as an interpreter does: waits for threads, calls what is registered, flushes; the memory just goes."""
    status: object = None
    try:
        run(words)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((status or 0) & 0xFF)


def fork_here(job: Job, streams: list[int]) -> tuple[int, None] | None:
    """In a command: forks itself. Of its threads the fork has this one alone, and it uses nothing that another may have
    locked: what it runs makes its own sockets, arenas and threads."""
    child = os.fork()
    if child == 0:
        begin(job, streams)
        run_and_exit(job.words)
    return child, None


class Prepared:
    """The process that has imported everything, seen from pytest; it is started when it is first needed."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}  # more than ours, for all that it forks to be known by
        self.pid = 0
        self._network = os.readlink("/proc/self/ns/net")
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def fork(self, job: Job, streams: list[int]) -> tuple[int, socket.socket] | None:
        if os.readlink("/proc/thread-self/ns/net") != self._network:
            return None  # it would be in another network than we are
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._started(), [json.dumps(job).encode()], [*streams, theirs.fileno()])
        return struct.unpack("i", ours.recv(4))[0], ours

    def _started(self) -> socket.socket:
        with self._lock:
            if self._control is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | self.environment
                with theirs:
                    process = subprocess.Popen([sys.executable, "-P", __file__], stdin=theirs, env=environment)
                self.pid = process.pid
                atexit.register(process.wait)
                atexit.register(self._control.close)
            return self._control


prepared = Prepared()


def install() -> None:
    """From here on `subprocess` forks our commands."""
    Popen.fork = staticmethod(prepared.fork)
    subprocess.Popen = Popen  # type: ignore[misc]


def import_everything() -> None:
    for name in PACKAGES:
        for found in pkgutil.walk_packages(import_module(name).__path__, f"{name}."):
            path = Path(found.module_finder.path) / found.name.rpartition(".")[2]  # type: ignore[union-attr]
            has_source = found.ispkg or path.with_suffix(".py").exists() or path.with_suffix(".pyx").exists()
            if has_source and path.name != "__main__":
                with contextlib.suppress(ImportError):  # of an extra that is not installed
                    import_module(found.name)
    for name in LATER:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> None:
    """Forks what is asked for, and tells how each ends, until nobody asks any more."""
    asked = select.poll()
    asked.register(control, select.POLLIN)
    tellers: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that becomes readable: pidfd, then socket
    while True:
        for descriptor, _ in asked.poll():
            if descriptor == control.fileno():
                message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES_MAX, 4)
                if not message:
                    return
                *streams, teller = descriptors
                child, _ = fork_here(Job(*json.loads(message)), streams) or (0, None)
                for each in streams:
                    os.close(each)
                told = socket.socket(fileno=teller)
                told.send(struct.pack("i", child))
                key = os.pidfd_open(child)
                tellers[key] = (child, told)
                asked.register(key, select.POLLIN)
                continue
            child, told = tellers.pop(descriptor)
            asked.unregister(descriptor)
            if descriptor == told.fileno():
                os.waitpid(child, 0)
                told.close()
                continue
            ended = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
            os.close(descriptor)
            assert ended is not None
            status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            with contextlib.suppress(OSError):  # nobody wants to know
                told.send(struct.pack("i", status))
            tellers[told.fileno()] = (child, told)
            asked.register(told, select.POLLIN)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is pytest's to handle: our standard input ends then
    control = socket.socket(fileno=os.dup(0))
    subprocess.Popen = Popen  # type: ignore[misc]
    import_everything()
    serve(control)
