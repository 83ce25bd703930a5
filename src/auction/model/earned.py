"""What a chain of receipts comes to in money: which receipt counts, its figure, the shortfall, what was proven wrong.

Pure. Figures are minor units, rounded down: odd units stay with the payer. The receipts' form stands in receipt.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.errors import BadValue
from auction.model.receipt import WHOLE, Receipt, ReceiptTerms, Side, SignedReceipt, chained, check_next


def figure(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """floor(P · Σf / N): what of the price the intervals so far have earned. None: nothing was signed."""
    return terms.price * receipt.earned // (terms.intervals * WHOLE) if receipt else 0


def passed(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """What the intervals so far would have earned in full, rounded down."""
    return terms.price * receipt.number // terms.intervals if receipt else 0


def shortfall(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """S: what they would have earned in full and did not. The provider has signed it where it signed the receipt."""
    return passed(terms, receipt) - figure(terms, receipt)


def better(terms: ReceiptTerms, one: SignedReceipt | None, other: SignedReceipt | None) -> SignedReceipt | None:
    """Which of two receipts counts: the one signed by both, of two such the higher number. Of two of one number that
    both signed, neither side can prove more than the lower figure."""
    signed = [receipt for receipt in (one, other) if receipt is not None and receipt.by_both]
    return max(signed, key=lambda two: (two.receipt.number, -two.receipt.earned), default=None)


def own_word(terms: ReceiptTerms, receipts: Iterable[SignedReceipt], side: Side) -> SignedReceipt | None:
    """The receipt that binds a side by its own signature: the highest number that it signed; of two of one number the
    one that both signed, else the one that is worse for its signer (the recipient: the higher figure)."""
    own = [one for one in receipts if (one.recipient if side == "recipient" else one.provider)]
    sign = 1 if side == "recipient" else -1
    return max(own, key=lambda one: (one.receipt.number, one.by_both, sign * one.receipt.earned), default=None)


class FalseInterval(msgspec.Struct, frozen=True, kw_only=True):
    """An interval that is said to hold a false result: the receipts before and after it, both signed by both, and its
    segments and results as they were sent, in order. `segment` is the place of the one that is false."""

    before: SignedReceipt | None
    after: SignedReceipt
    inputs: tuple[bytes, ...]
    results: tuple[bytes, ...]
    segment: int


def check_false_interval(terms: ReceiptTerms, proof: FalseInterval) -> None:
    """Whether inputs and results are those that both signed, so that executing the segment again decides. Raises
    BadValue where they are not. The signatures are checked by `check_signatures`."""
    before = proof.before.receipt if proof.before else None
    if not proof.after.by_both or (proof.before is not None and not proof.before.by_both):
        raise BadValue("a proof takes receipts that both sides have signed")
    check_next(terms, before, proof.after.receipt)
    if not 0 <= proof.segment < min(len(proof.inputs), len(proof.results)):
        raise BadValue("the segment has no input or no result in this interval")
    start = terms.digest()
    for head, parts, wanted in (
        (before.inputs if before else start, proof.inputs, proof.after.receipt.inputs),
        (before.results if before else start, proof.results, proof.after.receipt.results),
    ):
        if chained(head, parts) != wanted:
            raise BadValue("inputs or results are not those that both sides signed")


class Earnings(msgspec.Struct, frozen=True, kw_only=True):
    """What the receipts come to at the end. `signed` is the highest receipt's figure without the intervals proven
    false, `voided` what those would have earned, `shortfall` the rest that was not earned by the provider's word."""

    signed: int = 0
    shortfall: int = 0
    voided: int = 0


def earnings(terms: ReceiptTerms, signed: SignedReceipt | None, proven: Iterable[FalseInterval] = ()) -> Earnings:
    """What counts of the highest receipt signed by both, with each interval proven false earning 0, once."""
    if signed is None:
        return Earnings()
    receipt = signed.receipt
    false: dict[int, int] = {}
    for proof in proven:
        after = proof.after.receipt
        if after.number <= receipt.number:
            false[after.number] = after.earned - (proof.before.receipt.earned if proof.before else 0)
    kept = max(0, receipt.earned - sum(false.values()))
    left = terms.price * kept // (terms.intervals * WHOLE)
    voided = figure(terms, receipt) - left
    return Earnings(signed=left, shortfall=shortfall(terms, receipt), voided=voided)
