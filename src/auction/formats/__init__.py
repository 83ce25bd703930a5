"""The formats of an auction by name: each decides winners and prices from what is handed in, and nothing else.

Here lives the table of formats and the one way to call them. Each rule stands in its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from auction.formats.dutch import dutch, ramp_of
from auction.formats.open_bidding import open_bidding
from auction.formats.packages import check_exact_items, check_package_items, packages
from auction.formats.packages_large import packages_large
from auction.formats.scored import first_price, first_score, second_price, second_score
from auction.formats.spot import spot
from auction.formats.uniform_price import check_units, uniform_price
from auction.model.award import Award, no_set_aside, price_only
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import BadValue


class Format(Protocol):
    """A rule that selects winners and sets prices. Pure: the same arguments give the same award on every machine."""

    def __call__(self, announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes, /) -> Award: ...


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "second_score": second_score,
        "first_score": first_score,
        "first_price": first_price,
        "second_price": second_price,
        "open": open_bidding,
        "dutch": dutch,
        "uniform_price": uniform_price,
        "spot": spot,
        "packages": packages,
        "packages_large": packages_large,
    }
)


def award(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """Decide the auction by its announced format.

    `ratings` are as they stood at the announcement, `seed` is the one that the announcement commits to. Raises BadValue
    for an unknown format, another seed or another auction's bid, BadCurrency, and Exists for a name or sequence twice.
    """
    rule = FORMATS.get(announcement.format)
    if rule is None:
        raise BadValue(f"there is no format {announcement.format}; there are {', '.join(FORMATS)}")
    return rule(announcement, bids, ratings, seed)


CHECKS: Mapping[str, tuple[Callable[[Announcement], object], ...]] = MappingProxyType(
    {
        "first_price": (price_only,),
        "second_price": (price_only,),
        "open": (price_only, no_set_aside),
        "dutch": (price_only, no_set_aside, ramp_of),
        "uniform_price": (price_only, no_set_aside, check_units),
        "packages": (price_only, no_set_aside, check_package_items, check_exact_items),
        "packages_large": (price_only, no_set_aside, check_package_items),
    }
)


def check_announcement(announcement: Announcement) -> None:
    """Refuse at the announcement what `award` would refuse at the close whatever the bids.

    Raises BadValue for an unknown format, a missing ramp or missing items, quality or newcomers in a format that knows
    none; BadAmount where prices for all units or items could leave the bounds.
    """
    if announcement.format not in FORMATS:
        raise BadValue(f"there is no format {announcement.format}; there are {', '.join(FORMATS)}")
    for check in CHECKS.get(announcement.format, ()):
        check(announcement)
