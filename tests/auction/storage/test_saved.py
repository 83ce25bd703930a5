"""The saved state: a start from it is a start from the journal, and what does not fit is thrown away."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from markets import asked, awarded, counted_bytes, market, poll, settled

import auction.moderator.saved as saving
from auction.model.bid import StandingOffer
from auction.model.block import Timeline
from auction.model.errors import StoreFailed
from auction.moderator import AuctionTerms, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import replay, verify
from auction.moderator.reputation import SAVED, Reputation
from auction.moderator.saved import Copy, restore
from auction.moderator.state import State
from auction.storage.sql_store import SqlStore
from auction.storage.store import Part, Write

BEGIN = ManualClock().now_ms
LAST = 1_000_005 - 250 - 2 * 1_100 - 990  # what rita has in `played`: one is paid, two and an announcement are held


def wait_for_saving() -> None:
    for thread in threading.enumerate():
        if thread.name == "auction-saving":
            thread.join()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves after a few entries, in small parts."""
    monkeypatch.setattr(saving, "_AFTER_ENTRIES", 4)
    monkeypatch.setattr(saving, "_AT_A_TIME", 3)


def shown(value: Any) -> Any:
    """What a part of the state says, so that two can be compared: heaps and times without their inner order."""
    if isinstance(value, Timeline):
        return [peak for t in range(0, 4_000_000, 1_000) if (peak := value.peak_bps(BEGIN + t, BEGIN + t + 1_000))]
    if isinstance(value, dict):
        found = {name: shown(one) for name, one in value.items()}
        return {name: one for name, one in found.items() if one not in ({}, [], 0, set())}
    return value


# When each party was last here, and what is asked for or computed again.
NOT_JOURNALLED = {"polled", "stand_bys", "back_ms", "people", "amounts", "spare_bps"}


def compare(one: State, other: State) -> None:
    for name in vars(one).keys() - NOT_JOURNALLED:
        left, right = getattr(one, name), getattr(other, name)
        if name == "reputation":
            for part in SAVED:
                assert getattr(left, part) == getattr(right, part), part
        elif name == "ledger":
            assert shown(left.balances) == shown(right.balances)
        elif name in ("due", "_expiring"):  # what is over is looked at once more, to no effect
            assert {due for due in left if due[0] > one.at_ms} == {due for due in right if due[0] > one.at_ms}, name
        else:
            assert shown(left) == shown(right), name


def played(store: Any) -> tuple[Moderator, ManualClock]:
    """Auctions and agreements in several states, an offer, a rest that another serves, ratings that count."""
    moderator, clock = market(store)
    offer = {"offer": "o", "provider": "p0", "service": "anonymise", "unit_price": 10, "currency": "EUR", "quantity": 5}
    moderator.stand_offer(StandingOffer(**offer, rate_bps_max=1_000, valid_until_ms=BEGIN + 80_000_000))  # type: ignore[arg-type]
    for number in range(3):
        name = awarded(moderator, clock, fail_over=True)
        clock.advance(80_000)  # half of the service
        poll(moderator, "p2", "rita")
        if number == 0:  # the rest is taken over, and nobody states anything of it
            moderator.end(name, "rita", "blaming", 125)
            moderator.take_over(name, "p2")
        clock.advance(60_000)
        if number == 1:
            settled(moderator, name)
            moderator.rate(name, "rita", True, device="phone")
            moderator.rate(name, "p1", False)
        clock.advance(860_000)
    moderator.announce("rita", asked(clock), AuctionTerms(reserve=900, open_for_ms=50_000))
    moderator.deposit("rita", 5, "EUR", key="last")
    return moderator, clock


def parts_of(moderator: Moderator) -> list[Part]:
    return list(Copy(moderator.state, moderator._hash, moderator._answers, moderator._keys).parts())


def test_what_is_restored_is_what_was_folded(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = played(store)
    saved = restore(parts_of(moderator))
    assert saved is not None
    compare(saved.state, replay(store.entries()))
    assert (saved.hash, saved.answers, saved.keys) == (moderator._hash, moderator._answers, list(moderator._keys))


def test_a_start_from_the_saved_state_reads_the_entries_after_it_alone(tmp_path: Path, often: None) -> None:
    class Counting(SqlStore):
        def entries(self, after: int = 0) -> Any:
            self.asked = [*getattr(self, "asked", []), after]
            return super().entries(after)

    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = played(store)
    wait_for_saving()
    moderator.deposit("rita", 6, "EUR")
    wait_for_saving()
    counting = Counting(f"sqlite:///{tmp_path / 'm.db'}")
    again = Moderator(counting, clock=clock, random_bytes=counted_bytes())
    assert min(counting.asked) > 0
    compare(again.state, moderator.state)
    assert again.deposit("rita", 5, "EUR", key="last") == LAST
    assert again.deposit("rita", 1, "EUR") == LAST + 7
    assert verify(store) == []


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM auction_saved WHERE part = 2",
        "UPDATE auction_saved SET body = CAST(replace(body, 'rita', 'rota') AS BLOB)",
        "UPDATE auction_saved SET name = 'record wallet' WHERE part = 0",
        "UPDATE auction_saved SET body = X'00' WHERE name = 'head'",
        'UPDATE auction_saved SET body = CAST(replace(body, \'"version":"\', \'"version":"x\') AS BLOB)',
    ],
)
def test_a_saved_state_that_is_damaged_or_anothers_is_not_used(tmp_path: Path, often: None, damage: str) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = played(store)
    wait_for_saving()
    assert restore(store.saved()) is not None
    with store.engine.begin() as connection:
        connection.exec_driver_sql(damage)
    assert restore(store.saved()) is None
    compare(Moderator(store, clock=clock).state, moderator.state)
    assert verify(store) == ["the saved state is damaged or from another version"]


def test_a_saved_state_of_another_journal_is_not_used(tmp_path: Path) -> None:
    store, other = (SqlStore(f"sqlite:///{tmp_path}/{name}.db") for name in "ab")
    moderator, clock = played(store)
    market(other)[0].deposit("rita", 9, "EUR")
    store.save(5, parts_of(Moderator(other, clock=clock)))
    compare(Moderator(store, clock=clock).state, moderator.state)
    assert verify(store) != []


def test_verify_finds_a_saved_state_that_is_not_the_fold(tmp_path: Path) -> None:
    """Whoever can write to the database can save what he likes; the whole journal shows it."""
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = played(store)
    forged = restore(parts_of(moderator))
    assert forged is not None
    forged.state.ledger.balances["funds:rita"] += 1
    store.save(1, list(Copy(forged.state, forged.hash, forged.answers, forged.keys).parts()))
    assert verify(store) == ["the saved balances differ"]


class Failing(SqlStore):
    fail = False

    def append(self, writes: list[Write]) -> None:
        if self.fail:
            raise StoreFailed("the disk is full")
        super().append(writes)


def test_after_a_failed_commit_the_state_is_the_stores_also_from_a_saved_state(tmp_path: Path, often: None) -> None:
    store = Failing(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = played(store)
    wait_for_saving()
    before = replay(store.entries())
    store.fail = True
    with pytest.raises(StoreFailed):
        moderator.deposit("rita", 5, "EUR")
    compare(moderator.state, before)
    store.fail = False
    assert moderator.deposit("rita", 5, "EUR", key="last") == LAST
    compare(Moderator(store, clock=clock).state, moderator.state)


def test_all_of_a_reputation_is_saved_or_can_be_made_again() -> None:
    made_again = {"rules", "_shown", "_latest", "_latest_day"}
    assert set(vars(Reputation(State().config.rating))) == set(SAVED) | made_again
