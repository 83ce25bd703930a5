"""The table of auction formats, and the one way to call them. Each decides winners and prices from its arguments alone.

To add one: a file here with its rule, a row in `FORMATS`, a test of the rule. No other code names a format: it uses the
row (see `Format`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from auction.formats.dutch import accept, dutch, ramp_of
from auction.formats.format import Format
from auction.formats.open_bidding import again, check_back_up, open_bidding, show_without_limit, step
from auction.formats.packages import (
    check_exact_items,
    check_package_items,
    packages,
    reserve_for_items,
    stands_by_for_items,
)
from auction.formats.packages_large import packages_large
from auction.formats.scored import (
    check_first,
    check_second,
    first_by_price,
    first_price,
    first_score,
    second_by_price,
    second_price,
    second_score,
)
from auction.formats.spot import SPOT, spot
from auction.formats.uniform_price import (
    check_units,
    reserve_for_units,
    stands_by_for_units,
    stated_units,
    uniform_price,
)
from auction.model.award import Award, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import BadValue

FORMATS: Final[dict[str, Format]] = {
    "second_score": Format(
        decide=second_score,
        words="the best score wins at the price that brings it down to the runner-up's score, within the reserve",
        check_own=check_second,
        by_price=second_by_price,
    ),
    "first_score": Format(
        decide=first_score,
        words="the best score wins at its own price",
        check_own=check_first,
        by_price=first_by_price,
    ),
    "first_price": Format(
        decide=first_price,
        words="the best price wins at its own price",
        checks=(price_only,),
        check_own=check_first,
        by_price=first_by_price,
    ),
    "second_price": Format(
        decide=second_price,
        words="the best price wins at the runner-up's price, or at the reserve if there is none",
        checks=(price_only,),
        check_own=check_second,
        by_price=second_by_price,
    ),
    "open": Format(
        decide=open_bidding,
        words="the last leader of open bidding wins at the standing price",
        checks=(price_only, no_set_aside),
        on_bid=step,
        on_back_up=check_back_up,
        again=again,
        shows=show_without_limit,
    ),
    "dutch": Format(
        decide=dutch,
        words="the first bid to accept the ramp's price wins at that price",
        checks=(price_only, no_set_aside, ramp_of),
        on_bid=accept,
    ),
    "uniform_price": Format(
        decide=uniform_price,
        words="units go to the best prices, all at the price of the best losing unit, or at the reserve",
        checks=(price_only, no_set_aside, check_units),
        price_bound=reserve_for_units,
        units=stated_units,
        runner_up=stands_by_for_units,
    ),
    SPOT: Format(
        decide=spot,
        words="the standing offer with the best score wins at its own price",
        check_own=check_first,
    ),
    "packages": Format(
        decide=packages,
        words="the most valuable choice of packages wins; each is priced by its effect on the others (VCG)",
        checks=(price_only, no_set_aside, check_exact_items, check_package_items),
        price_bound=reserve_for_items,
        runner_up=stands_by_for_items,
    ),
    "packages_large": Format(
        decide=packages_large,
        words="the most valuable choice of packages found wins at its own prices",
        checks=(price_only, no_set_aside, check_package_items),
        price_bound=reserve_for_items,
        runner_up=stands_by_for_items,
    ),
}


def format_of(announcement: Announcement) -> Format:
    """The row of the announced format. Raises BadValue if there is none."""
    known = FORMATS.get(announcement.format)
    if known is None:
        raise BadValue(f"there is no format {announcement.format}; there are {', '.join(FORMATS)}")
    return known


def award(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """Decides the auction by its announced format.

    `ratings` are those at the announcement, `seed` is the one that the announcement commits to. Raises BadValue for an
    unknown format, another seed or another auction's bid, BadCurrency, and Exists for a duplicate name or sequence.
    """
    return format_of(announcement).decide(announcement, bids, ratings, seed)


def check_announcement(announcement: Announcement) -> None:
    """Refuses an announcement that `award` would refuse at the close whatever the bids.

    Raises BadValue for an unknown format, a missing ramp or missing items, and quality or newcomers in a format without
    them; BadAmount if prices for all units or items could be out of bounds.
    """
    for check in format_of(announcement).checks:
        check(announcement)
