"""Pricing rules of providers: the built-in ones, and a provider's own from a Python file. Only loading that file does
input.

A rule has one method, `price(quote) -> int | None`: the price of the whole block in minor units; None: no bid.
"""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from typing import Any, Protocol

from streamcore.core.errors import UsageError

FORMS = "fixed:PRICE, per-gigabyte:PRICE, load:BASE:SLOPE or path/to/file.py:Class"


@dataclass(frozen=True, slots=True)
class Quote:
    """The block to price. Rates are in bits per second, times in milliseconds since 1970."""

    service: str
    rate_bps: int  # the block's maximum rate, or its minimum if it has no maximum
    starts_ms: int
    ends_ms: int
    reserve: int | None  # the highest price; None: unknown
    capacity_bps: int  # of the provider
    committed_bps: int  # the part of it that agreements use at that time

    @property
    def gigabytes(self) -> float:
        """The data at that rate over the whole block."""
        return self.rate_bps * (self.ends_ms - self.starts_ms) / 8e12


class Pricing(Protocol):
    def price(self, quote: Quote) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same price for every block."""

    amount: int

    def price(self, _quote: Quote) -> int | None:
        return self.amount


@dataclass(frozen=True, slots=True)
class PerGigabyte:
    """A price for the bytes that the block may carry, rounded up."""

    amount: int

    def price(self, quote: Quote) -> int | None:
        bytes_times_ms = quote.rate_bps * (quote.ends_ms - quote.starts_ms) * self.amount
        return -(-bytes_times_ms // 8_000_000_000_000)


@dataclass(frozen=True, slots=True)
class Load:
    """base when idle, base + slope if this block uses up the capacity; in proportion between them."""

    base: int
    slope: int

    def price(self, quote: Quote) -> int | None:
        if quote.capacity_bps <= 0:
            return None
        taken_bps = min(quote.committed_bps + quote.rate_bps, quote.capacity_bps)
        return self.base + -(-self.slope * taken_bps // quote.capacity_bps)


def make_pricing(words: str) -> Pricing:
    """The rule that these words name. Raises UsageError."""
    name, *amounts = words.split(":")
    kinds: dict[str, tuple[type[Any], int]] = {"fixed": (Fixed, 1), "per-gigabyte": (PerGigabyte, 1), "load": (Load, 2)}
    if name in kinds:
        kind, count = kinds[name]
        if len(amounts) != count or not all(amount.isdecimal() for amount in amounts):
            raise UsageError(f"pricing {words!r}: write {FORMS}, in whole minor units")
        made: Pricing = kind(*map(int, amounts))
        return made
    path, _, kind_name = words.rpartition(":")
    if not path.endswith(".py"):
        raise UsageError(f"there is no pricing {words!r}: write {FORMS}")
    try:
        rule = runpy.run_path(path)[kind_name]()
    except Exception as error:
        raise UsageError(f"pricing {words}: {type(error).__name__}: {error}") from None
    if not callable(getattr(rule, "price", None)):
        raise UsageError(f"pricing {words}: the class has no method price(quote)")
    own: Pricing = rule
    return own


def checked_price(rule: Pricing, quote: Quote) -> int | None:
    """The price of the rule; None if above the reserve. Raises ValueError unless it is a whole number of 0 or more."""
    price = rule.price(quote)
    if price is None:
        return None
    if type(price) is not int or price < 0:
        raise ValueError(f"a price is a whole number of minor units, not {price!r}")
    return None if quote.reserve is not None and price > quote.reserve else price
