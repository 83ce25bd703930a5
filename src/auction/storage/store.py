"""What the moderator needs of a store, and the one in memory. The one on SQL stands in `sql_store`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from auction.model.errors import Conflict
from auction.storage.journal import Entry


class Write(NamedTuple):
    """What one command adds: its entry, the records it put as (kind, id, sequence, JSON), and its postings as
    (sequence, line, account, amount); and the records that are gone by then as (kind, id)."""

    entry: Entry
    records: list[tuple[str, str, int, str]]
    postings: list[tuple[int, int, str, int]]
    gone: list[tuple[str, str]]


class Part(NamedTuple):
    """A part of a saved state."""

    name: str
    body: bytes


class Store(Protocol):
    """What the moderator needs of a store. `has_more` says whether entries after this one are stored; it is asked often
    and never while something is appended. `append` is all or nothing, and durable once it returns. It raises Conflict
    where the entries do not follow what is stored, StoreFailed where the store is away, RowsRefused where it is there
    and takes no such rows. A state is saved in the place of the one before it, beside commits and from any thread;
    `saved` gives its parts back in their order."""

    keeps_records: bool

    def entries(self, after: int = 0) -> Iterable[Entry]: ...

    def has_more(self, after: int) -> bool: ...

    def append(self, writes: list[Write]) -> None: ...

    def save(self, sequence: int, parts: Iterable[Part]) -> None: ...

    def saved(self) -> list[Part]: ...


class MemoryStore:
    """The journal in a list: for tests, simulations, and markets that may be forgotten."""

    keeps_records = False

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def entries(self, after: int = 0) -> Iterable[Entry]:
        return self._entries[after:]

    def has_more(self, after: int) -> bool:
        return len(self._entries) > after

    def append(self, writes: list[Write]) -> None:
        if writes and writes[0].entry.sequence != len(self._entries) + 1:
            raise Conflict("another moderator wrote to this journal")
        self._entries += [write.entry for write in writes]

    def save(self, sequence: int, parts: Iterable[Part]) -> None:
        pass  # the journal itself goes with the process

    def saved(self) -> list[Part]:
        return []
