"""Turns a chain of receipts into money: the receipt that counts, its figure, the shortfall, the results proven wrong.

Pure. Figures are minor units, rounded down: the remainder stays with the payer. receipt.py has the receipts themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from auction.model.errors import BadValue
from auction.model.receipt import WHOLE, Receipt, ReceiptTerms, SignedReceipt, chained, check_next


def figure(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """floor(P · Σf / N): the part of the price that the intervals so far have earned. None: nothing was signed."""
    return terms.price * receipt.earned // (terms.intervals * WHOLE) if receipt else 0


def passed(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """What the intervals so far would have earned in full, rounded down."""
    return terms.price * receipt.number // terms.intervals if receipt else 0


def shortfall(terms: ReceiptTerms, receipt: Receipt | None) -> int:
    """S: what the intervals would have earned in full and did not. By signing the receipt the provider signs this
    shortfall."""
    return passed(terms, receipt) - figure(terms, receipt)


def better(terms: ReceiptTerms, one: SignedReceipt | None, other: SignedReceipt | None) -> SignedReceipt | None:
    """The one of two receipts that counts: the one signed by both sides; of two such, the one with the higher number;
    of two with one number, the one with the lower figure, since neither side can prove more."""
    signed = [receipt for receipt in (one, other) if receipt is not None and receipt.by_both]
    return max(signed, key=lambda two: (two.receipt.number, -two.receipt.earned), default=None)


class FalseInterval(msgspec.Struct, frozen=True, kw_only=True):
    """An interval that one side says has a false result: the receipts before and after it, each signed by both sides,
    and its segments and results as sent, in order. `segment` is the index of the false one."""

    before: SignedReceipt | None
    after: SignedReceipt
    inputs: tuple[bytes, ...]
    results: tuple[bytes, ...]
    segment: int


def check_false_interval(terms: ReceiptTerms, proof: FalseInterval) -> None:
    """Checks that inputs and results are the ones that both sides signed, so that executing the segment again decides.
    Raises BadValue if not. `check_signatures` checks the signatures."""
    before = proof.before.receipt if proof.before else None
    if not proof.after.by_both or (proof.before is not None and not proof.before.by_both):
        raise BadValue("a proof needs receipts that both sides have signed")
    check_next(terms, before, proof.after.receipt)
    if not 0 <= proof.segment < min(len(proof.inputs), len(proof.results)):
        raise BadValue("the segment has no input or result in this interval")
    start = terms.digest()
    for head, parts, wanted in (
        (before.inputs if before else start, proof.inputs, proof.after.receipt.inputs),
        (before.results if before else start, proof.results, proof.after.receipt.results),
    ):
        if chained(head, parts) != wanted:
            raise BadValue("the inputs or results are not the ones that both sides signed")


class Earnings(msgspec.Struct, frozen=True, kw_only=True):
    """What was earned at the end according to the receipts. `signed` is the highest receipt's figure without the
    intervals proven false, `voided` what those would have earned, `shortfall` the rest that the provider signed as not
    earned."""

    signed: int = 0
    shortfall: int = 0
    voided: int = 0


def earnings(terms: ReceiptTerms, signed: SignedReceipt | None, proven: Iterable[FalseInterval] = ()) -> Earnings:
    """The earnings by the highest receipt that both sides signed. Each interval proven false earns 0, and is subtracted
    once."""
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
