"""The protocol of a payment processor, and its answers.

A processor is any object with the methods of `Processor`; `stripe` has one for cards. Prepaid balances need none: they
are accounts of the ledger, held and captured in the command's own transaction. No I/O here.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

PREPAID: Final = "prepaid"

Step = Literal["authorise", "capture", "void", "refund"]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """A processor's answer. `reference` is its name for the payment; `reason` its word for a decline, such as
    `insufficient_funds`; `amount` the amount captured, if less than requested (None: all of it)."""

    approved: bool
    reference: str = ""
    reason: str = ""
    amount: int | None = None


class Dispute(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chargeback by the card's holder. `event` is the processor's name for the notice."""

    event: str
    reference: str
    amount: int
    currency: str
    reason: str = ""


class Processor(Protocol):
    """Every call is idempotent under its key: repeating it returns the same outcome and moves no more money. Amounts
    are minor units above zero. A decline is an Outcome; PaymentUnknown means that no answer came: repeat the call to
    learn the outcome."""

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        """Holds the amount on the source (a card's token) without charging it."""
        ...

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        """Charges up to the amount held, and releases the rest."""
        ...

    def void(self, key: str, reference: str) -> Outcome:
        """Releases the hold."""
        ...

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        """Refunds up to the captured amount."""
        ...

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        """The chargeback in a processor's notice; None for any other notice. Raises BadSignature."""
        ...
