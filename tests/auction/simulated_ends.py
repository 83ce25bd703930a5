"""How agreements of a simulated market are served and end: receipts, statements, proofs, takeovers, ratings."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

from watching import Found, quick_signature

from auction.model.earned import FalseInterval, figure
from auction.model.errors import AuctionError
from auction.model.receipt import WHOLE, Receipt, SignedReceipt, next_receipt
from auction.moderator import BidEntry, Moderator
from auction.moderator.clock import ManualClock

PROVIDERS = tuple(f"p{number}" for number in range(5))
RECIPIENTS = ("anna", "bert", "cleo")
ENDINGS = ("finished", "finished", "leaving", "blaming")


class Choice:
    """What chooses at random among what there is in the market."""

    random: random.Random
    clock: ManualClock
    market: Moderator
    send: Callable[..., Any]
    pay_in: Callable[[str, int], None]
    pay_out: Callable[[str, int], None]
    pay_fees_out: Callable[[], None]
    restart: Callable[[], None]
    salts: dict[tuple[str, str], BidEntry]
    charged_back_of_cards: int
    inside: int

    def one(self, names: Any) -> Any:
        if not names:
            raise AuctionError("there is none")
        return self.random.choice(list(names))

    def likely(self, share: float) -> bool:
        return self.random.random() < share

    def anyone(self) -> str:
        return str(self.one(PROVIDERS + RECIPIENTS))

    def records(self, kind: str) -> list[Any]:
        return list(self.market.state.records[kind].values())

    def agreement(self, *states: str) -> str:
        return str(self.one([one.id for one in self.records("agreement") if not states or one.state in states]))

    def auctions(self, *states: str) -> list[str]:
        return [one.id for one in self.records("auction") if not states or one.state in states]

    def open_auctions(self, revealing: bool = False) -> list[str]:
        return [
            one.id
            for one in self.records("auction")
            if one.state == "open" and (one.announcement.closing.reveal_until_ms is not None) == revealing
        ]


class Ends(Choice):
    def go_on(self) -> None:
        """To when something is due next, or a moment before."""
        due_ms = min(one.due_ms for one in self.records("auction") + self.records("agreement") if one.due_ms)
        self.clock.advance(max(0, due_ms - self.clock.now_ms - self.one((0, 1))))

    def begin(self) -> None:
        """Both sides of an agreement are there at its start, or one, or neither."""
        one = self.market.agreement(self.agreement("agreed"))
        self.clock.advance(max(0, one.starts_ms - self.clock.now_ms))
        for party in (one.provider, one.recipient):
            if self.likely(0.85):
                self.market.assignments(party)
        self.clock.advance(10_000)
        self.send("post_bond", self.one(PROVIDERS), 1, "EUR")

    def signed(self, one: Any, number: int, share: float) -> SignedReceipt:
        """A receipt over so many intervals; `hand_in` looks at no receipt before it."""
        terms = one.receipt_terms("market")
        rate = terms.minimum_bps or terms.maximum_bps or 1
        asked = terms.bits_at(rate, terms.length_ms(terms.intervals)) * number
        got = int(asked * share)
        earned = int(WHOLE * share) * number
        fields = {"market": "market", "agreement": one.id, "leg": 0, "number": number, "wrong": 0, "earned": earned}
        head = "0" * 64
        return self.sign(one, Receipt(asked_bits=asked, got_bits=got, inputs=head, results=head, before=head, **fields))

    def sign(self, one: Any, receipt: Receipt) -> SignedReceipt:
        said = receipt.to_sign()
        recipient, provider = (quick_signature(key, said) for key in (one.recipient_key, one.provider_key))
        if self.likely(0.1):
            provider = self.one((b"", bytes(64)))
        return SignedReceipt(receipt, recipient, provider)

    def side(self, one: Any) -> str:
        return str(self.one((one.recipient, one.provider)) if self.likely(0.95) else self.anyone())

    def hand_in(self) -> None:
        if self.likely(0.1):
            self.hand_in_late()
        one = self.one(
            [one for one in self.records("agreement") if one.receipts and one.state in ("running", "closing")]
        )
        number = self.random.randrange(1, one.receipt_terms("market").intervals + 1)
        share = self.one((1.0, 1.0, 0.5, 0.0))
        self.send("hand_in", one.id, self.side(one), self.signed(one, number, share))

    def hand_in_late(self) -> None:
        """A receipt above what the recipient has stated, once all is settled."""
        settled = [one for one in self.records("agreement") if one.receipts and one.state == "settled"]
        one = self.one([one for one in settled if one.recipient_says and not one.provider_says])
        whole = self.signed(one, one.receipt_terms("market").intervals, 1.0)
        self.market.tick()
        before = self.market.balance(one.provider) + self.market.agreement(one.id).debt
        after = self.send("hand_in", one.id, one.provider, whole)
        got = self.market.balance(one.provider) + after.debt - before
        if got != 2 * (one.price - one.paid):
            raise Found(f"{one.id} earned {one.paid}, the recipient had signed {one.price}, and {got} is owed for it")

    def figure(self, one: Any) -> int:
        said = [statement.figure for statement in (one.provider_says, one.recipient_says) if statement is not None]
        if one.receipt is not None:
            said.append(figure(one.receipt_terms("market"), one.receipt.receipt))
        return int(self.one((0, one.price, self.random.randrange(one.price + 2), *said)))

    def end(self) -> None:
        states = ("agreed", "running", "closing") if self.likely(0.3) else ("running", "closing")
        one = self.market.agreement(self.agreement(*states))
        self.send("end", one.id, self.side(one), self.one(ENDINGS), self.figure(one))

    def end_together(self) -> None:
        one = self.market.agreement(self.agreement("running", "closing"))
        figure = self.figure(one)
        for party in (one.provider, one.recipient):
            self.send("end", one.id, party, self.one(ENDINGS), figure)

    def prove(self) -> None:
        self.prove_of(self.one([one for one in self.records("agreement") if one.receipts and one.state == "running"]))

    def prove_of(self, one: Any) -> None:
        terms = one.receipt_terms("market")
        bits = terms.bits_at(terms.maximum_bps, 100)
        first = next_receipt(terms, None, bits, bits, 0, (b"in",), (b"out",))
        second = next_receipt(terms, first, bits, bits, 0, (b"more",), (b"less",))
        before = self.sign(one, first)
        proof = FalseInterval(before=None, after=before, inputs=(b"in",), results=(b"out",), segment=0)
        if self.likely(0.5):
            after = self.sign(one, second)
            proof = FalseInterval(before=before, after=after, inputs=(b"more",), results=(b"less",), segment=0)
        self.send("prove", one.id, proof)

    def arbitrate(self) -> None:
        one = self.one([one for one in self.records("agreement") if one.arbiter and one.state == "closing"])
        for party in (one.provider, one.recipient):
            self.send("end", one.id, party, "blaming", self.random.randrange(one.price + 1))
        number = self.random.randrange
        self.send("arbitrate", one.id, self.one(("judy", self.side(one))), number(8), number(8))

    def take_over(self) -> None:
        failed = self.agreement("closing")
        present = self.random.sample(PROVIDERS, 4)
        for provider in present:
            self.market.assignments(provider)
        for provider in present:
            with contextlib.suppress(AuctionError):
                self.send("take_over", failed, provider)

    def charge_back(self) -> None:
        one = self.market.agreement(self.agreement("settled"))
        amount = self.random.randrange(1, 200)
        self.send("charge_back", one.id, amount)
        if one.method != "prepaid":
            self.charged_back_of_cards += amount

    def rate(self) -> None:
        one = self.market.agreement(self.agreement("settled"))
        rater = self.side(one)
        device = f"{rater}-phone" if rater in RECIPIENTS else ""
        if self.likely(0.3):
            self.send("rate_as_drafted", one.id, rater, device=device, overrule_ms=self.one((0, 60_000)))
        else:
            self.send("rate", one.id, rater, self.likely(0.7), device=device)
