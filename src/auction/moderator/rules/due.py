"""What happens at deadlines: the function for each kind of thing that is due, and what becomes of one that cannot be
carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from auction.model.lifecycle import CLOSING_MS, by_time
from auction.moderator.draft import Draft
from auction.moderator.records import Overdue
from auction.moderator.rules import announcing, at_once, awarding, bidding, ending, groups, opinions

RETRY_MS: Final = 60_000  # until what failed is tried again; twice as long each time
RETRY_MS_MAX: Final = 3_600_000
_REASON_MAX: Final = 300


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


def overdue_is_due(draft: Draft, name: str, due_ms: int) -> None:
    """Tries again what could not be carried out."""
    one: Overdue = draft.get("overdue", name)
    if one.next_ms != due_ms:
        return
    if draft.find(one.kind, one.name) is not None:
        DUE[one.kind](draft, one.name, one.due_ms)
    draft.put("overdue", name, msgspec.structs.replace(one, next_ms=0))


def is_put_off(draft: Draft, kind: str, name: str, due_ms: int) -> bool:
    """Whether this was tried in vain before, and has a later time."""
    known: Overdue | None = draft.find("overdue", f"{kind}/{name}")
    return known is not None and known.next_ms > 0 and known.due_ms == due_ms


def put_off(draft: Draft, kind: str, name: str, due_ms: int, reason: Exception) -> Overdue:
    """Says that what was due could not be carried out, and when it is tried again."""
    known: Overdue | None = draft.find("overdue", name if kind == "overdue" else f"{kind}/{name}")
    if known is not None and kind == "overdue":
        kind, name, due_ms = known.kind, known.name, known.due_ms
    tries = known.tries + 1 if known is not None and known.due_ms == due_ms else 1
    words = " ".join(f"{type(reason).__name__}: {reason}".split())
    overdue = Overdue(
        id=f"{kind}/{name}",
        kind=kind,
        name=name,
        due_ms=due_ms,
        reason=words[:_REASON_MAX],
        tries=tries,
        next_ms=draft.at_ms + min(RETRY_MS << min(tries - 1, 16), RETRY_MS_MAX),
    )
    draft.put("overdue", overdue.id, overdue)
    return overdue


# By the kinds that `State` queues. Called with the draft, the name and the time when it was due.
DUE: Final[dict[str, Callable[[Draft, str, int], None]]] = {
    "auction": auction_is_due,
    "agreement": ending.agreement_is_due,
    "offer": at_once.offer_is_due,
    "exchange": opinions.exchange_is_due,
    "drafted": opinions.draft_is_due,
    "group": groups.group_is_due,
    "overdue": overdue_is_due,
}
