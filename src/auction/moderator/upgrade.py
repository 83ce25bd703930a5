"""Reads a journal of the previous format, and upgrades its market when it is first opened.

Old records need not have the present types: the chain is verified, transfers are folded, and records are kept as they
are. One entry upgrades them to present records and says what it did; the fold starts again from there. `upgrade_market`
is the place to handle changes in the meaning of records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from auction.model.errors import AuctionError, BadCurrency, JournalBroken, UnderWay
from auction.model.ledger import Transfer
from auction.moderator.config import MarketConfig, Rules
from auction.moderator.records import RECORD_TYPES
from auction.moderator.state import Old, State, decode_changes
from auction.storage.journal import FORMAT, Entry, decode_body, encode_body, seal
from auction.storage.store import Write

FIRST_COMMAND = "open_market"  # the first command of a journal of the present format
COMMAND = "upgrade"
HOLDS = ("held", "held_bond", "pledged")  # accounts whose money waits for an outcome


class OldMarket(NamedTuple):
    """The contents of an old journal: the last version of each record, as decoded JSON, and the balances."""

    sequence: int
    at_ms: int
    records: dict[tuple[str, str], dict[str, Any]]
    balances: dict[str, int]


class Upgraded(NamedTuple):
    """The result of an upgrade: all records from now on, the transfers, and in words how many records were kept or left
    out."""

    changes: list[tuple[str, str, Any]]
    transfers: list[Transfer]
    did: dict[str, int]


def upgrade_market(old: OldMarket) -> Upgraded:
    """Keeps the records that fit the present types, and counts the others by kind. Raises UnderWay if money is held for
    a record that would be left out: nobody would ever get it."""
    changes: list[tuple[str, str, Any]] = []
    did: dict[str, int] = {}
    for (kind, name), record in old.records.items():
        try:
            changes.append((kind, name, msgspec.convert(record, RECORD_TYPES[kind], builtin_types=())))
            words = f"{kind}: kept"
        except (KeyError, msgspec.MsgspecError, AuctionError):
            words = f"{kind}: left out"
        did[words] = did.get(words, 0) + 1
    held = [account for account, amount in old.balances.items() if amount and account.partition(":")[0] in HOLDS]
    left_out = [kind for kind in ("auction", "agreement", "group") if f"{kind}: left out" in did]
    if held and left_out:
        raise UnderWay(
            f"money is held on {held[0]} by rules that this version no longer has: end what is under way with the "
            "version that opened the market, then upgrade"
        )
    return Upgraded(changes, [], did)


def apply_entry(state: State, entry: Entry) -> None:
    """Folds in an entry of either format. Raises JournalBroken, TooNew."""
    body = decode_body(entry.body)
    if entry.sequence == 1 and entry.command != FIRST_COMMAND:
        state.old = Old()
    old = state.old
    if old is None:
        state.apply(entry.sequence, entry.at_ms, *decode_changes(body))
    elif entry.command != COMMAND:
        for kind, name, raw in body.changes:
            old.records[kind, name] = bytes(raw)
        state.ledger.apply([Transfer(*transfer) for transfer in body.transfers])
        state.sequence, state.at_ms = entry.sequence, entry.at_ms
    else:
        state.old = None
        state.apply(entry.sequence, entry.at_ms, *decode_changes(body))


def write_upgrade(state: State, last_hash: bytes, at_ms: int, given: MarketConfig | None) -> Write:
    """The entry that upgrades an old market, with its rows. Raises BadCurrency if `given` has another currency than the
    market."""
    assert state.old is not None
    records = {name: _decoded(raw) for name, raw in state.old.records.items()}
    currencies = {one for record in records.values() for one in _currencies(record)}
    if len(currencies) > 1 or (given is not None and currencies - {given.currency}):
        raise BadCurrency(f"the market was held in {', '.join(sorted(currencies))}")
    config = given or MarketConfig(currency=next(iter(currencies), MarketConfig().currency))
    done = upgrade_market(OldMarket(state.sequence, state.at_ms, records, dict(state.ledger.balances)))
    changes = [("rules", "market", Rules(FORMAT, config)), *done.changes]
    sequence, at_ms = state.sequence + 1, max(state.at_ms, at_ms)
    body = encode_body(changes, done.transfers)
    entry = seal(last_hash, sequence, at_ms, COMMAND, "", b"", body, msgspec.json.encode(done.did))
    rows = [(kind, name, sequence, msgspec.json.encode(record).decode()) for kind, name, record in changes]
    sides = [
        (side, sign * amount) for source, target, amount in done.transfers for side, sign in ((source, -1), (target, 1))
    ]
    postings = [(sequence, line, account, amount) for line, (account, amount) in enumerate(sides)]
    kept = {(kind, name) for kind, name, _ in changes}
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
