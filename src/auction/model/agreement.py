"""The agreement that an award is: what both sides are held to, what they say of its end, and what came of it. Pure.

Its states stand in lifecycle.py, its receipts in receipt.py, who gets what at its end in closing.py.
"""

from __future__ import annotations

import msgspec

from auction.model.closing import Case, Payout, Settlement, Statement, settle
from auction.model.earned import Earnings, FalseInterval, earnings
from auction.model.errors import WrongState
from auction.model.holding import with_delta
from auction.model.receipt import ReceiptTerms, SignedReceipt
from auction.model.weighing import Stayed


class Ruling(msgspec.Struct, frozen=True):
    """How an arbiter hands out what would go to nobody."""

    arbiter: str
    to_provider: int
    to_recipient: int


class Agreement(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What recipient and provider are held to. `price` P is for the whole window; `penalty` is Φ, `exposure` e.

    `recipient_held` and `provider_held` are what the ledger holds of each while it is alive. `of` is the agreement
    whose rest it serves, `prime` the one that it is a subcontract of. `payers` are the members of a group whose money
    has taken the place of the recipient's. `paid`, `charged` and what follows are known when it is settled."""

    id: str
    auction: str
    recipient: str
    provider: str
    service: str
    block: str
    price: int
    currency: str
    starts_ms: int
    ends_ms: int
    delta_ppm: int
    penalty: int
    exposure: int
    recipient_held: int
    provider_held: int
    due_ms: int = 0  # when the moderator has to look at it again; 0 where it is over
    state: str = "agreed"
    units: int = 1
    items: tuple[str, ...] = ()
    of: str = ""
    prime: str = ""
    depth: int = 0
    receipts: bool = False
    provider_key: str = ""
    recipient_key: str = ""
    minimum_bps: int | None = None
    maximum_bps: int | None = None
    availability_ppm: int = 1_000_000
    latency_ms_max: int | None = None
    method: str = "prepaid"
    processor_reference: str = ""
    arbiter: str = ""
    judge: str = ""
    payers: tuple[tuple[str, int], ...] = ()
    provider_says: Statement | None = None
    recipient_says: Statement | None = None
    provider_absent: bool = False
    recipient_absent: bool = False
    receipt: SignedReceipt | None = None  # the highest that both signed and either has handed in
    proven: tuple[FalseInterval, ...] = ()  # without their segments
    ruling: Ruling | None = None
    ended_ms: int = 0  # when the first end was stated
    settled_ms: int = 0
    provider_ending: str = ""  # as the table of ends read it; empty: silent
    recipient_ending: str = ""
    contested: bool = False
    capturing: int = 0  # what its card is still to be captured for
    paid: int = 0  # what the provider earned
    burnt: int = 0
    lost: int = 0  # of what was burnt and not delivered, what the recipient lost
    charged: int = 0  # what the recipient was charged for what was earned
    refunded: int = 0
    charged_back: int = 0
    debt: int = 0  # what is owed still

    @property
    def is_over(self) -> bool:
        return self.state == "settled"

    @property
    def is_sponsored(self) -> bool:
        """Whether others pay for it, and the recipient itself nothing."""
        return bool(self.payers) and all(party != self.recipient for party, _ in self.payers)

    @property
    def own_hold(self) -> int:
        """P(1+δ): what the recipient's hold has to cover; what is held beyond it is for who takes a rest over."""
        return with_delta(self.price, self.delta_ppm)

    def receipt_terms(self, market: str) -> ReceiptTerms:
        """What its receipts say of themselves. Raises WrongState where it has none."""
        if not self.receipts:
            raise WrongState(f"{self.id} was agreed without receipts")
        return ReceiptTerms(
            market=market,
            agreement=self.id,
            leg=0,
            price=self.price,
            starts_ms=self.starts_ms,
            ends_ms=self.ends_ms,
            minimum_bps=self.minimum_bps,
            maximum_bps=self.maximum_bps,
            provider_key=self.provider_key,
            recipient_key=self.recipient_key,
        )

    def earnings(self, market: str) -> Earnings:
        """What the receipts that were handed in come to."""
        if not self.receipts:
            return Earnings()
        return earnings(self.receipt_terms(market), self.receipt, self.proven)

    def stayed(self) -> Stayed:
        """The money of it, as ratings weigh it."""
        return Stayed(
            charged=self.charged,
            refunded=self.refunded,
            charged_back=self.charged_back,
            lost=self.lost,
            owed=self.debt,
        )


def settlement_of(agreement: Agreement, market: str) -> Settlement:
    """What comes of it as it stands: the table of ends by what both have said, and what the arbiter has decided.

    The hold may be less than P(1+δ) where a part was moved to who took the rest over, and is more where all of the
    reserve is held: what goes back is what is left of the hold. Where more is owed than is held (both have signed more
    than the time that had passed then could earn), the payouts come to more than the hold."""
    earned = agreement.earnings(market)
    case = Case(
        price=agreement.price,
        delta_ppm=agreement.delta_ppm,
        exposure=agreement.exposure,
        ends_ms=agreement.ends_ms,
        recipient_held=max(agreement.recipient_held, agreement.own_hold),
        provider_held=agreement.provider_held,
        penalty=agreement.penalty,
        signed=earned.signed,
        shortfall=earned.shortfall,
        voided=earned.voided,
        falsified=bool(agreement.proven),
        provider=agreement.provider_says,
        recipient=agreement.recipient_says,
        provider_absent=agreement.provider_absent,
        recipient_absent=agreement.recipient_absent,
    )
    settled = settle(case)
    missing = case.recipient_held - agreement.recipient_held
    payouts = list(settled.payouts)
    if missing:
        back = settled_back(settled)
        payouts = [one for one in payouts if (one.source, one.target) != ("recipient", "recipient")]
        if back > missing:
            payouts.append(Payout("recipient", "recipient", back - missing, "goes back"))
    if agreement.ruling is not None:
        payouts = _ruled(payouts, agreement.ruling)
    burnt = sum(one.amount for one in payouts if one.target == "nobody")
    return msgspec.structs.replace(settled, payouts=tuple(payouts), burnt=burnt)


def settled_back(settled: Settlement) -> int:
    """What of the recipient's hold goes back to it."""
    back = [one.amount for one in settled.payouts if one.source == one.target == "recipient"]
    return sum(back)


def _ruled(payouts: list[Payout], ruling: Ruling) -> list[Payout]:
    """The payouts with what would go to nobody handed out, as far as there is such."""
    wanted = {"provider": ruling.to_provider, "recipient": ruling.to_recipient}
    ruled: list[Payout] = []
    for one in payouts:
        left = one.amount
        if one.target == "nobody":
            for side in ("provider", "recipient"):
                part = min(left, wanted[side])
                if part:
                    ruled.append(one._replace(target=side, amount=part, why="the arbiter's decision"))
                    wanted[side] -= part
                    left -= part
        if left:
            ruled.append(one._replace(amount=left))
    return ruled
