"""The one writer: idempotency, one transaction, groups, several threads and moderators, clocks that step."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from pathlib import Path

import msgspec
import pytest
from markets import asked, awarded, counted_bytes, market

from auction import AsyncModerator
from auction.model.bid import StandingOffer
from auction.model.errors import (
    AuctionError,
    BadValue,
    InsufficientFunds,
    KeyReused,
    RowsRefused,
    Sealed,
    StoreFailed,
    TooLate,
    Unknown,
)
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock, SteadyTime
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import replay, verify, violations
from auction.storage.journal import verify_chain
from auction.storage.sql_store import SqlStore
from auction.storage.store import MemoryStore, Store, Write

ROOT = Path(__file__).parents[3]


def test_a_key_has_one_effect_and_one_answer(store: Store) -> None:
    moderator, clock = market(store)
    answers = {moderator.deposit("rita", 5, "EUR", key="d1") for _ in range(4)}
    assert answers == {1_000_005}
    with pytest.raises(KeyReused):
        moderator.deposit("rita", 6, "EUR", key="d1")
    with pytest.raises(KeyReused):
        moderator.withdraw("rita", 5, "EUR", key="d1")
    successor = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert successor.deposit("rita", 5, "EUR", key="d1") == 1_000_005
    assert successor.balance("rita") == 1_000_005


def test_a_refused_command_changes_nothing_and_may_be_sent_again() -> None:
    moderator, _ = market()
    with pytest.raises(AuctionError):
        moderator.withdraw("rita", 1_000_001, "EUR", key="w")
    moderator.deposit("rita", 1, "EUR")
    assert moderator.withdraw("rita", 1_000_001, "EUR", key="w") == 0


def test_ten_thousand_commands_sent_again_when_answers_are_lost_have_one_effect_each() -> None:
    numbers = random.Random(11)
    moderator, _ = market()
    sent = expected = 0
    for number in range(10_000):
        amount = numbers.randrange(1, 100)
        expected += amount
        for _ in range(5):
            moderator.deposit("rita", amount, "EUR", key=f"d{number}")
            sent += 1
            if numbers.random() >= 0.3:  # the answer came through
                break
    assert sent > 13_000
    assert moderator.balance("rita") == 1_000_000 + expected
    assert violations(moderator.state) == []


def test_a_group_of_commands_is_one_transaction(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = market(store)
    before = len(list(store.entries()))
    with moderator.group():
        for _ in range(10):
            moderator.deposit("rita", 1, "EUR")
        assert len(list(store.entries())) == before
    assert len(list(store.entries())) == before + 10


class FailingStore(MemoryStore):
    """Fails when told to, before or after it has written."""

    def __init__(self) -> None:
        super().__init__()
        self.fail = ""

    def append(self, writes: list[Write]) -> None:
        if self.fail == "before":
            raise StoreFailed("the disk is full")
        super().append(writes)
        if self.fail == "after":
            raise StoreFailed("the connection went away")


def test_a_failed_commit_leaves_no_trace_and_one_whose_answer_was_lost_is_found() -> None:
    store = FailingStore()
    moderator, _ = market(store)
    for when, times in (("before", 0), ("after", 1)):
        balance = moderator.balance("rita")
        store.fail = when
        with pytest.raises(StoreFailed):
            moderator.deposit("rita", 7, "EUR", key=when)
        store.fail = ""
        assert moderator.balance("rita") == balance + 7 * times
        moderator.deposit("rita", 7, "EUR", key=when)
        assert moderator.balance("rita") == balance + 7


def test_an_answer_that_did_not_wait_is_made_durable_or_undone_by_flush() -> None:
    store = FailingStore()
    moderator, clock = market(store)
    offer = StandingOffer(
        offer="o",
        provider="p0",
        service="anonymise",
        unit_price=10,
        currency="EUR",
        quantity=9,
        rate_bps_max=5_000,
        valid_until_ms=clock.now_ms + 60_000,
    )
    moderator.stand_offer(offer)
    terms = AuctionTerms(receipts=False, reserve=20, open_for_ms=10, format="spot")
    moderator.spot("rita", asked(clock), terms, wait=False)
    store.fail = "before"
    with pytest.raises(StoreFailed):
        moderator.flush()
    store.fail = ""
    assert moderator.balance("rita") == 1_000_000
    moderator.spot("rita", asked(clock), terms, wait=False)
    moderator.flush()
    assert replay(store.entries()).records == moderator.state.records


def standing_offers(moderator: Moderator, until_ms: int) -> AuctionTerms:
    """Firm offers that never run out; terms under which they are taken."""
    for number in range(3):
        moderator.stand_offer(
            StandingOffer(
                offer=f"o{number}", provider=f"p{number}", service="anonymise", unit_price=10 + number, currency="EUR",
                quantity=2_000, rate_bps_max=5_000, valid_until_ms=until_ms,
            )
        )  # fmt: skip
    return AuctionTerms(receipts=False, reserve=20, open_for_ms=10, format="spot")


def test_what_was_answered_first_is_journalled_in_its_order(store: Store) -> None:
    moderator, clock = market(store)
    terms = standing_offers(moderator, clock.now_ms + 3_600_000)
    before = moderator.state.sequence
    for round_ in range(4):
        for part in range(3):
            window_ms = 1_000 * (3 * round_ + part)
            block = msgspec.structs.replace(asked(clock), starts_ms=asked(clock).starts_ms + window_ms)
            moderator.spot("rita", msgspec.structs.replace(block, ends_ms=block.starts_ms + 900), terms, wait=False)
        moderator.deposit("rita", 1, "EUR", key=f"d{round_}")
    moderator.spot("rita", asked(clock), terms, wait=False)
    moderator.flush()
    commands = [entry.command for entry in verify_chain(store.entries())][before:]
    assert commands == ["spot", "spot", "spot", "deposit"] * 4 + ["spot"]
    assert replay(store.entries()).records == moderator.state.records
    assert violations(moderator.state) == []


def test_answers_that_are_not_journalled_are_bounded() -> None:
    store = MemoryStore()
    moderator, clock = market(store, MarketConfig(rating=RatingRules(newcomer_bond=0)))
    terms = standing_offers(moderator, clock.now_ms + 3_600_000)
    for number in range(600):
        starts_ms = clock.now_ms + 60_000 + number
        block = msgspec.structs.replace(asked(clock), starts_ms=starts_ms, ends_ms=starts_ms + 1)
        moderator.spot("rita", block, terms, wait=False)
        assert moderator.state.sequence - len(list(store.entries())) < 256


def test_what_could_not_be_journalled_is_refused_before_it_is_answered() -> None:
    moderator, clock = market(MemoryStore())
    terms = standing_offers(moderator, clock.now_ms + 3_600_000)
    sequence = moderator.state.sequence
    block = msgspec.structs.replace(asked(clock), attributes={"region": "\ud800"})
    for wrong, key in ((block, None), (asked(clock), "\ud800"), (asked(clock), 5)):
        with pytest.raises(BadValue):
            moderator.spot("rita", wrong, terms, wait=False, key=key)  # type: ignore[arg-type]
    assert moderator.state.sequence == sequence
    assert moderator.deposit("rita", 1, "EUR") == 1_000_001


def test_two_moderators_on_one_database_do_not_lose_or_double_a_command(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    first, clock = market(SqlStore(url))
    second = Moderator(SqlStore(url), clock=clock, random_bytes=counted_bytes())
    for number in range(20):
        (first if number % 2 else second).deposit("rita", 1, "EUR", key=f"d{number}")
    assert Moderator(SqlStore(url), clock=clock).balance("rita") == 1_000_020
    assert verify(SqlStore(url)) == []


def test_threads_share_commits(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = market(store)
    commits = []
    append = store.append
    store.append = lambda writes: (commits.append(len(writes)), append(writes))[1]  # type: ignore[method-assign]

    def pay_in(thread: int) -> None:
        for number in range(25):
            moderator.deposit("rita", 1, "EUR", key=f"{thread}-{number}")

    threads = [threading.Thread(target=pay_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moderator.balance("rita") == 1_000_200
    assert sum(commits) == 200
    assert len(commits) < 200  # some were committed together
    assert verify(store) == []


def test_the_asynchronous_moderator_answers_when_durable(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = market(store)

    async def play() -> list[int]:
        async with AsyncModerator(moderator) as awaited:
            with pytest.raises(Unknown):
                await awaited.deposit("nobody", 1, "EUR")
            return list(await asyncio.gather(*(awaited.deposit("rita", 1, "EUR", key=str(i)) for i in range(100))))

    assert sorted(asyncio.run(play())) == [1_000_001 + i for i in range(100)]
    assert verify(store) == []


def test_sixty_four_clients_bid_a_thousand_times_just_before_the_close(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = market(store, providers=64)
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(receipts=False, reserve=100_000, open_for_ms=10_000)
    ).auction
    clock.advance(9_950)
    late: list[int] = []
    taken: list[tuple[int, int]] = []

    def bid(client: int) -> None:
        numbers = random.Random(client)
        for _ in range(16):
            price = numbers.randrange(1_000, 99_000)
            try:
                placed = moderator.bid(auction, BidEntry(f"p{client}", price))
                taken.append((client, placed.price))
            except TooLate:
                late.append(client)
            if numbers.random() < 0.05:
                clock.advance(1)

    threads = [threading.Thread(target=bid, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.advance(100)
    with pytest.raises(TooLate):
        moderator.bid(auction, BidEntry("p0", 1))
    award = moderator.close(auction)
    assert len(taken) + len(late) == 1_024
    assert moderator.auction(auction).bid_count == len(taken)
    last = {placed.bidder: placed.price for placed in moderator.bids(auction, "rita")}  # a later bid replaces one's own
    assert award.winners[0].bidder == min(last, key=lambda bidder: last[bidder])
    assert verify(store) == []


def test_a_clock_that_steps_almost_an_hour_back_and_forth() -> None:
    moderator, clock = market(config=MarketConfig(rating=RatingRules(newcomer_bond=0)))
    hour = 1_790_000  # twice, and not an hour: that would wait for the operator
    numbers = random.Random(3)
    last_ms = 0
    for _ in range(60):
        starts_ms = moderator.now_ms() + 60_000
        block = msgspec.structs.replace(asked(clock), starts_ms=starts_ms, ends_ms=starts_ms + 60_000)
        terms = AuctionTerms(receipts=False, reserve=500, open_for_ms=10_000)
        auction = moderator.announce("rita", block, terms).auction
        step = numbers.choice((-hour, 0, 5_000))
        clock.advance(step)
        moderator.bid(auction, BidEntry("p0", 400))
        now_ms = moderator.now_ms()
        assert now_ms >= last_ms  # the moderator's own time never goes back
        last_ms = now_ms
        clock.advance(-hour)
        moderator.tick()
        assert moderator.auction(auction).state == "open"  # a step back neither closes it nor ...
        clock.advance(10_000)
        moderator.tick()
        assert moderator.auction(auction).state == "agreed"  # ... keeps it open for an hour more
        clock.advance(hour - min(step, 0))
        with pytest.raises(TooLate):
            moderator.bid(auction, BidEntry("p1", 1))
    assert violations(moderator.state) == []
    entries = list(moderator.store.entries())
    assert all(one.at_ms <= other.at_ms for one, other in itertools.pairwise(entries))


def test_steady_time_goes_on_at_the_clocks_pace_after_a_step_back() -> None:
    clock = ManualClock(1_000)
    steady = SteadyTime(clock, 5_000)
    readings = []
    for step in (0, 10, -500, 20, 500, -1):
        clock.advance(step)
        readings.append(steady.read())
    assert readings == [5_000, 5_010, 5_010, 5_030, 5_530, 5_530]


def test_nobody_reads_anothers_sealed_bid() -> None:
    moderator, clock = market()
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(receipts=False, reserve=500, open_for_ms=10_000)
    ).auction
    moderator.bid(auction, BidEntry("p0", 400))
    assert [bid.price for bid in moderator.bids(auction, "p0")] == [400]
    for reader in ("p1", "rita", "phone"):
        with pytest.raises(Sealed):
            moderator.bids(auction, reader)
    view = moderator.auction(auction)
    assert (view.bid_count, view.award, view.seed) == (1, None, "")
    assert b"400" not in repr(view).encode()
    clock.advance(10_000)
    moderator.tick()
    assert [bid.price for bid in moderator.bids(auction, "rita")] == [400]
    with pytest.raises(Sealed):
        moderator.bids(auction, "p1")  # it took no part


def test_replay_equals_state(store: Store) -> None:
    moderator, clock = market(store)
    awarded(moderator, clock)
    state = replay(store.entries())
    assert state.records == moderator.state.records
    assert state.ledger.balances == moderator.state.ledger.balances
    assert (state.sequence, state.nonces, state.owners) == (
        moderator.state.sequence,
        moderator.state.nonces,
        moderator.state.owners,
    )


def test_a_key_is_remembered_for_as_long_as_the_market_says(store: Store) -> None:
    moderator, clock = market(store, MarketConfig(keys_kept_ms=1_000))
    moderator.deposit("rita", 5, "EUR", key="k")
    clock.advance(999)
    moderator.deposit("rita", 1, "EUR", key="other")
    assert moderator.deposit("rita", 5, "EUR", key="k") == 1_000_005
    clock.advance(1)
    moderator.deposit("rita", 1, "EUR", key="third")
    again = Moderator(store, clock=clock, config=moderator.config)
    for one in (moderator, again):
        assert one.deposit("rita", 1, "EUR", key="other") == 1_000_006
    with pytest.raises(KeyReused):
        again.deposit("rita", 9, "EUR", key="third")
    assert again.deposit("rita", 7, "EUR", key="k") == 1_000_014  # forgotten: a command of its own


def test_a_second_moderator_reads_what_is_stored_before_it_answers_or_refuses(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    clock = ManualClock()
    first = Moderator(SqlStore(url), clock=clock)
    second = Moderator(SqlStore(url), clock=clock)
    token = first.register("rita", "recipient").token
    first.deposit("rita", 100, "EUR")
    assert second.balance("rita") == 100
    assert second.authenticate(token) == "rita"
    first.register("late", "recipient")
    assert second.deposit("late", 5, "EUR") == 5  # would be Unknown by what it knew
    first.withdraw("rita", 100, "EUR")
    with pytest.raises(InsufficientFunds, match="has 0 minor units"):
        second.withdraw("rita", 100, "EUR")
    first.deposit("rita", 7, "EUR", key="k")
    assert second.deposit("rita", 7, "EUR", key="k") == 7  # the answer that the other gave
    with pytest.raises(KeyReused):
        first.deposit("late", 7, "EUR", key="k")
    first.deposit("rita", 1, "EUR")
    assert second.tick() == 0
    assert second.state.sequence == first.state.sequence
    assert second.state.records == first.state.records
    assert second.state.ledger.balances == first.state.ledger.balances


def test_moderators_of_many_threads_on_one_database_refuse_nothing_wrongly(tmp_path: Path) -> None:
    """Each thread pays in with one moderator and takes the same out with another: no withdrawal may be refused."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    first, clock = market(SqlStore(url))
    moderators = [first, *(Moderator(SqlStore(url), clock=clock) for _ in range(2))]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        numbers = random.Random(number)
        try:
            name = moderators[number % 3].register(f"r{number}", "recipient").party
            for _ in range(15):
                amount = numbers.randrange(1, 1_000)
                numbers.choice(moderators).deposit(name, amount, "EUR")
                assert numbers.choice(moderators).withdraw(name, amount, "EUR") == 0
        except BaseException as reason:
            failures.append(reason)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert verify(SqlStore(url)) == []


class PickyStore(MemoryStore):
    """Takes no entry under the key `bad`, as a database that cannot hold some value."""

    def append(self, writes: list[Write]) -> None:
        if any(one.entry.key == "bad" for one in writes):
            raise OverflowError("too large")
        super().append(writes)


def test_what_the_store_does_not_take_hurts_its_own_caller_alone() -> None:
    """Forty tasks; the commands are committed together, one of them with a value that the store cannot hold."""
    moderator, _ = market(PickyStore())

    async def run() -> list[object]:
        async with AsyncModerator(moderator) as awaited:
            keys = ["bad" if number == 7 else f"d{number}" for number in range(40)]
            return await asyncio.gather(
                *(awaited.deposit("rita", 1, "EUR", key=key) for key in keys), return_exceptions=True
            )

    answers = asyncio.run(run())
    assert [type(one) for one in answers if not isinstance(one, int)] == [RowsRefused]
    assert moderator.balance("rita") == 1_000_039
    assert replay(moderator.store.entries()).records == moderator.state.records


def test_threads_whose_commands_are_committed_together_fail_one_by_one() -> None:
    moderator, _ = market(PickyStore())
    failed: list[str] = []

    def deposit(key: str) -> None:
        try:
            moderator.deposit("rita", 1, "EUR", key=key)
        except StoreFailed:
            failed.append(key)

    threads = [threading.Thread(target=deposit, args=("bad" if one == 5 else f"d{one}",)) for one in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == ["bad"]
    assert moderator.balance("rita") == 1_000_015
