"""Reads the bytes of a capture from a file or a pipe into chunks, decompressing them if necessary.

It does not interpret the bytes. A stream never seeks, and keeps at most one block of its input.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Protocol

from streamcore.core.packets import Chunk
from streamcore.source._reading import read_into, read_ready

POLL_MS = 100  # between checks whether the source was closed, while waiting for a pipe


class Stream(Protocol):
    """A stream of bytes for the source. `damage` is the reason for an early end, or None."""

    damage: str | None

    def head(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""

    def fill(self, chunk: Chunk, start: int, stop: int, wait_s: float) -> tuple[int, bool]:
        """Reads bytes into the chunk's data[start:stop]. Returns (how many, whether the stream has ended).

        From a file, until it is full. From a pipe, until it is full or wait_s after the first byte; at least one byte.
        """


class RawInput:
    """A descriptor to read from, and the bytes that were peeked at. Raises OSError."""

    def __init__(self, descriptor: int, closing: Callable[[], bool]) -> None:
        status = os.fstat(descriptor)
        self.descriptor = descriptor
        self.closing = closing
        self.regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.regular else None
        self.identity = (status.st_dev, status.st_ino) if self.regular else None
        self.consumed = 0
        self._peeked = b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end. The next read returns them again."""
        while len(self._peeked) < size:
            piece = self._read(size - len(self._peeked), None)
            if not piece:
                break
            self._peeked += piece
        return self._peeked[:size]

    def peeked(self, size: int) -> bytes:
        """Takes up to `size` of the bytes that were peeked at."""
        piece, self._peeked = self._peeked[:size], self._peeked[size:]
        self.consumed += len(piece)
        return piece

    def read(self, size: int, timeout_s: float | None = None) -> bytes | None:
        """Up to `size` bytes; b"" at the end; None if nothing came within timeout_s."""
        if self._peeked:
            return self.peeked(size)
        piece = self._read(size, timeout_s)
        self.consumed += len(piece or b"")
        return piece

    def _read(self, size: int, timeout_s: float | None) -> bytes | None:
        if self.regular:
            return os.read(self.descriptor, size)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not self.closing():
            left_ms = POLL_MS if deadline is None else min(POLL_MS, (deadline - time.monotonic()) * 1000)
            if poll.poll(max(0, left_ms)):
                try:
                    return os.read(self.descriptor, size)
                except BlockingIOError:
                    continue
            if deadline is not None and time.monotonic() >= deadline:
                return None
        return b""


class PlainStream:
    """An uncompressed stream, read directly into the chunk."""

    damage: str | None = None

    def __init__(self, raw: RawInput) -> None:
        self._raw = raw

    def head(self, size: int) -> bytes:
        self._raw.peek(size)
        return self._raw.peeked(size)

    def fill(self, chunk: Chunk, start: int, stop: int, wait_s: float) -> tuple[int, bool]:
        raw = self._raw
        if raw.regular:
            got = read_into(chunk, start, stop, raw.descriptor)
            raw.consumed += got
            return got, got < stop - start
        at, deadline, ended = start, 0.0, False
        while at < stop and not ended:
            left_ms = POLL_MS if at == start else int(min(POLL_MS, max(0.0, deadline - time.monotonic()) * 1000))
            got = read_ready(chunk, at, stop, raw.descriptor, left_ms)
            if got > 0:
                if at == start:
                    deadline = time.monotonic() + wait_s
                at += got
            elif got == 0 or raw.closing():
                ended = True
            elif at > start and time.monotonic() >= deadline:
                break
        raw.consumed += at - start
        return at - start, ended
