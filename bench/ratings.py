"""Ratings as predictions: ours beside a plain average, a 12-month percentage and an EWMA (0.05), on simulated markets.

A provider of a certain quality deals with 3 or 20 recipients, of which each is somewhat stricter or milder than the
others and deals more or less often. After 10, 100 or 1,000 deals, spread over two years, each method says how probable
it is that the next deal satisfies. Told is the Brier score of that (mean squared error against what then happens, less
is better), its excess over who knows the truth, and ours beside the best. Ours forgets by time and EWMA by deals:
where quality drifts and deals are many, EWMA is nearer to the truth by its excess, and far off where they are few.
Priors are half a deal of each kind (Jeffreys). Not here: attackers (tests/auction).

    .venv/bin/python bench/ratings.py
    .venv/bin/python bench/ratings.py --markets 2000

Exit status 1 where ours is more than 10 % above the best in a cell.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from auction.model.rating import EMPTY, RatingRules, aged
from auction.model.weighing import EMPTY_PAIR, Pair, weigh

DAYS = 730
RULES = RatingRules(prior_yes=500_000, prior_no=500_000)
PPM = 1_000_000


@dataclass(frozen=True)
class Deal:
    day: int
    recipient: int
    satisfied: bool
    value: int


@dataclass(frozen=True)
class Market:
    deals: list[Deal]
    truth: float  # how probable it is that the next deal satisfies


def simulate(rng: random.Random, recipients: int, count: int, drifts: bool) -> Market:
    """A provider's deals. With drift its quality goes to another level on a day that nobody knows, and wanders."""
    strictness = [rng.gauss(0, 0.05) for _ in range(recipients)]
    traffic = [1 / (place + 1) for place in range(recipients)]
    quality, later, change = rng.betavariate(4, 1), rng.betavariate(4, 1), rng.uniform(0.2, 0.9) * DAYS
    days = sorted(rng.randrange(DAYS) for _ in range(count))

    def satisfies(day: float, recipient: int) -> float:
        level = quality
        if drifts:
            level = quality if day < change - 30 else later if day > change + 30 else (quality + later) / 2
        return min(1.0, max(0.0, level + strictness[recipient]))

    deals = []
    for day in days:
        recipient = rng.choices(range(recipients), traffic)[0]
        value = round(RULES.value_full * rng.lognormvariate(0, 0.5))
        deals.append(Deal(day, recipient, rng.random() < satisfies(day, recipient), value))
    whole = sum(traffic)
    truth = sum(satisfies(DAYS, recipient) * traffic[recipient] / whole for recipient in range(recipients))
    return Market(deals, truth)


def ours(deals: list[Deal]) -> float:
    total, pairs = EMPTY, dict[int, Pair]()
    for deal in deals:
        pair = pairs.get(deal.recipient, EMPTY_PAIR)
        total, pairs[deal.recipient] = weigh(total, pair, PPM * deal.satisfied, deal.value, deal.day, RULES)
    total = aged(total, DAYS, RULES)
    yes, no = RULES.prior_yes + total.yes, RULES.prior_no + total.no
    return yes / (yes + no)


def plain_average(deals: list[Deal]) -> float:
    return sum(deal.satisfied for deal in deals) / len(deals)


def twelve_months(deals: list[Deal]) -> float:
    """The percentage of the last 365 days, as trading places show it; of all where there is none."""
    recent = [deal for deal in deals if deal.day >= DAYS - 365]
    return plain_average(recent or deals)


def ewma(deals: list[Deal]) -> float:
    value = float(deals[0].satisfied)
    for deal in deals[1:]:
        value += 0.05 * (deal.satisfied - value)
    return value


METHODS: dict[str, Callable[[list[Deal]], float]] = {
    "ours": ours,
    "average": plain_average,
    "12 months": twelve_months,
    "EWMA": ewma,
}


def cell(recipients: int, count: int, drifts: bool, markets: int, seed: int) -> tuple[dict[str, float], float]:
    """(Brier score of each method, Brier score of who knows the truth), each in expectation over what happens next."""
    rng = random.Random(f"{seed} {recipients} {count} {drifts}")
    excess, noise = dict.fromkeys(METHODS, 0.0), 0.0
    for _ in range(markets):
        market = simulate(rng, recipients, count, drifts)
        noise += market.truth * (1 - market.truth)
        for name, method in METHODS.items():
            excess[name] += (method(market.deals) - market.truth) ** 2
    return {name: (one + noise) / markets for name, one in excess.items()}, noise / markets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markets", type=int, default=300, help="simulated in each cell")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{'recipients':>10} {'deals':>6} {'drift':>5}  "
        + " ".join(f"{name:>18}" for name in METHODS)
        + "  to the best"
    )
    worst = 0.0
    for recipients in (3, 20):
        for count in (10, 100, 1_000):
            for drifts in (False, True):
                scores, noise = cell(recipients, count, drifts, options.markets, options.seed)
                ratio = scores["ours"] / min(scores.values())
                worst = max(worst, ratio)
                shown = " ".join(f"{one:9.4f} (+{one - noise:.4f})" for one in scores.values())
                print(f"{recipients:>10} {count:>6} {'yes' if drifts else 'no':>5}  {shown}  {ratio:.3f}")
    print(
        f"Ours to the best of its cell, at worst: {worst:.3f} (Brier score; in brackets what is above the truth's own)"
    )
    return 0 if worst <= 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())
