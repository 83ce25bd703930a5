"""The weight of a deal in ratings, and how deals add up: reputation follows money that was not returned. Pure integer
arithmetic.

Values are minor units, weights millionths (one deal of full value weighs 1,000,000), fractions parts per million.
rating.py has tallies, decay and bounds. Ratings affect selection only: no rating releases a bond or ends audits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt
from typing import NamedTuple

import msgspec

from auction.model.circles import without_circles
from auction.model.errors import BadValue
from auction.model.money import PPM, check_amount, check_integer
from auction.model.rating import RatingRules, Tally, lower_ppm, remains_q32

EIGHTHS = 8
QUANTILE_PPM = 100_000  # a tenth: see `newcomer_start_ppm`


class Stayed(msgspec.Struct, frozen=True, kw_only=True):
    """The money of one settled agreement, in minor units. `lost` is the recipient's loss besides the charge: what was
    burnt, or not delivered according to the provider's own signature. `owed` is what a capture did not cover."""

    charged: int = 0
    refunded: int = 0
    charged_back: int = 0
    lost: int = 0
    owed: int = 0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_amount(getattr(self, name), name)
        if self.refunded + self.charged_back > self.charged:
            raise BadValue("more went back than was charged")

    @property
    def stayed(self) -> int:
        """The charge less refunds and chargebacks: a deal that cost nothing weighs nothing."""
        return self.charged - self.refunded - self.charged_back


def service_value(deal: Stayed, satisfied: bool) -> int:
    """The value behind the recipient's opinion, in minor units: for a "yes" the charge less what went back; for a "no"
    that plus `lost`."""
    return deal.stayed if satisfied else deal.stayed + deal.lost


def payment_value(deal: Stayed, satisfied: bool) -> int:
    """The value behind an opinion about the payer, in minor units: for a "yes" the capture less what went back; for a
    "no" what a capture did not cover plus chargebacks. A chargeback reported by the processor is such a "no" by
    itself."""
    return deal.stayed if satisfied else deal.owed + deal.charged_back


def weight_of(value: int, rules: RatingRules) -> int:
    """In millionths: a deal of `value_full` or more weighs 1, a smaller one in proportion (rounded down)."""
    weight = check_amount(value, "value") * PPM // rules.value_full
    return weight if weight < PPM else PPM


def public_eighths(weight: int) -> int:
    """The public form of a deal's weight: eighths, rounded to the nearest (a half up), so that it does not reveal the
    price."""
    return (check_integer(weight, "weight", 0, PPM) * EIGHTHS * 2 + PPM) // (2 * PPM)


class Pair(msgspec.Struct, frozen=True, gc=False):
    """The deals of two parties as of `day`: `yes` and `no` are the sums of their weights, `counted_yes` and
    `counted_no` the part that counts in the total."""

    yes: int = 0
    no: int = 0
    counted_yes: int = 0
    counted_no: int = 0
    day: int = 0
    count: int = 0


EMPTY_PAIR = Pair()


def pair_bound(weight: int, rules: RatingRules) -> int:
    """How much the deals of one pair count together: all of it up to `pair_weight_max`, beyond that the square root, so
    that four times the deals count twice. In millionths, rounded down."""
    limit = rules.pair_weight_max
    return weight if weight <= limit else isqrt(weight * limit)


def weigh(total: Tally, pair: Pair, yes_ppm: int, value: int, day: int, rules: RatingRules) -> tuple[Tally, Pair]:
    """Adds one deal. Returns the ratee's new total and its new pair with this counterparty, both as of `day`.

    `yes_ppm` is 0 or 1,000,000 for an opinion and the fraction earned for evidence. A day before the last counts as the
    last. From `pair_weight_max` on the pair's bound grows slower than its weight."""
    check_integer(yes_ppm, "fraction of yes", 0, PPM)
    weight, half_life_days = weight_of(value, rules), rules.half_life_days
    total_yes, total_no = total.yes, total.no
    if day > total.day:
        remains = remains_q32(day - total.day, half_life_days)
        total_yes, total_no = total_yes * remains >> 32, total_no * remains >> 32
    else:
        day = total.day
    yes, no, counted_yes, counted_no = pair.yes, pair.no, pair.counted_yes, pair.counted_no
    if day > pair.day:
        remains = remains_q32(day - pair.day, half_life_days)
        yes, no = yes * remains >> 32, no * remains >> 32
        counted_yes, counted_no = counted_yes * remains >> 32, counted_no * remains >> 32
    gained = weight * yes_ppm // PPM
    yes, no = yes + gained, no + weight - gained
    # All sums are rounded down as they decay, so a difference may be a few millionths below zero; zero is the minimum.
    others_yes, others_no = total_yes - counted_yes, total_no - counted_no
    others_yes = others_yes if others_yes > 0 else 0
    others_no = others_no if others_no > 0 else 0
    known = yes + no
    bound = pair_bound(known, rules)
    counted_yes = yes * bound // known if bound else 0
    counted_no = bound - counted_yes
    after = Tally(others_yes + counted_yes, others_no + counted_no, day, total.count + 1)
    return after, Pair(yes, no, counted_yes, counted_no, day, pair.count + 1)


class Start(NamedTuple):
    """The lower bounds of opinions and evidence, in ppm, at which new parties start; PPM: at the prior."""

    opinion_ppm: int = PPM
    evidence_ppm: int = PPM


AT_THE_PRIOR = Start()


def newcomer_start_ppm(
    records: Iterable[tuple[int, int]], rules: RatingRules, prior: tuple[int, int] | None = None
) -> int:
    """The rating at which a new party starts: the lower of the prior's bound (`prior`: its yes and no, if it is not a
    service's) and the money-weighted 10 % quantile of settled records.

    `records` are (lower bound in ppm, money that was not returned), one for each party with a record. The quantile is
    the lowest bound such that at least a tenth of the money was served at or below it, so one bad party with little
    money does not move it."""
    bound = lower_ppm(*(prior or (rules.prior_yes, rules.prior_no)), rules.z_squared)
    ordered = sorted(records)
    money = sum(check_amount(stayed, "money of a record") for _, stayed in ordered)
    seen = 0
    for bound_ppm, stayed in ordered:
        seen += stayed
        if stayed and seen * PPM >= money * QUANTILE_PPM:
            return min(bound, bound_ppm)
    return bound


def insured_quality_ppm(shown_ppm: int, extra_bond: int, price: int) -> int:
    """The quality of a bidder that posts more bond: the bond pays for what is not delivered, so its share of the price
    is certain. The higher of that share (rounded down) and the shown quality."""
    check_amount(extra_bond, "extra bond")
    return max(shown_ppm, min(PPM, extra_bond * PPM // price)) if price else shown_ppm


def circular_share_ppm(payments: Iterable[tuple[str, str, int]], party: str) -> int:
    """The share of a party's income that went round in circles among these payments, rounded down. It informs and is no
    defence: it does not detect money that returns through other hands, or ever new names."""
    paid = list(payments)
    whole = sum(amount for payer, payee, amount in paid if payee == party and payer != party)
    left = sum(amount for (_, payee), amount in without_circles(paid).items() if payee == party)
    return (whole - left) * PPM // whole if whole else 0


def contested_ppm(by_counterparty: Mapping[str, tuple[int, int]]) -> tuple[int, int, int]:
    """(counterparties with contested ends, all counterparties, contested money in ppm of all money), from each
    counterparty's (money of contested ends, all money). Rounded down."""
    contested = sum(one for one, _ in by_counterparty.values())
    whole = sum(money for _, money in by_counterparty.values())
    with_contested = sum(1 for one, _ in by_counterparty.values() if one)
    return with_contested, len(by_counterparty), contested * PPM // whole if whole else 0
