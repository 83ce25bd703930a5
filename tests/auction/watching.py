"""What must hold of every single entry of a market's journal, whatever the command: seen from outside, by the words of
the specification. No stranger changes a record or takes money, receipts never go back, no state outlives its deadline,
nobody's word alone ends anything, and each end pays what the table of ends says.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

import msgspec
from ends_reference import due

GRACE_MS, CLOSING_MS = 10_000, 3_600_000
ORDER = ("funding", "open", "agreed", "running", "closing", "settled")


class Found(AssertionError):
    """The simulation has found something wrong."""


def quick_signature(public_key: str, statement: bytes) -> bytes:
    """What stands for a signature here: real ones, which take longer than all the rest, have tests of their own."""
    return hashlib.sha512(public_key.encode() + statement).digest()


# Who speaks in a command: the place of the argument that names it. Others are the operator's, or name nobody.
SPEAKS = {
    **dict.fromkeys(("announce", "spot", "post_bond", "release_bond"), 0),
    **dict.fromkeys(("commit", "split_block_in_time", "split_block_in_rate", "withdraw_offer", "hand_in", "end"), 1),
    **dict.fromkeys(("arbitrate", "take_over", "rate", "rate_as_drafted", "open_group", "join_group", "pledge"), 1),
    **dict.fromkeys(("offer_price", "accept_price", "share_block"), 1),
    **dict.fromkeys(("refuse_party", "accept_party", "change_capacity", "change_key"), 0),
}
# What one party's command may change of another's record, and in which commands it may move another's money.
MAY_CHANGE = {
    ("take_over", "agreement"): {"recipient_held"},
    ("end", "block"): {"ends_ms", "state"},  # who buys a block of a recipient buys what is left of its agreement
    ("bid", "bid"): {"held"},
    ("bid", "block"): {"state", "holder"},
    ("spot", "offer"): {"quantity", "valid_until_ms"},
    ("spot", "offered"): {"held", "rate_bps"},
}
MAY_MOVE = {"bid", "spot", "hand_in", "end"}


def speaker(command: str, arguments: tuple[Any, ...]) -> str:
    if command in ("bid", "reveal"):
        return str(arguments[1].bidder)
    if command in ("stand_offer", "publish_block"):
        return str(arguments[0].provider)
    return str(arguments[SPEAKS[command]]) if command in SPEAKS else ""


def owners(kind: str, one: Any) -> tuple[str, ...]:
    """Who may change a record of this kind; nobody named: it is not looked at."""
    if kind == "agreement":
        return (one.recipient, one.provider, one.arbiter)
    if kind in ("offer", "offered"):
        return (one.provider,)
    if kind == "block":
        return (one.provider, one.holder) if "/" not in one.id else ()  # who leads in the open holds one with a slash
    if kind == "bid":
        return (one.bid.bidder,)
    if kind == "commitment":
        return (one.commitment.bidder,)
    if kind == "refusals":
        return (one.party,)
    return (one.id,) if kind == "party" else ()


def differing(one: Any, other: Any) -> set[str]:
    return {name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)}


def check_entry(command: str, actor: str, draft: Any, back_ms: int) -> None:
    """`draft` is what the entry will do to the state, which it has not done yet."""
    records = draft.state.records
    for (kind, name), new in draft.changes.items():
        old = records[kind].get(name)
        if old is None:
            if kind == "agreement":
                check_deadline(new, draft.at_ms + GRACE_MS, back_ms)
                check_rest(new, draft)
            if kind == "auction":
                check_winners(new, draft)
            continue
        if actor and kind != "auction" and owners(kind, old) and actor not in owners(kind, old):
            strange = differing(old, new) - MAY_CHANGE.get((command, kind), set())
            if strange:
                raise Found(f"{actor} has changed {', '.join(sorted(strange))} of {kind} {name} by {command}")
        if kind == "party":
            check_party(old, new, draft)
        elif kind == "auction":
            check_auction(command, old, new, draft.at_ms)
            check_winners(new, draft)
        elif kind == "agreement":
            check_agreement(command, actor, old, new, draft, back_ms)
    if actor and command not in MAY_MOVE:
        own = (f"funds:{actor}", f"bond:{actor}")
        for source, _, _ in draft.transfers:
            if source.startswith(("funds:", "bond:")) and source not in own:
                raise Found(f"{actor} has taken money of {source} by {command}")


def check_party(old: Any, new: Any, draft: Any) -> None:
    """Nobody has a key that another has or had, and nobody is untied by another key."""
    if new.public_key == old.public_key:
        return
    for other in draft.state.records["party"].values():
        if other.id != new.id and new.public_key in (other.public_key, *other.former_keys):
            raise Found(f"{new.id} has taken the key of {other.id}")
    if old.public_key and old.public_key not in new.former_keys:
        raise Found(f"{new.id} was tied by a key that is forgotten")


def check_winners(auction: Any, draft: Any) -> None:
    """Who wins has what is required, and is not banned: by what was known before this entry."""
    for winning in auction.winners:
        party = draft.state.records["party"][winning.bidder]
        for name, value in auction.announcement.requires.items():
            if name not in party.attributes or value not in ("", party.attributes[name]):
                raise Found(f"{winning.bidder} has won {auction.id}, and lacks {name}={value}")
        if party.banned_sequence:
            raise Found(f"{winning.bidder} has won {auction.id}, and is banned")


def check_rest(one: Any, draft: Any) -> None:
    """Who takes a rest over gets its own bid in proportion at most, and not before its former provider has failed."""
    if not one.of:
        return
    former = draft.state.records["agreement"][one.of]
    if former.state != "closing" or one.starts_ms < former.starts_ms or one.ends_ms != former.ends_ms:
        raise Found(f"{one.id} takes {one.of} over, which is {former.state}")
    auction = draft.state.records["auction"][one.auction].announcement
    left = Fraction(one.ends_ms - one.starts_ms, former.ends_ms - former.starts_ms)
    bids = [placed.bid for placed in draft.state.bids_in(one.auction) if placed.bid.bidder == one.provider]
    units = one.units if auction.format == "uniform_price" else 1
    most = max((max(bid.price, bid.limit or 0) * units * left for bid in bids), default=one.price)
    if one.price > most:
        raise Found(f"{one.id} costs {one.price} for what {one.provider} had bid {most} for")


def check_auction(command: str, old: Any, new: Any, at_ms: int) -> None:
    changed = differing(old, new)
    fixed = changed & {"announcement", "announcer", "announced_ms", "seed", "block", "prime", "method", "source"}
    if fixed:
        raise Found(f"{command} has changed {', '.join(sorted(fixed))} of auction {old.id}")
    if old.due_ms == 0 and changed & {"state", "winners", "held"}:
        raise Found(f"auction {old.id} is {old.state}, and {command} has changed it")
    is_withdrawn = new.state == "void" and command in ("withdraw_auction", "answer_payment", "ban")
    is_dutch = old.announcement.ramp is not None
    if old.state == "open" and new.state != "open" and not is_withdrawn and not is_dutch:
        ends_ms = old.announcement.closing.reveal_until_ms or old.closes_ms
        if at_ms < ends_ms:
            raise Found(f"auction {old.id} was closed at {at_ms}, {ends_ms - at_ms} ms too early")


def check_agreement(command: str, actor: str, old: Any, new: Any, draft: Any, back_ms: int) -> None:
    name = new.id
    if command == "arbitrate" and actor != old.arbiter:
        raise Found(f"{actor} has decided about {name}, whose arbiter is {old.arbiter}")
    if ORDER.index(new.state) < ORDER.index(old.state):
        raise Found(f"{name} went from {old.state} back to {new.state}")
    if old.receipt is not None and (new.receipt is None or new.receipt.receipt.number < old.receipt.receipt.number):
        raise Found(f"the receipt of {name} went back")
    if new.receipt is not old.receipt:
        said = new.receipt.receipt.to_sign()
        for key, signature in ((new.provider_key, new.receipt.provider), (new.recipient_key, new.receipt.recipient)):
            if signature != quick_signature(key, said):
                raise Found(f"a receipt of {name} counts, and is not signed by both")
    if old.state != "settled" and new.state == "settled":
        check_end(command, old, new, draft, back_ms)
    elif old.state == "settled":
        after = {"debt", "refunded", "charged_back", "charged", "capturing", "recipient_held"}
        strange = differing(old, new) - after
        if strange:
            raise Found(f"{name} is settled, and {command} has changed {', '.join(sorted(strange))}")
    else:
        check_deadline(new, old.due_ms, back_ms)


def counted_ms(one: Any) -> int:
    if one.state == "closing":
        return int(one.ended_ms or one.ends_ms + GRACE_MS) + CLOSING_MS
    return int(one.starts_ms if one.state == "agreed" else one.ends_ms) + GRACE_MS


def check_deadline(one: Any, or_ms: int, back_ms: int) -> None:
    latest_ms = max(counted_ms(one), back_ms + CLOSING_MS if back_ms else 0, or_ms if one.state == "agreed" else 0)
    if one.state != "settled" and not 0 < one.due_ms <= latest_ms:
        raise Found(f"{one.id} is {one.state} until {one.due_ms}, {one.due_ms - latest_ms} ms too long")


def check_end(command: str, old: Any, new: Any, draft: Any, back_ms: int) -> None:
    """The end that has just come: who has said so, when, and where the money went."""
    name = old.id
    before = msgspec.structs.replace(old, provider_says=new.provider_says, recipient_says=new.recipient_says)
    if command == "end":
        said = (new.provider_says, new.recipient_says)
        if None in said or said[0].figure != said[1].figure:
            raise Found(f"{name} was ended by the word of one side alone: {said}")
    elif draft.at_ms < counted_ms(old) or (back_ms and draft.at_ms < min(back_ms + CLOSING_MS, old.due_ms)):
        raise Found(f"{name} was settled before its closing was over")
    sources = (f"held:{name}", f"held_bond:{name}")
    got = {"provider": 0, "nobody": 0, "recipient": 0, "fees": 0}
    of_provider = (f"funds:{old.provider}", f"bond:{old.provider}")
    for source, target, amount in draft.transfers:
        if source in sources:
            side = "provider" if target in of_provider else target if target in ("nobody", "fees") else "recipient"
            got[side] += amount
    expected = due(before)
    if new.paid != expected.paid:
        raise Found(f"{new.paid} was earned by {name}, {expected.paid} is due")
    check_members(old, draft, sources)
    if sum(got.values()) + new.capturing != old.recipient_held + old.provider_held:
        raise Found(f"{name} held {old.recipient_held} and {old.provider_held}, and has paid out {got}")
    if expected.owed > old.recipient_held:
        return  # both have signed more than was left of the hold: the rest is a debt (see debts_are_kept)
    if got["recipient"] != expected.recipient:
        raise Found(f"the recipient of {name} got {got['recipient']}, {expected.recipient} is due")
    if new.fee_charged != expected.fee:
        raise Found(f"{new.fee_charged} is the fee of {name}, {expected.fee} is due")
    to_others = (got["provider"], got["nobody"], got["fees"])
    if new.method == "prepaid" and to_others != (expected.provider, expected.nobody, expected.fee):
        raise Found(f"{name} was paid out as {got}, it is {expected}")


def check_members(old: Any, draft: Any, sources: tuple[str, str]) -> None:
    """What comes back for the price goes to who paid it, in proportion; odd units to anybody."""
    group = next((one for one in draft.state.records["group"].values() if one.agreement == old.id), None)
    paid = {} if group is None or group.outcome is None else {name: group.outcome.owes(name) for name in group.limits}
    whole = sum(paid.values())
    if not whole:
        return
    back: dict[str, int] = {}
    for source, target, amount in draft.transfers:
        if source in sources and target not in ("nobody", "fees"):
            back[target] = back.get(target, 0) + amount
    others = [name for name in paid if name != old.recipient]
    everything = sum(back.get(f"funds:{name}", 0) for name in {*paid, old.recipient})
    fee = sum(amount for _, target, amount in draft.transfers if target == "fees")
    of_members = max(0, everything - max(0, old.recipient_held - old.price - fee))
    for name in others:
        due_back = Fraction(of_members * paid[name], whole)
        if abs(back.get(f"funds:{name}", 0) - due_back) > 1:
            raise Found(f"{name} got {back.get(f'funds:{name}', 0)} back for {old.id}, {float(due_back)} is due")
