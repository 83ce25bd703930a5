"""Workers on this machine. Each is a new process (never forked).

A worker's standard input is a socket. Through it the worker receives its set-up and the descriptors of shared memory;
when the socket closes, the worker ends, because the main process is gone. This file imports nothing heavy, so that
workers can be launched before the rest of the program is loaded, and load at the same time.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import zmq

    from streamcore.core.packets import Arena
    from streamcore.disperse.link import Link

COMMAND = "from streamcore.worker.local import main; main()"
SETUP_BYTES_MAX = 1 << 20
DESCRIPTORS_MAX = 3  # the arenas', and the mark's
MARK = struct.Struct("<QQ")  # the number and attempt of the segment that the worker has begun last, in shared memory


class Launched(NamedTuple):
    """A worker process that waits for its set-up."""

    process: subprocess.Popen[bytes]
    lifeline: socket.socket


def launch() -> Launched:
    """Starts a worker process. `start` gives it work; closing the lifeline ends it."""
    ours, theirs = socket.socketpair()
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads slow numpy's start
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            stdin=theirs.fileno(),
            stdout=2,  # so that a service's output does not get into a capture on standard output
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    return Launched(process, ours)


def start(link: Link, launched: Launched, arena: Arena, regions: Arena | None, setup: dict[str, Any]) -> None:
    """Sends a launched process its set-up, and sets the link's process. regions: None if no service changes bytes."""
    link.process, link.lifeline = launched
    link.regions = regions
    link.pidfd = os.pidfd_open(link.process.pid)
    arenas = [arena] if regions is None else [arena, regions]
    setup = setup | {
        "slot": link.peer.slot,
        "incarnation": link.incarnation,
        "arenas": [[each.chunk_count, each.data_bytes_max, each.rows_max] for each in arenas],
    }
    arena_fd, mark_fd = arena.readonly_fd(), os.memfd_create("streamcore-mark", os.MFD_CLOEXEC)
    try:
        os.ftruncate(mark_fd, MARK.size)
        link.mark = mmap.mmap(mark_fd, MARK.size)
        with contextlib.suppress(ConnectionError):  # it was killed before it could read: its pidfd reports that
            descriptors = [arena_fd, mark_fd] if regions is None else [arena_fd, regions.fd, mark_fd]
            line = json.dumps(setup).encode() + b"\n"
            socket.send_fds(link.lifeline, [line[:1]], descriptors)
            link.lifeline.sendall(line[1:])
    finally:
        os.close(arena_fd)
        os.close(mark_fd)


def receive_setup() -> tuple[dict[str, Any], list[int]]:
    """Called in the worker: receives its set-up and the descriptors of the arenas and of the mark. Raises EOFError if
    the main process is gone."""
    lifeline = socket.socket(fileno=os.dup(0))
    with lifeline:
        line, descriptors, _, _ = socket.recv_fds(lifeline, 1, DESCRIPTORS_MAX)
        while not line.endswith(b"\n"):
            piece = lifeline.recv(SETUP_BYTES_MAX)
            if not piece or len(line) > SETUP_BYTES_MAX:
                raise EOFError
            line += piece
    return json.loads(line), list(descriptors)


def stop(process: subprocess.Popen[bytes], lifeline: socket.socket | None) -> None:
    """Ends a process (with SIGKILL if necessary) and reaps it."""
    process.kill()
    if lifeline is not None:
        lifeline.close()
    process.wait()


def for_us_alone(socket: zmq.Socket[bytes]) -> None:
    """Lets only processes of this user connect to an abstract address, which has no file whose permissions could say
    so, and which everybody on the machine can list. Before `bind`.
    """
    from zmq import IPC_FILTER_UID  # only here: it takes time to load

    socket.setsockopt(IPC_FILTER_UID, os.geteuid())


def endpoint(token: str, incarnation: int | None = None) -> str:
    """The abstract address (it leaves no file) of the result socket, or of a worker's work socket."""
    return f"ipc://@streamcore-{token}" + ("" if incarnation is None else f"-{incarnation:016x}")
