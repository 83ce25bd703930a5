"""The market runs the streams: who is awarded, what is charged for what was delivered, and that the books balance."""

import contextlib
import itertools
import threading
import time

import pytest

from auction.model.bid import StandingOffer
from auction.model.lifecycle import CLOSING_MS
from auction.model.rating import RatingRules
from auction.moderator import BidEntry, Moderator
from auction.moderator.clock import system_clock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.storage.store import MemoryStore
from streamcore.subcontract.allocator import Need, Report
from streamcore.subcontract.market import MarketAllocator, Terms
from streamcore.subcontract.pricing import Fixed
from streamcore.subcontract.trader import Trader
from tests.streamcore.conftest import udp_frame
from tests.streamcore.subcontract.test_routing import SERVICES, Provider, free_address, key_of, run, subcontract, turned
from tests.streamcore.subcontract.test_routing import keys as keys  # a fixture

BLOCK_MS = 60_000
DAY_MS = 86_400_000


def now_ms():
    return int(time.time() * 1000)


def a_market(keys, prices, bond=60, store=None, clock=None):
    """A moderator with these providers' standing offers, each with money for a newcomer's bond."""
    clock = clock or system_clock()
    rules = MarketConfig(rating=RatingRules(newcomer_bond=bond))
    moderator = Moderator(store or MemoryStore(), config=rules, clock=clock)
    moderator.register("clinic", "recipient")
    moderator.register("desk", "device", belongs_to="clinic")
    moderator.deposit("clinic", 10_000, "EUR")
    for name, price in prices.items():
        moderator.register(name, "provider", capacity_bps=10**9)
        moderator.deposit(name, 10_000, "EUR")
        moderator.post_bond(name, 5_000, "EUR")
        moderator.publish_endpoint(name, key_of(keys, name))
        offer = StandingOffer(
            offer=f"{name}-offer",
            provider=name,
            service="turning",
            unit_price=price,
            currency="EUR",
            quantity=20,
            rate_bps_max=10**9 // 2,  # what stands holds its capacity
            valid_until_ms=moderator.now_ms() + DAY_MS,
        )
        moderator.stand_offer(offer)
    return moderator


def allocator_of(moderator, open_for_ms=0, settle_ms=0):
    terms = Terms(party="clinic", device="desk", open_for_ms=open_for_ms, settle_ms=settle_ms)
    return MarketAllocator(moderator, terms)


@contextlib.contextmanager
def trading(moderator, keys, *names):
    """The traders of these providers, in a thread: they take over and state ends. What they measure is not told."""
    traders = [Trader(moderator, name, ("turning",), Fixed(0), 10**9, "EUR", stand=False) for name in names]
    stop = threading.Event()

    def trade():
        while not stop.is_set():
            for trader in traders:
                trader.look(5)
                trader.report()

    for name, trader in zip(names, traders, strict=True):
        trader.begin(key_of(keys, name))
    thread = threading.Thread(target=trade)
    thread.start()
    try:
        yield traders
    finally:
        stop.set()
        thread.join(10)


def streams(**more):
    told = subcontract(service="turning", price_max=100, block_ms=BLOCK_MS, deadline_ms=300, join_ms=500, **more)
    return [{"name": "web", "select": "udp", "service": [f"{SERVICES}:Slow"], "subcontract": told}]


def test_the_cheapest_serves_is_paid_for_what_it_delivered_and_rated(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(2000)]
    moderator = a_market(keys, {"north": 50, "south": 40})
    address = free_address()
    provider = Provider(address, keys, "south")
    with trading(moderator, keys, "south"):
        told, left = run(tmp_path, keys, allocator_of(moderator, settle_ms=5_000), frames, address, streams())
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    (served,) = told["subcontracts"]
    assert (served["provider"], served["price"]) == ("south", 40)
    assert (served["state"], served["ending"]) == ("settled", "leaving")
    agreement = moderator.agreement(served["agreement"])
    assert moderator.auction(agreement.auction).award.runners_up[0].bidder == "north"
    lasted_ms = agreement.ended_ms - agreement.starts_ms
    assert served["paid"] <= 40 * lasted_ms // BLOCK_MS + 1
    assert served["charged"] == served["paid"] + (40 - served["paid"]) // 10  # who ends early pays δ of the rest
    assert moderator.balance("clinic") == 10_000 - served["charged"]
    assert wealth(moderator, "south") == 10_000 + served["charged"]
    assert told.get("market_errors") is None
    assert violations(moderator.state) == []


def test_the_runner_up_takes_over_at_its_own_price_out_of_the_reserve(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(2000)]
    ahead_ms, clock = [0], system_clock()
    moderator = a_market(keys, {"north": 50, "south": 40}, clock=lambda: clock() + ahead_ms[0])
    address = free_address()
    provider = Provider(address, keys, "north")  # south never comes
    with trading(moderator, keys, "north"):
        told, left = run(tmp_path, keys, allocator_of(moderator, settle_ms=5_000), frames, address,
                         streams(otherwise="refuse"))  # fmt: skip
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    south, north = told["subcontracts"]
    assert (south["provider"], south["failures"], south["ending"]) == ("south", ["it has not joined"], "blaming")
    assert (north["provider"], north["of"], north["state"]) == ("north", south["agreement"], "settled")
    failed, rest = (moderator.agreement(each["agreement"]) for each in (south, north))
    assert rest.price == 50 * (rest.ends_ms - rest.starts_ms) // BLOCK_MS
    assert (failed.state, south["figure"]) == ("closing", 0)  # south is silent
    ahead_ms[0] = CLOSING_MS
    moderator.tick()
    failed = moderator.agreement(failed.id)
    assert (failed.paid, failed.burnt) == (0, 4)  # δP of south's, to nobody
    assert moderator.balance("clinic") == 10_000 - north["charged"]
    assert wealth(moderator, "south") == 10_000 - 4
    assert wealth(moderator, "north") == 10_000 + north["charged"]
    assert violations(moderator.state) == []


def wealth(moderator, provider):
    """All that it has while nothing but its offer is held."""
    moderator.withdraw_offer(f"{provider}-offer", provider)
    return moderator.balance(provider) + moderator.bond(provider)


def test_without_an_offer_there_is_an_auction_before_the_first_packet(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(500)]
    moderator = a_market(keys, {"north": 500, "south": 400})  # their offers are above the reserve
    address = free_address()

    def bid():
        while not (found := moderator.assignments("north", services=("turning",)).auctions):
            time.sleep(0.01)
        for name, price in (("north", 70), ("south", 90)):
            moderator.bid(found[0].announcement.auction, BidEntry(name, price))

    threading.Thread(target=bid, daemon=True).start()
    provider = Provider(address, keys, "north")
    told, left = run(tmp_path, keys, allocator_of(moderator, 300), frames, address, streams())
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    (served,) = told["subcontracts"]
    assert (served["provider"], served["price"]) == ("north", 90)  # the second score
    assert violations(moderator.state) == []


def test_a_spot_placement_takes_no_input_or_output(keys):
    store = MemoryStore()
    moderator = a_market(keys, {"north": 50, "south": 40}, store=store)
    written = len(store.entries())
    market = allocator_of(moderator)
    need = Need("web", "turning", [], "cost", 100, 1000, None, now_ms(), now_ms() + BLOCK_MS)
    seconds = []
    for _ in range(5):
        begin_s = time.perf_counter()
        placement = market.place(need)
        seconds.append(time.perf_counter() - begin_s)
        assert placement.provider == "south"
    assert len(store.entries()) == written
    market.close()
    assert len(store.entries()) == written + 5
    assert min(seconds) < 0.01
    with trading(moderator, keys, "north"):
        assert market.replace(placement, "it failed", Report(())).provider == "north"


@pytest.mark.parametrize("seconds", [2.2])
def test_the_next_block_is_there_before_this_one_ends(tmp_path, keys, seconds):
    frames = [udp_frame(0, number) for number in range(600)]
    moderator = a_market(keys, {"north": 50, "south": 40})
    address = free_address()
    provider = Provider(address, keys, "south")
    bits = 600 * 70 * 8
    terms = streams(maximum_bps=int(bits / seconds))
    terms[0]["subcontract"]["block_ms"] = 700
    told, left = run(tmp_path, keys, allocator_of(moderator), frames, address, terms)
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    blocks = told["subcontracts"]
    assert len(blocks) >= 3
    assert {each["provider"] for each in blocks} == {"south"}
    assert all(each["segments"] for each in blocks[:-1])
    assert told["workers"]["shares"][0]["segments"] == 0  # nothing had to go home meanwhile
    times = [
        (moderator.agreement(e["agreement"]).starts_ms, moderator.agreement(e["agreement"]).ends_ms) for e in blocks
    ]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(times))
    assert violations(moderator.state) == []
