"""The rules of a market stand in its journal; a newer database is refused; a database file is its owner's alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sql
from markets import asked, awarded, market

from auction.command.cli import main
from auction.model.errors import AuctionError, BadAmount, BadCurrency, BadValue, OtherRules, TooNew, TooOld
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.config import MarketConfig, Rules
from auction.moderator.invariants import replay, verify
from auction.storage.journal import FIRST_HASH, FORMAT, decode_body, encode_body, seal
from auction.storage.migrations import STEPS
from auction.storage.sql_store import SqlStore
from auction.storage.store import MemoryStore, Store, Write


def test_the_first_entry_has_the_rules_and_every_opener_goes_by_them(store: Store) -> None:
    config = MarketConfig(currency="KWD", rating=RatingRules(newcomer_bond=7))
    moderator = Moderator(store, config=config)
    first = next(iter(store.entries()))
    assert (first.command, decode_body(first.body).changes[0][:2]) == ("open_market", ("rules", "market"))
    assert Moderator(store).config == moderator.config == moderator.rules() == config
    assert Moderator(store, config=config).config == config
    assert replay(store.entries()).config == config
    assert len(list(store.entries())) == 1  # to open it again is no entry


def test_who_opens_it_by_other_rules_is_refused_with_what_differs(store: Store) -> None:
    Moderator(store, config=MarketConfig(rating=RatingRules(newcomer_bond=7)))
    with pytest.raises(BadCurrency, match="currency is 'EUR', not 'JPY'"):
        Moderator(store, config=MarketConfig(currency="JPY"))
    with pytest.raises(OtherRules, match=r"rating\.newcomer_bond is 7, not 5000") as refused:
        Moderator(store, config=MarketConfig())
    assert "\n" not in str(refused.value)
    with pytest.raises(BadAmount):
        MarketConfig(rating=RatingRules(newcomer_bond="7"))  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="signatures must be bool"):
        Moderator(config=MarketConfig(signatures="no"))  # type: ignore[arg-type]
    with pytest.raises(BadCurrency):
        MarketConfig(currency="eur")


def test_rules_change_by_an_entry_and_hold_for_what_is_announced_from_then_on(store: Store) -> None:
    moderator, clock = market(store, MarketConfig(rating=RatingRules(prior_yes=1_000_000)))
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=900, open_for_ms=10_000)).auction
    moderator.bid(auction, BidEntry("p0", 500))
    before = moderator.auction(auction).ratings
    changed = msgspec.structs.replace(moderator.config, rating=RatingRules(prior_yes=9_000_000))
    assert moderator.change_rules(changed, key="c") == changed == moderator.change_rules(changed, key="c")
    assert moderator.change_rules(changed) == changed
    assert [one.command for one in store.entries()].count("change_rules") == 1
    later = moderator.announce("rita", asked(clock), AuctionTerms(reserve=900, open_for_ms=10_000)).auction
    moderator.bid(later, BidEntry("p0", 500))
    assert moderator.auction(auction).ratings == before
    assert moderator.auction(later).ratings[0].mean_ppm > before[0].mean_ppm
    with pytest.raises(BadCurrency):
        moderator.change_rules(msgspec.structs.replace(changed, currency="USD"))
    again = Moderator(store, clock=clock, config=changed)
    assert again.auction(auction).ratings == before
    assert again.auction(later) == moderator.auction(later)
    with pytest.raises(OtherRules):
        Moderator(store, clock=clock, config=MarketConfig())


def test_two_that_open_a_new_market_at_once_do_not_both_say_its_rules() -> None:
    store = MemoryStore()

    class Late(MemoryStore):
        """Is seen empty at first, and then as the other left it."""

        def entries(self, after: int = 0):  # type: ignore[no-untyped-def]
            return store.entries(after) if self._entries_seen() else []

        def _entries_seen(self) -> bool:
            self.count = getattr(self, "count", 0) + 1
            return self.count > 1

        def append(self, writes: list[Write]) -> None:
            store.append(writes)

    Moderator(store, config=MarketConfig(currency="EUR"))
    with pytest.raises(BadCurrency):
        Moderator(Late(), config=MarketConfig(currency="JPY"))


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store = SqlStore(url)
    market(store)
    count = len(list(store.entries()))
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO auction_schema VALUES ({len(STEPS) + 1})")
    with pytest.raises(TooNew, match=f"has had {len(STEPS) + 1} migration steps, this version has {len(STEPS)}"):
        SqlStore(url)
    assert main(["account", "deposit", "rita", "1", "EUR", "-d", url]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert len(list(store.entries())) == count


@pytest.mark.parametrize("kind", ["wallet", "rules"])
def test_a_journal_of_a_newer_version_is_refused(kind: str, store: Store) -> None:
    market(store)
    last = list(store.entries())[-1]
    record = Rules(FORMAT + 1, MarketConfig()) if kind == "rules" else {"id": "w"}
    body = encode_body([(kind, "market", record)], [])
    entry = seal(last.hash, last.sequence + 1, last.at_ms, "newer", "", b"", body, b"")
    store.append([Write(entry, [], [], [])])
    for opened in (lambda: Moderator(store), lambda: replay(store.entries())):
        with pytest.raises(TooNew):
            opened()


@pytest.mark.parametrize("is_unknown", [False, True], ids=["less", "other"])
def test_a_journal_of_a_version_in_development_is_refused_in_one_line(
    is_unknown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the first rules and these: it wrote no `taker` yet, and of no auction since when it is over."""
    rules = msgspec.to_builtins(Rules(FORMAT, MarketConfig()))
    del rules["config"]["taker"]
    if is_unknown:
        rules["config"]["delivery"] = {}
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store = SqlStore(url)
    first = seal(FIRST_HASH, 1, 5, "open_market", "", b"", encode_body([("rules", "market", rules)], []), b"")
    store.append([Write(first, [], [], [])])
    with pytest.raises(TooOld, match="a version in development wrote this journal"):
        Moderator(store)
    for step in (["account", "deposit", "rita", "1", "EUR"], ["verify"]):
        assert main([*step, "-d", url]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert len(list(store.entries())) == 1


def test_a_record_that_cannot_be_read_is_a_broken_journal() -> None:
    store = MemoryStore()
    market(store)
    last = list(store.entries())[-1]
    body = encode_body([("party", "x", {"id": 5})], [])
    store.append([Write(seal(last.hash, last.sequence + 1, last.at_ms, "x", "", b"", body, b""), [], [], [])])
    with pytest.raises(AuctionError, match="cannot read"):
        Moderator(store)


def test_database_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the process lets others do by default."""
    before = os.umask(0)
    try:
        for number, engine in enumerate(
            (f"sqlite:///{tmp_path}/0.db", sql.create_engine(f"sqlite:///{tmp_path}/1.db"))
        ):
            moderator, clock = market(SqlStore(engine))
            awarded(moderator, clock)
            found = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.glob(f"{number}.db*")}
            assert set(found.values()) == {0o600}, found
    finally:
        os.umask(before)
    assert (tmp_path / "0.db-wal").exists()


def test_the_command_goes_by_the_rules_of_the_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an operator's step brings about is what the host's own market would have: no bond is owed here."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store = SqlStore(url)
    host = Moderator(store, config=MarketConfig(rating=RatingRules(newcomer_bond=0)))
    host.register("rita", "recipient")
    host.deposit("rita", 10_000, "EUR")
    host.register("north", "provider", capacity_bps=10**9)
    assert main(["account", "deposit", "north", "1000", "EUR", "-d", url]) == 0
    assert Moderator(SqlStore(url)).config.rating.newcomer_bond == 0
    for words in (["account", "deposit", "north", "1000", "JPY"], ["account", "withdraw", "north", "5", "USD"]):
        assert main([*words, "-d", url]) == 1
    assert main(["party", "show", "north", "-d", url, "--currency", "JPY"]) == 1
    assert capsys.readouterr().err.count("bad_currency") == 3
    assert main(["market", "rules", "-d", url, "--json"]) == 0
    assert '"newcomer_bond":0' in capsys.readouterr().out
    store.close()
    assert verify(SqlStore(url)) == []


def test_a_new_market_has_the_currency_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    assert main(["party", "register", "rita", "recipient", "-d", url, "--currency", "KWD"]) == 0
    assert main(["account", "deposit", "rita", "5", "KWD", "-d", url]) == 0
    assert main(["account", "deposit", "rita", "5", "EUR", "-d", url]) == 1
    capsys.readouterr()


def test_serve_refuses_rules_that_are_not_the_markets(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    url = f"sqlite:///{tmp_path / 'm.db'}"
    market(SqlStore(url))
    (tmp_path / "rules.toml").write_text("[rating]\nnewcomer_bond = 5\n")
    command = [sys.executable, "-m", "auction", "serve", "-d", url, "--listen", "127.0.0.1:0"]
    done = subprocess.run([*command, "--rules", tmp_path / "rules.toml"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "newcomer_bond is 5000, not 5" in done.stderr
