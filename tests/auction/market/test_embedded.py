"""A market inside somebody's program: many threads on one moderator, as a web framework's pool has them; and what
embedders ask for by name.

FastAPI is no dependency: an endpoint that is a plain function runs in a thread of a pool, as these do.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from markets import asked, counted_bytes, money

from auction import SqlStore
from auction.command.cli import main
from auction.model.errors import AuctionError
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import verify

CLIENTS, DEALS, START = 8, 3, 1_000_000
MANUAL = Path(__file__).parents[3] / "docs" / "auction.md"


def test_many_threads_share_a_moderator_while_another_ticks(tmp_path: Path) -> None:
    """Each client plays deals, sends what it can twice at once, and waits for the award; a thread ticks beside them."""
    store = SqlStore(f"sqlite:///{tmp_path}/market.db")
    clock, over = ManualClock(), threading.Event()
    market = Moderator(store, clock=clock, random_bytes=counted_bytes())
    counts: Counter[str] = Counter()
    for number in range(CLIENTS):
        market.register(f"r{number}", "recipient")
        market.register(f"p{number}", "provider", capacity_bps=10**9)
        for party in (f"r{number}", f"p{number}"):
            market.deposit(party, START, "EUR")

    def tick() -> None:
        while not over.wait(0.005):
            clock.advance(50)
            with suppress(AuctionError):
                market.tick()

    def twice(pool: ThreadPoolExecutor, *calls: object) -> list[object]:
        """Everything of these twice and at once; the answers, without those that were refused."""
        answers = []
        for sent in [pool.submit(call) for call in calls for _ in range(2)]:  # type: ignore[arg-type]
            try:
                answers.append(sent.result(60))
            except AuctionError as reason:
                counts[reason.code] += 1
        return answers

    def play(number: int) -> None:
        me, others = f"r{number}", (f"p{number}", f"p{(number + 1) % CLIENTS}")
        with ThreadPoolExecutor(4) as pool:
            for deal in range(DEALS):
                terms = AuctionTerms(reserve=60_00, open_for_ms=1_000, receipts=False)
                auction = market.announce(me, asked(clock), terms).auction
                bids = [
                    partial(market.bid, auction, BidEntry(name, price), key=f"{auction}/{name}")
                    for name, price in zip(others, (41_00, 40_00), strict=True)
                ]
                assert len({bid.bid for bid in twice(pool, *bids)}) == 2  # type: ignore[attr-defined]
                view = market.await_close(auction, wait_ms=20_000)
                (agreement,) = view.agreements
                one = market.agreement(agreement)
                ends = [
                    partial(market.end, agreement, side, "finished", one.price, key=f"{agreement}/{side}")
                    for side in (one.provider, me)
                ]
                twice(pool, *ends)
                assert market.agreement(agreement).paid == one.price, deal
                counts["deals"] += 1

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for played in [pool.submit(play, number) for number in range(CLIENTS)]:
                played.result(120)
    finally:
        over.set()
        ticking.join()
    assert counts == {"deals": CLIENTS * DEALS}
    names = [f"{kind}{number}" for kind in "rp" for number in range(CLIENTS)]
    assert sum(money(market, name) for name in names) == 2 * CLIENTS * START
    assert verify(store) == []


def test_a_step_by_hand_closes_by_the_hosts_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step that comes after the close brings it about by the rules in the journal: here no bond is asked of
    newcomers."""
    url = f"sqlite:///{tmp_path}/market.db"
    clock = ManualClock(1_000_000_000_000)  # long ago for the step, whose clock is the real one
    store = SqlStore(url)
    host = Moderator(store, clock=clock, config=MarketConfig(rating=RatingRules(newcomer_bond=0)))
    host.register("clinic", "recipient")
    host.register("north", "provider", capacity_bps=10_000)
    host.deposit("clinic", 100_00, "EUR")
    host.deposit("north", 21_00, "EUR")  # less than the usual bond of a newcomer
    terms = AuctionTerms(reserve=60_00, open_for_ms=500, receipts=False)
    auction = host.announce("clinic", asked(clock), terms).auction
    host.bid(auction, BidEntry("north", 41_00))
    store.close()
    assert main(["account", "deposit", "clinic", "1000", "EUR", "-d", url]) == 0
    assert capsys.readouterr().err == ""
    again = Moderator(SqlStore(url), clock=clock)
    assert [one.bidder for one in again.state.records["auction"][auction].winners] == ["north"]
    assert again.state.records["auction"][auction].excluded == ()


# What embedders have looked for, and the method that does it; without one, what the manual says of it.
ASKED_FOR = {
    "withdraw an auction": "withdraw_auction",
    "change a party's capacity": "change_capacity",
    "change a party's key": "change_key",
    "attributes of a party": "change_attributes",
    "suspend a party": "ban",
    "a new token, by the operator": "replace_token",
    "revoke a token": "revoke_token",
    "erase a person": "erase",
    "a person's name": "person",
    "the moderator's fee": "withdraw_fees",
    "decide where both say something else": "arbitrate",
    "blocked bidders": "refuse_party",
    "what a bid would hold": "cost_of_bid",
    "what leaving would cost": "cost_of",
    "the rules of the market": "rules",
    "what failed": "overdue",
}
NOT_THERE = (
    "withdraws no single bid",
    "lists no more than 200 of anything",
    "sends no events",
    "takes no part in a transaction of the host's",
    "corrects no remark",
    "takes no chargeback back",
    "tells no provider's free capacity",
)


def test_what_embedders_ask_for_is_there_or_the_manual_says_that_it_is_not() -> None:
    assert [name for name in ASKED_FOR.values() if name not in Moderator.methods] == []
    said = " ".join(MANUAL.read_text().split())
    assert [words for words in NOT_THERE if words not in said] == []
