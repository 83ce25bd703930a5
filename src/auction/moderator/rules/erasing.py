"""Erasing what is personal of a party: names, telephone numbers, and remarks by it and about it.

What the journal has of it is digests, which stay; the fields and their salts go. It is done once nothing of the party
is under way, and the party begins nothing any more. Its money stays its own, for the operator to pay out.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from auction.model.errors import WrongState
from auction.model.person import referenced
from auction.model.rating import Opinion
from auction.moderator.draft import Draft
from auction.moderator.records import Erased


def erase(draft: Draft, party: str) -> Erased:
    """The party and all that are part of it. Again for one that was erased: what is stored is wiped again."""
    draft.party(party)
    names = {name for name in draft.state.records["party"] if party in _chain(draft, name)}
    for words in _under_way(draft, names):
        raise WrongState(f"{party} is not erased while {words}")
    digests = set(draft.get("erased", party).digests) if draft.find("erased", party) is not None else set()
    in_journal = 0
    for name in sorted(names):
        record = draft.party(name)
        digests |= {record.personal} if record.personal else set()
        in_journal += record.kind == "number" and not record.personal
        draft.put("party", name, msgspec.structs.replace(record, token_hash="", erased_sequence=draft.sequence))
    for opinion in _opinions(draft, names):
        said = referenced(opinion.remark)
        digests |= {said} if said else set()
        in_journal += bool(opinion.remark) and not said
    draft.erased += sorted(digests)
    erased = Erased(party=party, digests=tuple(sorted(digests)), at_ms=draft.at_ms, in_journal=in_journal)
    draft.put("erased", party, erased)
    return erased


def _chain(draft: Draft, name: str) -> Iterator[str]:
    """A party, and those that it is part of."""
    while name:
        yield name
        name = draft.party(name).belongs_to


def _opinions(draft: Draft, names: set[str]) -> Iterator[Opinion]:
    """What they have said, and what was said about them."""
    records = draft.state.records
    for exchange in records["exchange"].values():
        for opinion in (exchange.service, exchange.payment):
            if opinion is not None and not names.isdisjoint((opinion.rater, opinion.ratee, opinion.device)):
                yield opinion
    for drafted in records["drafted"].values():
        if not names.isdisjoint((drafted.opinion.rater, drafted.opinion.ratee, drafted.opinion.device)):
            yield drafted.opinion


def _under_way(draft: Draft, names: set[str]) -> Iterator[str]:
    """What they still have part in, in words."""
    state = draft.state
    records = state.records
    for one in records["agreement"].values():
        sides = (one.recipient, one.provider, one.arbiter, *(payer for payer, _ in one.payers))
        if not names.isdisjoint(sides) and (not one.is_over or one.capturing):
            yield f"{one.id} is {one.state}"
    for auction in records["auction"].values():
        if auction.state not in ("open", "funding"):
            continue
        bidders = {placed.bid.bidder for placed in draft.live_bids(auction.id)}
        committed = [draft.get("commitment", name) for name in state.commitments_of.get(auction.id, ())]
        bidders |= {one.commitment.bidder for one in committed if one.is_live}
        if auction.announcer in names or not names.isdisjoint(bidders):
            yield f"auction {auction.id} is {auction.state}"
    for offer in records["offer"].values():
        if offer.provider in names and offer.valid_until_ms > draft.at_ms:
            yield f"{offer.offer} stands"
    for group in records["group"].values():
        if group.state == "open" and not names.isdisjoint((group.organiser, *group.limits, *group.pledges)):
            yield f"{group.id} is open"
    for shared in records["shares"].values():
        members = [share.member for share in (*shared.users, *shared.shares)]
        if not names.isdisjoint(members) and draft.at_ms < draft.block(shared.block).ends_ms:
            yield f"{shared.block} is shared"
    for name in sorted(names):
        if state.debts_of.get(name):
            yield f"{name} owes something"
