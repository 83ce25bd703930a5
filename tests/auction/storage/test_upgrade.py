"""A market of the format before: opened, upgraded by one entry that says what it did, and only once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import awarded, counted_bytes, market

from auction.command.cli import main
from auction.model.errors import BadCurrency, UnderWay
from auction.moderator import Moderator
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import replay, verify, violations
from auction.storage.journal import FIRST_HASH, decode_body, seal
from auction.storage.sql_store import SqlStore
from auction.storage.store import MemoryStore, Store, Write


def old_market(store: Store) -> tuple[Moderator, Any]:
    """Fills the store with what a market came to without the entry that has the rules, and with a record that nothing
    is known of."""
    present = MemoryStore()
    moderator, clock = market(present)
    awarded(moderator, clock)
    last, writes = FIRST_HASH, []
    for entry in present.entries(1):
        sequence = entry.sequence - 1
        changes = [(kind, name, sequence, bytes(raw).decode()) for kind, name, raw in decode_body(entry.body).changes]
        sides = [
            side
            for source, target, amount in decode_body(entry.body).transfers
            for side in ((source, -amount), (target, amount))
        ]
        sealed = seal(last, sequence, entry.at_ms, entry.command, *entry[3:7])
        writes.append(Write(sealed, changes, [(sequence, line, *side) for line, side in enumerate(sides)], []))
        last = sealed.hash
    body = b'[[["wallet","w",{"id":"w"}]],[]]'
    sealed = seal(last, sequence + 1, entry.at_ms, "old", "", b"", body, b"")
    store.append([*writes, Write(sealed, [("wallet", "w", sequence + 1, '{"id":"w"}')], [], [])])
    return moderator, clock


def test_an_old_market_is_upgraded_once_and_goes_on(store: Store) -> None:
    before, clock = old_market(store)
    count = len(list(store.entries()))
    moderator = Moderator(store, clock=clock, random_bytes=counted_bytes())
    entries = list(store.entries())
    assert [one.command for one in entries[count:]] == ["upgrade"]
    did = msgspec.json.decode(entries[-1].answer)
    assert did["wallet: left out"] == 1
    assert did["party: kept"] == 5
    assert decode_body(entries[-1].body).changes[0][:2] == ("rules", "market")
    assert moderator.state.ledger.balances == before.state.ledger.balances
    for kind, records in before.state.records.items():
        if kind != "rules":
            assert moderator.state.records[kind] == records, kind
    assert moderator.deposit("rita", 5, "EUR") == before.balance("rita") + 5
    again = Moderator(store, clock=clock)
    assert len(list(store.entries())) == count + 2
    assert again.state.records == moderator.state.records == replay(store.entries()).records
    assert violations(again.state) == []


def test_a_stored_old_market_verifies_after_the_upgrade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    old_market(SqlStore(url))
    assert main(["verify", "-d", url]) == 1
    assert "older version" in capsys.readouterr().out
    assert main(["watch", "--once", "-d", url]) == 1
    assert "older version" in capsys.readouterr().err
    assert main(["market", "rules", "-d", url]) == 0
    assert main(["verify", "-d", url]) == 0
    assert verify(SqlStore(url)) == []


def test_an_old_market_keeps_its_currency(store: Store) -> None:
    old_market(store)
    with pytest.raises(BadCurrency, match="held in EUR"):
        Moderator(store, config=MarketConfig(currency="JPY"))
    assert Moderator(store).config.currency == "EUR"


def test_an_old_market_with_money_under_way_by_rules_that_are_gone_is_not_opened(store: Store) -> None:
    old_market(store)
    last = list(store.entries())[-1]
    raw = b'{"id":"agreement-9","legs":[]}'
    body = b'[[["agreement","agreement-9",' + raw + b']],[["funds:rita","held:agreement-9",5]]]'
    sequence = last.sequence + 1
    sealed = seal(last.hash, sequence, last.at_ms, "old", "", b"", body, b"")
    postings = [(sequence, 0, "funds:rita", -5), (sequence, 1, "held:agreement-9", 5)]
    store.append([Write(sealed, [("agreement", "agreement-9", sequence, raw.decode())], postings, [])])
    with pytest.raises(UnderWay, match="money is held in held:agreement-9"):
        Moderator(store)
    assert len(list(store.entries())) == last.sequence + 1  # nothing was written


def test_two_that_open_an_old_market_at_once_upgrade_it_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    old_market(SqlStore(url))
    opened: list[Moderator] = []
    threads = [threading.Thread(target=lambda: opened.append(Moderator(SqlStore(url)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert [one.command for one in SqlStore(url).entries()].count("upgrade") == 1


def test_an_old_journal_that_was_altered_is_not_upgraded(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    old_market(store)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE auction_journal SET at_ms = at_ms + 1 WHERE sequence = 4")
    assert "hash does not verify" in verify(store)[0]
