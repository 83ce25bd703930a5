"""Paying: what a payment processor can be asked for, and the transfers that follow its answers.

A processor is anything with the steps of `Processor`; a card processor stands in `payment_stripe`. Prepaid balances
need none: they are accounts of the ledger, held and captured in the command's own transaction. No I/O here.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

PREPAID: Final = "prepaid"

Step = Literal["authorise", "capture", "void", "refund"]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a processor said. `reference` is its name for the payment; `reason` its word for a decline, such as
    `insufficient_funds`; `amount` what was captured where that is less than was asked for (None: all of it)."""

    approved: bool
    reference: str = ""
    reason: str = ""
    amount: int | None = None


class Dispute(msgspec.Struct, frozen=True, omit_defaults=True):
    """A charge that the card's holder has taken back. `event` is the processor's own name of the notice."""

    event: str
    reference: str
    amount: int
    currency: str
    reason: str = ""


class Processor(Protocol):
    """Every call is idempotent under its key: the same key again gives the same outcome and moves no more money.
    Amounts are minor units above zero. A decline is an Outcome; PaymentUnknown means that no answer came, and that the
    same call must be made again to learn what became of it."""

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        """Holds the amount on the source (a card's token) without charging it."""
        ...

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        """Charges up to what is held; the rest is let go."""
        ...

    def void(self, key: str, reference: str) -> Outcome:
        """Lets go of what is held."""
        ...

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        """Gives back up to what was captured."""
        ...

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        """The chargeback in a processor's notice; None for a notice of something else. Raises BadSignature."""
        ...
