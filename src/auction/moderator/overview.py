"""The overview of a market: open auctions, awards with reasons, agreements with their ends, ratings.

`look` needs only a state, so it also works on a journal that is followed from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from auction.formats.explain import explain
from auction.model.agreement import Agreement
from auction.model.bid import ShownRating
from auction.model.closing import Statement
from auction.model.errors import Unknown
from auction.model.money import check_integer
from auction.model.rating import PublicDeal
from auction.moderator.records import Auction
from auction.moderator.reputation import PAYMENTS
from auction.moderator.rules import awarding, bidding
from auction.moderator.state import State

LIMIT_MAX: Final = 200
DEALS_SHOWN: Final = 5
WAITING: Final = ("funding", "open")
Glance = TypeVar("Glance", bound=msgspec.Struct)


class OpenGlance(msgspec.Struct, frozen=True, kw_only=True):
    """An auction that is open."""

    auction: str
    service: str
    announcer: str
    format: str
    reserve: int
    rate_bps: int
    closes_ms: int
    bid_count: int


class AwardGlance(msgspec.Struct, frozen=True, kw_only=True):
    """An auction that is over. `reasons` are the lines of its explanation; empty without an award. A party
    sees price and reasons of auctions that it announced or bid in, and only the winners of others."""

    auction: str
    service: str
    announcer: str
    state: str
    winners: tuple[str, ...]
    price: int
    reasons: tuple[str, ...]


class AgreementGlance(msgspec.Struct, frozen=True, kw_only=True):
    """An agreement: its receipts so far, the statements of its end, and its outcome."""

    agreement: str
    auction: str
    service: str
    recipient: str
    provider: str
    state: str
    price: int
    charged: int
    starts_ms: int
    ends_ms: int
    of: str
    runners_up: tuple[str, ...]
    signed: int
    shortfall: int
    provider_says: Statement | None
    recipient_says: Statement | None
    paid: int
    burnt: int
    refunded: int
    charged_back: int
    debt: int


class RatingGlance(msgspec.Struct, frozen=True, kw_only=True):
    """A party's rating as a provider of the service, or without a service as a payer; and the public part of the latest
    deals in it."""

    service: str
    rating: ShownRating
    deals: tuple[PublicDeal, ...] = ()


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The latest come first. Amounts are in minor units. `version` changes with the content."""

    version: str
    now_ms: int
    sequence: int
    currency: str
    auctions: tuple[OpenGlance, ...]
    awards: tuple[AwardGlance, ...]
    agreements: tuple[AgreementGlance, ...]
    ratings: tuple[RatingGlance, ...]


def look(state: State, now_ms: int, party: str = "", limit: int = 20, market: str = "market") -> Overview:
    """See `Queries.overview`. Raises Unknown, BadValue."""
    check_integer(limit, "limit", 1, LIMIT_MAX)
    if party and party not in state.records["party"]:
        raise Unknown(f"there is no party {party!r}")
    auctions: Iterable[Auction] = reversed(state.records["auction"].values())
    agreements: Iterable[Agreement] = reversed(state.records["agreement"].values())
    shown = tuple(islice((one for one in agreements if not party or _concerns(one, party)), limit))
    glances: dict[str, Any] = {
        "auctions": tuple(islice((_open(state, one) for one in auctions if one.state in WAITING), limit)),
        "awards": tuple(
            islice(
                (
                    _award(state, one, party)
                    for one in reversed(state.records["auction"].values())
                    if one.state not in WAITING
                ),
                limit,
            )
        ),
        "agreements": tuple(_agreement(state, one, market) for one in shown),
        "ratings": tuple(islice(_ratings(state, now_ms, shown), limit)),
    }
    version = hashlib.sha256(msgspec.json.encode(glances)).hexdigest()[:16]
    return Overview(version=version, now_ms=now_ms, sequence=state.sequence, currency=state.config.currency, **glances)


def _concerns(one: Agreement, party: str) -> bool:
    return party in (one.recipient, one.provider)


def _open(state: State, one: Auction) -> OpenGlance:
    announcement = one.announcement
    return OpenGlance(
        auction=one.id,
        service=announcement.service,
        announcer=one.announcer,
        format=announcement.format,
        reserve=announcement.reserve,
        rate_bps=announcement.rate_bps,
        closes_ms=one.closes_ms,
        bid_count=len(state.bids_of.get(one.id, ())),
    )


def _award(state: State, one: Auction, party: str) -> AwardGlance:
    award = awarding.find_award(state, one)
    if party and party not in bidding.took_part(state, one):
        award = None
    return AwardGlance(
        auction=one.id,
        service=one.announcement.service,
        announcer=one.announcer,
        state=one.state,
        winners=tuple(winning.bidder for winning in one.winners),
        price=sum(winning.price for winning in one.winners) if award is not None else 0,
        reasons=tuple(explain(award, one.excluded).splitlines()) if award is not None else (),
    )


def _agreement(state: State, one: Agreement, market: str) -> AgreementGlance:
    earned = one.earnings(market)
    return _glance(
        AgreementGlance,
        one,
        agreement=one.id,
        runners_up=_runners_up(state, one),
        signed=earned.signed,
        shortfall=earned.shortfall,
    )


def _runners_up(state: State, one: Agreement) -> tuple[str, ...]:
    """The runners-up that stand by for fail-over, if they were computed before."""
    known = state.stand_bys.get(one.auction, ())
    return tuple(stand_by.provider for stand_by in known[:3])


def _glance(glance: type[Glance], record: Any, **more: Any) -> Glance:
    """Makes a glance from `more`, and from the record's fields of the same names."""
    own = {name: getattr(record, name) for name in glance.__struct_fields__ if hasattr(record, name)}
    return glance(**{**own, **more})


def _ratings(state: State, now_ms: int, agreements: Iterable[Agreement]) -> Iterator[RatingGlance]:
    """The ratings of all parties in these agreements, ordered by name."""
    rated = {(one.provider, one.service) for one in agreements}
    rated |= {(one.recipient, PAYMENTS) for one in agreements}
    for name, service in sorted(rated, key=lambda pair: (pair[1], pair[0])):
        shown = state.reputation.shown_now(name, service, now_ms)
        deals = state.reputation.deals_of(name, service, DEALS_SHOWN)
        yield RatingGlance(service=service, rating=state.people.rating(shown), deals=deals)
