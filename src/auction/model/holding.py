"""What is held, and of whom, before others act on a promise: announcements, bids, offers, commitments, awards. Pure.

Amounts are minor units of the auction's currency. What is held is rounded up, so that it always covers what may become
due, which is rounded down (see closing.py). A hold is taken of a balance or of a card's authorisation; not here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from auction.model.bid import Direction
from auction.model.errors import BadValue
from auction.model.money import PPM, check_amount, check_integer, scale_ceiling

DELTA_PPM: Final = 100_000
DELTA_PPM_MIN: Final = 10_000
DELTA_PPM_MAX: Final = 500_000
PENALTY_OF_PRICE: Final = 4  # Φ is a quarter of the price


def check_delta(delta_ppm: object) -> int:
    """δ, the share for leaving: one number for both sides, told in the announcement; 1 to 50 %. Raises BadValue."""
    return check_integer(delta_ppm, "share for leaving", DELTA_PPM_MIN, DELTA_PPM_MAX)


def delta_of(amount: int, delta_ppm: int) -> int:
    """δ of an amount as it is held: rounded up."""
    return scale_ceiling(check_amount(amount), check_delta(delta_ppm), PPM)


def with_delta(amount: int, delta_ppm: int) -> int:
    """An amount and δ of it."""
    return check_amount(amount + delta_of(amount, delta_ppm), "amount to hold")


def penalty_of(price: int) -> int:
    """Φ: what a result that is proven wrong costs, once an agreement. A quarter of the price, rounded up."""
    return scale_ceiling(price, 1, PENALTY_OF_PRICE)


def whole_reserve(reserve: int, quantity: int = 1) -> int:
    """R: the reserve for all units. Raises BadAmount where that is out of bounds."""
    return check_amount(check_amount(reserve, "reserve") * check_integer(quantity, "quantity", 1), "the whole reserve")


def of_announcer(direction: Direction, reserve: int, delta_ppm: int) -> int:
    """What an announcement holds until the award: R(1+δ) of who will pay; δR + Φ of who sells, with Φ of R."""
    if direction == "provide":
        return with_delta(reserve, delta_ppm)
    return check_amount(delta_of(reserve, delta_ppm) + penalty_of(reserve), "amount to hold")


def of_bidder(direction: Direction, reserve: int, most: int, delta_ppm: int) -> int:
    """What a bid holds while it may win: δR of a provider; of who bids to pay, what it would pay at most (its price for
    all that it bids for, in open bidding its limit), with δ. `reserve` is R of what is bid for."""
    return delta_of(reserve, delta_ppm) if direction == "provide" else with_delta(most, delta_ppm)


def of_commitment(direction: Direction, reserve: int, most: int, delta_ppm: int) -> int:
    """What a commitment holds until it is revealed; unrevealed it goes to nobody. R, for its price is not known; of who
    bids to pay `most`, the deposit that it names, with δ, since a bid cannot be more than what is held."""
    return check_amount(reserve, "reserve") if direction == "provide" else with_delta(most, delta_ppm)


def of_offer(unit_price: int, quantity: int, delta_ppm: int) -> int:
    """What a standing offer holds while it stands: δ of its price for all its units, beside its capacity."""
    return delta_of(check_amount(unit_price * quantity, "the whole offer"), delta_ppm)


class AwardHolds(msgspec.Struct, frozen=True):
    """What one agreement holds: of the recipient and of the provider. `for_rest` of the recipient's is beyond this
    agreement's own price, and pays for who takes the rest over."""

    recipient: int
    provider: int
    for_rest: int = 0


def of_award(price: int, delta_ppm: int, *, reserve: int = 0, fail_over: bool = False) -> AwardHolds:
    """What an award holds: P(1+δ) of the recipient, or all of R(1+δ) where it wants fail-over (R: this winner's part of
    the reserve), and δP + Φ of the provider. A spot award, and who takes over a rest, hold the same. Raises BadValue
    for a reserve below the price where fail-over is wanted."""
    own = with_delta(price, delta_ppm)
    provider = check_amount(delta_of(price, delta_ppm) + penalty_of(price), "amount to hold")
    if not fail_over:
        return AwardHolds(own, provider)
    if reserve < price:
        raise BadValue("the reserve that pays for a fail-over is below the price")
    whole = with_delta(reserve, delta_ppm)
    return AwardHolds(whole, provider, whole - own)


def reserve_of_part(reserve: int, units: int, of_units: int) -> int:
    """The part of R that is one winner's, in proportion to its units, rounded down: the parts never exceed R."""
    return check_amount(reserve) * check_integer(units, "units", 0, of_units) // of_units


def newcomers_bond(minimum: int, reserve: int, delta_ppm: int) -> int:
    """B: the least balance of a newcomer that bids, at least δR + Φ. It is held for nothing in particular: what its
    bids hold counts into it."""
    return max(check_amount(minimum, "newcomer bond"), delta_of(reserve, delta_ppm) + penalty_of(reserve))
