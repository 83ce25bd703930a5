"""Fail-over: the rest of a service whose provider has left, and which runner-up is offered which part at what price.

Pure. Fail-over starts at once on `leaving` or `blaming`, and if the provider is not present after the start. A takeover
is a separate agreement with the same rules. There can be several, within what is left of the reserve after what is
owed. Nothing is held of runners-up that stand by. Times are in milliseconds, amounts in minor units.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.bid import check_items, check_name, check_time
from auction.model.errors import BadValue, WrongState
from auction.model.fees import NO_FEE, Fee
from auction.model.holding import check_delta, with_delta
from auction.model.money import PPM, check_amount, check_integer


class StandBy(msgspec.Struct, frozen=True, kw_only=True):
    """A losing bid whose bidder stands by to serve a rest: its own price for all its own units or items, over the whole
    window. `price` is for the whole bid, also in formats that price each unit."""

    provider: str
    bid: str
    price: int
    units: int = 1
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.provider, "provider")
        check_name(self.bid, "bid")
        check_amount(self.price, "price")
        check_integer(self.units, "units", 1)
        check_items(self.items)


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to serve: the time from `from_ms` to the end, and the units or items."""

    starts_ms: int
    from_ms: int
    ends_ms: int
    units: int = 1
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("starts_ms", "from_ms", "ends_ms"):
            check_time(getattr(self, name), name)
        if not self.starts_ms <= self.from_ms < self.ends_ms:
            raise BadValue("a rest must begin within its window")
        check_integer(self.units, "units", 1)
        check_items(self.items)


class RestOffer(msgspec.Struct, frozen=True, kw_only=True):
    """The offer to one runner-up: units or items for the time that is left, at its own bid for them."""

    provider: str
    bid: str
    price: int
    units: int
    items: tuple[str, ...]


def rest_after(starts_ms: int, ends_ms: int, now_ms: int, units: int = 1, items: tuple[str, ...] = ()) -> Rest:
    """What is left of a window at this time. Raises WrongState if nothing is."""
    if now_ms >= ends_ms:
        raise WrongState("the window is over: there is nothing left to serve")
    return Rest(starts_ms=starts_ms, from_ms=max(starts_ms, now_ms), ends_ms=ends_ms, units=units, items=items)


def owed_at_most(price: int, delta_ppm: int, signed: int, exposure: int, shortfall: int = 0, fee: Fee = NO_FEE) -> int:
    """The most that an agreement which has ended but is not settled may still take from its recipient's hold: the
    higher figure that can count, and δ of what is undelivered by the lower one. After settlement the figures themselves
    are used."""
    lower, higher = signed, min(signed + exposure, price - shortfall)
    return higher + fee.of(higher) + max(0, price - lower - shortfall) * check_delta(delta_ppm) // PPM


def may_cost(held: int, owed: int, delta_ppm: int, fee: Fee = NO_FEE) -> int:
    """The highest price that the rest of the hold R(1+δ) can pay after what is owed: the largest p such that p plus δp
    (rounded up) is within the difference."""
    left = max(0, check_amount(held, "held") - check_amount(owed, "owed"))
    price = max(0, left - fee.fixed) * PPM // (PPM + check_delta(delta_ppm) + fee.ppm)
    # What is rounded leaves a few units at most.
    while with_delta(price + 1, delta_ppm) + fee.of(price + 1) <= left:
        price += 1
    return price


def price_for(stand_by: StandBy, rest: Rest, units: int) -> int:
    """A runner-up's price for this many units of the rest: its own bid in proportion to units and time, rounded down
    (the remainder stays with the payer)."""
    left_ms, window_ms = rest.ends_ms - rest.from_ms, rest.ends_ms - rest.starts_ms
    return stand_by.price * units * left_ms // (stand_by.units * window_ms)


def offer_of(stand_by: StandBy, rest: Rest, limit: int) -> RestOffer | None:
    """What this runner-up can be offered of a rest, within `limit`; None if nothing.

    Of units, as many as it bid for, as are left, and as the limit pays. A package is offered whole, if all its items
    are left, at the runner-up's own price."""
    if bool(stand_by.items) != bool(rest.items):
        return None
    if stand_by.items:
        if not set(stand_by.items) <= set(rest.items):
            return None
        price = price_for(stand_by, rest, stand_by.units)
        whole = RestOffer(
            provider=stand_by.provider, bid=stand_by.bid, price=price, units=1, items=tuple(stand_by.items)
        )
        return whole if price <= limit else None
    units = min(stand_by.units, rest.units)
    if price_for(stand_by, rest, units) > limit:
        left_ms, window_ms = rest.ends_ms - rest.from_ms, rest.ends_ms - rest.starts_ms
        # The most units u with floor(price * u * left / (units * window)) <= limit.
        units = ((limit + 1) * stand_by.units * window_ms - 1) // (stand_by.price * left_ms)
    if units < 1:
        return None
    price = price_for(stand_by, rest, units)
    return RestOffer(provider=stand_by.provider, bid=stand_by.bid, price=price, units=units, items=())


def without(rest: Rest, taken: RestOffer) -> Rest | None:
    """The rest after one offer was taken; None if nothing is left."""
    if rest.items:
        items = tuple(item for item in rest.items if item not in taken.items)
        return msgspec.structs.replace(rest, items=items) if items else None
    return msgspec.structs.replace(rest, units=rest.units - taken.units) if taken.units < rest.units else None


def offers(stand_bys: Iterable[StandBy], rest: Rest, held: int, owed: int, delta_ppm: int) -> list[RestOffer]:
    """The offers to runners-up, in the order of the award's standings, as if each took its offer, until the rest or the
    money is used up. The caller leaves out runners-up that are not connected, have no capacity, or are in the chain
    already."""
    left: Rest | None = rest
    offered: list[RestOffer] = []
    for stand_by in stand_bys:
        if left is None:
            break
        offer = offer_of(stand_by, left, may_cost(held, owed, delta_ppm))
        if offer is None:
            continue
        offered.append(offer)
        owed += with_delta(offer.price, delta_ppm)
        left = without(left, offer)
    return offered
