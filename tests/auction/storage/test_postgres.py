"""The store on a real PostgreSQL server that the tests start themselves."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from killing import check_kills_come_at_their_step, kill_and_compare
from markets import awarded, check_snapshot, counted_bytes, market
from postgres import Server, restartable_server, server_programs

from auction.model.errors import Unknown
from auction.moderator import Moderator
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore

PROGRAMS = server_programs()
if PROGRAMS is None and not os.environ.get("CI"):  # in CI it must be there
    pytest.skip("no PostgreSQL server is installed (Debian: postgresql)", allow_module_level=True)
pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    assert PROGRAMS is not None, "no PostgreSQL server is installed (Debian: postgresql)"
    with restartable_server(PROGRAMS) as server:
        yield server


@pytest.fixture
def fresh(server: Server) -> Callable[..., str]:
    """Makes an empty database of its own and returns its URL."""

    def make(*_: object) -> str:
        name = f"market_{next(numbers)}"
        engine = sql.create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return server.url.replace("/postgres?", f"/{name}?")

    return make


def test_a_market_is_the_same_after_loading_and_verifies(fresh: Callable[..., str]) -> None:
    store = SqlStore(fresh())
    moderator, clock = market(store)
    name = awarded(moderator, clock)
    moderator.end(name, "p1", "leaving", 0, key="end")
    with pytest.raises(Unknown):
        moderator.deposit("nobody", 1, "EUR")
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.state.records == moderator.state.records
    assert again.end(name, "p1", "leaving", 0, key="end") == moderator.agreement(name)
    assert verify(store) == []
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE auction_posting SET amount = amount + 1 WHERE account = 'outside'")
    assert verify(store) != []
    store.close()


def test_a_market_that_goes_on_is_verified_as_of_one_moment(fresh: Callable[..., str]) -> None:
    check_snapshot(fresh())


def test_the_host_hands_in_its_engine_and_schema(fresh: Callable[..., str]) -> None:
    engine = sql.create_engine(fresh())
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA control_plane")
    store = SqlStore(engine, schema="control_plane")
    moderator, clock = market(store)
    awarded(moderator, clock)
    assert verify(store) == []
    assert sql.inspect(engine).has_table("auction_journal", schema="control_plane")
    assert not sql.inspect(engine).has_table("auction_journal")
    engine.dispose()


def test_eight_clients_share_commits(fresh: Callable[..., str]) -> None:
    store = SqlStore(fresh())
    moderator, _ = market(store)

    def pay_in(client: int) -> None:
        for number in range(50):
            moderator.deposit("rita", 1, "EUR", key=f"{client}-{number}")

    threads = [threading.Thread(target=pay_in, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moderator.balance("rita") == 1_000_400
    assert verify(store) == []
    store.close()


def test_two_moderators_on_one_database_do_not_lose_or_double_a_command(fresh: Callable[..., str]) -> None:
    url = fresh()
    first, clock = market(SqlStore(url))
    second = Moderator(SqlStore(url), clock=clock, random_bytes=counted_bytes())
    for number in range(20):
        (first if number % 2 else second).deposit("rita", 1, "EUR", key=f"d{number}")
    store = SqlStore(url)
    assert Moderator(store, clock=clock).balance("rita") == 1_000_020
    assert verify(store) == []


@pytest.mark.timeout(600)
def test_kills_lose_no_acknowledged_command(fresh: Callable[..., str]) -> None:
    kills = int(os.environ["AUCTION_KILLS"]) // 6
    assert kill_and_compare(fresh, kills) > 2 * kills


def test_kills_come_at_the_step_that_is_said(fresh: Callable[..., str]) -> None:
    check_kills_come_at_their_step(fresh())


def test_a_served_market_survives_a_database_that_is_killed_and_started_again(
    server: Server, fresh: Callable[..., str], tmp_path: Path
) -> None:
    """Deposits go on through the served market while its database is killed twice: each arrives exactly once."""
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    from serving import OPERATOR, start_process

    from auction.web.client import MarketClient

    database = fresh()
    process, url = start_process(database, tmp_path)
    client = MarketClient(url, OPERATOR, retry_for_ms=60_000)
    client.register("rita", "recipient")
    sent: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def deposit() -> None:
        try:
            while not stop.is_set():
                client.deposit("rita", 1, "EUR")
                sent.append(1)
        except BaseException as reason:
            failures.append(reason)

    threads = [threading.Thread(target=deposit) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            before = len(sent)
            while len(sent) < before + 20 and not failures:
                time.sleep(0.01)
            server.kill()
            time.sleep(0.2)
            server.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join(80)
        process.terminate()
        assert process.wait(30) == 0
    assert failures == []
    store = SqlStore(database)
    assert verify(store) == []
    assert Moderator(store).balance("rita") == len(sent)
    store.close()


def test_what_is_erased_is_gone_from_its_table_and_the_journal_verifies(fresh: Callable[..., str]) -> None:
    store = SqlStore(fresh())
    moderator, clock = market(store)
    rosa = moderator.register("", "recipient", name="rosa@clinic").party
    assert len(store.personal()) == 1
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.id_of("rosa@clinic") == rosa
    moderator.erase(rosa)
    with pytest.raises(Unknown):
        again.id_of("rosa@clinic")  # it has taken in that it was erased
    assert (store.personal(), verify(store)) == ([], [])
