"""The store: migrations, the host's engine and schema, tampering found by `verify`, and what PostgreSQL adds."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sql
from markets import awarded, check_snapshot, counted_bytes, market

from auction.model.errors import JournalBroken, StoreFailed
from auction.moderator import Moderator
from auction.moderator.invariants import replay, verify
from auction.storage.migrations import STEPS, migrate, tables
from auction.storage.sql_store import SqlStore


def played(tmp_path: Path) -> SqlStore:
    """A database with a market in which one agreement was agreed."""
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = market(store)
    awarded(moderator, clock)
    assert verify(store) == []
    return store


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE auction_journal SET body = replace(body, 'rita', 'rota') WHERE sequence = 2", "no moderator writes"),
        (
            "UPDATE auction_journal SET body = CAST(replace(body, 'rita', 'rota') AS BLOB) WHERE sequence = 2",
            "hash does not verify",
        ),
        ("DELETE FROM auction_journal WHERE sequence = 5", "entry 5 is missing"),
        ("UPDATE auction_journal SET at_ms = at_ms + 1 WHERE sequence = 4", "hash does not verify"),
        ("UPDATE auction_record SET body = replace(body, '10000', '90000') WHERE id = 'p1'", "party p1 differs"),
        ("DELETE FROM auction_record WHERE kind = 'agreement'", "is missing"),
        ("UPDATE auction_posting SET amount = amount - 1 WHERE account = 'funds:rita'", "funds:rita has"),
        ("INSERT INTO auction_record VALUES ('party', 'mallory', 1, '{}')", "party mallory should not be"),
    ],
)
def test_verify_finds_what_was_altered_behind_the_moderators_back(tmp_path: Path, statement: str, finding: str) -> None:
    store = played(tmp_path)
    with store.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert any(finding in words for words in verify(store)), verify(store)


def test_a_moderator_does_not_start_on_a_broken_journal(tmp_path: Path) -> None:
    store = played(tmp_path)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE auction_journal SET command = 'gift' WHERE sequence = 3")
    with pytest.raises(JournalBroken):
        Moderator(store)


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    engine = sql.create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        assert migrate(connection, tables(), steps=2) == 2
    assert len(sql.inspect(engine).get_indexes("auction_posting")) == 1  # which is kept no more
    with engine.begin() as connection:
        assert migrate(connection, tables()) == len(STEPS) - 2
        assert migrate(connection, tables()) == 0
    assert sql.inspect(engine).get_indexes("auction_posting") == []
    moderator, clock = market(SqlStore(engine))
    awarded(moderator, clock)
    assert verify(SqlStore(engine)) == []


def test_the_host_hands_in_its_engine(tmp_path: Path) -> None:
    """The host's own engine is used as it is, and its own tables stay its own."""
    engine = sql.create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    store = SqlStore(engine)
    moderator, clock = market(store)
    awarded(moderator, clock)
    again = Moderator(SqlStore(engine), clock=clock, random_bytes=counted_bytes())
    assert again.state.records == moderator.state.records == replay(store.entries()).records
    store.close()
    assert sql.inspect(engine).has_table("customers")


def test_synchronous_full_and_write_ahead_are_set(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_reading_does_not_keep_the_moderator_from_writing(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = market(store)
    reading = iter(store.entries())
    next(reading)
    assert moderator.deposit("rita", 1, "EUR") == 1_000_001
    assert len(list(reading)) > 0


def test_a_market_that_goes_on_is_verified_as_of_one_moment(tmp_path: Path) -> None:
    check_snapshot(f"sqlite:///{tmp_path / 'm.db'}")


def test_what_goes_wrong_with_the_database_is_an_error_of_the_market(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    engine = sql.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with engine.connect(), pytest.raises(StoreFailed):  # no connection is left
        SqlStore(engine)
    with pytest.raises(StoreFailed):
        SqlStore(engine, schema="not_there")
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(StoreFailed):
        SqlStore(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(StoreFailed):
        SqlStore(f"sqlite:///{tmp_path / 'no' / 'folder' / 'm.db'}")
