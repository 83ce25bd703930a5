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
from auction.moderator import AuctionTerms, Moderator
from auction.moderator.invariants import violations
from streamcore.core.errors import UsageError, WorkerError
from streamcore.subcontract.market import MarketAllocator, Terms
from streamcore.subcontract.pricing import Quote, checked_price, make_pricing
from streamcore.subcontract.trader import Trader, signing_key_of
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


def a_trader(market, pricing="fixed:40", services=("turning",), name="north", **more):
    signing_key = signing_key_of(name.encode() * 8)
    market.register(name, "provider", public_key=signing_key.public_key().public_bytes_raw().hex(), capacity_bps=10**8)
    market.deposit(name, 20_000, "EUR")
    market.post_bond(name, 10_000, "EUR")
    trader = Trader(market, name, services, make_pricing(pricing), 10**8, "EUR", signing_key, **more)
    trader.begin(name[0] * 40)
    return trader


def announce(market, service="turning", reserve=100, open_for_ms=500):
    now_ms = market.now_ms()
    block = Block(id="", provider="", service=service, starts_ms=now_ms + open_for_ms + 50, ends_ms=now_ms + BLOCK_MS,
                  minimum_bps=1_000_000, maximum_bps=8_000_000)  # fmt: skip
    return market.announce("clinic", block, AuctionTerms(reserve=reserve, open_for_ms=open_for_ms)).auction


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
    market.agree(agreement)
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


def test_its_own_measurement_counts_where_the_recipient_measured_nothing(market):
    trader = a_trader(market)
    name = market.await_close(_with_bid(market, trader), wait_ms=2_000).agreements[0]
    market.agree(name)
    market.start(name)
    trader.look(0)
    (assignment,) = trader.assignments
    until_ms = assignment.starts_ms + 30_000
    trader.did(
        "clinic", "turning", assignment.starts_ms, until_ms, Done(3, 30, 30_000_000, 0, 5_000_000, [2_000_000] * 3)
    )
    trader.report()
    (leg,) = market.agreement(name).legs
    assert 0 < leg.delivered_ppm <= 1_000_000
    work = trader.work[name].json()
    assert (work["segments"], work["bytes"], work["latency_ms"]["p50"]) == (3, 30_000_000, 2.0)


def test_what_it_did_counts_under_the_agreement_about_that_service(market):
    trader = a_trader(market, services=("turning", "dusting"))
    auctions = [_with_bid(market, trader, service) for service in ("turning", "dusting")]
    names = [market.await_close(each, wait_ms=2_000).agreements[0] for each in auctions]
    for name in names:
        market.agree(name)
        market.start(name)
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
            wait_for(lambda: market.offers("turning") or provider.poll() is not None)
            assert provider.poll() is None, provider.stderr.read()
            market.deposit("north", 20_000, "EUR")
            market.post_bond("north", 10_000, "EUR")
            from streamcore.disperse.remote import load_public_key

            market.publish_endpoint("clinic", load_public_key(str(keys / "pipeline.key")).decode(), address=address)
            allocator = MarketAllocator(market, Terms(party="clinic", device="desk", open_for_ms=0))
            told, left = run(tmp_path, keys, allocator, frames, address, streams(otherwise="refuse"))
            assert left == [turned(frame) for frame in frames]
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
    assert mine["earned"] == served["charged"] > 0
    assert market.offers("turning") == []
    assert (tmp_path / "north.token").stat().st_mode & 0o777 == 0o600


def test_killed_it_leaves_no_worker(market, tmp_path, keys, nothing_left):
    with served_market(market) as url:
        provider = start_provider(url, tmp_path, keys, "north")
        try:
            wait_for(lambda: market.offers("turning") or provider.poll() is not None)
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
        wait_for(lambda: provider.poll() is not None or operator.offers("turning"))
        market.kill()
        market.communicate(timeout=20)
        time.sleep(0.7)
        market, _ = start_process(store, tmp_path, int(url.rpartition(":")[2]), "--open-registration")
        operator.deposit("north", 20_000, "EUR")
        operator.register("clinic", "recipient")
        MarketClient(url, (tmp_path / "north.token").read_text().strip()).post_bond("north", 10_000, "EUR")
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
