"""Invoices of what the moderator has charged."""

from __future__ import annotations

from auction.billing import Invoice, invoice
from auction.moderator.groups import GroupCommands
from auction.moderator.state import Draft


class BillCommands(GroupCommands):
    def invoice(self, agreement: str) -> Invoice:
        """The invoice of an agreement, with its metered lines; see `auction.billing` for text, JSON and HTML."""
        with self._deciding:
            draft = Draft(self._state, 0)
            record = draft.agreement(agreement)
            names = self._state.deliveries_of.get(agreement, ())
            evidence = [(name, draft.get("delivery", name).evidence) for name in names]
            shared = draft.find("shares", record.block)
        return invoice(record, evidence, shared.meters if shared is not None else None)
