"""Workers on this machine: a process each, started afresh (never forked), with the arenas inherited as descriptors.

A worker's standard input is its lifeline: its set-up comes through it, and when it ends, the worker knows that we are
gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

from streamcore.disperse.peer import Peer
from streamcore.packets import Arena

COMMAND = "from streamcore.worker import main; main()"


def endpoint(token: str, incarnation: int | None = None) -> str:
    """The abstract address (it leaves no file) of our result socket, or of a worker's work socket."""
    return f"ipc://@streamcore-{token}" + ("" if incarnation is None else f"-{incarnation:016x}")


def start(peer: Peer, arena: Arena, region_count: int, region_bytes: int, setup: dict[str, Any]) -> None:
    """Start the peer's process. region_count 0: its services change nothing, it gets no arena of its own."""
    arena_fd = arena.readonly_fd()
    descriptors = [arena_fd]
    if region_count:
        peer.regions = Arena(region_count, region_bytes, 1, shared=True)
        descriptors.append(peer.regions.fd)
    setup = setup | {
        "slot": peer.slot,
        "incarnation": peer.incarnation,
        "arena": [arena_fd, arena.chunk_count, arena.data_bytes_max, arena.rows_max],
        "regions": [peer.regions.fd, region_count, region_bytes, 1] if peer.regions is not None else None,
    }
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }  # numpy's own threads only slow its start
    try:
        peer.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=2,  # what a service prints must not get into a capture on standard output
            pass_fds=descriptors,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    finally:
        os.close(arena_fd)
    assert peer.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # killed before it could read: its pidfd tells
        peer.process.stdin.write(json.dumps(setup).encode() + b"\n")
        peer.process.stdin.flush()
    peer.pidfd = os.pidfd_open(peer.process.pid)


def stop(peer: Peer) -> None:
    """End the process for certain, and reap it."""
    process = peer.process
    if process is None:
        return
    process.kill()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()
    if peer.pidfd >= 0:
        os.close(peer.pidfd)
        peer.pidfd = -1
