"""The market runs the streams: who is awarded, what is charged for what was delivered, and that the books balance."""

import itertools
import time

import pytest

from auction.model.bid import StandingOffer
from auction.model.rating import RatingRules
from auction.moderator import BidEntry, Moderator
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.storage.store import MemoryStore
from streamcore.subcontract.allocator import Need, Report
from streamcore.subcontract.market import MarketAllocator, Terms
from tests.streamcore.conftest import udp_frame
from tests.streamcore.subcontract.test_routing import SERVICES, Provider, free_address, key_of, run, subcontract, turned
from tests.streamcore.subcontract.test_routing import keys as keys  # a fixture

BLOCK_MS = 60_000
YEAR_MS = 365 * 86_400_000


def now_ms():
    return int(time.time() * 1000)


def a_market(keys, prices, bond=60, store=None):
    """A moderator with these providers' standing offers, each with money for a newcomer's bond."""
    moderator = Moderator(store or MemoryStore(), config=MarketConfig(rating=RatingRules(newcomer_bond=bond)))
    moderator.register("clinic", "recipient")
    moderator.register("desk", "device", belongs_to="clinic")
    moderator.deposit("clinic", 10_000, "EUR")
    for name, price in prices.items():
        moderator.register(name, "provider", capacity_bps=10**9)
        moderator.deposit(name, 1_000, "EUR")
        moderator.post_bond(name, 500, "EUR")
        moderator.publish_endpoint(name, key_of(keys, name))
        offer = StandingOffer(
            offer=f"{name}-offer",
            provider=name,
            service="turning",
            unit_price=price,
            currency="EUR",
            quantity=100,
            rate_bps_max=10**9,
            valid_until_ms=now_ms() + YEAR_MS,
        )
        moderator.stand_offer(offer)
    return moderator


def allocator_of(moderator, open_for_ms=0):
    return MarketAllocator(moderator, Terms(party="clinic", device="desk", open_for_ms=open_for_ms))


def streams(**more):
    told = subcontract(service="turning", price_max=100, block_ms=BLOCK_MS, deadline_ms=300, join_ms=500, **more)
    return [{"name": "web", "select": "udp", "service": [f"{SERVICES}:Slow"], "subcontract": told}]


def test_the_cheapest_serves_is_paid_for_what_it_delivered_and_rated(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(2000)]
    moderator = a_market(keys, {"north": 50, "south": 40})
    address = free_address()
    provider = Provider(address, keys, "south")
    allocator = allocator_of(moderator)
    told, left = run(tmp_path, keys, allocator, frames, address, streams())
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    (served,) = told["subcontracts"]
    assert (served["provider"], served["price"], served["state"]) == ("south", 40, "charged")
    (agreement,) = [moderator.agreement(served["agreement"])]
    assert [runner.provider for runner in agreement.runners_up] == ["north"]
    assert 38 <= served["charged"] <= 40  # the block: who ends early pays for it
    assert served["satisfied"] is True
    assert told.get("market_errors") is None
    assert violations(moderator.state) == []


def test_the_runner_up_takes_over_and_the_bond_pays_the_difference(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(2000)]
    moderator = a_market(keys, {"north": 50, "south": 40})
    address = free_address()
    provider = Provider(address, keys, "north")  # south never comes
    told, left = run(tmp_path, keys, allocator_of(moderator), frames, address,
                     streams(otherwise="refuse"))  # fmt: skip
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    south, north = told["subcontracts"]
    assert (south["provider"], south["failures"]) == ("south", ["it has not joined"])
    assert (north["provider"], north["agreement"]) == ("north", south["agreement"])
    assert [(leg["provider"], leg["failed"]) for leg in north["legs"]] == [("south", True), ("north", False)]
    agreement = moderator.agreement(north["agreement"])
    assert agreement.charged <= agreement.price == 40
    assert violations(moderator.state) == []


def test_without_an_offer_there_is_an_auction_before_the_first_packet(tmp_path, keys):
    import threading

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
