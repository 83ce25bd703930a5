"""The mechanism from the announcement to what each side has in the end, with money to the unit.

P = 4,000 for a minute, δ = 10 %, Φ = 1,000, N = 120 intervals of half a second, e = 4,000 * 1.5 s / 60 s = 100.
"""

from __future__ import annotations

import msgspec
import pytest
from markets import asked, awarded, figure_of, market, money, nobody, poll, settled, signed
from simulated_cards import Cards

from auction.model.closing import TABLE
from auction.model.errors import AuctionError, InsufficientFunds, NoAward, NotAllowed, WrongState
from auction.model.lifecycle import CLOSING_MS, FUNDING_MS, GRACE_MS
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import violations

P, R, DELTA, PHI, E = 4_000, 5_000, 400, 1_000, 100
RITA, BOND = 1_000_000, 100_000


def agreed(
    fail_over: bool = False, prices: tuple[int, ...] = (4_000, 4_000, 4_500)
) -> tuple[Moderator, ManualClock, str]:
    """p0 or p1 has it at 4,000 (a tie); with `prices` of its own the first is the best."""
    moderator, clock = market()
    return (
        moderator,
        clock,
        awarded(moderator, clock, prices, reserve=R, receipts=True, fail_over=fail_over, format="first_price"),
    )


def run(moderator: Moderator, clock: ManualClock, agreement: str, until_ms: int = 30_000) -> None:
    """Both are there at the start; time goes on to so much after it."""
    one = moderator.agreement(agreement)
    clock.advance(max(0, one.starts_ms - clock.now_ms))
    poll(moderator, one.provider, one.recipient)
    clock.advance(GRACE_MS)
    moderator.tick()
    assert moderator.agreement(agreement).state == "running"
    clock.advance(max(0, one.starts_ms + until_ms - clock.now_ms))


def check(moderator: Moderator) -> None:
    moderator.tick()
    assert violations(moderator.state) == []
    balances = moderator.state.ledger.balances
    left = {name: amount for name, amount in balances.items() if name.startswith("held") and amount}
    assert left == {}, left


def test_announcement_bid_and_award_hold_what_they_promise() -> None:
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000)).auction
    balances = moderator.state.ledger.balances
    assert (balances[f"held:{auction}"], money(moderator, "rita")) == (5_500, RITA - 5_500)
    placed = moderator.bid(auction, BidEntry("p0", P))
    assert (balances[f"held_bond:{placed.bid}"], money(moderator, "p0")) == (500, BOND - 500)
    clock.advance(10_000)
    moderator.tick()
    one = moderator.agreement(moderator.auction(auction).agreements[0])
    assert (one.price, one.recipient_held, one.provider_held) == (R, 5_500, 500 + 1_250)  # second score: the reserve
    assert (money(moderator, "rita"), money(moderator, "p0")) == (RITA - 5_500, BOND - 1_750)
    assert violations(moderator.state) == []


def test_announcement_without_money_is_refused_and_changes_nothing() -> None:
    moderator, clock = market()
    before = moderator.state.sequence
    with pytest.raises(InsufficientFunds):
        moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000_000, open_for_ms=10_000))
    assert moderator.state.sequence == before


def test_second_bid_takes_the_place_of_the_first_and_its_hold() -> None:
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000)).auction
    moderator.bid(auction, BidEntry("p0", P))
    moderator.bid(auction, BidEntry("p0", P - 1))
    assert money(moderator, "p0") == BOND - 500
    assert violations(moderator.state) == []


def test_withdrawn_before_the_first_bid_alone() -> None:
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000)).auction
    moderator.withdraw_auction(auction)
    assert (moderator.auction(auction).state, money(moderator, "rita")) == ("void", RITA)
    other = moderator.announce("rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000)).auction
    moderator.bid(other, BidEntry("p0", P))
    with pytest.raises(WrongState):
        moderator.withdraw_auction(other)


def test_auction_without_bids_is_void_and_all_goes_back() -> None:
    moderator, clock = market()
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000)).auction
    clock.advance(10_000)
    check(moderator)
    assert (moderator.auction(auction).state, money(moderator, "rita")) == ("void", RITA)


def test_award_whose_hold_cannot_be_placed_goes_to_the_next_bid() -> None:
    moderator, clock = market()
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000, format="first_price")
    ).auction
    # A newcomer needs 5,000 to bid; it then puts its money elsewhere.
    moderator.release_bond("p0", 95_000, "EUR")
    moderator.withdraw("p0", 95_000, "EUR")
    moderator.bid(auction, BidEntry("p0", 3_000))
    moderator.release_bond("p0", 4_500, "EUR")
    moderator.withdraw("p0", 4_500, "EUR")
    moderator.bid(auction, BidEntry("p1", 4_000))
    clock.advance(10_000)
    moderator.tick()
    one = moderator.agreement(moderator.auction(auction).agreements[0])
    assert (one.provider, one.price) == ("p1", 4_000)
    assert (nobody(moderator), money(moderator, "p0")) == (500, 0)  # δR; the next bid wins
    assert violations(moderator.state) == []


def test_finished_by_both_with_one_figure_is_settled_at_once() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name, 60_000)
    provider = moderator.agreement(name).provider
    receipt = signed(moderator, name, 120)
    moderator.hand_in(name, "rita", receipt)
    over = settled(moderator, name, figure_of(moderator, name, receipt))
    assert (over.state, over.paid, over.burnt) == ("settled", P, 0)
    assert (money(moderator, "rita"), money(moderator, provider)) == (RITA - P, BOND + P)
    check(moderator)


ENDINGS = ("finished", "leaving", "blaming", "")


@pytest.mark.parametrize("provider_says", ENDINGS)
@pytest.mark.parametrize("recipient_says", ENDINGS)
def test_cell_of_the_table_of_ends(provider_says: str, recipient_says: str) -> None:
    """After half of the window, with a receipt over half of the price: U = 2,000 and δU = 200."""
    moderator, clock, name = agreed()
    run(moderator, clock, name)
    provider = moderator.agreement(name).provider
    moderator.hand_in(name, provider, signed(moderator, name, 60))
    for party, says in ((provider, provider_says), ("rita", recipient_says)):
        if says:
            moderator.end(name, party, says, 2_000)  # type: ignore[arg-type]
    clock.advance(60_000 + 2 * GRACE_MS + CLOSING_MS)
    check(moderator)
    over = moderator.agreement(name)
    both_finished = provider_says == recipient_says == "finished"

    def read(says: str) -> str:
        return "leaving" if says == "finished" and not both_finished else says

    # Written down from the table of the specification, not from the code.
    expected = {
        ("finished", "finished"): (0, 0),
        ("leaving", "leaving"): (0, 0),
        ("leaving", "blaming"): (-200, 200),
        ("leaving", ""): (-200, 200),
        ("blaming", "leaving"): (200, -200),
        ("blaming", "blaming"): (-200, -200),
        ("blaming", ""): (0, -200),
        ("", "leaving"): (200, -200),
        ("", "blaming"): (-200, 0),
        ("", ""): (0, 0),
    }
    to_provider, to_recipient = expected[read(provider_says), read(recipient_says)]
    assert over.state == "settled"
    assert money(moderator, provider) == BOND + 2_000 + to_provider
    assert money(moderator, "rita") == RITA - 2_000 + to_recipient
    assert nobody(moderator) == -to_provider - to_recipient


def test_every_cell_is_played() -> None:
    assert {(one, other) for one in ENDINGS for other in ENDINGS} == set(TABLE)


def test_finished_after_the_end_beside_silence() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name, 60_000)
    provider = moderator.agreement(name).provider
    moderator.hand_in(name, provider, signed(moderator, name, 118))  # 3,933
    moderator.end(name, provider, "finished", P)
    clock.advance(CLOSING_MS)
    check(moderator)
    assert moderator.agreement(name).paid == P  # within e: its figure counts
    assert (money(moderator, provider), money(moderator, "rita")) == (BOND + P, RITA - P)


def test_provider_never_comes() -> None:
    moderator, clock, name = agreed()
    one = moderator.agreement(name)
    clock.advance(one.starts_ms - clock.now_ms)
    poll(moderator, "rita")
    clock.advance(GRACE_MS)
    moderator.tick()
    one = moderator.agreement(name)
    assert (one.state, one.provider_absent, one.recipient_absent) == ("closing", True, False)
    moderator.end(name, "rita", "blaming", 0)
    clock.advance(CLOSING_MS)
    check(moderator)
    assert (money(moderator, "rita"), money(moderator, one.provider), nobody(moderator)) == (RITA, BOND - DELTA, DELTA)


def test_provider_dies_at_half_and_comes_back_after_closing_with_a_receipt() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name)
    provider = moderator.agreement(name).provider
    receipt = signed(moderator, name, 60)
    moderator.end(name, "rita", "blaming", 1_950)  # below what it signed by 50, and not told of the receipt
    clock.advance(CLOSING_MS)
    check(moderator)
    over = moderator.agreement(name)
    assert over.paid == 100  # nothing was handed in: what is stated is bounded to [0, e]
    # δU of the silent provider: 10 % of 3,900 to nobody.
    assert (money(moderator, provider), nobody(moderator)) == (BOND + 100 - 390, 390)
    moderator.hand_in(name, provider, receipt)
    # It had signed 2,000: what is missing, 1,900, and as much again.
    assert money(moderator, provider) == BOND + 100 - 390 + 3_800
    assert money(moderator, "rita") == RITA - 100 - 3_800
    with pytest.raises(AuctionError):
        moderator.hand_in(name, provider, receipt)
    assert violations(moderator.state) == []


def test_debt_bars_the_name_until_it_is_paid() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name)
    provider = moderator.agreement(name).provider
    receipt = signed(moderator, name, 60)
    moderator.end(name, "rita", "blaming", 0)
    clock.advance(CLOSING_MS)
    moderator.tick()
    moderator.withdraw("rita", money(moderator, "rita") - 1_000, "EUR")
    owing = moderator.hand_in(name, provider, receipt)
    assert owing.debt == 3_000
    with pytest.raises(NotAllowed):
        moderator.announce("rita", asked(clock), AuctionTerms(reserve=1, open_for_ms=10_000))
    moderator.deposit("rita", 10_000, "EUR")
    assert (moderator.agreement(name).debt, money(moderator, "rita")) == (0, 7_000)
    moderator.announce("rita", asked(clock), AuctionTerms(reserve=1, open_for_ms=10_000))
    assert violations(moderator.state) == []


def test_recipients_device_is_off_for_half_a_minute() -> None:
    """A pause longer than 10 s may be stated as an end: the provider blames, the recipient comes back and leaves."""
    moderator, clock, name = agreed()
    run(moderator, clock, name, 20_000)
    provider = moderator.agreement(name).provider
    receipt = signed(moderator, name, 40)
    earned = figure_of(moderator, name, receipt)
    assert earned == 1_333
    moderator.hand_in(name, provider, receipt)
    clock.advance(10_001)
    moderator.end(name, provider, "blaming", earned + E)
    clock.advance(20_000)
    moderator.end(name, "rita", "leaving", earned)
    clock.advance(CLOSING_MS)
    check(moderator)
    # The lower is paid, e goes to nobody. δU: she pays 10 % of 2,667 and he gets 10 % of 2,567.
    assert money(moderator, provider) == BOND + 1_333 + 256
    assert money(moderator, "rita") == RITA - 1_333 - 100 - 266
    assert nobody(moderator) == 100 + 266 - 256


def test_two_figures_within_e() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name, 60_000)
    provider = moderator.agreement(name).provider
    moderator.hand_in(name, provider, signed(moderator, name, 118))
    moderator.end(name, provider, "finished", P)
    moderator.end(name, "rita", "finished", 3_950)
    assert moderator.agreement(name).state == "closing"
    clock.advance(CLOSING_MS)
    check(moderator)
    assert (money(moderator, provider), money(moderator, "rita")) == (BOND + 3_950, RITA - P)
    assert nobody(moderator) == 50


def test_cost_is_told_before_it_is_stated() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name)
    moderator.hand_in(name, "rita", signed(moderator, name, 60))
    cost = moderator.cost_of(name, "rita", "leaving", 2_000)
    assert (cost.paid, cost.received("provider") - 1_400) == (2_000, 2_200)
    assert moderator.agreement(name).state == "running"


def test_shortfall_that_the_provider_signed() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name, 60_000)
    provider = moderator.agreement(name).provider
    receipt = signed(moderator, name, 120, 500_000)
    moderator.hand_in(name, "rita", receipt)
    settled(moderator, name, 2_000)
    check(moderator)
    assert (money(moderator, provider), money(moderator, "rita")) == (BOND + 2_000 - 200, RITA - 2_000 + 200)


# --- fail-over ---


def failed_at_half(prices: tuple[int, ...] = (4_000, 4_200, 4_400)) -> tuple[Moderator, ManualClock, str]:
    moderator, clock, name = agreed(fail_over=True, prices=prices)
    assert moderator.agreement(name).recipient_held == 5_500
    run(moderator, clock, name)
    moderator.hand_in(name, "rita", signed(moderator, name, 60))
    moderator.end(name, "rita", "blaming", 2_000)
    return moderator, clock, name


def test_runner_up_takes_the_rest_over() -> None:
    moderator, clock, name = failed_at_half()
    with pytest.raises(NoAward):
        moderator.take_over(name, "p1")  # it is not connected
    poll(moderator, "p1", "p2")
    poll(moderator, "p1")
    offers = [one for one in moderator.assignments("p1").assignments if one.role == "offer"]
    assert [(one.agreement, one.price) for one in offers] == [(name, 2_100)]  # half of its own 4,200
    with pytest.raises(NoAward):
        moderator.take_over(name, "p2")  # the better one is asked first
    rest = moderator.take_over(name, "p1")
    assert (rest.of, rest.provider, rest.price, rest.state) == (name, "p1", 2_100, "agreed")
    run(moderator, clock, rest.id, 30_000)
    receipt = signed(moderator, rest.id, 120)
    moderator.hand_in(rest.id, "p1", receipt)
    settled(moderator, rest.id)
    moderator.end(name, "p0", "leaving", 2_000)
    check(moderator)
    assert money(moderator, "p0") == BOND + 2_000 - 200
    assert money(moderator, "p1") == BOND + 2_100
    assert money(moderator, "rita") == RITA - 2_000 + 200 - 2_100


def test_runner_up_that_fails_too() -> None:
    moderator, clock, name = failed_at_half()
    poll(moderator, "p1")
    rest = moderator.take_over(name, "p1")
    run(moderator, clock, rest.id, 15_000)
    moderator.hand_in(rest.id, "rita", signed(moderator, rest.id, 60))
    moderator.end(rest.id, "p1", "leaving", 1_050)
    poll(moderator, "p0", "p2")
    with pytest.raises(NoAward):
        moderator.take_over(rest.id, "p0")  # it has failed before
    last = moderator.take_over(rest.id, "p2")
    assert last.price == 1_100  # a quarter of 4,400
    run(moderator, clock, last.id, 15_000)
    settled(moderator, last.id)
    moderator.end(rest.id, "rita", "blaming", 1_050)
    moderator.end(name, "p0", "leaving", 2_000)
    check(moderator)
    assert money(moderator, "p0") == BOND + 2_000 - 200
    assert money(moderator, "p1") == BOND + 1_050 - 105
    assert money(moderator, "p2") == BOND + 1_100
    assert money(moderator, "rita") == RITA - (2_000 - 200) - (1_050 - 105) - 1_100


def test_without_fail_over_nobody_is_asked() -> None:
    moderator, clock, name = agreed(prices=(4_000, 4_200, 4_400))
    run(moderator, clock, name)
    moderator.end(name, "p0", "leaving", 0)
    poll(moderator, "p1")
    with pytest.raises(NoAward):
        moderator.take_over(name, "p1")


# --- nobody, and who may hand out what would go there ---


def test_arbiter_that_both_named_hands_out_what_would_go_to_nobody() -> None:
    moderator, clock = market()
    moderator.register("judy", "recipient")
    auction = moderator.announce(
        "rita", asked(clock), AuctionTerms(reserve=R, open_for_ms=10_000, arbiter="judy")
    ).auction
    moderator.bid(auction, BidEntry("p0", P, arbiter="judy"))
    clock.advance(10_000)
    moderator.tick()
    name = moderator.auction(auction).agreements[0]
    run(moderator, clock, name)
    moderator.end(name, "p0", "blaming", 0)
    moderator.end(name, "rita", "blaming", 100)
    with pytest.raises(NotAllowed):
        moderator.arbitrate(name, "p1", 0, 1)
    would = moderator.cost_of(name, "rita", "blaming", 100).burnt
    assert would == 100 + 2 * 500  # P is the reserve of 5,000 here: δU each, and the difference
    with pytest.raises(AuctionError):
        moderator.arbitrate(name, "judy", would, 1)
    moderator.arbitrate(name, "judy", 0, would)
    clock.advance(CLOSING_MS)
    check(moderator)
    assert (money(moderator, "rita"), money(moderator, "p0"), nobody(moderator)) == (RITA + 500, BOND - 500, 0)


def test_arbiter_of_one_side_alone_counts_for_nothing() -> None:
    moderator, clock = market()
    moderator.register("judy", "recipient")
    name = awarded(moderator, clock, (4_000,), reserve=R, receipts=True, arbiter="judy")
    assert moderator.agreement(name).arbiter == ""


def test_result_that_is_proven_false() -> None:
    from markets import both_sign

    from auction.model.earned import FalseInterval
    from auction.model.receipt import next_receipt

    moderator, clock = market()
    name = awarded(moderator, clock, (4_000,), reserve=4_000, receipts=True, judge="again")
    run(moderator, clock, name)
    terms = moderator.receipt_terms(name)
    receipt = next_receipt(terms, None, 500, 500, 0, (b"in",), (b"wrong",))
    proof = FalseInterval(
        before=None, after=both_sign(moderator, name, receipt), inputs=(b"in",), results=(b"wrong",), segment=0
    )
    with pytest.raises(WrongState):
        moderator.prove(name, proof)  # nobody to execute it again
    moderator.judges["again"] = lambda _agreement, one: one.results[one.segment] != b"right"
    with pytest.raises(AuctionError):
        moderator.prove(name, msgspec.structs.replace(proof, results=(b"other",)))
    moderator.prove(name, proof)
    with pytest.raises(WrongState):
        moderator.prove(name, proof)
    moderator.end(name, "rita", "leaving", 0)
    moderator.end(name, "p0", "blaming", 0)
    check(moderator)
    # Φ to nobody; the interval earns nothing; the recipient leaves free of δ.
    assert (money(moderator, "rita"), money(moderator, "p0"), nobody(moderator)) == (RITA, BOND - PHI, PHI)


# --- time ---


def test_card_that_is_not_authorised_is_void_after_its_time() -> None:
    moderator, clock = market(processors={"card": Cards()})
    block = msgspec.structs.replace(asked(clock), starts_ms=clock.now_ms + 3_600_000, ends_ms=clock.now_ms + 3_660_000)
    auction = moderator.announce(
        "rita", block, AuctionTerms(reserve=R, open_for_ms=1_800_000, method="card", source="tok")
    ).auction
    with pytest.raises(WrongState):
        moderator.bid(auction, BidEntry("p0", P))
    clock.advance(FUNDING_MS)
    moderator.tick()
    assert moderator.auction(auction).state == "void"


def test_silence_of_both_ends_by_itself() -> None:
    moderator, clock, name = agreed()
    clock.advance(10 * 86_400_000)
    for _ in range(4):
        moderator.tick()
    check(moderator)
    provider = moderator.agreement(name).provider
    assert (money(moderator, "rita"), money(moderator, provider), nobody(moderator)) == (RITA, BOND, 0)


def test_market_that_was_away_gives_everybody_time() -> None:
    moderator, clock, name = agreed()
    run(moderator, clock, name)
    provider = moderator.agreement(name).provider
    moderator.end(name, "rita", "blaming", 0)
    clock.advance(2 * CLOSING_MS)  # the market is down meanwhile
    again = Moderator(moderator.store, clock=clock)
    again.tick()
    assert again.agreement(name).state == "closing"
    again.hand_in(name, provider, signed(again, name, 60))
    clock.advance(CLOSING_MS)
    again.tick()
    assert (again.agreement(name).state, again.agreement(name).paid) == ("settled", 2_000)


def test_capacity_is_free_again_when_an_agreement_ends_early() -> None:
    moderator, _clock, name = agreed()
    provider = moderator.agreement(name).provider
    moderator.end(name, provider, "leaving", 0)
    block = moderator.block(moderator.agreement(name).block)
    assert block.state == "void"
    assert violations(moderator.state) == []
