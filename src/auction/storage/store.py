"""The protocol of a store, and the store in memory. `sql_store` has the one on SQL."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from auction.model.errors import Conflict
from auction.model.person import Personal
from auction.storage.journal import FIRST_HASH, Decided, Entry

Row = tuple[str, str, int, str]
Posting = tuple[int, int, str, int]


class Write(msgspec.Struct, frozen=True, gc=False):
    """What one command writes: its entry, its records as (kind, id, sequence, JSON), its postings as (sequence, line,
    account, amount), and the records to delete as (kind, id)."""

    entry: Entry | Decided
    records: list[Row]
    postings: list[Posting]
    gone: list[tuple[str, str]]
    personal: Sequence[Personal] = ()  # stored beside the journal
    erased: Sequence[str] = ()  # digests of personal fields to delete


class Part(NamedTuple):
    """A part of a saved state."""

    name: str
    body: bytes


class Store(Protocol):
    """The protocol of a store. `has_more` says whether entries after this one are stored; it is called often and never
    during an append. `append` is all or nothing, and durable once it returns. It raises Conflict if the entries do not
    follow the stored ones, StoreFailed if the store is away, RowsRefused if it rejects the rows. `save` replaces the
    saved state; it may run beside commits and from any thread. `saved` returns its parts in order. `personal` returns
    the personal fields that were stored after an entry; `wipe` makes deleted ones unreadable, or raises StoreFailed. A
    store that `keeps_records` receives entries with the rows of their records and postings; any other receives
    `Decided`."""

    keeps_records: bool

    def entries(self, after: int = 0) -> Iterable[Entry]: ...

    def has_more(self, after: int) -> bool: ...

    def append(self, writes: list[Write]) -> None: ...

    def save(self, sequence: int, parts: Iterable[Part]) -> None: ...

    def saved(self) -> list[Part]: ...

    def personal(self, after: int = 0) -> list[Personal]: ...

    def wipe(self) -> None: ...


class MemoryStore:
    """The journal in a list: for tests, simulations, and markets that need not outlive the process. Entries are encoded
    and bound when they are read: only who can alter the process could alter them before."""

    keeps_records = False

    def __init__(self) -> None:
        self._entries: list[Any] = []  # Entry up to `_bound`; Decided or Entry after it
        self._bound = 0
        self._binding = threading.Lock()
        self._personal: dict[str, Personal] = {}

    def entries(self, after: int = 0) -> Iterable[Entry]:
        entries = self._entries
        with self._binding:
            previous = entries[self._bound - 1].hash if self._bound else FIRST_HASH
            while self._bound < len(entries):
                one = entries[self._bound]
                if isinstance(one, Decided):
                    one = entries[self._bound] = one.bound_to(previous)
                previous = one.hash
                self._bound += 1
            return entries[after : self._bound]

    def has_more(self, after: int) -> bool:
        return len(self._entries) > after

    def append(self, writes: list[Write]) -> None:
        if writes and writes[0].entry.sequence != len(self._entries) + 1:
            raise Conflict("another moderator wrote to this journal")
        for write in writes:
            self._entries.append(write.entry)
            for row in write.personal:
                self._personal[row.digest] = row
            for digest in write.erased:
                self._personal.pop(digest, None)

    def personal(self, after: int = 0) -> list[Personal]:
        return [row for row in self._personal.values() if row.sequence > after]

    def wipe(self) -> None:
        pass  # nothing remains of a deleted row

    def save(self, sequence: int, parts: Iterable[Part]) -> None:
        pass  # the journal itself is lost with the process

    def saved(self) -> list[Part]:
        return []
