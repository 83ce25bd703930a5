"""`streamcore provider`: its prices, its bids and offers, and what the process does for a pipeline and its money."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auction.model.block import Block
from auction.model.lifecycle import CLOSING_MS
from auction.model.rating import RatingRules
from auction.moderator import AuctionTerms, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from streamcore.core.errors import UsageError, WorkerError
from streamcore.subcontract.market import MarketAllocator, Terms
from streamcore.subcontract.pricing import Quote, checked_price, make_pricing
from streamcore.subcontract.registering import public_of, sign_registration, signing_key_of
from streamcore.subcontract.trader import Trader
from streamcore.subcontract.work import Done
from streamcore.worker import provider_worker
from streamcore.worker import remote as remote_worker
from streamcore.worker.provider import chain_of
from streamcore.worker.provider_worker import check_chains
from tests.streamcore.conftest import udp_frame
from tests.streamcore.subcontract.test_routing import SERVICES, free_address, run, subcontract, turned
from tests.streamcore.subcontract.test_routing import keys as keys  # a fixture

sys.path.append(str(Path(__file__).parents[2] / "auction"))  # where the served market for tests stands

BLOCK_MS = 60_000
PATIENCE_S = 20.0


def quote(rate_bps=8_000_000, seconds=1000, reserve=None, committed_bps=0):
    return Quote("count", rate_bps, 0, 1000 * seconds, reserve, 100_000_000, committed_bps)


@pytest.mark.parametrize(
    ("words", "asked", "price"),
    [
        ("fixed:70", quote(), 70),
        ("fixed:70", quote(reserve=69), None),
        ("per-gigabyte:30", quote(), 30),  # 8 Mb/s for 1000 s are a gigabyte
        ("per-gigabyte:30", quote(seconds=1001), 31),  # rounded up
        ("load:100:50", quote(rate_bps=0), 100),
        ("load:100:50", quote(rate_bps=20_000_000, committed_bps=30_000_000), 125),
        ("load:100:50", quote(committed_bps=900_000_000), 150),
    ],
)
def test_a_pricing_rule_gives_the_price_of_a_block(words, asked, price):
    assert checked_price(make_pricing(words), asked) == price


def test_the_providers_own_file_gives_the_price(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    def price(self, quote):\n        return int(quote.gigabytes * 1000) + 7\n")
    assert checked_price(make_pricing(f"{path}:Mine"), quote()) == 1007


@pytest.mark.parametrize("words", ["fixed", "fixed:-1", "fixed:1.5", "load:3", "cheap:1", "none.py:Mine", "fixed:1:2"])
def test_a_wrong_pricing_is_a_usage_error(words):
    with pytest.raises(UsageError):
        make_pricing(words)


@pytest.mark.parametrize("answer", ["-1", "2.5", "True", "'3'"])
def test_a_price_that_is_none_is_refused(tmp_path, answer):
    path = tmp_path / "mine.py"
    path.write_text(f"class Mine:\n    def price(self, quote):\n        return {answer}\n")
    with pytest.raises(ValueError, match="whole number"):
        checked_price(make_pricing(f"{path}:Mine"), quote())


def test_what_is_offered_has_a_name_and_a_chain():
    assert chain_of("count") == ("count", ["count"])
    assert chain_of("count+slice:bytes=64") == ("count+slice", ["count", "slice:bytes=64"])
    assert chain_of(f"turning={SERVICES}:Slow") == ("turning", [f"{SERVICES}:Slow"])
    with pytest.raises(UsageError):
        chain_of("no-such-service")


@pytest.mark.parametrize(
    ("wanted", "offered", "may"),
    [
        ([{"name": "slice", "bytes": 64}], ["slice"], True),
        ([{"name": "slice", "bytes": 64}], ["slice:bytes=64"], True),
        ([{"name": "slice", "bytes": 65}], ["slice:bytes=64"], False),
        (["count", "slice:bytes=64"], ["slice"], False),
        (["/etc/mine.py:Reads"], ["slice"], False),
        ([f"{SERVICES}:Exits"], [f"{SERVICES}:Slow"], False),
        ([], ["slice"], True),  # another's stream: no packet of it comes
    ],
)
def test_a_provider_runs_what_it_offers_and_nothing_else(wanted, offered, may):
    if may:
        assert check_chains([wanted], [["theirs", offered]]) == ["theirs" if wanted else ""]
    else:
        with pytest.raises(WorkerError, match="which this provider does not offer"):
            check_chains([wanted], [["theirs", offered]])


@pytest.fixture
def market():
    moderator = Moderator()
    moderator.register("clinic", "recipient")
    moderator.register("desk", "device", belongs_to="clinic")
    moderator.deposit("clinic", 10_000, "EUR")
    yield moderator
    assert violations(moderator.state) == []


@pytest.fixture
def market_and_clock():
    clock = ManualClock(time.time_ns() // 1_000_000)
    moderator = Moderator(clock=clock, config=MarketConfig(rating=RatingRules(newcomer_bond=0)))
    moderator.register("clinic", "recipient")
    moderator.deposit("clinic", 10_000, "EUR")
    yield moderator, clock
    assert violations(moderator.state) == []


def a_trader(market, pricing="fixed:40", services=("turning",), name="north", bond=10_000, balance=10_000, **more):
    signing_key = signing_key_of(name.encode() * 8)
    signature = sign_registration(signing_key, name)
    market.register(name, "provider", public_key=public_of(signing_key), capacity_bps=10**8, signature=signature)
    if bond + balance:
        market.deposit(name, bond + balance, "EUR")
        market.post_bond(name, bond, "EUR")
    trader = Trader(market, name, services, make_pricing(pricing), 10**8, "EUR", signing_key, **more)
    trader.begin(name[0] * 40)
    return trader


def announce(market, service="turning", reserve=100, open_for_ms=500):
    now_ms = market.now_ms()
    block = Block(id="", provider="", service=service, starts_ms=now_ms + open_for_ms + 50, ends_ms=now_ms + BLOCK_MS,
                  minimum_bps=1_000_000, maximum_bps=8_000_000)  # fmt: skip
    terms = AuctionTerms(reserve=reserve, open_for_ms=open_for_ms, receipts=False)
    return market.announce("clinic", block, terms).auction


def test_it_bids_once_and_by_itself_where_its_service_is_wanted_within_the_reserve(market):
    said = []
    trader = a_trader(market, say=said.append)
    wanted, too_cheap, other = announce(market), announce(market, reserve=39), announce(market, "dusting")
    for _ in range(3):
        trader.look(0)
    assert trader.bids == 1, said
    assert [market.auction(each).bid_count for each in (wanted, too_cheap, other)] == [1, 0, 0]
    view = market.await_close(wanted, wait_ms=2_000)
    (agreement,) = view.agreements
    trader.look(0)
    (assignment,) = trader.assignments
    assert (assignment.role, assignment.agreement, assignment.recipient) == ("winner", agreement, "clinic")
    assert set(trader.work) == {agreement}


def test_its_offers_stand_until_it_ends(market):
    trader = a_trader(market)
    (offer,) = market.offers("turning")
    assert (offer.provider, offer.unit_price) == ("north", 40)
    trader.end()
    assert market.offers("turning") == []


def test_a_rule_that_fails_costs_a_bid_and_nothing_else(market, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    def price(self, quote):\n        return 1 // 0\n")
    said = []
    trader = a_trader(market, f"{path}:Mine", say=said.append)
    announce(market)
    trader.look(0)
    assert trader.bids == 0
    assert any("ZeroDivisionError" in words for words in said)


def test_it_offers_as_many_units_as_what_it_has_secures(market):
    """A unit that is awarded holds δ of its price and a quarter of it: 14 of 40."""
    trader = a_trader(market, bond=100, balance=0, services=("turning", "dusting"))
    assert [offer.quantity for offer in (*market.offers("turning"), *market.offers("dusting"))] == [3, 3]  # 100 // 28
    (former,) = market.offers("turning")
    trader.now_ms += 300_001  # half of its time: put up again
    trader._offer()
    (offer,) = market.offers("turning")
    assert (offer.quantity, offer.valid_until_ms) == (3, trader.now_ms + 600_000)
    assert former.valid_until_ms < offer.valid_until_ms
    assert market.bond("north") == 100 - 2 * 12


def test_without_a_bond_nothing_is_offered_until_there_is_one(market):
    trader = a_trader(market, bond=13, balance=1)
    assert market.offers("turning") == []
    market.post_bond("north", 1, "EUR")
    trader.now_ms += 5_000
    trader._offer()
    assert [offer.quantity for offer in market.offers("turning")] == [1]


def test_its_own_measurement_counts_where_the_recipient_is_silent(market_and_clock):
    market, clock = market_and_clock
    trader = a_trader(market, stand=False)
    name = _awarded(market, trader, clock)
    agreement = market.agreement(name)
    clock.advance(30_000)
    trader.look(0)
    # 30 s at 1 Mbit/s, which is the minimum rate.
    trader.did("clinic", "turning", agreement.starts_ms, agreement.starts_ms + 30_000,
               Done(3, 30, 3_750_000, 0, 5_000_000, [2_000_000] * 3))  # fmt: skip
    trader.report()
    assert market.agreement(name).provider_says is None  # it goes on
    clock.advance(agreement.ends_ms + 10_000 - market.now_ms())
    trader.look(0)
    trader.report()
    said = market.agreement(name).provider_says
    served = 100 * 30_000 // (agreement.ends_ms - agreement.starts_ms)
    assert (said.ending, said.figure) == ("finished", served)
    clock.advance(CLOSING_MS + 10_000)
    market.tick()
    settled = market.agreement(name)
    # Silent, the recipient loses δ of what is not delivered to nobody.
    assert (settled.paid, settled.charged, settled.burnt) == (served, served, (100 - served) // 10)
    trader.look(0)
    trader.report()
    assert trader.earned == served
    work = trader.work[name].json()
    assert (work["segments"], work["bytes"], work["latency_ms"]["p50"]) == (3, 3_750_000, 2.0)


def test_a_figure_that_does_not_cover_what_it_gave_is_not_taken(market_and_clock):
    market, clock = market_and_clock
    trader = a_trader(market, stand=False)
    name = _awarded(market, trader, clock)
    agreement = market.agreement(name)
    trader.look(0)
    trader.did("clinic", "turning", agreement.starts_ms, agreement.ends_ms, Done(3, 30, 10**8, 0, 0, [1] * 3))
    clock.advance(agreement.ends_ms - market.now_ms())
    market.end(name, "clinic", "finished", 50)
    trader.look(0)
    trader.report()
    assert market.agreement(name).provider_says.figure == 100
    clock.advance(CLOSING_MS)
    market.tick()
    settled = market.agreement(name)
    assert (settled.paid, settled.burnt, settled.contested) == (50, 50, True)  # who understates gains nothing
    assert market.balance("clinic") == 10_000 - 100


def test_started_again_it_says_that_it_was_away_and_takes_the_recipients_word(market_and_clock):
    market, clock = market_and_clock
    name = _awarded(market, a_trader(market, stand=False), clock)
    clock.advance(30_000)
    market.end(name, "clinic", "blaming", 20)
    again = Trader(market, "north", ("turning",), make_pricing("fixed:40"), 10**8, "EUR", stand=False)
    again.begin("n" * 40)
    again.look(0)
    again.report()
    settled = market.agreement(name)
    assert (settled.state, settled.provider_ending, settled.paid) == ("settled", "leaving", 20)
    assert market.balance("clinic") == 10_000 - 20 + 8  # δ of what is undelivered is the clinic's
    assert again.earned == 20


def test_it_takes_over_only_where_its_workers_are(market_and_clock):
    market, clock = market_and_clock
    north, south = a_trader(market, stand=False), a_trader(market, "fixed:50", name="south", stand=False)
    name = _awarded(market, north, clock, also=south, fail_over=True)
    south.is_connected = lambda recipient: False
    clock.advance(10_000)
    market.end(name, "clinic", "blaming", 0)
    south.look(0)
    assert [each.role for each in south.assignments] == ["offer"]
    south.is_connected = lambda recipient: recipient == "clinic"
    south.look(0)
    south.look(0)
    (taken,) = south.work.values()
    rest = market.agreement(taken.agreement)
    assert (rest.of, rest.provider) == (name, "south")


def _awarded(market, trader, clock, also=None, fail_over=False):
    """An auction that the trader has won at its reserve of 100 or at the second price, and that has begun."""
    now_ms = market.now_ms()
    block = Block(id="", provider="", service="turning", starts_ms=now_ms + 1_000, ends_ms=now_ms + BLOCK_MS,
                  minimum_bps=1_000_000)  # fmt: skip
    terms = AuctionTerms(reserve=200 if also else 100, open_for_ms=1_000, receipts=False, fail_over=fail_over)
    auction = market.announce("clinic", block, terms).auction
    for one in (trader, also):
        if one is not None:
            one.look(0)
    clock.advance(1_000)
    market.tick()
    return market.auction(auction).agreements[0]


def test_what_it_did_counts_under_the_agreement_about_that_service(market):
    trader = a_trader(market, services=("turning", "dusting"))
    auctions = [_with_bid(market, trader, service) for service in ("turning", "dusting")]
    names = [market.await_close(each, wait_ms=2_000).agreements[0] for each in auctions]
    trader.look(0)
    now_ms = market.now_ms()
    trader.did("clinic", "dusting", now_ms, now_ms + 100, Done(2, 20, 2_000, 0, 0, [1_000_000] * 2))
    trader.did("clinic", "turning", now_ms, now_ms + 100, Done(3, 30, 3_000, 0, 0, [1_000_000] * 3))
    assert [trader.work[name].segments for name in names] == [3, 2]


def test_each_service_is_told_by_its_name_and_only_what_is_new(monkeypatch):
    told = []
    monkeypatch.setattr(provider_worker, "write_line", told.append)
    monkeypatch.setattr(provider_worker, "REPORT_EVERY_S", 0.0)
    reporter = provider_worker.Reporter()
    reporter.services = ["turning", "dusting"]
    turned, dusted = done = [remote_worker.Done(), remote_worker.Done()]
    reporter(done)
    turned.segments, turned.packets = 2, 20
    reporter(done)
    turned.segments, turned.packets, dusted.segments = 5, 50, 1
    assert reporter.finish()
    assert [(one["service"], one["done"]["segments"], one["done"]["packets"]) for one in told] == [
        ("turning", 2, 20), ("turning", 3, 30), ("dusting", 1, 0)
    ]  # fmt: skip


def _with_bid(market, trader, service="turning"):
    auction = announce(market, service)
    trader.look(0)
    return auction


def served_market(market, registration=True):
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    from serving import served

    return served(market, registration)


def start_provider(url, tmp_path, keys, name, *more, price=40):
    command = [sys.executable, "-m", "streamcore", "provider", "--market", url, "--party", name]
    command += ["--token-file", tmp_path / f"{name}.token", "--key", keys / f"{name}.key_secret"]
    command += ["--service", f"turning={SERVICES}:Slow", "--capacity-mbps", "100", "--pricing", f"fixed:{price}"]
    command += ["-n", "2", "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened):
    until_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def streams(**more):
    told = subcontract(service="turning", price_max=100, block_ms=BLOCK_MS, deadline_ms=3000, **more)
    return [{"name": "web", "select": "udp", "service": [f"{SERVICES}:Slow"], "subcontract": told}]


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_process_registers_works_is_paid_and_says_so(market, tmp_path, keys, nothing_left):
    frames = [udp_frame(0, number) for number in range(2000)]
    address = free_address()
    with served_market(market) as url:
        provider = start_provider(url, tmp_path, keys, "north")
        try:
            wait_for(lambda: (tmp_path / "north.token").exists() or provider.poll() is not None)
            market.deposit("north", 20_000, "EUR")  # what it offers has to be secured
            market.post_bond("north", 10_000, "EUR")
            wait_for(lambda: market.offers("turning") or provider.poll() is not None)
            assert provider.poll() is None, provider.stderr.read()
            from streamcore.disperse.remote import load_public_key

            market.publish_endpoint("clinic", load_public_key(str(keys / "pipeline.key")).decode(), address=address)
            allocator = MarketAllocator(market, Terms(party="clinic", device="desk", open_for_ms=0))
            told, left = run(tmp_path, keys, allocator, frames, address, streams(otherwise="refuse"))
            assert left == [turned(frame) for frame in frames], told.get("market_errors")
            time.sleep(1)
            provider.send_signal(signal.SIGTERM)
            output, words = provider.communicate(timeout=20)
        finally:
            provider.kill()
    assert provider.returncode == 0, words
    mine = json.loads(output)
    (served,), (work,) = told["subcontracts"], mine["agreements"]
    assert (work["agreement"], work["segments"]) == (served["agreement"], served["segments"])
    assert (work["packets"], work["bytes"]) == (2000, sum(map(len, frames)))
    assert served["state"] == "settled"
    assert mine["earned"] == served["charged"] > 0
    assert market.offers("turning") == []
    assert (tmp_path / "north.token").stat().st_mode & 0o777 == 0o600


def test_killed_it_leaves_no_worker(market, tmp_path, keys, nothing_left):
    with served_market(market) as url:
        provider = start_provider(url, tmp_path, keys, "north")
        try:
            wait_for(lambda: len(children(provider.pid)) == 2)
            workers = children(provider.pid)
        finally:
            provider.kill()
            provider.communicate(timeout=20)
        wait_for(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers))


def test_it_outlives_a_market_that_is_killed_and_started_again(tmp_path, keys, nothing_left):
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    from serving import OPERATOR, start_process

    from auction.web.client import MarketClient

    store = f"sqlite:///{tmp_path / 'market.db'}"
    market, url = start_process(store, tmp_path, 0, "--open-registration")
    provider = start_provider(url, tmp_path, keys, "north")
    operator = MarketClient(url, OPERATOR)
    try:
        wait_for(lambda: provider.poll() is not None or (tmp_path / "north.token").exists())
        operator.deposit("north", 20_000, "EUR")
        MarketClient(url, (tmp_path / "north.token").read_text().strip()).post_bond("north", 10_000, "EUR")
        wait_for(lambda: provider.poll() is not None or operator.offers("turning"))
        market.kill()
        market.communicate(timeout=20)
        time.sleep(0.7)
        market, _ = start_process(store, tmp_path, int(url.rpartition(":")[2]), "--open-registration")
        operator.register("clinic", "recipient")
        operator.deposit("clinic", 10_000, "EUR")
        auction = announce(operator, open_for_ms=5_000)
        wait_for(lambda: provider.poll() is not None or operator.auction(auction).bid_count == 1)
        provider.send_signal(signal.SIGTERM)
        output, words = provider.communicate(timeout=20)
        assert provider.returncode == 0, words
        assert json.loads(output)["bids"] == 1
        assert "trying again" in words
    finally:
        for process in (provider, market):
            process.kill()
            process.communicate(timeout=20)
