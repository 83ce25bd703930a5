"""Holds and where they go: of announcements, bids, commitments and offers; and debts.

`model/holding` computes the amounts; here are the accounts. A hold that secures a promise is taken from the bond first,
then from the balance, and is released as free bond. A hold that pays is taken from the balance or an authorised card.
"""

from __future__ import annotations

from typing import Final

import msgspec

from auction.formats import format_of
from auction.formats.format import reserve_bounds
from auction.model import holding
from auction.model.agreement import Agreement
from auction.model.bid import Announcement
from auction.model.errors import BadAmount, BadValue, InsufficientFunds
from auction.model.ledger import NOBODY, OUTSIDE, bond, card, funds, held, held_bond
from auction.model.money import MONEY_MAX, check_amount
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, BidSheet, Debt, PaymentRequest, PlacedBid
from auction.moderator.terms import BidEntry
from auction.payment.protocol import PREPAID

AMOUNTS_MAX: Final = 10_000  # auctions whose amounts are cached


def check_room(draft: Draft, amount: int) -> None:
    """Bounds the money that comes in from outside, so that nothing which is paid later can overflow a balance. Raises
    BadAmount."""
    inside = -sum(draft.balance(account) for account in (OUTSIDE, *map(card, draft.methods)))
    if inside + amount > MONEY_MAX:
        raise BadAmount(
            f"a market has at most {MONEY_MAX} minor units in it: {inside} are there, and {amount} are too much"
        )


def secured_by(draft: Draft, party: str) -> int:
    """What a party can secure a promise with: its free bond and its balance."""
    balance = draft.balance(funds(party))
    return draft.balance(bond(party)) + (balance if balance > 0 else 0)


def secure(draft: Draft, party: str, target: str, amount: int) -> None:
    """Holds an amount to secure a promise. Raises InsufficientFunds."""
    account = bond(party)
    of_bond = min(amount, draft.balance(account))
    if of_bond < amount:
        free = secured_by(draft, party)
        if free < amount:
            raise InsufficientFunds(f"{party} has {free} minor units of bond and balance, {amount} are to be held")
    draft.transfer(account, target, of_bond)
    if of_bond < amount:
        draft.transfer(funds(party), target, amount - of_bond)


def whole_reserve(announcement: Announcement) -> int:
    """R: the reserve for everything that is announced."""
    bound = format_of(announcement).price_bound(announcement, announcement.quantity, announcement.items)
    return check_amount(bound, "the whole reserve")


def part_of_reserve(announcement: Announcement, quantity: int, items: tuple[str, ...]) -> int:
    """R for the units or items of one bid, or of one winner."""
    row = format_of(announcement)
    return check_amount(row.price_bound(announcement, row.units(announcement, quantity), items), "the reserve")


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """The amounts that follow from an announcement's reserve: the announcer's hold, δR, and δR + Φ."""

    announcement: Announcement
    announcers: int
    delta: int
    with_penalty: int


def amounts_of(draft: Draft, announcement: Announcement) -> Amounts:
    """They are computed once for all bids of an auction."""
    known: Amounts | None = draft.state.amounts.get(announcement.auction)
    if known is not None and known.announcement is announcement:
        return known
    reserve, delta_ppm = whole_reserve(announcement), announcement.delta_ppm
    found = Amounts(
        announcement,
        announcers=_of_announcement(announcement, reserve),
        delta=holding.delta_of(reserve, delta_ppm),
        with_penalty=holding.of_provider(reserve, delta_ppm),
    )
    if len(draft.state.amounts) >= AMOUNTS_MAX:
        draft.state.amounts.clear()
    draft.state.amounts[announcement.auction] = found
    return found


def newcomers_balance(draft: Draft, announcement: Announcement) -> int:
    """B: the least bond and balance with which a newcomer may bid to provide, so that a new name is no escape. It is no
    hold of its own: what the newcomer's bids hold counts towards it."""
    return max(draft.config.rating.newcomer_bond, amounts_of(draft, announcement).with_penalty)


# --- announcements ---


def of_announcement(draft: Draft, announcement: Announcement) -> int:
    return amounts_of(draft, announcement).announcers


def _of_announcement(announcement: Announcement, reserve: int) -> int:
    """R(1+δ) and the fees of as many agreements as there may be; for a seller, δR + Φ."""
    amount = holding.of_announcer(announcement.direction, reserve, announcement.delta_ppm)
    fee = announcement.fee
    if announcement.direction == "receive" or not (fee.ppm or fee.fixed):
        return amount
    is_by_unit = format_of(announcement).units(announcement, 1) != announcement.quantity
    most = len(announcement.items) or (announcement.quantity if is_by_unit else 1)
    return check_amount(amount + fee.of_several(reserve, most), "amount to hold")


def hold_announcement(draft: Draft, record: Auction) -> Auction:
    """Holds the announcer's part on its balance. Raises InsufficientFunds."""
    amount = of_announcement(draft, record.announcement)
    if record.announcement.direction == "provide":
        draft.transfer(funds(record.announcer), held(record.id), amount)
    else:
        secure(draft, record.announcer, held_bond(record.id), amount)
    return msgspec.structs.replace(record, held=amount)


def let_announcement_go(draft: Draft, record: Auction) -> None:
    """Releases what is left of the announcement's hold."""
    if record.announcement.direction == "provide":
        draft.transfer(held(record.id), payer_account(record), draft.balance(held(record.id)))
    else:
        draft.transfer(held_bond(record.id), bond(record.announcer), draft.balance(held_bond(record.id)))


def payer_account(record: Auction) -> str:
    """The account that the announcer's hold goes back to."""
    return funds(record.announcer) if record.method == PREPAID else card(record.method)


# --- bids, and commitments to them ---


def of_bid(draft: Draft, announcement: Announcement, entry: BidEntry) -> int:
    """What a bid holds. A bid to pay holds the most that it could pay, for all its units; one to provide also what it
    insures."""
    check_insured(announcement, entry.insured)
    if announcement.direction == "provide" and format_of(announcement).price_bound is reserve_bounds:
        return amounts_of(draft, announcement).delta + entry.insured  # every bid is for everything
    price, quantity, items, limit = entry.price, entry.quantity, entry.items, entry.limit
    reserve = part_of_reserve(announcement, quantity, items)
    most = check_amount(price if limit is None else limit, "price")
    if announcement.direction == "receive" and part_of_reserve(announcement, 1, ()) != whole_reserve(announcement):
        most = most if items else check_amount(most * quantity, "price for all units")
    amount = holding.of_bidder(announcement.direction, reserve, most, announcement.delta_ppm)
    return amount + entry.insured if announcement.direction == "provide" else amount + announcement.fee.of(most)


def check_insured(announcement: Announcement, insured: int) -> None:
    """Only a bidder that provides, in an auction that weighs quality, may insure with bond what it does not deliver, up
    to the highest price. Raises BadValue."""
    if not check_amount(insured, "insured amount"):
        return
    if announcement.direction != "provide" or not (announcement.quality.opinion or announcement.quality.evidence):
        raise BadValue("quality is insured by who provides, in an auction in which quality weighs")
    if insured > whole_reserve(announcement):
        raise BadValue(f"the reserve is {whole_reserve(announcement)}: no more than that can be insured")


def insured_of(draft: Draft, record: Auction, bid: str) -> int:
    """What a bid has insured."""
    if not (record.announcement.quality.opinion or record.announcement.quality.evidence):
        return 0
    sheet: BidSheet | None = draft.find("sheet", record.id)
    if sheet is not None:
        entries = dict(zip(sheet.names(), sheet.entries, strict=False))
        return entries[bid].insured if bid in entries else 0
    placed: PlacedBid | None = draft.find("bid", bid)
    return placed.bid.insured if placed is not None else 0


def of_commitment(announcement: Announcement, deposit: int) -> int:
    reserve = whole_reserve(announcement)
    amount = holding.of_commitment(announcement.direction, reserve, deposit, announcement.delta_ppm)
    return amount if announcement.direction == "provide" else amount + announcement.fee.of(deposit)


def hold_bid(draft: Draft, announcement: Announcement, name: str, bidder: str, amount: int) -> None:
    """Raises InsufficientFunds."""
    if announcement.direction == "provide":
        secure(draft, bidder, held_bond(name), amount)
    else:
        draft.transfer(funds(bidder), held(name), amount)


def let_bid_go(draft: Draft, announcement: Announcement, name: str, bidder: str, amount: int) -> None:
    if announcement.direction == "provide":
        draft.transfer(held_bond(name), bond(bidder), amount)
    else:
        draft.transfer(held(name), funds(bidder), amount)


def burn_bid(draft: Draft, announcement: Announcement, name: str, bidder: str, amount: int) -> None:
    """δR of a bid whose hold failed at the award goes to nobody (or everything that it holds, if that is less)."""
    reserve = whole_reserve(announcement)
    burnt = min(amount, holding.delta_of(reserve, announcement.delta_ppm)) if amount else 0
    account = held_bond(name) if announcement.direction == "provide" else held(name)
    draft.transfer(account, NOBODY, burnt)
    let_bid_go(draft, announcement, name, bidder, amount - burnt)


# --- cards ---


def ask(draft: Draft, auction: str, step: str, amount: int) -> PaymentRequest:
    """A request to the processor of an auction's card. It is made once and returned again after that."""
    name = f"{auction}/{step}"
    known: PaymentRequest | None = draft.find("payment", name)
    if known is not None:
        return known
    record = draft.auction(auction)
    request = PaymentRequest(
        id=name,
        about=auction,
        step=step,
        method=record.method,
        source=record.source,
        amount=amount,
        currency=draft.config.currency,
        reference=record.processor_reference,
    )
    draft.put("payment", name, request)
    return request


# --- debts ---


def owe(draft: Draft, name: str, agreement: Agreement, to: list[tuple[str, int]]) -> int:
    """Records what the recipient owes, and pays what it can at once. Returns the rest."""
    rows = tuple(row for row in to if row[1])
    draft.put("debt", name, Debt(id=name, agreement=agreement.id, debtor=agreement.recipient, to=rows))
    return _pay(draft, draft.get("debt", name))


def _pay(draft: Draft, debt: Debt) -> int:
    """Pays a debt from the debtor's balance as far as it reaches. Returns the rest."""
    left: list[tuple[str, int]] = []
    for account, amount in debt.to:
        part = min(amount, max(0, draft.balance(funds(debt.debtor))))
        draft.transfer(funds(debt.debtor), account, part)
        if part < amount:
            left.append((account, amount - part))
    paid = msgspec.structs.replace(debt, to=tuple(left))
    draft.put("debt", debt.id, paid)
    return paid.amount


def pay_debts(draft: Draft, party: str) -> None:
    """Pays all of a party's debts, the oldest first."""
    for debt in list(draft.state.debts_of.get(party, {}).values()):
        paid = debt.amount - _pay(draft, debt)
        if paid:
            record = draft.agreement(debt.agreement)
            draft.put("agreement", record.id, msgspec.structs.replace(record, debt=record.debt - paid))


def of_provider(agreement: Agreement) -> int:
    """δP + Φ and the insured amount: what the provider of an agreement held."""
    return holding.of_provider(agreement.price, agreement.delta_ppm) + agreement.insured
