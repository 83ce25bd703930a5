"""A PostgreSQL server of our own for tests: from the system's package, in a temporary directory, as who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def server_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None where the package is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class Server:
    """A server in a directory of its own, that listens on a socket there alone. fsync is on."""

    def __init__(self, programs: Path, home: Path) -> None:
        self._programs, self._home = programs, home
        self.url = f"postgresql+psycopg://tester@/postgres?host={home}"
        entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if entry:
            os.chown(home, entry.pw_uid, entry.pw_gid)
        self._as_who: dict[str, Any] = {
            "user": "nobody" if entry else None,
            "group": entry.pw_gid if entry else None,
            "env": {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "LC_ALL": "C"},
            "cwd": home,
        }
        made = [programs / "initdb", "-D", home / "data", "-U", "tester", "-A", "trust", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, **self._as_who)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._programs / "postgres", "-D", self._home / "data", "-k", self._home, "-c", "listen_addresses="]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **quiet, **self._as_who)
        _wait_for(self._home / ".s.PGSQL.5432", self._process)

    def stop(self) -> None:
        """Stops it, "fast": it does not wait for clients that are still connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """`kill -9`. Its children notice, and end: before the last has, another server does not start here."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + 60
        while any(_is_alive(pid) for pid in children):
            assert time.monotonic() < deadline, "a child of the server that was killed goes on"
            time.sleep(0.01)


@contextmanager
def restartable_server(programs: Path) -> Iterator[Server]:
    home = tempfile.mkdtemp(prefix="pg-")
    try:
        server = Server(programs, Path(home))
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        if socket.exists():
            try:
                psycopg.connect(host=str(socket.parent), user="tester", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                pass
        time.sleep(0.1)
    raise RuntimeError("the server did not start in 60 s")
