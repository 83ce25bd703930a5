"""Who gets what at the end of an agreement, by the words of the specification: a slow and obvious twin of
`auction.model.closing`, with which it shares no code. The table of ends stands here as text.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

WHOLE = 2**128

# provider, then what each of recipient's finished, leaving, blaming, silent means.
# r>p: the recipient pays δU to the provider; p-, r-: that side loses δU to nobody.
TABLE = """
finished: nothing r>p p-,r- r-
leaving:  p>r nothing p>r p>r
blaming:  p-,r- r>p p-,r- r-
silent:   p- r>p p- nothing
"""
COLUMNS = ("finished", "leaving", "blaming", "silent")
CELLS = {
    (row.split(":")[0], column): cell.split(",")
    for row in TABLE.strip().splitlines()
    for column, cell in zip(COLUMNS, row.split(":")[1].split(), strict=True)
}


class Due(NamedTuple):
    """What each gets out of all that is held, and what goes to nobody; `owed` is what leaves the recipient's hold."""

    provider: int
    recipient: int
    nobody: int
    paid: int
    owed: int
    fee: int


def due(one: Any) -> Due:
    """For the record of an agreement as it stood before it was settled."""
    signed, shortfall, voided = receipts(one)
    provider, recipient = heard(one.provider_says, one.provider_absent), heard(one.recipient_says, one.recipient_absent)
    ends = as_read(provider, recipient, one.ends_ms), as_read(recipient, provider, one.ends_ms)
    if provider is not None and recipient is not None and provider.figure == recipient.figure:
        low = high = provider.figure
    else:
        most = min(signed + one.exposure, one.price - shortfall - voided)
        stated = [sorted((signed, said.figure, most))[1] for said in (provider, recipient) if said is not None]
        low, high = (min(stated), max(stated)) if stated else (signed, signed)

    def delta(amount: int) -> int:
        return int(Fraction(max(0, amount)) * Fraction(one.delta_ppm, 1_000_000))

    fewer, more = (delta(one.price - figure - shortfall - voided) for figure in (high, low))
    of_provider = of_recipient = nobody = 0  # what leaves each side's hold, beside what was earned
    to_provider, to_recipient = low, 0
    nobody += high - low
    for rule in CELLS[ends]:
        if rule == "p-":
            of_provider += more
            nobody += more
        elif rule == "r-":
            of_recipient += more
            nobody += more
        elif rule == "p>r":
            of_provider += more
            to_recipient += fewer
            nobody += more - fewer
        elif rule == "r>p" and not (one.proven and ends[1] == "leaving"):
            of_recipient += more
            to_provider += fewer
            nobody += more - fewer
    if ends != ("silent", "silent"):
        of_provider += delta(shortfall)
        to_recipient += delta(shortfall)
    if ends != ("silent", "silent") and one.insured:
        first = min(one.insured, shortfall + voided)
        of_provider += first
        to_recipient += first
        rest = one.insured - first
        smaller, larger = (max(0, min(rest, one.price - f - shortfall - voided)) for f in (high, low))
        if "p-" in CELLS[ends]:
            of_provider += larger
            nobody += larger
        elif "p>r" in CELLS[ends]:
            of_provider += larger
            to_recipient += smaller
            nobody += larger - smaller
    if one.proven:
        of_provider += one.penalty
        nobody += one.penalty
    if one.ruling is not None:
        given = min(nobody, one.ruling.to_provider)
        also = min(nobody - given, one.ruling.to_recipient)
        to_provider, to_recipient, nobody = to_provider + given, to_recipient + also, nobody - given - also
    fee = int(low * Fraction(one.fee.ppm, 1_000_000)) + one.fee.fixed if low else 0
    of_recipient += fee
    back_to_provider = one.provider_held - of_provider
    back_to_recipient = one.recipient_held - high - of_recipient
    return Due(to_provider + back_to_provider, to_recipient + back_to_recipient, nobody, low, high + of_recipient, fee)


def heard(said: Any, absent: bool) -> Any:
    """Who was not there at the start has nothing to say but that it leaves."""
    return None if absent and said is not None and said.ending != "leaving" else said


def as_read(said: Any, other: Any, ends_ms: int) -> str:
    if said is None:
        return "silent"
    if said.ending == "finished" and said.at_ms < ends_ms and not (other is not None and other.ending == "finished"):
        return "leaving"
    return str(said.ending)


def receipts(one: Any) -> tuple[int, int, int]:
    """What the receipt has earned, what its intervals did not earn, and what was proven false of it."""
    if not one.receipts or one.receipt is None:
        return 0, 0, 0
    receipt = one.receipt.receipt
    window_ms = one.ends_ms - one.starts_ms
    length_ms = min(max(window_ms // 120, 100), 1_000)
    intervals = -(-window_ms // length_ms)
    price = Fraction(one.price, intervals)
    false = {}
    for proof in one.proven:
        if proof.after.receipt.number <= receipt.number:
            before = proof.before.receipt.earned if proof.before else 0
            false[proof.after.receipt.number] = proof.after.receipt.earned - before
    whole = int(price * Fraction(receipt.earned, WHOLE))
    kept = int(price * Fraction(max(0, receipt.earned - sum(false.values())), WHOLE))
    return kept, int(price * receipt.number) - whole, whole - kept
