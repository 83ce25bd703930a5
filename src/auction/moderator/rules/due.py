"""What happens at deadlines: the function for each kind of thing that is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from auction.model.lifecycle import CLOSING_MS, by_time
from auction.moderator.draft import Draft
from auction.moderator.rules import announcing, at_once, awarding, bidding, ending, groups, opinions


def auction_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """The close; with commitments the end of committing, then the end of revealing; or the end of the time to pay."""
    record = draft.auction(name)
    if record.due_ms != due_ms:
        return  # it was extended or closed since
    if record.state == "funding":
        announcing.make_void(draft, record, by_time(record.state, "void"))
        if record.group:
            groups.give_back(draft, record.group)
        return
    reveal_until_ms = record.announcement.closing.reveal_until_ms
    if reveal_until_ms is not None and due_ms < reveal_until_ms:
        draft.put("auction", name, msgspec.structs.replace(record, due_ms=reveal_until_ms))
        return
    if reveal_until_ms is not None:
        given_ms = min(draft.state.back_ms + CLOSING_MS, record.announcement.starts_ms)
        if draft.state.back_ms and due_ms == reveal_until_ms and given_ms > draft.at_ms:
            draft.put("auction", name, msgspec.structs.replace(record, due_ms=given_ms))
            return  # what silence costs is not taken of who could not speak: the market was away
        bidding.forfeit_unrevealed(draft, record)
    awarding.close(draft, record)


# By the kinds that `State` queues. Called with the draft, the name and the time when it was due.
DUE: Final[dict[str, Callable[[Draft, str, int], None]]] = {
    "auction": auction_is_due,
    "agreement": ending.agreement_is_due,
    "offer": at_once.offer_is_due,
    "exchange": opinions.exchange_is_due,
    "drafted": opinions.draft_is_due,
    "group": groups.group_is_due,
}
