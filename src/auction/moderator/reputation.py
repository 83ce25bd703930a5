"""Ratings as they are shown: kept up as the fold of revealed ratings and measured deliveries, and read as of any entry.

The arithmetic stands in `auction.rating`; here is what counts, and since when.
"""

from __future__ import annotations

from auction.agreement import Agreement
from auction.bid import ShownRating
from auction.moderator.records import Rated


class Reputation:
    def agreement_changed(self, old: Agreement | None, new: Agreement, sequence: int) -> None:
        pass

    def rating_revealed(self, rated: Rated, sequence: int, at_ms: int) -> None:
        pass

    def shown_at(self, party: str, service: str, sequence: int, at_ms: int) -> ShownRating | None:
        return None
