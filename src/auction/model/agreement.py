"""The agreement that an award creates: each side's obligations, the statements on its end, and the outcome. Pure.

lifecycle.py has its states, receipt.py its receipts, closing.py who gets what at its end.
"""

from __future__ import annotations

import msgspec

from auction.model.closing import FIGURES_DIFFER, Case, Payout, Settlement, Statement, settle
from auction.model.earned import Earnings, FalseInterval, earnings
from auction.model.errors import WrongState
from auction.model.fees import NO_FEE, Fee
from auction.model.holding import with_delta
from auction.model.receipt import ReceiptTerms, SignedReceipt
from auction.model.weighing import Stayed


class Ruling(msgspec.Struct, frozen=True):
    """How an arbiter divides what would go to nobody."""

    arbiter: str
    to_provider: int
    to_recipient: int


class Agreement(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The obligations of a recipient and a provider. `price` P is for the whole window; `penalty` is Φ, `exposure` e.

    `recipient_held` and `provider_held` are what the ledger holds of each side until the agreement is settled. `of` is
    the agreement whose rest this one serves, `prime` the agreement that it subcontracts a part of. `payers` are the
    members of a group whose money replaces the recipient's. `paid`, `charged` and the fields after them are set when it
    is settled."""

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
    insured: int = 0  # the provider's bond that pays for what it does not deliver
    due_ms: int = 0  # when the moderator must look at it next; 0 if it is over
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
    receipt: SignedReceipt | None = None  # the highest one signed by both sides and handed in
    proven: tuple[FalseInterval, ...] = ()  # without their segments
    ruling: Ruling | None = None
    ended_ms: int = 0  # when the first end was stated
    stopped: bool = False  # whether the recipient has stopped takeovers of the rest
    settled_ms: int = 0
    provider_ending: str = ""  # as the table of ends reads it; empty: silent
    recipient_ending: str = ""
    contested: bool = False
    capturing: int = 0  # the amount still to be captured on the card
    paid: int = 0  # earned by the provider
    burnt: int = 0
    lost: int = 0  # the recipient's loss, from what was burnt and what was not delivered
    charged: int = 0  # charged to the recipient for what was earned
    refunded: int = 0
    charged_back: int = 0
    fee: Fee = NO_FEE
    fee_charged: int = 0  # the part of the recipient's money that went to the operator, or is owed to it
    debt: int = 0  # still owed by the recipient

    @property
    def is_over(self) -> bool:
        return self.state == "settled"

    @property
    def is_sponsored(self) -> bool:
        """Whether others pay for it, and the recipient pays nothing."""
        return bool(self.payers) and all(party != self.recipient for party, _ in self.payers)

    @property
    def own_hold(self) -> int:
        """P(1+δ): what the recipient's hold must cover. Anything held beyond it pays a provider that takes over."""
        return with_delta(self.price, self.delta_ppm) + self.fee.of(self.price)

    def receipt_terms(self, market: str) -> ReceiptTerms:
        """The terms that its receipts must follow. Raises WrongState if it has no receipts."""
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
        """What was earned according to the receipts that were handed in."""
        if not self.receipts:
            return Earnings()
        return earnings(self.receipt_terms(market), self.receipt, self.proven)

    def stayed(self) -> Stayed:
        """Its money, as ratings weigh it."""
        return Stayed(
            charged=self.charged,
            refunded=self.refunded,
            charged_back=self.charged_back,
            lost=self.lost,
            owed=self.debt,
        )


def settlement_of(agreement: Agreement, market: str) -> Settlement:
    """The settlement as things stand: the table of ends applied to both statements, and the arbiter's ruling.

    The hold is less than P(1+δ) if a part of it moved to the agreement that took over, and more if the whole reserve is
    held; the recipient gets back whatever is left of the hold. If both sides signed more than the time that had passed
    could earn, the payouts exceed the hold."""
    earned = agreement.earnings(market)
    case = Case(
        price=agreement.price,
        delta_ppm=agreement.delta_ppm,
        exposure=agreement.exposure,
        ends_ms=agreement.ends_ms,
        fee=agreement.fee,
        recipient_held=max(agreement.recipient_held, agreement.own_hold),
        provider_held=agreement.provider_held,
        penalty=agreement.penalty,
        insured=agreement.insured,
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


def lost_by_provider(agreement: Agreement, settled: Settlement, earned: Earnings) -> int:
    """The part of the price that the recipient lost, beyond what was burnt, by the provider's own statement or silence.
    If the provider left, or did not answer a recipient that stated another end, that is all that it did not deliver.
    Otherwise it is the larger of the shortfall that it signed, and what the time until the stated end would have earned
    beyond its own figure. Intervals proven false are added."""
    provider, recipient = settled.provider_ending, settled.recipient_ending
    higher = settled.paid + sum(one.amount for one in settled.payouts if one.why == FIGURES_DIFFER)
    undelivered = max(0, agreement.price - higher - earned.voided)
    if provider == "leaving" and recipient != "leaving":
        return undelivered + earned.voided
    if not provider and recipient in ("finished", "blaming"):
        return undelivered + earned.voided
    said = agreement.provider_says
    stated = 0
    if provider == recipient == "finished":
        stated = max(0, _passed(agreement) - said.figure - earned.voided) if said is not None else 0
    return min(undelivered, max(earned.shortfall, stated)) + earned.voided


def _passed(agreement: Agreement) -> int:
    """The part of the price that the time until the first stated end would have earned in full, rounded down; the whole
    price from the end of the window on. Before that, with receipts, it is e less, because receipts come later than the
    service that they are for. If both sides state before the start that all is done and that something was earned, they
    mean the whole; if nothing was earned, it was called off."""
    window_ms = agreement.ends_ms - agreement.starts_ms
    gone_ms = agreement.ended_ms - agreement.starts_ms
    said = (agreement.provider_says, agreement.recipient_says)
    are_done = all(one is not None and one.ending == "finished" and one.figure for one in said)
    if gone_ms >= window_ms or (gone_ms <= 0 and are_done):
        return agreement.price
    passed = agreement.price * max(0, gone_ms) // window_ms
    return max(0, passed - agreement.exposure) if agreement.receipts else passed


def settled_back(settled: Settlement) -> int:
    """The part of the recipient's hold that goes back to it."""
    back = [one.amount for one in settled.payouts if one.source == one.target == "recipient"]
    return sum(back)


def _ruled(payouts: list[Payout], ruling: Ruling) -> list[Payout]:
    """The payouts after the ruling: what would go to nobody goes to the sides, as far as it lasts."""
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
