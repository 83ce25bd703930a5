"""The allocator over a market, embedded and served: who is placed, what is reported, charged and rated, to the cent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from auction.model.bid import StandingOffer
from auction.model.errors import NoAward
from auction.model.lifecycle import CLOSING_MS
from auction.model.rating import RatingRules
from auction.moderator import BidEntry, Moderator
from auction.moderator.clock import system_clock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from streamcore.subcontract.allocator import Interval, Need, Placement, Report
from streamcore.subcontract.market import MarketAllocator, Terms
from streamcore.subcontract.pricing import Fixed
from streamcore.subcontract.trader import Trader
from streamcore.subcontract.work import Done

sys.path.append(str(Path(__file__).parents[2] / "auction"))  # where the served market for tests stands

KEYS = {name: letter * 40 for name, letter in (("north", "n"), ("south", "s"), ("east", "e"))}
TERMS = Terms(party="clinic", device="desk", open_for_ms=300, settle_ms=1_000)


class World:
    """A market with a clinic and three providers, and an allocator of the clinic."""

    def __init__(self) -> None:
        clock = system_clock()
        self.ahead_ms = 0
        rules = MarketConfig(rating=RatingRules(value_full=300))
        self.market = Moderator(config=rules, clock=lambda: clock() + self.ahead_ms)
        self.token = self.market.register("clinic", "recipient").token

    def wait_until(self, at_ms: int) -> None:
        while self.market.now_ms() < at_ms:
            time.sleep(0.005)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until_s = time.monotonic() + 10
        while not happened():
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def wealth(self, provider: str) -> int:
        """All that is the provider's while nothing but its offer is held."""
        self.market.withdraw_offer(f"offer-of-{provider}", provider)
        return self.market.balance(provider) + self.market.bond(provider)

    def stand(self, provider: str, price: int, service: str = "anonymise") -> str:
        offer = StandingOffer(
            offer=f"offer-of-{provider}",
            provider=provider,
            service=service,
            unit_price=price,
            currency="EUR",
            quantity=10,
            rate_bps_max=10_000_000,
            valid_until_ms=self.market.now_ms() + 600_000,
        )
        return self.market.stand_offer(offer).offer

    def need(self, price_max: int = 1_000, length_ms: int = 10_000, **more: object) -> Need:
        starts_ms = self.market.now_ms()
        fields = {"minimum_bps": 1_000_000, "maximum_bps": 2_000_000, "objective": "cost", **more}
        return Need("voice", "anonymise", ["anonymise"], price_max=price_max, starts_ms=starts_ms,
                    ends_ms=starts_ms + length_ms, **fields)  # type: ignore[arg-type]  # fmt: skip

    def close(self) -> None:
        self.allocator.close()
        assert violations(self.market.state) == []


@pytest.fixture(params=["embedded", "served"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World()
    market = made.market
    market.register("desk", "device", belongs_to="clinic")
    market.deposit("clinic", 100_000, "EUR")
    for name, key in KEYS.items():
        market.register(name, "provider", capacity_bps=100_000_000)
        market.deposit(name, 20_000, "EUR")
        market.post_bond(name, 10_000, "EUR")
        market.publish_endpoint(name, key)
    if request.param == "embedded":
        made.allocator = MarketAllocator(market, TERMS)
        yield made
        made.close()
    else:
        pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
        from serving import served

        from auction.web.client import MarketClient

        with served(market) as url, MarketClient(url, made.token) as client:
            made.allocator = MarketAllocator(client, TERMS)
            yield made
            made.close()


@contextmanager
def bidding(world: World, prices: dict[str, int]) -> Iterator[list[int]]:
    """Providers that bid in every auction, at these prices; yields how many there were."""
    stop, seen = threading.Event(), []

    def bid() -> None:
        done: set[str] = set()
        while not stop.is_set():
            for one in world.market.assignments("north", services=("anonymise",)).auctions:
                auction = one.announcement.auction
                if auction not in done:
                    done.add(auction)
                    seen.append(one.announcement.reserve)
                    for name, price in prices.items():
                        world.market.bid(auction, BidEntry(name, price))
            time.sleep(0.01)

    thread = threading.Thread(target=bid)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)


@contextmanager
def trading(world: World, name: str) -> Iterator[Trader]:
    """A provider's trader, which looks and states in a thread until the block is left; then it ends."""
    trader = Trader(world.market, name, ("anonymise",), Fixed(0), 10**8, "EUR", stand=False)
    trader.begin(KEYS[name])
    stop = threading.Event()

    def trade() -> None:
        while not stop.is_set():
            trader.look(20)
            trader.report()

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        yield trader
    finally:
        stop.set()
        thread.join(10)
        trader.end()


def measured(placement: Placement, share: float, got_of_asked: float = 1.0, **more: Any) -> Report:
    """What was measured of this share of the block, in two intervals."""
    length_ms = int((placement.ends_ms - placement.starts_ms) * share)
    middle_ms = placement.starts_ms + length_ms // 2
    asked = 1_000_000 * (length_ms // 2) // 1000
    spans = ((placement.starts_ms, middle_ms), (middle_ms, placement.starts_ms + length_ms))
    told = tuple(Interval(starts, ends, asked, int(asked * got_of_asked), 5) for starts, ends in spans)
    return Report(told, segments=10, **more)


def test_a_need_is_placed_at_once_with_the_best_standing_offer(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert (placement.provider, placement.public_key, placement.price) == ("south", KEYS["south"], 300)
    assert [(runner.provider, runner.public_key) for runner in placement.runners_up] == [("north", KEYS["north"])]
    assert placement.newcomer
    agreement = world.market.agreement(placement.agreement)
    assert (agreement.state, agreement.recipient_held, agreement.minimum_bps) == ("agreed", 1_100, 1_000_000)  # R(1+δ)
    assert world.market.balance("clinic") == 100_000 - 1_100


def test_where_no_offer_stands_an_auction_is_held(world: World) -> None:
    world.stand("east", 1_001)  # beyond the price
    with bidding(world, {"north": 500, "south": 420}) as seen:
        placement = world.allocator.place(world.need())
    assert placement is not None
    assert (placement.provider, placement.price, seen) == ("south", 500, [1_000])  # second-score: the second's price
    assert [runner.provider for runner in placement.runners_up] == ["north"]


def test_nobody_within_the_price_is_no_placement(world: World) -> None:
    with bidding(world, {"north": 1_001}):
        assert world.allocator.place(world.need()) is None
    assert world.market.balance("clinic") == 100_000


def test_a_winner_without_a_key_gives_way_to_who_has_one(world: World) -> None:
    world.market.register("west", "provider", capacity_bps=100_000_000)
    world.market.deposit("west", 20_000, "EUR")
    world.market.post_bond("west", 10_000, "EUR")
    world.stand("west", 100)
    world.stand("north", 150)
    with trading(world, "north") as north:
        placement = world.allocator.place(world.need())
        assert placement is not None
        assert (placement.provider, placement.public_key) == ("north", KEYS["north"])
        (work,) = north.work.values()
        assert work.agreement == placement.agreement
        assert world.market.agreement(placement.agreement).of != ""


@pytest.mark.parametrize("got", [1.0, 0.5])
def test_an_end_that_both_sides_state_is_paid_and_rated(world: World, got: float) -> None:
    """The run ends at a tenth of the block: the clinic leaves, pays what was delivered, and δ of what is not."""
    world.stand("south", 300)
    with trading(world, "south") as south:
        placement = world.allocator.place(world.need())
        assert placement is not None
        world.wait_until(placement.starts_ms + 1_000)
        report = measured(placement, 0.1, got, audited=20)
        outcome = world.allocator.report(placement, report)
        assert (outcome["state"], outcome["ending"]) == ("closing", "leaving")
        figure = outcome["figure"]
        share = (world.market.now_ms() - placement.starts_ms) / 10_000
        assert 300 * (share - 0.1 * (1 - got)) - 10 <= figure <= 300 * share
        world.allocator.close()
        agreement = world.market.agreement(placement.agreement)
        undelivered = (300 - figure) // 10
        assert (outcome["state"], outcome["paid"], outcome["charged"]) == ("settled", figure, figure + undelivered)
        assert (agreement.provider_ending, agreement.recipient_ending) == ("blaming", "leaving")
        assert world.allocator.report(placement, report) == outcome  # told twice, ended once
        world.wait_for(lambda: bool(south.earned))
        assert south.earned == figure + undelivered
    assert world.market.balance("clinic") == 100_000 - figure - undelivered
    assert world.wealth("south") == 20_000 + figure + undelivered
    service, payment = world.market.opinions(placement.agreement)
    # Left at once by the clinic: what is missing of the price is no fault of who was paid all that it delivered.
    assert (service.satisfied, service.device, payment.satisfied) == (True, "desk", True)


def test_a_block_that_is_over_is_finished_and_its_shortfall_not_paid(world: World) -> None:
    world.stand("south", 300)
    with trading(world, "south"):
        placement = world.allocator.place(world.need(length_ms=1_500))
        assert placement is not None
        world.wait_until(placement.ends_ms)
        outcome = world.allocator.report(placement, measured(placement, 1.0, 0.5))
        assert (outcome["ending"], outcome["figure"]) == ("finished", 150)
        world.allocator.close()
        assert (outcome["state"], outcome["charged"], outcome["satisfied"]) == ("settled", 150, False)
    assert world.wealth("south") == 20_000 + 150
    assert world.market.balance("clinic") == 100_000 - 150


def test_who_failed_is_blamed_and_who_takes_over_is_paid_its_own_part(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    with trading(world, "north") as north:
        placement = world.allocator.place(world.need())
        assert placement is not None
        world.wait_until(placement.starts_ms + 1_000)
        failed = measured(placement, 0.1, 0.5, failures=("hung",))
        taken = world.allocator.replace(placement, "hung", failed)
        assert taken is not None
        assert (taken.provider, taken.public_key) == ("north", KEYS["north"])
        former, rest = world.market.agreement(placement.agreement), world.market.agreement(taken.agreement)
        left_ms = placement.ends_ms - rest.starts_ms
        assert (rest.of, rest.price) == (placement.agreement, 400 * left_ms // 10_000)
        assert former.recipient_held == 330  # P(1+δ); what is beyond pays for the rest
        assert rest.recipient_held == 1_100 - 330
        figure = world.allocator.report(placement, Report(()))["figure"]
        assert 13 <= figure <= 17  # half of what it owed in the tenth that it was there
        world.wait_until(rest.starts_ms + 500)
        outcome = world.allocator.report(taken, measured(taken, 0.05))
        world.allocator.close()
        assert outcome["state"] == "settled"
        assert outcome["charged"] == outcome["figure"] + (rest.price - outcome["figure"]) // 10
        assert world.market.agreement(placement.agreement).state == "closing"  # south says nothing
        world.wait_for(lambda: bool(north.earned))
    world.ahead_ms += CLOSING_MS
    world.market.tick()
    settled = world.market.agreement(placement.agreement)
    penalty = (300 - figure) // 10
    assert (settled.paid, settled.burnt, settled.provider_ending) == (figure, penalty, "")
    assert world.wealth("south") == 20_000 + figure - penalty
    assert world.wealth("north") == 20_000 + outcome["charged"]
    assert world.market.balance("clinic") == 100_000 - figure - outcome["charged"]


def test_a_provider_that_leaves_by_itself_pays_the_recipient_for_what_it_does_not_deliver(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    with trading(world, "north"):
        with trading(world, "south") as south:
            placement = world.allocator.place(world.need())
            assert placement is not None
            world.wait_for(lambda: bool(south.work))
            world.wait_until(placement.starts_ms + 1_000)
            south.did("clinic", "anonymise", placement.starts_ms, world.market.now_ms(), Done(5, 50, 125_000))
        # It has ended, and left.
        left = world.market.agreement(placement.agreement)
        assert (left.state, left.provider_says.ending) == ("closing", "leaving")
        assert 25 <= left.provider_says.figure <= 40
        taken = world.allocator.replace(placement, "died", measured(placement, 0.1, failures=("died",)))
        assert taken is not None
        outcome = world.allocator.report(placement, Report(()))
        assert (outcome["state"], outcome["ending"]) == ("settled", "blaming")
        figure, penalty = outcome["figure"], (300 - outcome["figure"]) // 10
        assert figure <= left.provider_says.figure
        assert world.wealth("south") == 20_000 + figure - penalty
        world.allocator.report(taken, Report(()))
        world.allocator.close()
        of_rest = world.market.agreement(taken.agreement)
    assert world.market.balance("clinic") == 100_000 - figure + penalty - of_rest.charged


def test_where_nobody_takes_over_what_was_delivered_is_paid(world: World) -> None:
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    world.wait_until(placement.starts_ms + 500)
    delivered = measured(placement, 0.05, failures=("died",))
    assert world.allocator.replace(placement, "died", delivered) is None
    assert world.allocator.taken_over(placement) is None
    figure = world.allocator.report(placement, Report(()))["figure"]
    assert 14 <= figure <= 60
    world.ahead_ms += CLOSING_MS
    world.market.tick()
    penalty = (300 - figure) // 10
    assert world.market.balance("clinic") == 100_000 - figure
    assert world.wealth("south") == 20_000 + figure - penalty


def test_a_runner_up_that_comes_later_is_found(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert world.allocator.replace(placement, "died", measured(placement, 0.0, failures=("died",))) is None
    with trading(world, "north") as north:
        world.wait_for(lambda: bool(north.work))
        taken = world.allocator.taken_over(placement)
        assert taken is not None
        assert (taken.provider, taken.need) == ("north", placement.need)


def test_nobody_takes_over_when_the_run_is_over(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert world.allocator.replace(placement, "died", measured(placement, 0.0, failures=("died",))) is None
    for _ in range(2):
        assert world.allocator.taken_over(placement, is_last=True) is None
    with pytest.raises(NoAward):
        world.market.take_over(placement.agreement, "north")


def test_the_next_block_is_auctioned_before_this_one_ends(world: World) -> None:
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    with bidding(world, {"north": 250, "east": 260}):
        following = world.allocator.renew(placement, placement.ends_ms, placement.ends_ms + 10_000)
    assert following is not None
    assert (following.provider, following.price, following.starts_ms) == ("north", 260, placement.ends_ms)
    again = world.allocator.renew(following, world.market.now_ms() + 100, world.market.now_ms() + 10_100)
    assert again is not None
    assert again.provider == "south"  # too late for an auction: from the standing offer


def test_quality_outweighs_the_price_where_it_is_the_objective(world: World) -> None:
    world.stand("north", 400)
    first = world.allocator.place(world.need(length_ms=1_000))
    assert first is not None
    world.wait_until(first.ends_ms)
    world.allocator.report(first, measured(first, 1.0))
    world.market.end(first.agreement, "north", "finished", 400)
    world.allocator.close()
    world.market.rate_as_drafted(first.agreement, "north")
    world.stand("south", 300)
    for objective, winner in (("cost", "south"), ("quality", "north")):
        placement = world.allocator.place(world.need(5_000, objective=objective))
        assert placement is not None
        assert placement.provider == winner


def test_the_pipeline_is_known_to_those_whose_offers_stand(world: World) -> None:
    offer = world.stand("south", 300)
    world.allocator.listening("tcp://192.0.2.1:5571", "c" * 40, ("anonymise", "other"))
    (told,) = world.market.assignments("south").assignments
    assert (told.role, told.offer, told.address, told.curve_key) == (
        "standing",
        offer,
        "tcp://192.0.2.1:5571",
        "c" * 40,
    )
    assert world.market.assignments("north").assignments == ()


def test_the_markets_time_is_carried_on(world: World) -> None:
    for _ in range(3):
        assert abs(world.allocator.now_ms() - world.market.now_ms()) < 500
        time.sleep(0.05)
