"""The settings of a market: every default and bound of the moderator stands here."""

from __future__ import annotations

import msgspec


class MarketConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in minor units of `currency`, times in ms, shares in parts per million."""

    currency: str = "EUR"
    signatures: bool = False  # whether bids, ratings and deliveries must be signed
    subcontract_depth_max: int = 4
    rating_window_ms: int = 14 * 24 * 3_600_000
    runners_up_max: int = 3
    refuse_payment_below_ppm: int = 200_000
    prepay_below_ppm: int = 500_000
    exact_packages_max: int = 16
