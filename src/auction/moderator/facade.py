"""The moderator as a whole: every command of the market, and what time brings about."""

from __future__ import annotations

import msgspec

from auction.moderator.overview import OverviewCommands
from auction.moderator.state import Draft


class Moderator(OverviewCommands):
    """Conducts auctions, keeps agreements, charges and ratings; the only writer of its market.

    `store` is where the market is kept (in memory without one); `clock` returns ms since 1970; `random_bytes` makes
    tokens and tie-breaking seeds. Every command takes a `key`: sent again under the same key, it has one effect and the
    same answer. Every command either does all it says or raises an `AuctionError` and changes nothing."""

    def _on_due(self, draft: Draft, kind: str, name: str, due_ms: int) -> None:
        if kind == "auction":
            self._auction_is_due(draft, name, due_ms)
        elif kind == "exchange":
            self._reveal_when_due(draft, name)
        elif kind == "drafted":
            self._draft_is_due(draft, name)
        elif kind == "group":
            self._group_is_due(draft, name, due_ms)

    def _auction_is_due(self, draft: Draft, name: str, due_ms: int) -> None:
        record = draft.auction(name)
        if record.due_ms != due_ms:
            return  # it was extended or closed since
        reveal_until_ms = record.announcement.closing.reveal_until_ms
        if reveal_until_ms is not None and due_ms < reveal_until_ms:
            draft.put("auction", name, msgspec.structs.replace(record, due_ms=reveal_until_ms))
            return
        if reveal_until_ms is not None:
            self._forfeit_unrevealed(draft, record)
        self._close(draft, record)
