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


def server_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None where the package is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextmanager
def running_server(programs: Path) -> Iterator[str]:
    """Starts a server that listens on a socket in its own directory alone; yields its URL. fsync is on."""
    user = "nobody" if os.geteuid() == 0 else None
    home = tempfile.mkdtemp(prefix="pg-")
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": home, "LC_ALL": "C"}
    try:
        if user:
            entry = pwd.getpwnam(user)
            os.chown(home, entry.pw_uid, entry.pw_gid)
        data = Path(home) / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8"],
            user=user,
            group=user and pwd.getpwnam(user).pw_gid,
            env=environment,
            cwd=home,
            check=True,
            capture_output=True,
        )
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", home, "-c", "listen_addresses="],
            user=user,
            group=user and pwd.getpwnam(user).pw_gid,
            env=environment,
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(Path(home) / ".s.PGSQL.5432", server)
            yield f"postgresql+psycopg://tester@/postgres?host={home}"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": it does not wait for clients that are still connected
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


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
