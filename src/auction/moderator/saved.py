"""Saves and restores the state, so that a start need not read the whole journal.

The saved state is a copy that can be rebuilt from the journal; one that does not fit is discarded. Here are its
encoding and the order in which the indexes are rebuilt. The store keeps it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from auction.model.errors import AuctionError
from auction.moderator.config import MarketConfig
from auction.moderator.records import RECORD_TYPES
from auction.moderator.reputation import SAVED, Reputation
from auction.moderator.state import INDEXES, State
from auction.storage.journal import FORMAT
from auction.storage.store import Part, Store

_VERSION: Final = 3  # of this encoding and of the indexes: raise it when either changes
_AT_A_TIME: Final = 1_000  # records in one part: encoding one blocks other threads for some ms
_AFTER_ENTRIES: Final = 5_000
_encode = msgspec.json.Encoder().encode
_DECODERS: Final = {kind: msgspec.json.Decoder(list[tuple[str, record]]) for kind, record in RECORD_TYPES.items()}  # type: ignore[valid-type]

Answers = dict[str, tuple[bytes, bytes]]
Keys = list[tuple[int, str]]


class _Head(msgspec.Struct):
    """The head of a saved state. `digest` covers the other parts; `hash` is the last entry's."""

    version: str
    sequence: int
    at_ms: int
    hash: bytes
    config: MarketConfig
    due: list[tuple[int, str, str]]
    expiring: list[tuple[int, str, str]]
    balances: dict[str, int]
    fees_put_away: int
    names_used: list[int] = []
    digest: bytes = b""


class _Answered(msgspec.Struct, array_like=True):
    """The answers to idempotency keys: time, key, digest of the request, answer."""

    at_ms: int
    key: str
    request: bytes
    answer: bytes


class Saved(NamedTuple):
    """A saved state, with the hash of its last entry and the answers to keys."""

    state: State
    hash: bytes
    answers: Answers
    keys: Keys


class Copy:
    """A copy of the state to save. It is encoded afterwards, while commands go on. Records never change, so copying
    their tables is enough."""

    def __init__(self, state: State, hash: bytes, answers: Answers, keys: Iterable[tuple[int, str]]) -> None:
        balances = {account: amount for account, amount in state.ledger.balances.items() if amount}
        self._head = _Head(
            version(),
            state.sequence,
            state.at_ms,
            hash,
            state.config,
            list(state.due),
            list(state._expiring),
            balances,
            state.ledger.fees_put_away,
            list(state.names_used),
        )
        self._records = {kind: list(records.items()) for kind, records in state.records.items()}
        self._reputation = {name: _plain(getattr(state.reputation, name)) for name in SAVED}
        self._answers = [_Answered(at_ms, key, *answers[key]) for at_ms, key in keys if key in answers]

    @property
    def sequence(self) -> int:
        return self._head.sequence

    def parts(self) -> Iterator[Part]:
        """The name and bytes of each part. The head comes last: its digest covers the others."""
        digest = hashlib.sha256()
        for part in self._bodies():
            digest.update(part.name.encode() + part.body)
            yield part
        self._head.digest = digest.digest()
        yield Part("head", _encode(self._head))

    def _bodies(self) -> Iterator[Part]:
        for kind, records in self._records.items():
            for some in _runs(records):
                yield Part(f"record {kind}", _encode(some))
        for name, content in self._reputation.items():
            for some in _runs(content):
                yield Part(f"reputation {name}", _encode(some))
        for some in _runs(self._answers):
            yield Part("answers", _encode(some))


def next_saving(state: State) -> int:
    """The entry from which on to save again. Saving more often shortens a start; saving less often writes less."""
    return state.sequence + max(_AFTER_ENTRIES, sum(map(len, state.records.values())) // 5)


def is_of(saved: Saved, store: Store) -> bool:
    """Whether the saved state's last entry is in this journal."""
    last = next(iter(store.entries(saved.state.sequence - 1)), None)
    return last is not None and (last.sequence, last.hash) == (saved.state.sequence, saved.hash)


def restore(parts: list[Part]) -> Saved | None:
    """The saved state; None if another version saved it or it cannot be read."""
    try:
        *bodies, last = parts
        head = msgspec.json.decode(last.body, type=_Head)
        digest = hashlib.sha256()
        for part in bodies:
            digest.update(part.name.encode() + part.body)
        if head.version != version() or head.digest != digest.digest():
            return None
        return _restored(head, bodies)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError, AuctionError):
        return None


def _restored(head: _Head, bodies: list[Part]) -> Saved:
    state = State(head.config.rating)
    state.config, state.sequence, state.at_ms = head.config, head.sequence, head.at_ms
    reputation = Reputation(head.config.rating)
    contents: dict[str, list[Any]] = {name: [] for name in SAVED}
    answered: list[_Answered] = []
    for name, body in bodies:
        what, _, which = name.partition(" ")
        if what == "record":
            state.records[which].update(_DECODERS[which].decode(body))
        elif what == "reputation":
            contents[which] += msgspec.json.decode(body, type=_listed(SAVED[which]))
        else:
            answered += msgspec.json.decode(body, type=list[_Answered])
    state.reputation = _Counted(head.config.rating)  # type: ignore[assignment]  # so that nothing is counted twice
    for kind, index in INDEXES.items():
        if kind != "rules":
            for record in state.records[kind].values():
                index(state, None, record)
    for name, content in contents.items():
        kind = getattr(reputation, name)
        setattr(reputation, name, type(kind)(content))
    agreements = state.records["agreement"]
    reputation._settled = {name: agreements[name] for name in reputation._settled}  # the same objects, not copies
    state.reputation = reputation
    state.ledger.balances = head.balances
    state.ledger.fees_put_away = head.fees_put_away
    state.names_used = set(head.names_used)
    state.due, state._expiring = head.due, head.expiring
    heapq.heapify(state.due)
    heapq.heapify(state._expiring)
    answers = {one.key: (one.request, one.answer) for one in answered}
    return Saved(state, head.hash, answers, [(one.at_ms, one.key) for one in answered])


class _Counted:
    """Stands in for the reputation while the indexes are rebuilt, so that nothing is counted twice."""

    def __init__(self, rules: Any) -> None:
        self.rules = rules

    def __getattr__(self, name: str) -> Any:
        return lambda *_given: None


def version() -> str:
    """A saved state can be read if this is equal: it covers the encoding, the journal's format and the records'
    fields."""
    global _version
    if not _version:
        fields = [[kind, _fields(record, {})] for kind, record in RECORD_TYPES.items()]
        shape = hashlib.sha256(repr((fields, sorted(SAVED))).encode()).hexdigest()[:16]
        _version = f"{_VERSION}.{FORMAT}.{shape}"
    return _version


_version = ""


def _fields(kind: Any, seen: dict[Any, bool]) -> list[str]:
    """The fields of a record with their types, including those of nested structs."""
    found: list[str] = []
    for one in (kind, *getattr(kind, "__args__", ())):
        if one in seen or not (isinstance(one, type) and issubclass(one, msgspec.Struct)):
            if one is not kind and one not in seen and hasattr(one, "__args__"):
                found += _fields(one, seen)
            continue
        seen[one] = True
        for field in msgspec.structs.fields(one):
            found.append(f"{one.__name__}.{field.name}: {field.type}")
            found += _fields(field.type, seen)
    return found


def _plain(content: Any) -> list[Any]:
    """A container of the reputation as an unchanging list; a dictionary as its items."""
    if isinstance(content, dict):
        return [(name, _settled(value)) for name, value in content.items()]
    return list(content)


def _settled(value: Any) -> Any:
    """Copies lists, also within a tuple; nothing else ever changes."""
    if isinstance(value, list | dict):
        return value.copy()
    return tuple(map(_settled, value)) if type(value) is tuple else value


def _listed(hint: Any) -> Any:
    """The type that `_plain` returns for a type of container."""
    inner = hint.__args__
    return list[tuple[inner[0], inner[1]]] if hint.__origin__ is dict else list[inner[0]]  # type: ignore[valid-type]


def _runs(items: list[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while some := list(islice(remaining, _AT_A_TIME)):
        yield some
