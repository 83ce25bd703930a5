"""Billing: the invoice of an agreement with its metered lines, as text, JSON and HTML.

Pure: it is computed from the agreement. Settling the agreement decided the amounts.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from auction.model.agreement import Agreement
from auction.model.meter import Meter, split_cost
from auction.model.money import as_decimal

_AMOUNTS: Final = ("agreed_price", "charged", "refunded", "balance", "price", "amount")


class InvoiceLine(msgspec.Struct, frozen=True):
    """A charge for what was earned, or a penalty. Amounts are in minor units, `earned_ppm` in ppm of the price."""

    provider: str
    from_ms: int
    until_ms: int
    price: int
    earned_ppm: int
    amount: int
    what: str = "earned"
    asked_bits: int = 0
    got_bits: int = 0
    evidence: str = ""  # the digest of the receipt behind the line


class ShareLine(msgspec.Struct, frozen=True):
    """A member's use of a shared block, and its part of the amount."""

    member: str
    metered_ms: int
    used_bits: int
    amount: int


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """The bill for one agreement. `charged` is the sum of the lines, `balance` the rest after refunds."""

    number: str
    agreement: str
    recipient: str
    service: str
    currency: str
    state: str
    agreed_price: int
    lines: tuple[InvoiceLine, ...]
    shares: tuple[ShareLine, ...]
    charged: int
    refunded: int
    balance: int


def invoice(agreement: Agreement, meters: Mapping[str, Meter] | None = None) -> Invoice:
    """The invoice of an agreement. `meters` are those of the members that shared the block."""
    receipt = agreement.receipt.receipt if agreement.receipt is not None else None
    charged = agreement.charged
    earned = min(charged, agreement.paid)
    fee = agreement.fee_charged
    rows = [("earned", earned, agreement.paid), ("for leaving", charged - earned, 0), ("fee of the market", fee, 0)]
    lines = [
        InvoiceLine(
            provider=agreement.provider if what != "fee of the market" else "",
            from_ms=agreement.starts_ms,
            until_ms=agreement.ends_ms,
            price=agreement.price,
            earned_ppm=of_price * 1_000_000 // agreement.price if agreement.price else 0,
            amount=amount,
            what=what,
            asked_bits=receipt.asked_bits if receipt else 0,
            got_bits=receipt.got_bits if receipt else 0,
            evidence=receipt.digest() if receipt else "",
        )
        for what, amount, of_price in rows
        if amount or what == "earned"
    ]
    parts = split_cost(charged + fee, meters) if meters else {}
    shares = tuple(
        ShareLine(member, meters[member].metered_ms, meters[member].used_bits, amount)
        for member, amount in parts.items()
        if meters
    )
    return Invoice(
        number=f"invoice-{agreement.id}",
        agreement=agreement.id,
        recipient=agreement.recipient,
        service=agreement.service,
        currency=agreement.currency,
        state=agreement.state,
        agreed_price=agreement.price,
        lines=tuple(lines),
        shares=shares,
        charged=charged + fee,
        refunded=agreement.refunded + agreement.charged_back,
        balance=agreement.stayed().stayed + fee,
    )


def as_json(bill: Invoice) -> str:
    """One JSON object with the fields of Invoice."""
    return msgspec.json.encode(bill).decode()


def as_text(bill: Invoice) -> str:
    """Plain text, for a terminal or a letter."""
    bill = _in_decimals(bill)
    rows = [
        f"Invoice {bill.number}",
        f"To {bill.recipient}, for {bill.service} under {bill.agreement} ({bill.state}); "
        f"agreed price {bill.agreed_price}. Amounts are in {bill.currency}.",
        "",
    ]
    for line in bill.lines:
        rows.append(
            f"{_time(line.from_ms)} to {_time(line.until_ms)}  {line.provider:<20} "
            f"{_percent(line.earned_ppm):>9} of {line.price:>12} {line.what} = {line.amount:>12}"
        )
    for share in bill.shares:
        rows.append(f"  of which {share.member:<20} {share.used_bits:>16} bits used  {share.amount:>12}")
    rows += [
        "",
        f"Charged {bill.charged}, refunded {bill.refunded}, balance {bill.balance} {bill.currency}.",
    ]
    return "\n".join(rows)


def as_html(bill: Invoice) -> str:
    """A complete HTML page. Every name is escaped."""
    bill = _in_decimals(bill)
    lines = "".join(
        f"<tr><td>{_time(line.from_ms)} to {_time(line.until_ms)}</td><td>{html.escape(line.provider)}</td>"
        f"<td>{_percent(line.earned_ppm)} {line.what}</td><td>{line.price}</td><td>{line.amount}</td></tr>"
        for line in bill.lines
    )
    shares = "".join(
        f"<tr><td>{html.escape(share.member)}</td><td>{share.used_bits}</td><td>{share.amount}</td></tr>"
        for share in bill.shares
    )
    shared = f"<table><tr><th>Member<th>Bits used<th>Amount</tr>{shares}</table>" if shares else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(bill.number)}</title>'
        f"<h1>{html.escape(bill.number)}</h1>"
        f"<p>To {html.escape(bill.recipient)}, for {html.escape(bill.service)} under "
        f"{html.escape(bill.agreement)}. Amounts are in {html.escape(bill.currency)}.</p>"
        f"<table><tr><th>Time<th>Provider<th>Earned<th>Price<th>Amount</tr>{lines}</table>{shared}"
        f"<p>Charged {bill.charged}, refunded {bill.refunded}, <strong>balance {bill.balance}</strong>.</p></html>"
    )


def _in_decimals(bill: Invoice) -> Any:
    """The invoice with every amount as decimal text."""

    def shown(one: msgspec.Struct) -> Any:
        amounts = {name: as_decimal(getattr(one, name), bill.currency) for name in _AMOUNTS if hasattr(one, name)}
        return msgspec.structs.replace(one, **amounts)

    lines, shares = (tuple(shown(one) for one in some) for some in (bill.lines, bill.shares))
    return msgspec.structs.replace(shown(bill), lines=lines, shares=shares)


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm % 10_000:04d}%"
