"""What the end of an agreement says of its provider: the part of what it had to serve that it has; what that weighs.

P = 4,000 for a minute; a deal of 10,000 weighs 1. Expected values are worked out by hand.
"""

from __future__ import annotations

import pytest
from markets import awarded, market, poll, signed

from auction.model.rating import Tally
from auction.moderator import Moderator
from auction.moderator.clock import ManualClock

P = 4_000
HOUR_MS = 3_600_000


def ended(
    provider: tuple[str, int] | None,
    recipient: tuple[str, int] | None,
    at_ms: int,
    intervals: int = 0,
    got_ppm: int = 1_000_000,
    receipts: bool = False,
) -> Tally:
    """What is counted of p0 once both have said this, so long after the start (of 60 s), and closing is over."""
    moderator, clock = market(providers=1)
    name = awarded(moderator, clock, (P,), reserve=5_000, format="first_price", receipts=receipts)
    one = moderator.agreement(name)
    clock.advance(one.starts_ms - clock.now_ms)
    poll(moderator, "p0", "rita")
    clock.advance(10_000)
    moderator.tick()
    clock.advance(one.starts_ms + at_ms - clock.now_ms)
    if intervals:
        moderator.hand_in(name, "p0", signed(moderator, name, intervals, got_ppm))
    for party, said in (("p0", provider), ("rita", recipient)):
        if said is not None:
            moderator.end(name, party, *said)
    return counted(moderator, clock)


def counted(moderator: Moderator, clock: ManualClock) -> Tally:
    clock.advance(2 * HOUR_MS)
    moderator.tick()
    return moderator.state.reputation.history("p0", "anonymise").evidence


def earned_and_weight(tally: Tally) -> tuple[int, int]:
    """In percent of what it had to serve, and in minor units."""
    whole = tally.yes + tally.no
    return (tally.yes * 100 // whole if whole else -1), whole // 100


def test_a_shortfall_that_both_have_stated_counts_without_receipts() -> None:
    assert earned_and_weight(ended(("finished", P), ("finished", P), 60_000)) == (100, P)
    assert earned_and_weight(ended(("finished", 2_000), ("finished", 2_000), 60_000)) == (50, P)
    assert earned_and_weight(ended(("finished", 0), ("finished", 0), 60_000)) == (0, P)


def test_a_shortfall_that_both_have_stated_counts_where_no_receipt_was_handed_in() -> None:
    both = ("finished", 2_000)
    assert earned_and_weight(ended(both, both, 60_000, receipts=True)) == (50, P)
    assert earned_and_weight(ended(both, both, 60_000, 120, 500_000, receipts=True)) == (50, P)


def test_what_both_have_parted_from_early_is_nobodys_fault() -> None:
    """At half: what had passed was served, and of what was to come nobody says that the other has failed in it."""
    both = ("finished", 2_000)
    assert earned_and_weight(ended(both, both, 30_000)) == (100, 2_000)
    assert earned_and_weight(ended(both, both, 30_000, receipts=True)) == (100, 2_000)
    # Half of what had passed was not served: with receipts up to e, 100, is open at any time.
    both = ("finished", 1_000)
    assert earned_and_weight(ended(both, both, 30_000)) == (50, 2_000)
    assert earned_and_weight(ended(both, both, 30_000, receipts=True)) == (52, 1_900)


def test_both_that_say_before_the_start_that_all_is_done() -> None:
    moderator, clock = market(providers=1)
    name = awarded(moderator, clock, (P,), reserve=5_000, format="first_price")
    for party in ("p0", "rita"):
        moderator.end(name, party, "finished", 1_000)
    assert earned_and_weight(counted(moderator, clock)) == (25, P)


@pytest.mark.parametrize(("ending", "charged_besides"), [("finished", (0, 0)), ("blaming", (200, 300))])
def test_where_the_recipient_leaves_what_it_paid_for_counts(ending: str, charged_besides: tuple[int, int]) -> None:
    """An early `finished` of the provider is `leaving` as well; a reproach gets it δU, which is charged too."""
    said = ended((ending, 2_000), ("leaving", 2_000), 30_000)
    assert earned_and_weight(said) == (100, 2_000 + charged_besides[0])
    # It alone knows when it stopped asking: what is missing of the time until it said so is no fault of the other's.
    said = ended((ending, 1_000), ("leaving", 1_000), 30_000)
    assert earned_and_weight(said) == (100, 1_000 + charged_besides[1])


def test_who_leaves_or_says_nothing_weighs_what_it_did_not_serve() -> None:
    """A provider that never serves, or leaves before it has earned anything: nothing is charged, and it counts."""
    assert earned_and_weight(ended(("leaving", 0), ("blaming", 0), 30_000)) == (0, P)
    assert earned_and_weight(ended(None, ("blaming", 0), 30_000)) == (0, P)
    assert earned_and_weight(ended(("leaving", 1_000), ("blaming", 1_000), 30_000)) == (25, P)


def test_a_reproach_alone_weighs_no_more_than_what_it_cost() -> None:
    """Both blame: each loses δU, 400 of which were the recipient's. Nobody has said that the provider did not serve."""
    assert earned_and_weight(ended(("blaming", 0), ("blaming", 0), 30_000)) == (0, 400)
    assert ended(None, None, 30_000) == Tally()
