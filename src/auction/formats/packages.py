"""Packages: bids on sets of items, the most valuable choice found exactly, VCG prices. Pure.

A bidder may bid on several packages and wins at most one. The reserve is the price of each item alone: an item stays
unsold rather than beyond it. Truthful bidding is then a best response for each single bidder (Vickrey 1961, Clarke
1971, Groves 1973). Groups can still gain by colluding; no more is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from auction.model.award import Award, Draw, Outcome, Standing, Winning, check_bids, conclude, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import BadAmount, BadValue
from auction.model.money import AMOUNT_MAX, check_amount

EXACT_ITEMS_MAX = 12  # 4,096 sets of items
EXACT_BIDS_MAX = 200
TOTAL_VALUE_MAX = 2**57  # so that sums of ranks stay within 64 bits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values: TypeAlias = npt.NDArray[np.int64]


class PackageBid(msgspec.Struct, frozen=True):
    """One bid, its items as bits, its surplus over the reserve of its items, and its rank: surplus first, then
    items."""

    bid: Bid
    mask: int
    surplus: int
    rank: int


def check_package_items(announcement: Announcement) -> None:
    """Raises BadValue if no items are announced, BadAmount if the reserve for all of them is out of bounds."""
    if not announcement.items:
        raise BadValue("a package auction must announce its items")
    check_amount(announcement.reserve * len(announcement.items), "the reserve for all items")


def check_exact_items(announcement: Announcement) -> None:
    """Raises BadValue for more items than the exact format takes."""
    if len(announcement.items) > EXACT_ITEMS_MAX:
        raise BadValue(f"exact packages take at most {EXACT_ITEMS_MAX} items; use packages_large for more")


def reserve_for_items(announcement: Announcement, quantity: int, items: tuple[str, ...]) -> int:
    """The reserve is for each item."""
    return announcement.reserve * len(items)


def stands_by_for_items(winning: Winning, bid: Bid, standing: Standing) -> int | None:
    """A losing bid stands by for the winner's items only if it names the same ones."""
    return standing.offered if set(bid.items) == set(winning.items) else None


def read_packages(announcement: Announcement, bids: Iterable[Bid], draw: Draw) -> list[list[PackageBid]]:
    """The bids by bidder, in the order of the draw. Bids beyond the reserve have a negative rank, and are never chosen.

    A bidder's last bid on the same items counts. Raises BadValue for items that are not announced, BadAmount if the
    values are too large to add up.
    """
    check_package_items(announcement)
    place_of = {item: place for place, item in enumerate(announcement.items)}
    latest: dict[tuple[str, int], Bid] = {}
    for bid in check_bids(announcement, bids):
        if not bid.items or not all(item in place_of for item in bid.items):
            raise BadValue(f"bid {bid.bid} is not for a set of the announced items")
        latest[bid.bidder, sum(1 << place_of[item] for item in bid.items)] = bid
    sign, steps = announcement.sign, len(place_of) + 1
    by_bidder: dict[str, list[PackageBid]] = {}
    total = 0

    def drawn(entry: tuple[tuple[str, int], Bid]) -> tuple[bytes, int]:
        bid = entry[1]
        return draw.of(bid.bidder, bid.registered), bid.sequence

    for (bidder, mask), bid in sorted(latest.items(), key=drawn):
        surplus = sign * (bid.price - announcement.reserve * len(bid.items))
        total += max(0, surplus)
        rank = surplus * steps + len(bid.items) if surplus >= 0 else -1
        by_bidder.setdefault(bidder, []).append(PackageBid(bid, mask, surplus, rank))
    if total > TOTAL_VALUE_MAX:
        raise BadAmount("the values of these packages are too large to add up exactly")
    return list(by_bidder.values())


def packages(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The choice of packages with the greatest surplus over the reserve; of equal ones the choice with the most items.

    Each winner pays its price less what its presence adds to the total surplus (a provider is paid its price plus
    that). The order of the draw decides between equal choices. A loser's `needed` would win for certain; if it equals a
    rival's, by the draw. Raises BadValue above 12 items or 200 bids: announce those as `packages_large`.
    """
    price_only(announcement)
    no_set_aside(announcement)
    draw = Draw(announcement, seed)
    check_exact_items(announcement)
    groups = read_packages(announcement, bids, draw)
    if sum(map(len, groups)) > EXACT_BIDS_MAX:
        raise BadValue(f"exact packages take at most {EXACT_BIDS_MAX} bids")
    steps, sign = len(announcement.items) + 1, announcement.sign
    size = 1 << len(announcement.items)
    holding = _sets_holding(groups, size)
    before = _best_values(groups, size, holding)
    after = _best_values(groups[::-1], size, holding)[::-1]
    best = int(before[-1][-1])
    chosen = _trace(groups, before)
    winners: list[Winning] = []
    won: list[Standing] = []
    lost: list[Standing] = []
    for place, group in enumerate(groups):
        # Values of the others for each set of items: those before this bidder on it, those after on its complement.
        others_before, others_after = before[place], after[place + 1]
        without = int((others_before + others_after[::-1]).max())
        for package in group:
            bid = package.bid
            if package is chosen.get(bid.bidder):
                price = sign * (sign * bid.price - (best // steps - without // steps))
                winners.append(Winning(bid=bid.bid, bidder=bid.bidder, price=price, items=bid.items))
                won.append(Standing(bid.bid, bid.bidder, bid.price, 0, package.surplus, "won"))
            else:
                # The others' best value on what this package leaves, over all ways to divide it between them.
                with_it = holding[package.mask]
                beside = int((others_before[with_it ^ package.mask] + others_after[(size - 1) ^ with_it]).max())
                surplus = max(0, (best - beside - len(bid.items)) // steps + 1)
                price = sign * surplus + announcement.reserve * len(bid.items)
                needed = price if 0 <= price <= AMOUNT_MAX else None
                outcome: Outcome = "lost" if package.surplus >= 0 else "beyond_reserve"
                lost.append(Standing(bid.bid, bid.bidder, bid.price, 0, package.surplus, outcome, needed))
    lost.sort(key=lambda standing: -standing.score)
    return conclude(announcement, seed, winners, won + lost)


def _sets_holding(groups: list[list[PackageBid]], size: int) -> dict[int, Values]:
    """For each package's mask, the sets of items that contain it."""
    import numpy as np  # only for packages: it takes longer to import than the market

    sets = np.arange(size, dtype=np.int64)
    masks = {package.mask for group in groups for package in group}
    return {mask: np.flatnonzero((sets & mask) == mask) for mask in masks}


def _best_values(groups: list[list[PackageBid]], size: int, holding: dict[int, Values]) -> list[Values]:
    """Row g, column s: the best rank that the first g bidders reach on the items of set s, for all 2**items sets.

    One pass for each bid over the sets that contain its package: 12 items and 100 bids take about 5 ms
    (bench_auction_rules.py::test_packages_12_items_100_bids).
    """
    import numpy as np

    rows: list[Values] = [np.zeros(size, dtype=np.int64)]
    for group in groups:
        old = rows[-1]
        new = old.copy()
        for package in group:
            with_it = holding[package.mask]
            new[with_it] = np.maximum(new[with_it], old[with_it ^ package.mask] + package.rank)
        rows.append(new)
    return rows


def _trace(groups: list[list[PackageBid]], rows: list[Values]) -> dict[str, PackageBid]:
    """The packages of the best choice, by bidder."""
    chosen: dict[str, PackageBid] = {}
    held = len(rows[0]) - 1
    for place in range(len(groups) - 1, -1, -1):
        value, old = rows[place + 1][held], rows[place]
        if old[held] == value:
            continue
        for package in groups[place]:
            if held & package.mask == package.mask and old[held ^ package.mask] + package.rank == value:
                chosen[package.bid.bidder] = package
                held ^= package.mask
                break
    return chosen
