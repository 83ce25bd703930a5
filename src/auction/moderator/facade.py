"""The moderator as a whole: every command of the market, and what time brings about."""

from __future__ import annotations

from auction.moderator.agreements import AgreementCommands
from auction.moderator.state import Draft


class Moderator(AgreementCommands):
    def _on_due(self, draft: Draft, kind: str, name: str, due_ms: int) -> None:
        if kind == "auction":
            record = draft.auction(name)
            if record.due_ms == due_ms:
                self._close(draft, record)
