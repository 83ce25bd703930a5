"""The formats of an auction by name: each decides winners and prices from what is handed in, and nothing else.

Here lives the table of formats and the one way to call them. Each rule stands in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from auction.award import Award
from auction.bid import Announcement, Bid, Ratings
from auction.errors import BadValue
from auction.formats.dutch import dutch
from auction.formats.open_bidding import open_bidding
from auction.formats.packages import packages
from auction.formats.packages_large import packages_large
from auction.formats.scored import first_price, first_score, second_price, second_score
from auction.formats.spot import spot
from auction.formats.uniform_price import uniform_price


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


def check_announcement(announcement: Announcement, seed: bytes) -> None:
    """Refuse at the announcement what would fail at the close: raises BadValue for an unknown format, another seed, a
    missing ramp or items, quality or newcomers in a format that knows none. `packages` also bounds its bids later."""
    award(announcement, (), {}, seed)
