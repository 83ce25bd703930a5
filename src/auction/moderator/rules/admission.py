"""Who may deal with whom: names that are barred, parties that one will not deal with, attributes that a block requires.

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
    """The name that bars a party from beginning anything new, and why in a word: itself, or one that it is one in
    interest with. Two empty words for nobody."""
    state = draft.state
    debts = state.debts_of
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
    """Raises NotAllowed for a name that owes something still or is banned, or that is one in interest with such a
    name."""
    name, why = barred_by(draft, party)
    if why == "banned":
        raise NotAllowed(f"{name} is banned from this market: what it has agreed goes on, and nothing new begins")
    if why:
        raise NotAllowed(f"{name} has not paid what it owes, and is barred until it does")


# --- parties that one will not deal with ---


def refuse(draft: Draft, party: str, other: str) -> Refusals:
    """Puts another party on the list of this one."""
    own, named = draft.party(party), draft.party(other)
    if own.kind not in ("provider", "recipient") or named.kind not in ("provider", "recipient"):
        raise NotAllowed("recipients and providers deal with each other")
    if other == party:
        raise BadValue(f"{party} cannot refuse itself")
    listed = refused_by(draft, party)
    if other in listed:
        return Refusals(party, listed)
    if len(listed) >= REFUSED_MAX:
        raise BadValue(f"a list has {REFUSED_MAX} parties at most")
    return _put(draft, Refusals(party, (*listed, other)))


def accept(draft: Draft, party: str, other: str) -> Refusals:
    """Takes another party off the list of this one."""
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
    """Whether a list names the party, or one that it is one in interest with."""
    own = state.interests.get(party, frozenset())
    return any(name == party or not own.isdisjoint(state.interests.get(name, ())) for name in listed)


def are_matched(draft: Draft, one: str, other: str) -> bool:
    """Whether neither will not deal with the other."""
    if not draft.state.records["refusals"]:
        return True
    state = draft.state
    return not is_on(state, refused_by(draft, one), other) and not is_on(state, refused_by(draft, other), one)


# --- what is looked at when a party bids, and again at the close ---


def check_bidder(draft: Draft, record: Auction, bidder: Party, decides_at_once: bool) -> None:
    """Raises NotAllowed. Whom the announcer will not deal with learns it here where a bid moves others while bidding
    goes on; a sealed bid is taken, and not matched at the close. The announcer's list is the one at its announcement,
    so that nobody is put on it for its bid."""
    missing = lacks(bidder, record.announcement.requires)
    if missing:
        raise NotAllowed(f"{bidder.id} lacks what the block requires: {missing}")
    if not record.refused and not draft.state.records["refusals"]:
        return
    if is_on(draft.state, refused_by(draft, bidder.id), record.announcer):
        raise NotAllowed(f"{bidder.id} does not deal with {record.announcer}, by its own list")
    if decides_at_once and is_on(draft.state, record.refused, bidder.id):
        raise NotAllowed(f"auction {record.id} takes no bids of {bidder.id}")


def why_excluded(draft: Draft, record: Auction, bidder: str) -> str:
    """What keeps a bid from being considered at the close, in a word; it forfeits nothing."""
    barred = barred_by(draft, bidder)[1]
    if barred:
        return barred
    if record.refused and is_on(draft.state, record.refused, bidder):
        return NOT_MATCHED
    missing = lacks(draft.party(bidder), record.announcement.requires) if record.announcement.requires else ""
    return f"attribute {missing}" if missing else ""


def why_unfit(draft: Draft, recipient: str, requires: Mapping[str, str], provider: str) -> str:
    """What keeps an offer, or who stands by, from being considered now. Both lists count as they are."""
    barred = barred_by(draft, provider)[1]
    if barred:
        return barred
    if not are_matched(draft, recipient, provider):
        return NOT_MATCHED
    missing = lacks(draft.party(provider), requires) if requires else ""
    return f"attribute {missing}" if missing else ""


def check_match(draft: Draft, block: Block, one: str, other: str) -> None:
    """Raises NotAllowed where `one` may not come into the place of who deals with `other` about this block."""
    check_not_barred(draft, one)
    if not are_matched(draft, one, other):
        raise NotAllowed(f"{one} is {NOT_MATCHED} with {other}")
    missing = lacks(draft.party(one), block.requires)
    if missing:
        raise NotAllowed(f"{one} lacks what the block requires: {missing}")
