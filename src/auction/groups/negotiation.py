"""Bargaining between a group and a seller: offers and counter-offers with deadlines. Pure.

sponsorship.py divides the price within the group.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from auction.model.bid import check_name, check_time
from auction.model.errors import BadValue, Expired, NotAllowed, WrongState
from auction.model.money import check_amount, check_integer

State = Literal["open", "accepted", "rejected", "expired"]
OFFERS_MAX = 100


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One side's price for the whole group, which the other side may accept before `expires_ms`."""

    by: str
    price: int
    expires_ms: int

    def __post_init__(self) -> None:
        check_name(self.by, "who offers")
        check_amount(self.price, "price")
        check_time(self.expires_ms, "expiry of the offer")


class Negotiation(msgspec.Struct, frozen=True, kw_only=True):
    """The bargaining so far. The last offer stands; the sides take turns; it ends at `ends_ms`."""

    group: str
    seller: str
    ends_ms: int
    offers: tuple[Offer, ...] = ()
    ended: Literal["", "accepted", "rejected"] = ""
    rounds_max: int = OFFERS_MAX

    def __post_init__(self) -> None:
        check_name(self.group, "group")
        check_name(self.seller, "seller")
        if self.group == self.seller:
            raise BadValue("a party cannot bargain with itself")
        check_time(self.ends_ms, "end of the negotiation")
        check_integer(self.rounds_max, "number of offers", 1, OFFERS_MAX)

    def state(self, now_ms: int) -> State:
        """`expired` once the negotiation has ended, or the standing offer has expired and no turn is left."""
        if self.ended:
            return self.ended
        return "expired" if now_ms >= self.ends_ms else "open"

    def standing(self, now_ms: int) -> Offer | None:
        """The offer that can be accepted now."""
        if self.state(now_ms) != "open" or not self.offers or now_ms >= self.offers[-1].expires_ms:
            return None
        return self.offers[-1]

    @property
    def price(self) -> int | None:
        """The agreed price, once an offer is accepted."""
        return self.offers[-1].price if self.ended == "accepted" else None

    def with_offer(self, offer: Offer, now_ms: int) -> Negotiation:
        """Makes an offer, or counters the standing one. A side cannot answer its own standing offer. The group cannot
        offer less than before, the seller cannot ask for more than before.

        Raises WrongState, NotAllowed, Expired and BadValue.
        """
        self._open(now_ms)
        self._side(offer.by)
        if len(self.offers) >= self.rounds_max:
            raise WrongState("no more offers can be made")
        if not now_ms < offer.expires_ms <= self.ends_ms:
            raise BadValue("an offer must expire in the future and before the negotiation ends")
        standing = self.standing(now_ms)
        if standing is not None and standing.by == offer.by:
            raise NotAllowed(f"only the other side can answer {offer.by}")
        own = [earlier.price for earlier in self.offers if earlier.by == offer.by]
        if own and offer.by == self.group and offer.price < own[-1]:
            raise BadValue("the group has already offered more")
        if own and offer.by == self.seller and offer.price > own[-1]:
            raise BadValue("the seller has already asked for less")
        return msgspec.structs.replace(self, offers=(*self.offers, offer))

    def accept(self, by: str, now_ms: int) -> Negotiation:
        """Accepts the standing offer. Raises Expired if it has expired, NotAllowed for one's own."""
        self._answer(by, now_ms)
        return msgspec.structs.replace(self, ended="accepted")

    def reject(self, by: str, now_ms: int) -> Negotiation:
        """Ends the bargaining without a price."""
        self._open(now_ms)
        self._side(by)
        return msgspec.structs.replace(self, ended="rejected")

    def _answer(self, by: str, now_ms: int) -> None:
        self._open(now_ms)
        self._side(by)
        if not self.offers:
            raise WrongState("there is no offer to accept")
        if self.offers[-1].by == by:
            raise NotAllowed("a side cannot accept its own offer")
        if self.standing(now_ms) is None:
            raise Expired("the offer has expired")

    def _open(self, now_ms: int) -> None:
        state = self.state(now_ms)
        if state == "expired":
            raise Expired("the negotiation is over")
        if state != "open":
            raise WrongState(f"the negotiation was {state}")

    def _side(self, by: str) -> None:
        if by not in (self.group, self.seller):
            raise NotAllowed(f"{by} is not a side of this negotiation")
