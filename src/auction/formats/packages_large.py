"""Packages beyond the exact size: mixed-integer programming, with a stated gap, at the winners' own prices. Pure.

Needs the extra `packages` (highspy). The solver is limited by a number of nodes, not by a clock, on one thread and with
a fixed seed, so one version always gives the same choice. No price comes from its floats.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from auction.formats.packages import PackageBid, read_packages
from auction.model.award import Award, Draw, Outcome, Standing, Winning, conclude, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import BadAmount, BadValue
from auction.model.money import PPM

BIDS_MAX = 5000
NODES_MAX = 50
GAP_ENOUGH_PPM = 1000  # the search may stop once the choice is proved to be this close to the best
EXACT_IN_FLOAT = 2**53


def packages_large(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """A choice of packages whose surplus is within `gap_ppm` of the best possible; each winner's price is its own bid.

    Raises BadValue without highspy or above 5,000 bids, BadAmount where the values exceed what a double holds exactly.
    """
    price_only(announcement)
    no_set_aside(announcement)
    groups = read_packages(announcement, bids, Draw(announcement, seed))
    fit = [package for group in groups for package in group if package.surplus >= 0]
    if len(fit) > BIDS_MAX:
        raise BadValue(f"packages_large takes at most {BIDS_MAX} bids")
    if sum(package.rank for package in fit) >= EXACT_IN_FLOAT:
        raise BadAmount("the values of these packages are too large for the solver")
    chosen, bound = _solve(fit, len(announcement.items)) if fit else (set(), 0)
    value = sum(fit[place].rank for place in chosen)
    winners = [
        Winning(
            bid=fit[place].bid.bid, bidder=fit[place].bid.bidder, price=fit[place].bid.price, items=fit[place].bid.items
        )
        for place in sorted(chosen)
    ]
    won = [_standing(fit[place], "won") for place in sorted(chosen)]
    names = {standing.bid for standing in won}
    lost = [
        _standing(package, "lost" if package.surplus >= 0 else "beyond_reserve")
        for group in groups
        for package in group
        if package.bid.bid not in names
    ]
    lost.sort(key=lambda standing: -standing.score)
    gap_ppm = min(PPM, -(-(bound - value) * PPM // bound)) if bound > value else 0
    return conclude(announcement, seed, winners, won + lost, gap_ppm=gap_ppm)


def _standing(package: PackageBid, outcome: Outcome) -> Standing:
    bid = package.bid
    why = "" if outcome == "won" else "the price it needed is not computed at this size"
    return Standing(bid.bid, bid.bidder, bid.price, 0, package.surplus, outcome, None, why)


def _solve(fit: list[PackageBid], item_count: int) -> tuple[set[int], int]:
    """The indexes of the chosen packages, checked to be compatible, and a bound that no choice exceeds."""
    try:
        highspy: Any = import_module("highspy")
    except ImportError as error:
        raise BadValue("large packages need highspy: pip install 'streamcore-auction[packages]'") from error
    solver = _quiet(highspy.Highs)
    for option, setting in (
        ("threads", 1),
        ("random_seed", 0),
        ("mip_max_nodes", NODES_MAX),
        ("mip_rel_gap", GAP_ENOUGH_PPM / PPM),
        ("mip_abs_gap", 0.5),
    ):
        solver.setOptionValue(option, setting)
    columns = [solver.addBinary(obj=float(package.rank)) for package in fit]
    bidders = sorted({package.bid.bidder for package in fit})
    rows = [[place for place, package in enumerate(fit) if package.mask >> item & 1] for item in range(item_count)]
    rows += [[place for place, package in enumerate(fit) if package.bid.bidder == bidder] for bidder in bidders]
    for row in rows:
        if len(row) > 1:
            solver.addConstr(sum(columns[place] for place in row) <= 1)
    solver.maximize()
    values = solver.getSolution().col_value
    wanted = [place for place in range(len(fit)) if place < len(values) and values[place] > 0.5]
    chosen = _fitting(fit, wanted)
    bound = solver.getInfo().mip_dual_bound
    # Ranks are whole, so the bound may be rounded down, but for the solver's tolerance. Without a bound, sum all ranks.
    most = sum(package.rank for package in fit)
    return chosen, max(sum(fit[place].rank for place in chosen), int(min(bound + 0.5, most)))


def _quiet(highs: Any) -> Any:
    """A solver that prints nothing. highspy's constructor prints a banner when it enables its callbacks, so the output
    is turned off before that."""

    class Quiet(highs):  # type: ignore[misc]
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    return Quiet()


def _fitting(fit: list[PackageBid], wanted: list[int]) -> set[int]:
    """The wanted packages that are compatible, even if the solver broke a rule within its tolerance."""
    chosen: set[int] = set()
    items, bidders = 0, set[str]()
    for place in sorted(wanted, key=lambda place: (-fit[place].rank, place)):
        package = fit[place]
        if package.mask & items or package.bid.bidder in bidders:
            continue
        items |= package.mask
        bidders.add(package.bid.bidder)
        chosen.add(place)
    return chosen
