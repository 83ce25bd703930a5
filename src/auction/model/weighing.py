"""What a deal weighs in ratings, and how deals add up: reputation follows money that stayed. Pure whole arithmetic.

Values are minor units, weights millionths (one deal of full value weighs 1,000,000), fractions parts per million.
Tallies, decay and bounds are those of rating.py. Ratings choose; no rating releases a bond or ends audits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt

import msgspec

from auction.model.circles import without_circles
from auction.model.errors import BadValue
from auction.model.money import PPM, check_amount, check_integer
from auction.model.rating import EMPTY, RatingRules, Tally, aged, lower_ppm

EIGHTHS = 8
QUANTILE_PPM = 100_000  # newcomers start no higher than where a tenth of the settled money was served at or below


class Stayed(msgspec.Struct, frozen=True, kw_only=True):
    """The money of one settled agreement, in minor units. `lost` is what the recipient lost besides the charge: what
    was burnt or not delivered by the provider's own signature. `owed` is what a capture did not cover."""

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
        """Charged, less refunded, less charged back: what can be had for nothing weighs nothing."""
        return self.charged - self.refunded - self.charged_back


def service_value(deal: Stayed, satisfied: bool) -> int:
    """What the recipient's opinion weighs, in minor units: a "yes" what was charged and stayed; a "no" the charge in
    the same way, and what was lost besides."""
    return deal.stayed if satisfied else deal.stayed + deal.lost


def payment_value(deal: Stayed, satisfied: bool) -> int:
    """What is weighed about the payer, in minor units: a "yes" what was captured and stayed; a "no" what a capture did
    not cover, and what was taken back. A charge taken back, as the processor says, is such a "no" by itself."""
    return deal.stayed if satisfied else deal.owed + deal.charged_back


def weight_of(value: int, rules: RatingRules) -> int:
    """In millionths: a deal of `value_full` weighs 1, a smaller one in proportion (rounded down), a larger no more."""
    return min(PPM, check_amount(value, "value") * PPM // rules.value_full)


def public_eighths(weight: int) -> int:
    """What is public of a deal's weight: eighths, rounded to the nearest (a half up). No price can be told from it."""
    return (check_integer(weight, "weight", 0, PPM) * EIGHTHS * 2 + PPM) // (2 * PPM)


class Pair(msgspec.Struct, frozen=True, gc=False):
    """Two parties' deals: `all` is the plain sum of their weights, `counted` what of it counts in the total."""

    all: Tally = EMPTY
    counted: Tally = EMPTY


EMPTY_PAIR = Pair()


def pair_bound(weight: int, rules: RatingRules) -> int:
    """What the deals of one pair count together: all of it up to `pair_weight_max`, beyond it as the square root, so
    that four times the deals count twice. In millionths, rounded down."""
    limit = rules.pair_weight_max
    return weight if weight <= limit else isqrt(weight * limit)


def weigh(total: Tally, pair: Pair, yes_ppm: int, value: int, day: int, rules: RatingRules) -> tuple[Tally, Pair]:
    """Count one deal: the ratee's new total, and its new pair with this counterparty, both as of `day`.

    `yes_ppm` is 0 or 1,000,000 for an opinion and the fraction earned for evidence. A day before the last counts as the
    last. `pair_weight_max` is where the pair's bound begins to grow slower than in proportion."""
    check_integer(yes_ppm, "fraction of yes", 0, PPM)
    weight = weight_of(value, rules)
    day = max(day, total.day)
    total, known, counted = aged(total, day, rules), aged(pair.all, day, rules), aged(pair.counted, day, rules)
    gained = weight * yes_ppm // PPM
    yes, no = known.yes + gained, known.no + weight - gained
    bound = pair_bound(yes + no, rules)
    counted_yes = yes * bound // (yes + no) if yes + no else 0
    count = known.count + 1
    # Both sums decay by floors, so a difference may miss zero by a few millionths; it is held at zero.
    after = Tally(
        max(0, total.yes - counted.yes) + counted_yes,
        max(0, total.no - counted.no) + bound - counted_yes,
        day,
        total.count + 1,
    )
    return after, Pair(Tally(yes, no, day, count), Tally(counted_yes, bound - counted_yes, day, count))


def newcomer_start_ppm(records: Iterable[tuple[int, int]], rules: RatingRules) -> int:
    """Where a new name starts: the lower of the prior's bound and the money-weighted 10 % quantile of settled records.

    `records` are (lower bound in ppm, money that stayed) of those who have a record. The quantile is the lowest bound
    such that a tenth of the money, at least, was served at or below it; so one bad name with little money moves
    nothing."""
    prior = lower_ppm(rules.prior_yes, rules.prior_no, rules.z_squared)
    ordered = sorted(records)
    money = sum(check_amount(stayed, "money of a record") for _, stayed in ordered)
    seen = 0
    for bound_ppm, stayed in ordered:
        seen += stayed
        if stayed and seen * PPM >= money * QUANTILE_PPM:
            return min(prior, bound_ppm)
    return prior


def insured_quality_ppm(shown_ppm: int, extra_bond: int, price: int) -> int:
    """The quality by which who posts more bond is ranked: the bond pays for what is not delivered, so this share of the
    price is sure. The higher of that (rounded down) and what is shown."""
    check_amount(extra_bond, "extra bond")
    return max(shown_ppm, min(PPM, extra_bond * PPM // price)) if price else shown_ppm


def circular_share_ppm(payments: Iterable[tuple[str, str, int]], party: str) -> int:
    """The share of what the party was paid that went round in circles among those concerned, rounded down. It is shown,
    and no defence: deals that return the money through others' hands, or names without end, are not seen by it."""
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
