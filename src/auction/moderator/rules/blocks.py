"""Blocks: publishing, splitting, reselling, sharing between members, and metering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from auction.groups.sharing import Share, allocate, allocate_channels, allocate_devices, join, leave
from auction.model.block import Block, check, check_capacity_left, resell, split_in_rate, split_in_time
from auction.model.errors import BadValue, NotAllowed, TooLate
from auction.model.ledger import funds
from auction.model.meter import Meter, measure
from auction.model.money import check_amount, check_integer
from auction.model.party import are_linked, check_chosen
from auction.moderator.draft import Draft
from auction.moderator.records import BlockShares
from auction.moderator.rules import admission, parties
from auction.payment.protocol import PREPAID

Pair = tuple[Block, Block]


def publish_block(draft: Draft, block: Block) -> Block:
    provider = draft.party(block.provider)
    if provider.kind != "provider":
        raise NotAllowed(f"{block.provider} is a {provider.kind}, not a provider")
    name = check_chosen(block.id) if block.id else draft.new_id("block")
    draft.check_unused("block", name)
    wanted = check(msgspec.structs.replace(block, id=name, holder=block.provider, parent="", offer="", state="free"))
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
    first, rest = split(whole, (own_name(draft, f"{name}.1"), own_name(draft, f"{name}.2")))
    draft.put("block", name, msgspec.structs.replace(whole, state="split"))
    draft.add("block", first.id, first)
    draft.add("block", rest.id, rest)
    return first, rest


def resell_block(draft: Draft, block: str, seller: str, buyer: str, price: int) -> Block:
    sold = draft.block(block)
    check_holder(sold, seller)
    party = parties.check_organisation(draft, buyer)
    check_amount(price, "price")
    if buyer in (seller, sold.provider):
        raise NotAllowed(f"{buyer} is the seller or the provider of the block")
    admission.check_match(draft, sold, buyer, sold.provider)
    changed = resell(sold, buyer, draft.at_ms)
    draft.transfer(funds(buyer), funds(seller), price)
    draft.put("block", block, changed)
    for name in draft.state.agreements_about.get(block, ()):
        agreement = draft.agreement(name)
        if agreement.recipient == seller and agreement.state == "agreed":
            if are_linked(party, draft.party(agreement.provider)):
                raise NotAllowed(f"{buyer} is linked to {agreement.provider}, which serves the block")
            if agreement.receipts and not party.public_key:
                raise NotAllowed(f"{buyer} has no key to sign the receipts of {name} with")
            group = draft.auction(agreement.auction).group
            is_groups = bool(agreement.payers or (group and draft.get("group", group).state == "open"))
            if agreement.method != PREPAID or is_groups:
                raise NotAllowed(f"{name} is paid by {agreement.method} or by a group, and stays with its recipient")
            passed = msgspec.structs.replace(agreement, recipient=buyer, recipient_key=party.public_key)
            draft.put("agreement", name, passed)
    return changed


def check_holder(block: Block, holder: str) -> None:
    if holder != (block.holder or block.provider):
        raise NotAllowed(f"{holder} does not hold the block {block.id}")


def own_name(draft: Draft, wanted: str) -> str:
    """A name for a part of a block: the wanted one, or a generated one if that is taken."""
    is_free = draft.find("block", wanted) is None and not draft.state.is_used("block", wanted)
    return wanted if is_free else draft.new_id("block")


def free_block(draft: Draft, name: str) -> None:
    """Returns a block that was offered and not sold to its holder."""
    block = draft.block(name)
    is_providers = block.holder in ("", block.provider)
    draft.put("block", name, msgspec.structs.replace(block, state="free" if is_providers else "sold"))


def cut_short(draft: Draft, name: str) -> None:
    """Frees the provider's capacity for the rest of a promise that has ended early."""
    block = draft.block(name)
    if block.state != "sold" or draft.at_ms >= block.ends_ms:
        return
    if draft.at_ms > block.starts_ms:
        draft.put("block", name, msgspec.structs.replace(block, ends_ms=draft.at_ms))
    else:
        draft.put("block", name, msgspec.structs.replace(block, state="void"))


# The rules of sharing, and the kind of party that each member must be.
_MEMBERS: Final = {"recipients": "recipient", "numbers": "number", "devices": "device"}


def share_block(draft: Draft, block: str, holder: str, rule: str, channel_bps: int) -> BlockShares:
    whole = draft.block(block)
    check_holder(whole, holder)
    if not whole.shareable:
        raise NotAllowed(f"the block {block} may not be shared")
    if rule not in _MEMBERS:
        raise BadValue(f"a block is shared between {', '.join(_MEMBERS)}")
    if rule == "numbers":
        check_integer(channel_bps, "rate of a channel", 1, whole.committed_bps)
    shares = BlockShares(block=block, rule=rule, channel_bps=channel_bps)
    draft.add("shares", block, shares)
    return shares


def join_share(draft: Draft, block: str, share: Share) -> BlockShares:
    shared = draft.shares(block)
    _check_running(draft, block)
    if shared.rule == "devices" and not share.user:
        _check_member(draft, share.member, "user")
        changed = msgspec.structs.replace(shared, users=join(_capacity(draft, shared), shared.users, share))
    else:
        _check_member(draft, share.member, _MEMBERS[shared.rule])
        if share.user and draft.party(share.member).belongs_to != share.user:
            raise NotAllowed(f"{share.member} is no device of {share.user}")
        changed = msgspec.structs.replace(shared, shares=join(_capacity(draft, shared), shared.shares, share))
    _rates(changed, _capacity(draft, shared), None)  # raises if the shares do not fit together
    draft.put("shares", block, changed)
    return changed


def leave_share(draft: Draft, block: str, member: str) -> BlockShares:
    shared = draft.shares(block)
    if any(user.member == member for user in shared.users):
        left = tuple(share for share in shared.shares if share.user != member)
        changed = msgspec.structs.replace(shared, users=leave(shared.users, member), shares=left)
    else:
        changed = msgspec.structs.replace(shared, shares=leave(shared.shares, member))
    draft.put("shares", block, changed)
    return changed


def meter(
    draft: Draft, block: str, interval_ms: int, used_bits: dict[str, int], asked: dict[str, int] | None
) -> dict[str, Meter]:
    shared = draft.shares(block)
    scale = shared.channel_bps or 1
    rates_bps = {member: rate * scale for member, rate in rates(draft, block, asked).items()}
    meters = measure(shared.meters, interval_ms, rates_bps, used_bits)
    draft.put("shares", block, msgspec.structs.replace(shared, meters=meters))
    return meters


def rates(draft: Draft, block: str, asked: dict[str, int] | None) -> dict[str, int]:
    """The rate of each member now, in bits per second (numbers: in channels)."""
    shared = draft.shares(block)
    return _rates(shared, _capacity(draft, shared), asked)


def _check_running(draft: Draft, block: str) -> None:
    if draft.at_ms >= draft.block(block).ends_ms:
        raise TooLate(f"the window of {block} is over")


def _check_member(draft: Draft, member: str, kind: str) -> None:
    if draft.party(member).kind != kind:
        raise NotAllowed(f"{member} is a {draft.party(member).kind}; only a {kind} can be a member here")


def _capacity(draft: Draft, shared: BlockShares) -> int:
    """The capacity to share: bits per second, or whole channels."""
    committed_bps = draft.block(shared.block).committed_bps
    return committed_bps // shared.channel_bps if shared.rule == "numbers" else committed_bps


def _rates(shared: BlockShares, capacity: int, asked: dict[str, int] | None) -> dict[str, int]:
    if shared.rule == "recipients":
        return allocate(capacity, shared.shares, asked)
    if shared.rule == "numbers":
        calls = asked if asked is not None else {share.member: share.cap for share in shared.shares}
        return allocate_channels(capacity * shared.channel_bps, shared.channel_bps, shared.shares, calls)
    return allocate_devices(capacity, shared.users, shared.shares, asked)
