"""Who may deal with whom: barred parties, refused parties, and attributes that a block requires.

What is looked at when a party bids is looked at again at the close, and of who takes a rest over. A party's list is its
own: others learn no more than that a bid was not matched, and not whose list it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from auction.model.block import Block
from auction.model.errors import BadValue, NotAllowed
from auction.model.party import Party, lacks
from auction.moderator.draft import Draft
from auction.moderator.records import Auction, Refusals
from auction.moderator.state import State

NOT_MATCHED: Final = "not matched"
REFUSED_MAX: Final = 1_000  # parties on one list


def barred_by(draft: Draft, party: str) -> tuple[str, str]:
    """The name that bars a party from anything new (itself or a linked party), and the reason in one word. Two empty
    words if nothing bars it."""
    state = draft.state
    debts = state.debts_of
    if party in state.erased:
        return party, "erased"
    if not debts and not state.banned:
        return "", ""
    for interest in state.interests.get(party, ()):
        for name in state.sharing.get(interest, ()):
            if name in state.banned:
                return name, "banned"
            if any(draft.get("debt", one).to for one in debts.get(name, ())):
                return name, "debt"
    return "", ""


def check_not_barred(draft: Draft, party: str) -> None:
    """Raises NotAllowed for a party that has a debt or is banned, or is linked to one."""
    state = draft.state
    if not (state.debts_of or state.banned or state.erased):
        return
    name, why = barred_by(draft, party)
    if why == "banned":
        raise NotAllowed(f"{name} is banned from this market: its agreements go on, but it can begin nothing new")
    if why == "erased":
        raise NotAllowed(f"{name} was erased, and can begin nothing new")
    if why:
        raise NotAllowed(f"{name} has an unpaid debt, and is barred until it has paid")


# --- refused parties ---


def refuse(draft: Draft, party: str, other: str) -> Refusals:
    """Puts another party on this one's list."""
    own, named = draft.party(party), draft.party(other)
    if own.kind not in ("provider", "recipient") or named.kind not in ("provider", "recipient"):
        raise NotAllowed("only recipients and providers deal with each other")
    if other == party:
        raise BadValue(f"{party} cannot refuse itself")
    listed = refused_by(draft, party)
    if other in listed:
        return Refusals(party, listed)
    if len(listed) >= REFUSED_MAX:
        raise BadValue(f"a party can refuse at most {REFUSED_MAX} parties")
    return _put(draft, Refusals(party, (*listed, other)))


def accept(draft: Draft, party: str, other: str) -> Refusals:
    """Takes another party off this one's list."""
    draft.party(party)
    listed = refused_by(draft, party)
    if other not in listed:
        return Refusals(party, listed)
    return _put(draft, Refusals(party, tuple(name for name in listed if name != other)))


def _put(draft: Draft, changed: Refusals) -> Refusals:
    draft.put("refusals", changed.party, changed)
    return changed


def refused_by(draft: Draft, party: str) -> tuple[str, ...]:
    found: Refusals | None = draft.find("refusals", party)
    return found.refused if found is not None else ()


def is_on(state: State, listed: Iterable[str], party: str) -> bool:
    """Whether a list names the party or one linked to it."""
    own = state.interests.get(party, frozenset())
    return any(name == party or not own.isdisjoint(state.interests.get(name, ())) for name in listed)


def are_matched(draft: Draft, one: str, other: str) -> bool:
    """Whether neither refuses to deal with the other."""
    if not draft.state.records["refusals"]:
        return True
    state = draft.state
    return not is_on(state, refused_by(draft, one), other) and not is_on(state, refused_by(draft, other), one)


# --- checks when a party bids, and again at the close ---


def check_bidder(draft: Draft, record: Auction, bidder: Party, decides_at_once: bool) -> None:
    """Raises NotAllowed. If a bid affects others during bidding, a refused bidder is told here; a sealed bid is
    accepted, and not matched at the close. The announcer's list is the one at the announcement, so that no party is put
    on it for its bid."""
    missing = lacks(bidder, record.announcement.requires)
    if missing:
        raise NotAllowed(f"{bidder.id} lacks what the block requires: {missing}")
    if not record.refused and not draft.state.records["refusals"]:
        return
    if is_on(draft.state, refused_by(draft, bidder.id), record.announcer):
        raise NotAllowed(f"{bidder.id} has refused to deal with {record.announcer}")
    if decides_at_once and is_on(draft.state, record.refused, bidder.id):
        raise NotAllowed(f"auction {record.id} accepts no bids from {bidder.id}")


def why_excluded(draft: Draft, record: Auction, bidder: str) -> str:
    """Why a bid is not considered at the close, in one word. It forfeits nothing."""
    barred = barred_by(draft, bidder)[1]
    if barred:
        return barred
    if record.refused and is_on(draft.state, record.refused, bidder):
        return NOT_MATCHED
    missing = lacks(draft.party(bidder), record.announcement.requires) if record.announcement.requires else ""
    return f"attribute {missing}" if missing else ""


def why_unfit(draft: Draft, recipient: str, requires: Mapping[str, str], provider: str) -> str:
    """Why an offer or a runner-up is not considered now. Both sides' present lists count."""
    barred = barred_by(draft, provider)[1]
    if barred:
        return barred
    if not are_matched(draft, recipient, provider):
        return NOT_MATCHED
    missing = lacks(draft.party(provider), requires) if requires else ""
    return f"attribute {missing}" if missing else ""


def check_match(draft: Draft, block: Block, one: str, other: str) -> None:
    """Raises NotAllowed if `one` may not take the place of the party that deals with `other` about this block."""
    check_not_barred(draft, one)
    if not are_matched(draft, one, other):
        raise NotAllowed(f"{one} is {NOT_MATCHED} with {other}")
    missing = lacks(draft.party(one), block.requires)
    if missing:
        raise NotAllowed(f"{one} lacks what the block requires: {missing}")
