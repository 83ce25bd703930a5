"""Reads a journal of the previous format, and upgrades its market when it is first opened.

Old records need not have the present types: the chain is verified, transfers are folded, and records are kept as they
are. One entry upgrades them to present records (see `older`) and says what it did; the fold starts again from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from auction.model.errors import BadCurrency, JournalBroken, TooOld
from auction.moderator.config import MarketConfig, Rules
from auction.moderator.older import OldMarket, upgrade_market
from auction.moderator.state import Old, State, decode_changes
from auction.storage.journal import FORMAT, Body, Entry, decode_body, encode_body, seal
from auction.storage.store import Write

FIRST_COMMAND = "open_market"  # the first command of a journal of the present format
COMMAND = "upgrade"
_OF_RULES = ("change_rules", FIRST_COMMAND, COMMAND)


def apply_entry(state: State, entry: Entry) -> None:
    """Folds in an entry of either format. Raises JournalBroken, TooNew, TooOld."""
    body = decode_body(entry.body)
    if entry.command in _OF_RULES:
        _check_whole(body)
    if entry.sequence == 1 and entry.command != FIRST_COMMAND:
        state.old = Old()
    old = state.old
    if old is None:
        state.apply(entry.sequence, entry.at_ms, *decode_changes(body))
    elif entry.command != COMMAND:
        for kind, name, raw in body.changes:
            old.records[kind, name] = bytes(raw)
        state.ledger.apply(body.transfers)
        state.sequence, state.at_ms = entry.sequence, entry.at_ms
    else:
        state.old = None
        state.apply(entry.sequence, entry.at_ms, *decode_changes(body))


def _check_whole(body: Body) -> None:
    """Rules have all of their fields in the journal. Versions in development wrote fewer, and records that do not say
    what this version goes by (since when an auction is over). Raises TooOld."""
    for kind, _, raw in body.changes:
        if kind == "rules":
            try:
                rules = msgspec.json.decode(raw, type=Rules)
            except msgspec.MsgspecError as reason:
                raise TooOld(f"a version in development wrote this journal, and none reads it: {reason}") from None
            if rules.format <= FORMAT and msgspec.json.encode(rules) != bytes(raw):
                raise TooOld("a version in development wrote this journal, and none reads it: its rules lack something")


def write_upgrade(state: State, last_hash: bytes, at_ms: int, given: MarketConfig | None) -> Write:
    """The entry that upgrades an old market, with its rows. Raises BadCurrency if `given` has another currency than the
    market."""
    assert state.old is not None
    records = {name: _decoded(raw) for name, raw in state.old.records.items()}
    currencies = {one for record in records.values() for one in _currencies(record)}
    if len(currencies) > 1 or (given is not None and currencies - {given.currency}):
        raise BadCurrency(f"the market was held in {', '.join(sorted(currencies))}")
    config = given or MarketConfig(currency=next(iter(currencies), MarketConfig().currency))
    sequence, at_ms = state.sequence + 1, max(state.at_ms, at_ms)
    done = upgrade_market(OldMarket(state.sequence, at_ms, records, dict(state.ledger.balances)))
    changes = [("rules", "market", Rules(FORMAT, config)), *done.changes]
    body = encode_body(changes, done.transfers)
    entry = seal(last_hash, sequence, at_ms, COMMAND, "", b"", body, msgspec.json.encode(done.did))
    gone = set(State().apply(sequence, at_ms, changes, ()))  # what is so old that the same entry puts it away
    kept = {(kind, name): record for kind, name, record in changes if (kind, name) not in gone}
    rows = [(kind, name, sequence, msgspec.json.encode(record).decode()) for (kind, name), record in kept.items()]
    sides = [
        (side, sign * amount) for source, target, amount in done.transfers for side, sign in ((source, -1), (target, 1))
    ]
    postings = [(sequence, line, account, amount) for line, (account, amount) in enumerate(sides)]
    return Write(entry, rows, postings, [name for name in records if name not in kept])


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError as reason:
        raise JournalBroken(f"an old record that cannot be read: {reason}") from None


def _currencies(record: Any) -> Iterator[str]:
    """The currencies of a record's amounts."""
    if isinstance(record, dict):
        for name, value in record.items():
            if name == "currency" and isinstance(value, str):
                yield value
            elif isinstance(value, dict):
                yield from _currencies(value)
