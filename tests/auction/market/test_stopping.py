"""A recipient stops fail-over: nobody takes a rest over any more, and what was held for that goes back.

P = 4,000, R = 5,000, δ = 10 %: 4,400 of the 5,500 that are held are for the agreement itself.
"""

from __future__ import annotations

import pytest
from markets import awarded, market, money, poll, signed
from simulated_cards import Cards

from auction.model.errors import NoAward, WrongState
from auction.moderator import Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import violations

RITA = 1_000_000


def running(**terms: object) -> tuple[Moderator, ManualClock, str]:
    """p0 serves since 30 s, p1 stands by; all are there."""
    moderator, clock = market(providers=2, processors={"card": Cards()})
    wanted = {"reserve": 5_000, "format": "first_price", "fail_over": True, "receipts": True, **terms}
    name = awarded(moderator, clock, (4_000, 4_200), **wanted)
    clock.advance(moderator.agreement(name).starts_ms - clock.now_ms)
    poll(moderator, "p0", "p1", "rita")
    clock.advance(10_000)
    moderator.tick()
    clock.advance(20_000)
    poll(moderator, "p0", "p1", "rita")
    return moderator, clock, name


def offered(moderator: Moderator, party: str = "p1") -> list[str]:
    return [one.role for one in moderator.assignments(party).assignments]


def test_a_recipient_that_blames_can_stop_fail_over() -> None:
    moderator, clock, name = running()
    moderator.end(name, "rita", "blaming", 2_000)
    assert offered(moderator) == ["offer"]
    stopped = moderator.stop_fail_over(name)
    assert (stopped.stopped, stopped.recipient_held, stopped.state) == (True, 4_400, "closing")
    assert money(moderator, "rita") == RITA - 4_400
    assert offered(moderator) == []
    with pytest.raises(NoAward):
        moderator.take_over(name, "p1")
    moderator.hand_in(name, "p0", signed(moderator, name, 60))
    clock.advance(7_200_000)
    moderator.tick()
    over = moderator.agreement(name)
    assert (over.state, over.paid) == ("settled", 2_000)
    assert money(moderator, "rita") == RITA - 2_000  # the provider was silent: it alone loses δU
    assert violations(moderator.state) == []


def test_what_goes_back_is_of_who_bought_the_block_since() -> None:
    moderator, clock = market(providers=2)
    name = awarded(moderator, clock, (4_000, 4_200), reserve=5_000, format="first_price", fail_over=True)
    moderator.register("bob", "recipient")
    moderator.deposit("bob", 10_000, "EUR")
    moderator.resell_block(moderator.agreement(name).block, "rita", "bob", 1_000)
    moderator.stop_fail_over(name)
    assert (money(moderator, "rita"), money(moderator, "bob")) == (RITA - 5_500 + 1_000, 9_000 + 1_100)
    assert violations(moderator.state) == []


def test_a_rest_that_was_taken_over_goes_on_and_can_be_stopped_itself() -> None:
    moderator, _, name = running()
    moderator.end(name, "p0", "leaving", 2_000)
    rest = moderator.take_over(name, "p1")
    assert rest.recipient_held > rest.own_hold  # what is free of the reserve came along
    stopped = moderator.stop_fail_over(rest.id)
    assert stopped.recipient_held == stopped.own_hold
    assert moderator.stop_fail_over(name).stopped
    assert moderator.agreement(rest.id).state == "agreed"
    assert violations(moderator.state) == []


def test_it_can_be_stopped_before_anything_has_failed_and_once() -> None:
    moderator, _, name = running()
    moderator.stop_fail_over(name)
    with pytest.raises(WrongState):
        moderator.stop_fail_over(name)
    moderator.end(name, "p0", "leaving", 2_000)
    assert offered(moderator) == []


def test_there_is_nothing_to_stop_where_it_was_not_asked_for_or_is_over() -> None:
    moderator, _, name = running(fail_over=False)
    moderator.end(name, "p0", "leaving", 2_000)
    assert offered(moderator) == []  # nobody takes over what nobody has asked for and funded
    with pytest.raises(WrongState):
        moderator.stop_fail_over(name)
    moderator, _, name = running()
    for party in ("p0", "rita"):
        moderator.end(name, party, "finished", 2_000)
    with pytest.raises(WrongState):
        moderator.stop_fail_over(name)
