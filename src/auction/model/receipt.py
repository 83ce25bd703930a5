"""Receipts: what both sides sign while a service runs, and what each interval earned.

Pure integer arithmetic: times in milliseconds, rates in bits per second, amounts in minor units. The sides exchange
receipts on their own connection, not here; closing.py applies them at the end.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Final, Literal

import msgspec

from auction.model.bid import check_name, check_time, digest
from auction.model.errors import BadSignature, BadValue
from auction.model.money import check_amount, check_integer
from auction.model.party import Signature, Verifier, check_public_key

INTERVAL_MS_MIN: Final = 100
INTERVAL_MS_MAX: Final = 1_000
INTERVALS_OF_A_WINDOW: Final = 120
PAUSE_MS_MIN: Final = 500
WHOLE: Final = 2**128  # an interval that was served in full adds this to `earned`
BITS_MAX: Final = 2**63 - 1
_HEX: Final = frozenset(string.hexdigits.lower())

Side = Literal["provider", "recipient"]
WideInteger = Annotated[int, "beyond 64 bits"]


def interval_ms(window_ms: int) -> int:
    """I: the length of an interval, a 120th of the window (rounded down), between 0.1 and 1 s."""
    return min(max(window_ms // INTERVALS_OF_A_WINDOW, INTERVAL_MS_MIN), INTERVAL_MS_MAX)


def interval_count(window_ms: int) -> int:
    """N: the number of intervals in the window. The last may be shorter, and earns as much as the others."""
    return -(-window_ms // interval_ms(window_ms))


def pause_ms(window_ms: int) -> int:
    """T: after this long without a receipt the provider holds results back. 2 I, at least 0.5 s."""
    return max(2 * interval_ms(window_ms), PAUSE_MS_MIN)


def exposure(price: int, window_ms: int, receipts: bool = True) -> int:
    """e: the most of the price that is open beyond the last receipt. P(I+T)/W, rounded up so that it covers what was
    served, and at most the price; the whole price without receipts."""
    check_amount(price, "price")
    if not receipts:
        return price
    check_integer(window_ms, "window", 1)
    return min(price, -(-price * (interval_ms(window_ms) + pause_ms(window_ms)) // window_ms))


class ReceiptTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the award fixes for an agreement's receipts: names, price, window, rates, and the Ed25519 keys of both
    sides, which stay valid to the end even if a side publishes another key."""

    market: str
    agreement: str
    leg: int
    price: int
    starts_ms: int
    ends_ms: int
    minimum_bps: int | None
    maximum_bps: int | None
    provider_key: str
    recipient_key: str

    def __post_init__(self) -> None:
        check_name(self.market, "market")
        check_name(self.agreement, "agreement")
        check_integer(self.leg, "leg")
        check_amount(self.price, "price")
        check_time(self.starts_ms, "start")
        check_time(self.ends_ms, "end")
        if self.starts_ms >= self.ends_ms:
            raise BadValue("a window must end after it starts")
        rates = [rate for rate in (self.minimum_bps, self.maximum_bps) if rate is not None]
        if not rates:
            raise BadValue("a minimum or a maximum rate must be promised")
        for rate in rates:
            check_integer(rate, "rate", 1)
        if rates[0] > rates[-1]:
            raise BadValue("the minimum rate is above the maximum")
        check_public_key(self.provider_key)
        check_public_key(self.recipient_key)

    @property
    def window_ms(self) -> int:
        return self.ends_ms - self.starts_ms

    @property
    def intervals(self) -> int:
        return interval_count(self.window_ms)

    def length_ms(self, number: int) -> int:
        """The length of the interval that ends with receipt `number` (from 1 on)."""
        whole_ms = interval_ms(self.window_ms)
        return min(whole_ms, self.window_ms - whole_ms * (number - 1))

    def bits_at(self, rate_bps: int, length_ms: int) -> int:
        """The bits of a rate in a time, rounded up to whole bits."""
        return -(-rate_bps * length_ms // 1000)

    def digest(self) -> str:
        """The digest that the first receipt names as its predecessor, so that the whole chain depends on these
        terms."""
        return digest("auction.receipt.terms", msgspec.json.encode(self, order="sorted")).hex()


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What has been served after `number` intervals, counted from the start, without a clock.

    `asked_bits` are the bits that were due: given at least a deadline ago. `got_bits` came back in time. `wrong` counts
    results found wrong. `earned` is the sum over the intervals, WHOLE for one served in full. `inputs` and `results`
    are the heads of two hash chains (see `chained`), `before` is the digest of the previous receipt, or of the
    terms."""

    market: str
    agreement: str
    leg: int
    number: int
    asked_bits: int
    got_bits: int
    wrong: int
    earned: WideInteger
    inputs: str
    results: str
    before: str

    def __post_init__(self) -> None:
        check_name(self.market, "market")
        check_name(self.agreement, "agreement")
        check_integer(self.leg, "leg")
        check_integer(self.number, "number of the receipt", 1)
        check_integer(self.asked_bits, "bits asked", 0, BITS_MAX)
        check_integer(self.got_bits, "bits got", 0, BITS_MAX)
        check_integer(self.wrong, "results found wrong")
        check_integer(self.earned, "earned", 0, WHOLE * self.number)
        for name in ("inputs", "results", "before"):
            text = getattr(self, name)
            if type(text) is not str or len(text) != 64 or not set(text) <= _HEX:
                raise BadValue(f"{name} must be a SHA-256 in lower-case hexadecimal digits")

    def to_sign(self) -> bytes:
        """The canonical bytes: one JSON object with sorted keys and no spaces, of the fields, the purpose and the
        version of this form. There is no nonce and no expiry: the number orders receipts."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return msgspec.json.encode({**fields, "purpose": "receipt", "version": 1}, order="sorted")

    def digest(self) -> str:
        return digest("auction.receipt", self.to_sign()).hex()


class SignedReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A receipt with its signatures: 64 bytes of Ed25519 each, or none."""

    receipt: Receipt
    recipient: bytes = b""
    provider: bytes = b""

    @property
    def by_both(self) -> bool:
        return bool(self.recipient and self.provider)


def chained(head: str, parts: Iterable[bytes]) -> str:
    """The head of a hash chain after these inputs or results: for each part, the SHA-256 of head and part. It starts
    from the digest of the terms."""
    for part in parts:
        head = digest("auction.receipt.chain", bytes.fromhex(head), part).hex()
    return head


def fraction(terms: ReceiptTerms, number: int, asked_bits: int, got_bits: int, wrong: int) -> Fraction:
    """f: the exact fraction, from 0 to 1, that one interval earned by the bits asked and got in it.

    got / min(asked, what the minimum rate promises; without a minimum, the maximum rate), at most 1. It is 1 if nothing
    was asked and the provider signed, and 0 if the provider signed that a result was wrong."""
    if wrong:
        return Fraction(0)
    rate_bps = terms.minimum_bps if terms.minimum_bps is not None else terms.maximum_bps or 0
    due = min(asked_bits, terms.bits_at(rate_bps, terms.length_ms(number)))
    return Fraction(min(got_bits, due), due) if due else Fraction(1)


def _counted(earned: Fraction) -> int:
    """A fraction in the units of `earned`, rounded up. The figure is then exact if the product of the price, the number
    of intervals and the common denominator of their fractions is below 2**128."""
    return -(-earned.numerator * WHOLE // earned.denominator)


def next_receipt(
    terms: ReceiptTerms,
    before: Receipt | None,
    asked_bits: int,
    got_bits: int,
    wrong: int,
    inputs: Iterable[bytes] = (),
    results: Iterable[bytes] = (),
) -> Receipt:
    """The receipt of the next interval, from the bits asked and got and the results found wrong in it. Raises BadValue
    for more bits than the maximum rate allows, or more got than asked for."""
    start = terms.digest()
    number = before.number + 1 if before else 1
    earned = _counted(fraction(terms, number, asked_bits, got_bits, wrong))
    receipt = Receipt(
        market=terms.market,
        agreement=terms.agreement,
        leg=terms.leg,
        number=number,
        asked_bits=asked_bits + (before.asked_bits if before else 0),
        got_bits=got_bits + (before.got_bits if before else 0),
        wrong=wrong + (before.wrong if before else 0),
        earned=earned + (before.earned if before else 0),
        inputs=chained(before.inputs if before else start, inputs),
        results=chained(before.results if before else start, results),
        before=before.digest() if before else start,
    )
    check_next(terms, before, receipt)
    return receipt


def check_alone(terms: ReceiptTerms, receipt: Receipt) -> None:
    """Checks one receipt without its predecessor. Raises BadValue for another agreement's receipt, for a number beyond
    the last interval, and for more bits than the maximum rate allows in all."""
    if (receipt.market, receipt.agreement, receipt.leg) != (terms.market, terms.agreement, terms.leg):
        raise BadValue("the receipt is for another market, agreement or leg")
    if receipt.number > terms.intervals:
        raise BadValue(f"the window has {terms.intervals} intervals, not {receipt.number}")
    if receipt.got_bits > receipt.asked_bits:
        raise BadValue("more bits were got than asked for")
    if terms.maximum_bps is not None:
        allowed = sum_of_bits(terms, terms.maximum_bps, receipt.number)
        if receipt.asked_bits > allowed:
            raise BadValue(f"the maximum rate allows {allowed} bits so far, not {receipt.asked_bits}")


def sum_of_bits(terms: ReceiptTerms, rate_bps: int, number: int) -> int:
    """The bits of a rate in the first `number` intervals, each rounded up."""
    last_ms, whole_ms = terms.length_ms(number), interval_ms(terms.window_ms)
    return terms.bits_at(rate_bps, whole_ms) * (number - 1) + terms.bits_at(rate_bps, last_ms)


def check_next(terms: ReceiptTerms, before: Receipt | None, after: Receipt) -> None:
    """Checks that a receipt follows from its predecessor (None: it is the first). Raises BadValue if a number
    decreases, the chain is broken, an interval exceeds the maximum rate, or it earned something other than its bits
    give."""
    check_alone(terms, after)
    if before is None:
        number, hangs_on, asked, got, wrong, earned = 1, terms.digest(), 0, 0, 0, 0
    else:
        check_alone(terms, before)
        number, hangs_on = before.number + 1, before.digest()
        asked, got, wrong, earned = before.asked_bits, before.got_bits, before.wrong, before.earned
    if after.number != number:
        raise BadValue(f"receipt {number} must follow {number - 1}, not {after.number}")
    if after.before != hangs_on:
        raise BadValue(f"receipt {number} does not name its predecessor's digest")
    asked, got, wrong = after.asked_bits - asked, after.got_bits - got, after.wrong - wrong
    if min(asked, got, wrong) < 0:
        raise BadValue("bits asked, bits got and results found wrong never decrease")
    if got > asked:
        raise BadValue("more bits were got in the interval than asked for")
    if terms.maximum_bps is not None and asked > terms.bits_at(terms.maximum_bps, terms.length_ms(number)):
        raise BadValue("more bits were asked in the interval than the maximum rate allows")
    if after.earned - earned != _counted(fraction(terms, number, asked, got, wrong)):
        raise BadValue("the interval's earning does not follow from its bits")


def check_signatures(terms: ReceiptTerms, signed: SignedReceipt, verifier: Verifier) -> None:
    """Raises BadSignature for a signature not made with the key that the agreement fixed, and for a receipt without
    any."""
    if not (signed.recipient or signed.provider):
        raise BadSignature("nobody has signed the receipt")
    for signature, key in ((signed.recipient, terms.recipient_key), (signed.provider, terms.provider_key)):
        if signature:
            # Receipts have no expiry, so the verifier gets one that has not passed.
            verifier.verify(key, signed.receipt.to_sign(), Signature("", 1, signature), 0)
