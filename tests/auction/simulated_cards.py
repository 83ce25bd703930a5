"""A card processor for simulated markets: its answers hang on its key alone, so the same key has the same answer."""

from __future__ import annotations

import hashlib

from auction.model.errors import PaymentUnknown
from auction.payment.protocol import Dispute, Outcome


class Cards:
    """Authorises eight of ten, captures less than was asked for one time in ten, and is silent the first time it is
    asked one time in eight. `outside` is what has left cards for good."""

    def __init__(self) -> None:
        self.outside = 0
        self.answers: dict[str, Outcome] = {}
        self.was_silent: set[str] = set()

    def _answer(self, key: str, amount: int, chance: int) -> Outcome:
        drawn = hashlib.sha256(key.encode()).digest()
        if drawn[0] < 32 and key not in self.was_silent:
            self.was_silent.add(key)
            raise PaymentUnknown("no answer came")
        known = self.answers.get(key)
        if known is None:
            approved = drawn[1] < chance
            captured = amount // 2 if key.endswith("/capture") and drawn[2] < 25 else amount
            known = Outcome(approved, f"at-{key}", "" if approved else "declined", captured)
            self.answers[key] = known
            if approved and key.endswith("/capture"):
                self.outside += captured
            if approved and "/refund-" in key:
                self.outside -= amount
        return known

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        return self._answer(key, amount, 205)

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        return self._answer(key, amount, 235)

    def void(self, key: str, reference: str) -> Outcome:
        return self._answer(key, 0, 256)

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        return self._answer(key, amount, 235)

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        return None
