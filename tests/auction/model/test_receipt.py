"""Receipts: intervals and bounds, chains that cannot go back, signatures, and figures against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from auction.model.earned import (
    Earnings,
    FalseInterval,
    better,
    check_false_interval,
    earnings,
    figure,
    passed,
    shortfall,
)
from auction.model.errors import BadSignature, BadValue
from auction.model.party import Verifier
from auction.model.receipt import (
    WHOLE,
    Receipt,
    ReceiptTerms,
    SignedReceipt,
    check_alone,
    check_next,
    check_signatures,
    exposure,
    interval_count,
    interval_ms,
    next_receipt,
    pause_ms,
)

PROVIDER = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
RECIPIENT = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def key_of(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes_raw().hex()


TERMS = ReceiptTerms(
    market="m",
    agreement="agreement-1",
    leg=0,
    price=4_000,
    starts_ms=1_000_000,
    ends_ms=1_060_000,
    minimum_bps=1_000_000,
    maximum_bps=2_000_000,
    provider_key=key_of(PROVIDER),
    recipient_key=key_of(RECIPIENT),
)
DUE = 500_000  # what the minimum rate comes to in an interval of 0.5 s


def chain(*intervals: tuple[int, int, int], terms: ReceiptTerms = TERMS) -> list[Receipt]:
    """Receipts of intervals of (asked, got, wrong)."""
    receipts: list[Receipt] = []
    for number, one in enumerate(intervals, 1):
        before = receipts[-1] if receipts else None
        receipts.append(next_receipt(terms, before, *one, [b"in %d" % number], [b"out %d" % number]))
    return receipts


def signed(receipt: Receipt, by: str = "rp") -> SignedReceipt:
    return SignedReceipt(
        receipt,
        RECIPIENT.sign(receipt.to_sign()) if "r" in by else b"",
        PROVIDER.sign(receipt.to_sign()) if "p" in by else b"",
    )


@pytest.mark.parametrize(
    ("window_ms", "interval", "count", "pause", "open_of_4000"),
    [
        # I = W/120 in 0.1 to 1 s; T = 2 I, at least 0.5 s; e = P (I + T) / W
        (60_000, 500, 120, 1_000, 100),
        (10_000, 100, 100, 500, 240),
        (600_000, 1_000, 600, 2_000, 20),
        (120_000, 1_000, 120, 2_000, 100),
        (60_119, 500, 121, 1_000, 100),  # 99.8 is rounded up
        (100, 100, 1, 500, 4_000),
        (1, 100, 1, 500, 4_000),
    ],
)
def test_lengths_and_the_open_exposure(
    window_ms: int, interval: int, count: int, pause: int, open_of_4000: int
) -> None:
    assert interval_ms(window_ms) == interval
    assert interval_count(window_ms) == count
    assert pause_ms(window_ms) == pause
    assert exposure(4_000, window_ms) == open_of_4000
    assert exposure(4_000, window_ms, receipts=False) == 4_000


@given(st.integers(1, 10_000_000))
def test_the_intervals_cover_the_window_exactly(window_ms: int) -> None:
    terms = msgspec.structs.replace(TERMS, ends_ms=TERMS.starts_ms + window_ms)
    last = terms.length_ms(terms.intervals)
    assert 0 < last <= interval_ms(window_ms)
    assert interval_ms(window_ms) * (terms.intervals - 1) + last == window_ms


def test_what_intervals_earn() -> None:
    receipts = chain(
        (DUE, DUE, 0),  # all
        (2 * DUE, DUE, 0),  # the minimum alone is owed
        (DUE // 2, DUE // 2, 0),  # less was asked than is owed
        (DUE, DUE // 2, 0),  # half
        (0, 0, 0),  # nothing was asked
        (DUE, DUE, 1),  # a result was wrong, and the provider signed it
        (DUE, 0, 0),  # nothing came
    )
    earned = [receipt.earned * 2 // WHOLE for receipt in receipts]
    assert earned == [2, 4, 6, 7, 9, 9, 9]
    # floor(4,000 * 4.5 / 120) = 150; seven intervals in full would have been 233.
    assert figure(TERMS, receipts[-1]) == 150
    assert passed(TERMS, receipts[-1]) == 233
    assert shortfall(TERMS, receipts[-1]) == 83
    assert (figure(TERMS, None), shortfall(TERMS, None)) == (0, 0)


def test_a_third_three_times_is_one() -> None:
    terms = msgspec.structs.replace(TERMS, price=120, minimum_bps=6)
    receipts = chain((3, 1, 0), (3, 1, 0), (3, 1, 0), terms=terms)
    assert [figure(terms, receipt) for receipt in receipts] == [0, 0, 1]


def test_a_maximum_rate_alone_earns_nothing_for_nothing() -> None:
    terms = msgspec.structs.replace(TERMS, minimum_bps=None)
    assert figure(terms, chain((DUE, 0, 0), terms=terms)[-1]) == 0
    assert chain((2 * DUE, DUE, 0), terms=terms)[-1].earned == WHOLE // 2
    assert chain((2 * DUE, 2 * DUE, 0), terms=terms)[-1].earned == WHOLE


INTERVAL = st.integers(0, 2 * DUE).flatmap(
    lambda asked: st.tuples(st.just(asked), st.integers(0, asked), st.sampled_from([0, 0, 0, 1]))
)


@given(st.lists(INTERVAL, max_size=20), st.sampled_from([None, 1, 7, 1_000_000]), st.integers(0, 10_000))
def test_the_figure_is_the_exact_one(intervals: list[tuple[int, int, int]], minimum: int | None, price: int) -> None:
    terms = msgspec.structs.replace(TERMS, minimum_bps=minimum, price=price)
    total = Fraction(0)
    for asked, got, wrong in intervals:
        promised = Fraction(2_000_000 if minimum is None else minimum, 2)
        due = min(asked, -(-promised.numerator // promised.denominator))
        total += 0 if wrong else (min(Fraction(got, due), Fraction(1)) if due else 1)
    receipts = chain(*intervals, terms=terms)
    assert figure(terms, receipts[-1] if receipts else None) == floor(price * total / 120)


@given(st.lists(INTERVAL, min_size=1, max_size=6), st.data())
def test_a_receipt_that_was_altered_anywhere_does_not_follow(
    intervals: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    receipts = chain(*intervals)
    place = data.draw(st.integers(0, len(receipts) - 1))
    before, after = receipts[place - 1] if place else None, receipts[place]
    check_next(TERMS, before, after)
    name = data.draw(st.sampled_from(["number", "earned", "before", "market", "agreement", "leg"]))
    value = getattr(after, name)
    other = value + 1 if type(value) is int else ("0" * 64 if name == "before" else "another")
    try:
        changed = msgspec.structs.replace(after, **{name: other})
        changed.__post_init__()
    except BadValue:
        return
    with pytest.raises(BadValue):
        check_next(TERMS, before, changed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"number": 3}, "receipt 2 must follow 1"),
        ({"before": "0" * 64}, "does not name its predecessor"),
        ({"asked_bits": 1, "got_bits": 1}, "never decrease"),
        ({"got_bits": 1}, "never decrease"),
        ({"wrong": 0}, "never decrease"),
        ({"asked_bits": 4 * DUE}, "more bits were asked in the interval"),
        ({"asked_bits": 10 * DUE}, "allows 2000000 bits so far"),
        ({"got_bits": 3 * DUE}, "more bits were got than"),
        ({"earned": 2 * WHOLE}, "does not follow from its bits"),
        ({"market": "n"}, "another market"),
        ({"agreement": "agreement-2"}, "another market"),
        ({"leg": 1}, "another market"),
    ],
    ids=str,
)
def test_what_does_not_follow_is_said(change: dict[str, object], words: str) -> None:
    before, after = chain((DUE, DUE, 1), (DUE, DUE // 2, 0))
    with pytest.raises(BadValue, match=words):
        check_next(TERMS, before, msgspec.structs.replace(after, **change))


def test_bits_beyond_the_maximum_rate_are_no_interval() -> None:
    with pytest.raises(BadValue, match="maximum rate"):
        chain((2 * DUE + 1, 0, 0))
    with pytest.raises(BadValue, match="got"):
        chain((DUE, DUE + 1, 0))


def test_the_last_interval_is_the_last() -> None:
    last = chain(*[(0, 0, 0)] * 120)[-1]
    assert figure(TERMS, last) == 4_000
    with pytest.raises(BadValue, match="120 intervals, not 121"):
        next_receipt(TERMS, last, 0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": True},
        {"earned": WHOLE + 1},
        {"earned": -1},
        {"asked_bits": 1.0},
        {"inputs": "AB" * 32},
        {"results": ""},
        {"before": 5},
        {"market": ""},
    ],
    ids=str,
)
def test_what_is_no_receipt_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadValue):
        msgspec.structs.replace(chain((DUE, DUE, 0))[0], **change)


def test_a_chain_hangs_on_the_terms() -> None:
    other = msgspec.structs.replace(TERMS, recipient_key=key_of(STRANGER))
    with pytest.raises(BadValue, match="does not name its predecessor"):
        check_next(other, None, chain((DUE, DUE, 0))[0])


def test_signatures_are_of_the_keys_that_the_agreement_fixed() -> None:
    receipt = chain((DUE, DUE, 0))[0]
    verifier = Verifier()
    for by in ("r", "p", "rp"):
        check_signatures(TERMS, signed(receipt, by), verifier)
    forged = STRANGER.sign(receipt.to_sign())
    for wrong in (
        SignedReceipt(receipt),
        SignedReceipt(receipt, recipient=forged),
        SignedReceipt(receipt, RECIPIENT.sign(receipt.to_sign()), forged),
        SignedReceipt(receipt, provider=RECIPIENT.sign(receipt.to_sign())),
        SignedReceipt(msgspec.structs.replace(receipt, got_bits=1), RECIPIENT.sign(receipt.to_sign())),
        SignedReceipt(receipt, b"short"),
    ):
        with pytest.raises(BadSignature):
            check_signatures(TERMS, wrong, verifier)


def test_the_signed_bytes_are_canonical() -> None:
    receipt = chain((DUE, DUE // 2, 1))[0]
    assert receipt.to_sign() == (
        b'{"agreement":"agreement-1","asked_bits":500000,"before":"%b","earned":0,"got_bits":250000,"inputs":"%b",'
        b'"leg":0,"market":"m","number":1,"purpose":"receipt","results":"%b","version":1,"wrong":1}'
        % (receipt.before.encode(), receipt.inputs.encode(), receipt.results.encode())
    )
    again = msgspec.json.decode(msgspec.json.encode(signed(chain(*[(3, 1, 0)] * 3)[-1])), type=SignedReceipt)
    assert again == signed(chain(*[(3, 1, 0)] * 3)[-1]), "what is journalled is what is read back"


def test_of_two_receipts_the_one_that_both_signed_counts() -> None:
    low, high = chain((DUE, DUE, 0), (DUE, DUE, 0))
    assert better(TERMS, signed(low), signed(high)) == signed(high)
    assert better(TERMS, signed(low), signed(high, "r")) == signed(low)
    assert better(TERMS, signed(high, "p"), None) is None
    half = next_receipt(TERMS, low, DUE, DUE // 2, 0)
    assert better(TERMS, signed(high), signed(half)) == signed(half), "of two that both signed, the lower figure"


def proof_of(receipts: list[Receipt], place: int) -> FalseInterval:
    number = place + 1
    return FalseInterval(
        before=signed(receipts[place - 1]) if place else None,
        after=signed(receipts[place]),
        inputs=(b"in %d" % number,),
        results=(b"out %d" % number,),
        segment=0,
    )


def test_a_proof_shows_what_both_signed() -> None:
    receipts = chain(*[(DUE, DUE, 0)] * 3)
    for place in range(3):
        check_false_interval(TERMS, proof_of(receipts, place))
    good = proof_of(receipts, 1)
    for change in (
        {"inputs": (b"other",)},
        {"results": (b"other",)},
        {"segment": 1},
        {"segment": -1},
        {"before": None},
        {"before": signed(receipts[0], "r")},
        {"after": signed(receipts[1], "p")},
        {"after": signed(receipts[2])},
    ):
        with pytest.raises(BadValue):
            check_false_interval(TERMS, msgspec.structs.replace(good, **change))


def test_an_interval_that_was_proven_false_earns_nothing_once() -> None:
    receipts = chain(*[(DUE, DUE, 0)] * 60, (DUE, 0, 0))
    last = signed(receipts[-1])
    assert earnings(TERMS, last) == Earnings(signed=2_000, shortfall=33)
    proof = proof_of(receipts, 7)
    # 59 of 120 intervals: floor(4,000 * 59 / 120) = 1,966.
    assert earnings(TERMS, last, [proof, proof]) == Earnings(signed=1_966, shortfall=33, voided=34)
    assert earnings(TERMS, signed(receipts[3]), [proof]) == Earnings(signed=133), "an interval after what counts"
    assert earnings(TERMS, None) == Earnings()


def test_one_receipt_alone_is_checked_by_what_the_window_allows() -> None:
    receipt = chain((DUE, DUE, 0), (2 * DUE, DUE, 0))[-1]
    check_alone(TERMS, receipt)
    with pytest.raises(BadValue, match="allows 2000000 bits"):
        check_alone(TERMS, msgspec.structs.replace(receipt, asked_bits=4 * DUE + 1))
