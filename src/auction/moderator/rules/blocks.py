"""Blocks: publishing, splitting and reselling; who holds one, and may pass it on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from auction.model.block import Block, check, check_capacity_left, resell, split_in_rate, split_in_time
from auction.model.errors import BadValue, NotAllowed, WrongState
from auction.model.ledger import funds
from auction.model.money import check_amount
from auction.model.party import check_id
from auction.moderator.draft import Draft
from auction.moderator.rules import parties

Pair = tuple[Block, Block]


def publish_block(draft: Draft, block: Block) -> Block:
    provider = draft.party(block.provider)
    if provider.kind != "provider":
        raise NotAllowed(f"{block.provider} is a {provider.kind}, and provides nothing")
    name = check_id(block.id) if block.id else draft.new_id("block")
    wanted = check(msgspec.structs.replace(block, id=name, holder=block.provider, parent="", state="free"))
    if wanted.ends_ms <= draft.at_ms:
        raise BadValue("the window of the block is over")
    peak = draft.committed_peak(provider.id, wanted)
    check_capacity_left(provider.capacity_bps, peak, wanted, provider.id)
    draft.add("block", name, wanted)
    return wanted


def split_block_in_time(draft: Draft, block: str, holder: str, at_ms: int) -> Pair:
    return _split(draft, block, holder, lambda whole, names: split_in_time(whole, at_ms, names, draft.at_ms))


def split_block_in_rate(draft: Draft, block: str, holder: str, first_bps: int) -> Pair:
    return _split(draft, block, holder, lambda whole, names: split_in_rate(whole, first_bps, names, draft.at_ms))


def _split(draft: Draft, name: str, holder: str, split: Callable[[Block, tuple[str, str]], Pair]) -> Pair:
    whole = draft.block(name)
    check_holder(whole, holder)
    check_paid_for(draft, name)
    first, rest = split(whole, (f"{name}.1", f"{name}.2"))
    draft.put("block", name, msgspec.structs.replace(whole, state="split"))
    draft.add("block", first.id, first)
    draft.add("block", rest.id, rest)
    return first, rest


def resell_block(draft: Draft, block: str, seller: str, buyer: str, price: int) -> Block:
    sold = draft.block(block)
    check_holder(sold, seller)
    check_paid_for(draft, block)
    parties.check_organisation(draft, buyer)
    check_amount(price, "price")
    if buyer in (seller, sold.provider):
        raise NotAllowed(f"{buyer} is the seller or the provider of the block")
    changed = resell(sold, buyer, draft.at_ms)
    draft.transfer(funds(buyer), funds(seller), price)
    draft.put("block", block, changed)
    for name in draft.state.agreements_about.get(block, ()):
        agreement = draft.agreement(name)
        if agreement.recipient == seller and agreement.state == "agreed":
            draft.put("agreement", name, msgspec.structs.replace(agreement, recipient=buyer))
    return changed


def check_holder(block: Block, holder: str) -> None:
    if holder != (block.holder or block.provider):
        raise NotAllowed(f"{holder} does not hold the block {block.id}")


def check_paid_for(draft: Draft, block: str) -> None:
    """Nobody passes on what it was awarded and has not agreed to pay."""
    for name in draft.state.agreements_about.get(block, ()):
        if draft.agreement(name).state == "awarded":
            raise WrongState(f"the block {block} was awarded under {name}, which is not agreed yet")
