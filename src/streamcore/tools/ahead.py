"""Reads a capture's batches ahead on a thread of its own, beside what is done with them.

Both release the interpreter's lock nearly all of the time. The arena bounds how far ahead: it has a chunk for the
batch in work, and others for those that wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Protocol

from streamcore.core.packets import PacketBatch


class Read(Protocol):
    """What is read ahead."""

    def __iter__(self) -> Iterator[PacketBatch]: ...

    def stop(self) -> None:
        """Ends the iteration soon."""


def read_ahead(source: Read) -> Iterator[PacketBatch]:
    """The batches of `source`, whose arena has at least two chunks. Errors of reading are raised here, after the
    batches before them. Closing the generator ends the thread, and the source's iteration with it."""
    ready: SimpleQueue[PacketBatch | BaseException | None] = SimpleQueue()

    def read() -> None:
        end: BaseException | None = None
        try:
            for batch in source:
                ready.put(batch)
                del batch  # or its chunk would be held while the next one is waited for
        except BaseException as error:  # it is raised in the other thread
            end = error
        ready.put(end)

    reader = threading.Thread(target=read, name="streamcore-read", daemon=True)
    reader.start()
    try:
        while isinstance(batch := ready.get(), PacketBatch):
            yield batch
            del batch
        if batch is not None:
            raise batch
    finally:
        source.stop()
        reader.join()
