"""How much is held for a promise before others act on it: announcements, bids, offers, commitments, awards. Pure.

Amounts are minor units of the auction's currency. Holds are rounded up and amounts due are rounded down (see
closing.py), so a hold always covers them. The moderator places the holds, on a balance or a card.
"""

from __future__ import annotations

from typing import Final

from auction.model.bid import Direction
from auction.model.money import PPM, check_amount, check_integer

DELTA_PPM: Final = 100_000
DELTA_PPM_MIN: Final = 10_000
DELTA_PPM_MAX: Final = 500_000
PENALTY_OF_PRICE: Final = 4  # Φ is a quarter of the price


def check_delta(delta_ppm: object) -> int:
    """δ, the share for leaving: one number for both sides, stated in the announcement; 1 to 50 %. Raises BadValue."""
    if type(delta_ppm) is int and DELTA_PPM_MIN <= delta_ppm <= DELTA_PPM_MAX:
        return delta_ppm
    return check_integer(delta_ppm, "share for leaving", DELTA_PPM_MIN, DELTA_PPM_MAX)


def delta_of(amount: int, delta_ppm: int) -> int:
    """δ of an amount to hold, rounded up."""
    return -(-check_amount(amount) * check_delta(delta_ppm) // PPM)  # at most a half of it, so within bounds


def with_delta(amount: int, delta_ppm: int) -> int:
    """An amount plus δ of it."""
    return check_amount(amount + delta_of(amount, delta_ppm), "amount to hold")


def penalty_of(price: int) -> int:
    """Φ: the penalty for a result proven wrong, at most once in an agreement. A quarter of the price, rounded up."""
    return -(-check_amount(price) // PENALTY_OF_PRICE)


def of_announcer(direction: Direction, reserve: int, delta_ppm: int) -> int:
    """What an announcement holds until the award: R(1+δ) of a recipient that will pay; δR + Φ of a seller, with Φ of
    R."""
    if direction == "provide":
        return with_delta(reserve, delta_ppm)
    return of_provider(reserve, delta_ppm)


def of_bidder(direction: Direction, reserve: int, most: int, delta_ppm: int) -> int:
    """What a bid holds while it can win: δR of a provider; of a bidder that pays, the most it could pay (its price for
    everything it bids on, in open bidding its limit), with δ. `reserve` is R of what the bid is for."""
    return delta_of(reserve, delta_ppm) if direction == "provide" else with_delta(most, delta_ppm)


def of_commitment(direction: Direction, reserve: int, most: int, delta_ppm: int) -> int:
    """What a commitment holds until it is revealed; if it never is, that goes to nobody. R of a provider, whose price
    is not known; of a bidder that pays, `most`, the deposit that it names, with δ, which its bid cannot exceed."""
    return check_amount(reserve, "reserve") if direction == "provide" else with_delta(most, delta_ppm)


def of_offer(unit_price: int, quantity: int, delta_ppm: int) -> int:
    """What a standing offer holds while it stands: δ of the price of all its units. Its capacity is reserved too."""
    return delta_of(check_amount(unit_price * quantity, "the whole offer"), delta_ppm)


def of_provider(price: int, delta_ppm: int) -> int:
    """δP + Φ: what an agreement holds of its provider, whether it comes of an auction, a spot award or a takeover. At
    most three quarters of the price and two units."""
    price = check_amount(price)
    return -(-price * check_delta(delta_ppm) // PPM) - (-price // PENALTY_OF_PRICE)
