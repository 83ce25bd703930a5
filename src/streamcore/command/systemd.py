"""What the service's manager is told of a run: that it reads, that it goes on, that it ends. The protocol is that of
sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Protocol

from streamcore.run.figures import Figures

LOOK_S = 0.1  # until the run reads
STATUS_S = 10.0  # between two lines of status, if there is no watchdog


class Watched(Protocol):
    """The part of a Pipeline that this file uses."""

    @property
    def reading(self) -> bool: ...

    def look(self) -> Figures: ...


def tell(words: str) -> bool:
    """Sends words to the manager. Returns whether there is one that takes them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.send(words.encode())
        except OSError:
            return False
    return True


def watchdog_s() -> float:
    """The time within which the manager wants to hear that the run goes on; 0: it does not want to."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    with contextlib.suppress(ValueError):
        return max(0, int(os.environ.get("WATCHDOG_USEC", "0"))) / 1e6
    return 0.0


@contextlib.contextmanager
def notifying(pipeline: Watched) -> Iterator[None]:
    """Tells the manager about the pipeline while the block runs. Without a manager it does nothing."""
    if not os.environ.get("NOTIFY_SOCKET"):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(pipeline, over), name="streamcore-systemd", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        tell("STOPPING=1")
        thread.join()


def _watch(pipeline: Watched, over: threading.Event) -> None:
    """READY=1 once the first stream is open; then WATCHDOG=1 as long as packets move, or none are under way."""
    while not pipeline.reading:
        if over.wait(LOOK_S):
            return
    tell("READY=1")
    before = -1
    patience_s = watchdog_s()
    while True:
        figures = pipeline.look()
        counters = figures.counters
        moved = counters.packets("sink.written") + sum(counters.dropped().values())
        words = f"STATUS={counters.packets('source.read'):,} packets read, {counters.packets('sink.written'):,} written"
        if patience_s and (moved != before or not counters.under_way()):
            words += "\nWATCHDOG=1"
        before = moved
        tell(words)
        if over.wait(patience_s / 3 if patience_s else STATUS_S):
            return
