"""The allocator over a market, embedded and served: who is placed, what is reported, charged and rated, to the cent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from auction.model.bid import StandingOffer
from auction.model.rating import RatingRules
from auction.moderator import BidEntry, Moderator
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from streamcore.subcontract.allocator import Interval, Need, Placement, Report
from streamcore.subcontract.market import MarketAllocator, Terms, _samples

sys.path.append(str(Path(__file__).parents[2] / "auction"))  # where the served market for tests stands

KEYS = {name: letter * 40 for name, letter in (("north", "n"), ("south", "s"), ("east", "e"))}
TERMS = Terms(party="clinic", device="desk", open_for_ms=300)


class World:
    """A market with a clinic and three providers, and an allocator of the clinic."""

    def __init__(self, market: Moderator, asked_by: Moderator, terms: Terms) -> None:
        self.market = market
        self.allocator = MarketAllocator(asked_by, terms)

    def stand(self, provider: str, price: int, service: str = "anonymise") -> str:
        offer = StandingOffer(
            offer=f"offer-of-{provider}",
            provider=provider,
            service=service,
            unit_price=price,
            currency="EUR",
            quantity=100,
            rate_bps_max=10_000_000,
            valid_until_ms=self.market.now_ms() + 600_000,
        )
        return self.market.stand_offer(offer).offer

    def need(self, price_max: int = 1_000, starts_in_ms: int = 0, **more: object) -> Need:
        starts_ms = self.market.now_ms() + starts_in_ms
        fields = {"minimum_bps": 1_000_000, "maximum_bps": 2_000_000, "objective": "cost", **more}
        return Need("voice", "anonymise", ["anonymise"], price_max=price_max, starts_ms=starts_ms,
                    ends_ms=starts_ms + 10_000, **fields)  # type: ignore[arg-type]  # fmt: skip

    def close(self) -> None:
        self.allocator.close()
        assert violations(self.market.state) == []


@pytest.fixture(params=["embedded", "served"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    market = Moderator(config=MarketConfig(rating=RatingRules(value_full=300)))
    token = market.register("clinic", "recipient").token
    market.register("desk", "device", belongs_to="clinic")
    market.deposit("clinic", 100_000, "EUR")
    for name, key in KEYS.items():
        market.register(name, "provider", capacity_bps=100_000_000)
        market.deposit(name, 20_000, "EUR")
        market.post_bond(name, 10_000, "EUR")
        market.publish_endpoint(name, key)
    if request.param == "embedded":
        made = World(market, market, TERMS)
        yield made
    else:
        pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
        from serving import served

        from auction.web.client import MarketClient

        with served(market) as url, MarketClient(url, token) as client:
            made = World(market, client, TERMS)
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


def measured(placement: Placement, share: float, got_of_asked: float = 1.0, **more: int) -> Report:
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
    world.allocator.close()
    agreement = world.market.agreement(placement.agreement)
    assert (agreement.state, agreement.held, agreement.minimum_bps) == ("agreed", 300, 1_000_000)


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
    world.stand("north", 100)
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert placement.provider == "north"
    world.market.withdraw_offer("offer-of-north", "north")
    assert world.allocator.place(world.need()) is None  # west alone: nothing comes of it, and nothing is paid
    world.allocator.report(placement, Report(()))
    assert world.market.balance("clinic") == 100_000


@pytest.mark.parametrize(
    ("got", "audits_failed", "charged", "satisfied"),
    [(1.0, 0, 300, True), (0.5, 0, 150, False), (1.0, 1, 270, False)],
)
def test_a_delivery_is_charged_and_rated(
    world: World, got: float, audits_failed: int, charged: int, satisfied: bool
) -> None:
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    report = measured(placement, 1.0, got, audited=20, audits_failed=audits_failed)
    outcome = world.allocator.report(placement, report)
    assert (outcome["state"], outcome["charged"], outcome["satisfied"]) == ("charged", charged, satisfied)
    assert world.market.balance("south") == 10_000 + charged
    assert world.market.balance("clinic") == 100_000 - charged
    assert world.allocator.report(placement, report) == outcome  # told twice, charged once
    world.market.rate_as_drafted(placement.agreement, "south")
    service, payment = world.market.opinions(placement.agreement)
    assert (service.satisfied, service.device, payment.satisfied) == (satisfied, "desk", True)


def test_a_run_that_ends_early_pays_for_the_block_that_was_kept_ready(world: World) -> None:
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert world.allocator.report(placement, measured(placement, 0.2))["charged"] == 300
    placement = world.allocator.place(world.need())
    assert placement is not None
    assert (
        world.allocator.report(placement, measured(placement, 0.2, 0.5))["charged"] == 270
    )  # 0.2 at half, the rest idle


def test_who_failed_is_replaced_and_each_is_paid_its_part(world: World) -> None:
    world.stand("north", 400)
    world.stand("south", 300)
    need = world.need()
    placement = world.allocator.place(need)
    assert placement is not None
    time.sleep(0.3)
    now_ms = world.market.now_ms()
    failed = Report((Interval(placement.starts_ms, now_ms, 1_000, 0, None),), failures=("hung",))
    taken = world.allocator.replace(placement, "hung", failed)
    assert taken is not None
    assert (taken.provider, taken.public_key, taken.agreement) == ("north", KEYS["north"], placement.agreement)
    outcome = world.allocator.report(taken, measured(taken, 0.5))
    first, second = outcome["legs"]
    assert (first["provider"], first["failed"], first["delivered_ppm"]) == ("south", True, 0)
    assert (second["provider"], second["failed"], second["delivered_ppm"]) == ("north", False, 1_000_000)
    assert outcome["charged"] == second["price"]
    assert outcome["charged"] + first["price"] == 300  # the price did not rise
    agreement = world.market.agreement(placement.agreement)
    added = agreement.legs[1].topped_up
    whole_ms = agreement.ends_ms - agreement.starts_ms
    left_ms = agreement.ends_ms - agreement.legs[1].from_ms
    assert added == 400 * left_ms // whole_ms - second["price"]  # what north asks above it is of south's bond
    assert world.market.balance("north") == 10_000 + outcome["charged"] + added


def test_where_nobody_can_take_over_what_was_delivered_is_paid(world: World) -> None:
    world.stand("south", 300)
    placement = world.allocator.place(world.need())
    assert placement is not None
    time.sleep(0.2)
    now_ms = world.market.now_ms()
    delivered = Report((Interval(placement.starts_ms, now_ms, 1_000, 1_000, 5),))
    assert world.allocator.replace(placement, "died", delivered) is None
    charged = world.allocator.report(placement, Report(()))["charged"]
    share = (now_ms - placement.starts_ms) / (placement.ends_ms - placement.starts_ms)
    assert 300 * share - 2 <= charged <= 300 * share + 30
    assert 0 < charged < 100


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
    world.stand("south", 300)
    first = world.allocator.place(world.need())
    assert first is not None
    assert first.provider == "south"
    world.allocator.report(first, measured(first, 1.0, 0.0, audited=10, audits_failed=10))
    world.market.rate_as_drafted(first.agreement, "south")
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


def test_samples_lie_in_the_window_and_leave_no_gap() -> None:
    spans = ((0, 10, 5, 5), (10, 20, 5, 4), (30, 40, 5, 5), (60, 70, 1, 1))
    told = tuple(Interval(*span, latency_ms=1) for span in spans)
    samples = _samples(told, 5, 100, to_the_end=True)
    assert [(s.starts_ms, s.ends_ms, s.asked_bits, s.got_bits) for s in samples] == [
        (5, 10, 5, 5), (10, 20, 5, 4), (20, 30, 0, 0), (30, 40, 5, 5), (40, 60, 0, 0), (60, 70, 1, 1),
        (70, 100, 0, 0),
    ]  # fmt: skip
    assert _samples(told, 5, 100, to_the_end=False) == samples[:-1]
    assert _samples(told, 5, 65, to_the_end=True)[-1].ends_ms == 65
    assert _samples((), 0, 100, to_the_end=True) == ()
    assert _samples((Interval(0, 5, 1, 1, 1),), 10, 100, to_the_end=True) == ()
