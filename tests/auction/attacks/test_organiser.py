"""A search for profit by the organiser of a group, with the provider or with another member, against a truthful one.

A member answers for its organiser's choice of an end, as a recipient for its own. So what a member can lose is its
limit and no more, whatever they do, and what comes back of the price comes back to it in proportion. COALITION_SEEDS
says how many sequences are played; tests/conftest.py says how many without it.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from markets import asked, market, money

from auction.model.errors import AuctionError
from auction.moderator import AuctionTerms, BidEntry
from auction.moderator.invariants import violations
from auction.moderator.rules import ending, groups

SEQUENCES = int(os.environ["COALITION_SEEDS"])
LIMIT = 2_500


def harm(seed: int, bad: tuple[str, str]) -> str:
    """What the truthful member `anna` has lost beyond the bound, in words; empty where nothing."""
    chance = random.Random(seed)
    moderator, clock = market(providers=2)
    for member in ("anna", "bert"):
        moderator.register(member, "recipient")
        moderator.deposit(member, 10_000, "EUR")
    terms = AuctionTerms(reserve=5_000, open_for_ms=10_000, receipts=False, fail_over=True)
    auction = moderator.announce("rita", asked(clock), terms).auction
    group = moderator.open_group(auction, "rita", extra_cost=chance.choice((0, 100, 2_000))).id
    moderator.bid(auction, BidEntry("p0", chance.randrange(1_000, 5_000)))
    moderator.join_group(group, "anna", LIMIT)
    clock.advance(10_000)
    moderator.tick()
    name = moderator.auction(auction).agreements[0]
    moves: list[Callable[[], object]] = [
        lambda: moderator.join_group(group, bad[1], chance.randrange(1, 6_000)),
        lambda: moderator.pledge(group, bad[1], chance.randrange(3_000), opted_in=True),
        lambda: moderator.pledge(group, "rita", chance.randrange(3_000), opted_in=True),
        lambda: moderator.join_group(group, "rita", chance.randrange(6_000)),
        lambda: moderator.settle_group(group),
        lambda: moderator.settle_group(group),
        lambda: moderator.offer_price(group, "rita", chance.randrange(5_000), clock.now_ms + 60_000),
        lambda: moderator.accept_price(group, "p0"),
        lambda: moderator.open_group(auction, "rita", extra_cost=9_000),
        lambda: end(chance.choice(("rita", "p0"))),
        lambda: clock.advance(chance.choice((5_000, 60_000, 600_000))),
    ]

    def end(party: str) -> object:
        figure = chance.randrange(moderator.agreement(name).price + 1)
        return moderator.end(name, party, chance.choice(("finished", "leaving", "blaming")), figure)

    for _ in range(12):
        with contextlib.suppress(AuctionError):
            chance.choice(moves)()
    for _ in range(4):
        clock.advance(3_700_000)
        moderator.tick()
    assert violations(moderator.state) == []
    one, settled = moderator.agreement(name), moderator.group_of(group)
    lost = 10_000 - money(moderator, "anna")
    owed = settled.outcome.owes("anna") if settled.outcome is not None else 0
    if max(lost, owed) > LIMIT:
        return f"{lost} was lost of {LIMIT}"
    whole = sum(amount for _, amount in one.payers) or (owed and sum(map(settled.outcome.owes, settled.limits)))
    # Of what the members paid for the price, what was not earned or burnt comes back to each in proportion.
    back = Fraction(max(0, one.price - one.charged - one.burnt) * owed, whole or 1)
    if owed and one.price <= whole and lost > owed - back * one.price // max(whole, 1) + 1 + settled.extra_cost:
        return f"{lost} was lost of {owed}, {float(back)} should have come back"
    return ""


@pytest.mark.parametrize("bad", [("rita", "p0"), ("rita", "bert")], ids="+".join)
def test_no_organiser_takes_more_than_a_members_limit(bad: tuple[str, str]) -> None:
    assert not [words for seed in range(SEQUENCES) if (words := harm(seed, bad))]


def _what_comes_back_goes_to_the_last_member(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ending, "split_proportionally", lambda total, parts: [0] * (len(parts) - 1) + [total])


def _the_organiser_keeps_what_comes_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(groups, "_payers", lambda *_: ())


@pytest.mark.parametrize("hole", [_what_comes_back_goes_to_the_last_member, _the_organiser_keeps_what_comes_back])
def test_planted_hole_is_found(hole: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    hole(monkeypatch)
    assert any(harm(seed, bad) for seed in range(150) for bad in (("rita", "p0"), ("rita", "bert")))
