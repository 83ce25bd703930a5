"""The moderator's fee: a share of what was earned, and a fixed amount, for each settled agreement. Pure.

Who pays the price pays the fee on top of it. It is held with the price, so that it is there when it is due. Whom it
goes to is an account of the ledger; which agreements there are is the moderator's business.
"""

from __future__ import annotations

from typing import Final

import msgspec

from auction.model.money import PPM, check_amount, check_ppm


class Fee(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """`ppm` of what the provider earned, rounded down, and `fixed` minor units. Nothing is due if nothing was earned:
    nobody pays a fee for a provider that never came."""

    ppm: int = 0
    fixed: int = 0

    def __post_init__(self) -> None:
        check_ppm(self.ppm, "share of the fee")
        check_amount(self.fixed, "fixed fee")

    def of(self, earned: int) -> int:
        """The fee for an agreement of which this was earned. It never falls as more is earned, so what is held for the
        whole price covers it."""
        return earned * self.ppm // PPM + self.fixed if earned else 0

    def of_several(self, amount: int, agreements: int) -> int:
        """The most that the fees of so many agreements come to, which are paid this amount together."""
        return check_amount(amount * self.ppm // PPM + self.fixed * agreements, "fee") if amount else 0


NO_FEE: Final = Fee()
