"""`auction verify` and `auction replay`: check that a stored market agrees with its journal. The checks are in
`moderator/invariants.py`."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from auction.command.options import Parents, Parser, open_store
from auction.model.errors import JournalBroken
from auction.moderator.invariants import differences, replay, verify


def add(parser: Parser, parents: Parents) -> None:
    sub = parser.add("verify", "check the journal, the stored state and every invariant", parents=[parents.stored])
    sub.set_defaults(run=_verify)
    sub = parser.add("replay", "compare the stored state with the journal", parents=[parents.stored])
    sub.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    with open_store(options) as store, store.snapshot() as snapshot:
        try:
            state = replay(snapshot.entries())
            found, sequence = differences(state, snapshot), state.sequence
        except JournalBroken as reason:
            found, sequence = [str(reason)], 0
    return _found(options, found, {"entries": sequence})


def _verify(options: argparse.Namespace) -> int:
    with open_store(options) as store:
        found = verify(store)
    return _found(options, found, {})


def _found(options: argparse.Namespace, found: list[str], more: dict[str, Any]) -> int:
    if options.json:
        print(msgspec.json.encode({"found": found, **more}).decode())
    else:
        print("\n".join(found) if found else "nothing is wrong")
    return 1 if found else 0
