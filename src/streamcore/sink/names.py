"""Names for outputs that replace nothing, and the lock that keeps two runs from writing one file."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable

from streamcore.core.errors import SinkError

PCAP_ENDINGS = (".pcap", ".cap", ".dmp")
PCAPNG_ENDINGS = (".pcapng", ".ntar")
COMPRESSIONS = (".gz", ".zst", ".lz4")


def is_taken(path: str) -> bool:
    """Whether a regular file with contents has this name: an output of that name would replace it."""
    try:
        status = os.stat(path)
    except OSError:
        return False  # there is none, or opening it says why not
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def free_name(path: str, taken: Callable[[str], bool] = is_taken) -> str:
    """The path, or if it is taken NAME-1.pcap, NAME-2.pcap and so on: the first that is free, if there are no gaps."""
    if not taken(path):
        return path
    stem, ending = divided(path)
    free = 1
    while taken(f"{stem}-{free}{ending}"):
        free *= 2
    below = free // 2
    while free - below > 1:
        middle = (below + free) // 2
        if taken(f"{stem}-{middle}{ending}"):
            below = middle
        else:
            free = middle
    return f"{stem}-{free}{ending}"


def divided(path: str) -> tuple[str, str]:
    """The path without its endings, and the endings: of the format, and of the compression after it."""
    packed = next((ending for ending in COMPRESSIONS if path.lower().endswith(ending)), "")
    stem, ending = os.path.splitext(path[: len(path) - len(packed)])
    return stem, ending + path[len(path) - len(packed) :]


def claim(descriptor: int, name: str) -> None:
    """Locks a regular file until the descriptor is closed. Raises SinkError if another run has locked it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SinkError(f"cannot write {name}: another run is writing it") from None
    except OSError:
        pass  # a file system without locks


def refuse_claimed(path: str) -> None:
    """Raises SinkError if another run is writing this file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # opening it says why not
    try:
        claim(descriptor, path)
    finally:
        os.close(descriptor)
