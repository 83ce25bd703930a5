"""The settings of a market: every default and bound of the moderator."""

from __future__ import annotations

from pathlib import Path

import msgspec

from auction.model.bid import check_name
from auction.model.errors import BadValue
from auction.model.fees import NO_FEE, Fee
from auction.model.money import check_currency, check_integer
from auction.model.rating import DAY_MS, RatingRules


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Amounts in minor units of `currency`, times in ms, shares in parts per million."""

    currency: str = "EUR"
    name: str = "market"  # the market's name in receipts
    signatures: bool = False  # whether bids, offers and ratings must be signed
    taker: str = ""  # who is paid what went to nobody; no party of the market
    subcontract_depth_max: int = 4
    fee: Fee = NO_FEE  # of the operator, for each settled agreement
    rating: RatingRules = RatingRules()
    keys_kept_ms: int = 7 * DAY_MS  # how long the answer to an idempotency key is remembered

    def __post_init__(self) -> None:
        check_currency(self.currency)
        check_name(self.name, "name of the market")
        if self.taker != "":
            check_name(self.taker, "taker")
        for name in ("subcontract_depth_max", "keys_kept_ms"):
            check_integer(getattr(self, name), name)


class Rules(msgspec.Struct, frozen=True):
    """The rules of a market in its journal, from the first entry on; `format` is the journal's."""

    format: int
    config: MarketConfig


def differing(one: MarketConfig, other: MarketConfig) -> list[str]:
    """Lists the settings in which two markets differ, in words."""
    words: list[str] = []

    def look(one: msgspec.Struct, other: msgspec.Struct, before: str) -> None:
        for name in one.__struct_fields__:
            left, right = getattr(one, name), getattr(other, name)
            if isinstance(left, msgspec.Struct):
                look(left, right, f"{before}{name}.")
            elif left != right:
                words.append(f"{before}{name} is {left!r}, not {right!r}")

    look(one, other, "")
    return words


def read_rules(path: str, currency: str) -> MarketConfig:
    """Reads the settings in a TOML file; `currency` is the default. Raises BadValue."""
    try:
        raw = msgspec.toml.decode(Path(path).read_bytes())
        return msgspec.convert({"currency": currency, **raw}, MarketConfig)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as reason:
        raise BadValue(f"{path} does not have the rules of a market: {reason}") from None
