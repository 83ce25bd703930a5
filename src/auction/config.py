"""The settings of a market: every default and bound of the moderator stands here."""

from __future__ import annotations

import msgspec

from auction.delivery import DeliveryRules
from auction.rating import RatingRules


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in minor units of `currency`, times in ms, shares in parts per million."""

    currency: str = "EUR"
    signatures: bool = False  # whether bids, ratings and deliveries must be signed
    subcontract_depth_max: int = 4
    rating: RatingRules = RatingRules()
    delivery: DeliveryRules = DeliveryRules()
    runners_up_max: int = 3
