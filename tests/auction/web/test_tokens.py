"""A lost token over the network: the operator replaces it, and the old one opens nothing, not even what waits. And who
may call what changes a party."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")

from markets import asked, awarded, key_of, market, public_key_of
from serving import OPERATOR, served

from auction.model.errors import AuctionError, BadToken, NotAllowed
from auction.model.signing import party_body, sign_statement
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.terms import Cost
from auction.web.client import MarketClient

TERMS = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)
World = tuple[str, Moderator, ManualClock, MarketClient]


@pytest.fixture
def world() -> Iterator[World]:
    moderator, clock = market()
    with served(moderator) as url:
        yield url, moderator, clock, MarketClient(url, OPERATOR, retry_for_ms=0)


def client(world: World, party: str) -> MarketClient:
    """A client of this party, with the token that the operator has given it."""
    return MarketClient(world[0], world[3].replace_token(party).token, retry_for_ms=0)


def waiting(call: Callable[[], object]) -> tuple[threading.Thread, list[AuctionError]]:
    """A call that waits in a thread; its error."""
    raised: list[AuctionError] = []

    def run() -> None:
        try:
            call()
        except AuctionError as reason:
            raised.append(reason)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("how", ["replace_token", "revoke_token"])
def test_a_token_that_is_taken_away_ends_at_once_also_where_it_waits(world: World, how: str) -> None:
    _, moderator, clock, operator = world
    thief, other = client(world, "p0"), client(world, "p1")
    auction = moderator.announce("rita", asked(clock), TERMS).auction
    known = thief.assignments("p0").version
    threads = [
        waiting(lambda: thief.await_close(auction, wait_ms=30_000)),
        waiting(lambda: thief.assignments("p0", known=known, wait_ms=30_000)),
    ]
    still = waiting(lambda: other.await_close(auction, wait_ms=30_000))
    time.sleep(0.2)  # they wait by now; if not, they are refused at once
    begun = time.monotonic()
    getattr(operator, how)("p0")
    for thread, raised in threads:
        thread.join(10)
        assert [type(one) for one in raised] == [BadToken]
    assert time.monotonic() - begun < 5
    assert still[0].is_alive()
    with pytest.raises(BadToken):
        thief.balance("p0")
    clock.advance(10_000)
    operator.tick()
    still[0].join(10)
    assert not still[0].is_alive()
    assert still[1] == []


def test_a_party_changes_what_is_its_own_and_the_operator_the_rest(world: World) -> None:
    _, moderator, _, operator = world
    p0, p1 = client(world, "p0"), client(world, "p1")
    for refused in (
        lambda: p0.replace_token("p0"),
        lambda: p0.revoke_token("p1"),
        lambda: p0.change_attributes("p0", {"iso27001": "yes"}),  # nobody says so of itself
        lambda: p0.ban("p1"),
        lambda: p0.lift_ban("p0"),
        lambda: p0.change_capacity("p1", 0),
        lambda: p0.refuse_party("p1", "rita"),
        lambda: p0.accept_party("p1", "rita"),
        lambda: p0.refused_by("p1"),
    ):
        with pytest.raises(NotAllowed):
            refused()
    p1.refuse_party("p1", "rita")
    assert p1.refused_by("p1") == operator.refused_by("p1") == ("rita",)
    assert p0.change_capacity("p0", 5_000).token_hash == ""
    expires_ms = moderator.now_ms() + 1_000
    body = party_body("", public_key_of("new"))
    signature = sign_statement(key_of("new"), "key", "", "p0", body, nonce="n", expires_ms=expires_ms)
    with pytest.raises(NotAllowed):
        p1.change_key("p0", public_key_of("new"), signature)
    assert p0.change_key("p0", public_key_of("new"), signature).public_key == public_key_of("new")
    operator.change_attributes("p0", {"iso27001": "yes"})
    operator.ban("p1")
    assert moderator.party("p1").banned_sequence


def test_a_list_is_nobody_elses_to_read(world: World) -> None:
    _, _, clock, _ = world
    rita, p0, p1 = (client(world, name) for name in ("rita", "p0", "p1"))
    rita.refuse_party("rita", "p0")
    auction = rita.announce("rita", asked(clock), TERMS).auction
    p0.bid(auction, BidEntry("p0", 100))
    p1.bid(auction, BidEntry("p1", 200))
    clock.advance(10_000)
    view = p1.await_close(auction)
    assert view.award is not None
    assert [one.bidder for one in view.award.winners] == ["p1"]
    assert [one.why for one in p1.transcript(auction).excluded] == ["not matched"]
    with pytest.raises(NotAllowed):
        p1.refused_by("rita")


def test_costs_are_told_over_the_network(world: World) -> None:
    _, moderator, clock, _ = world
    rita, p0, p1 = (client(world, name) for name in ("rita", "p0", "p1"))
    auction = rita.announce("rita", asked(clock), TERMS).auction
    assert rita.cost_of_withdrawing(auction) == Cost(of_balance=-1_100, of_bond=0)
    assert p0.cost_of_bid(auction, BidEntry("p0", 200)) == Cost(of_balance=0, of_bond=100)
    with pytest.raises(NotAllowed):
        p1.cost_of_bid(auction, BidEntry("p0", 200))
    with pytest.raises(NotAllowed):
        p1.cost_of_withdrawing(auction)
    agreement = awarded(moderator, clock)
    assert moderator.agreement(agreement).provider == "p1"
    # Of 250 nothing was earned, and the provider has not said anything: it goes δ to it.
    assert rita.cost_of(agreement, "rita", "leaving", 0).received("provider") >= 25
    with pytest.raises(NotAllowed):
        p0.cost_of(agreement, "p1", "leaving", 0)


def test_names_are_the_operators_map_and_a_partys_own(world: World) -> None:
    """Nobody finds out by a telephone number or a name who is in the market."""
    _, moderator, _, operator = world
    rosa = operator.register("", "recipient", name="rosa@clinic").party
    own, p0 = client(world, rosa), client(world, "p0")
    number = own.register("+44 20 7946 0018", "number", belongs_to=rosa).party
    assert operator.id_of("+442079460018") == number
    assert own.person(number).number == "+442079460018"
    shown = msgspec.json.encode((p0.party(rosa), p0.party(number)))
    assert b"rosa" not in shown
    assert b"+44" not in shown
    for refused in (
        lambda: p0.id_of("rosa@clinic"),
        lambda: own.id_of("rosa@clinic"),
        lambda: p0.person(rosa),
        lambda: p0.erase(rosa),
        lambda: own.erase(rosa),
        lambda: p0.fees(),
        lambda: p0.withdraw_fees(1, "EUR"),
    ):
        with pytest.raises(NotAllowed):
            refused()
    operator.erase(rosa)
    with pytest.raises(BadToken):
        own.person(rosa)
    assert moderator.store.personal() == []
