"""Closing: the table of ends cell by cell against amounts computed by hand, a slow twin, a search for lies that pay.

The block of the examples: 60 s at 40.00, e 1.00, δ 10 %, Φ 10.00. Amounts in minor units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from math import floor

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model import closing
from auction.model.closing import (
    ENDINGS,
    Case,
    Payout,
    Statement,
    capture,
    is_over,
    owed_below_signature,
    restated,
    settle,
    to_capture,
)
from auction.model.errors import BadAmount, BadValue

ENDS_MS = 60_000
Figures = Callable[[Case], tuple[int, int]]
HALF = Case(
    price=4_000,
    delta_ppm=100_000,
    exposure=100,
    ends_ms=ENDS_MS,
    recipient_held=4_400,
    provider_held=1_400,
    penalty=1_000,
    signed=2_000,
)


def say(ending: str, figure: int, at_ms: int = ENDS_MS) -> Statement | None:
    return Statement(ending, figure, at_ms) if ending else None  # type: ignore[arg-type]


def case(provider: Statement | None, recipient: Statement | None, **others: object) -> Case:
    return msgspec.structs.replace(HALF, provider=provider, recipient=recipient, **others)


def flows(one: Case) -> tuple[int, int, int]:
    """What the provider gains, what the recipient loses, what nobody gets: all beside what goes back."""
    settled = settle(one)
    provider, recipient = settled.received("provider"), settled.received("recipient")
    return provider - one.provider_held, one.recipient_held - recipient, settled.received("nobody")


# Half was signed (2,000), and both state 2,050 (within e). Then U is 1,950, and δU 195.
EQUAL = {
    ("finished", "finished"): (2_050, 2_050, 0),
    ("finished", "leaving"): (2_245, 2_245, 0),
    ("finished", "blaming"): (1_855, 2_245, 390),
    ("finished", ""): (2_050, 2_245, 195),
    ("leaving", "finished"): (1_855, 1_855, 0),
    ("leaving", "leaving"): (2_050, 2_050, 0),
    ("leaving", "blaming"): (1_855, 1_855, 0),
    ("leaving", ""): (1_855, 1_855, 0),
    ("blaming", "finished"): (1_855, 2_245, 390),
    ("blaming", "leaving"): (2_245, 2_245, 0),
    ("blaming", "blaming"): (1_855, 2_245, 390),
    ("blaming", ""): (2_050, 2_245, 195),
    ("", "finished"): (1_855, 2_050, 195),
    ("", "leaving"): (2_245, 2_245, 0),
    ("", "blaming"): (1_855, 2_050, 195),
    ("", ""): (2_000, 2_000, 0),
}
# The provider states 2,090, the recipient 2,010: 2,010 is paid, 80 goes to nobody. δU is 199 by the lower figure (who
# pays), 191 by the higher (who receives), and the 8 between go to nobody.
APART = {
    ("finished", "finished"): (2_010, 2_090, 80),
    ("finished", "leaving"): (2_201, 2_289, 88),
    ("finished", "blaming"): (1_811, 2_289, 478),
    ("leaving", "finished"): (1_811, 1_899, 88),
    ("leaving", "leaving"): (2_010, 2_090, 80),
    ("leaving", "blaming"): (1_811, 1_899, 88),
    ("blaming", "finished"): (1_811, 2_289, 478),
    ("blaming", "leaving"): (2_201, 2_289, 88),
    ("blaming", "blaming"): (1_811, 2_289, 478),
}


@pytest.mark.parametrize("ends", EQUAL, ids=str)
def test_a_cell_with_one_figure(ends: tuple[str, str]) -> None:
    assert flows(case(say(ends[0], 2_050), say(ends[1], 2_050))) == EQUAL[ends]


@pytest.mark.parametrize("ends", APART, ids=str)
def test_a_cell_with_two_figures(ends: tuple[str, str]) -> None:
    assert flows(case(say(ends[0], 2_090), say(ends[1], 2_010))) == APART[ends]


def test_every_cell_has_its_hand_computed_line() -> None:
    assert set(EQUAL) == {(one, other) for one in (*ENDINGS, "") for other in (*ENDINGS, "")}
    assert set(APART) == {ends for ends in EQUAL if all(ends)}


def test_figures_are_bounded_by_what_both_signed_and_the_open_interval() -> None:
    # 4,000 against 0 is read as 2,100 against 2,000.
    assert flows(case(say("finished", 4_000), say("finished", 0))) == (2_000, 2_100, 100)
    assert flows(case(say("finished", 4_000), None)) == (2_100, 2_290, 190)
    assert flows(case(None, say("finished", 0))) == (1_800, 2_000, 200)


def test_equal_figures_are_taken_as_they_are() -> None:
    assert flows(case(say("finished", 3_000), say("finished", 3_000))) == (3_000, 3_000, 0)
    assert flows(case(say("finished", 500), say("finished", 500))) == (500, 500, 0)
    for one, other in itertools.product(ENDINGS, ENDINGS):
        for at_ms in (7, ENDS_MS):  # also where one's early `finished` meets `blaming`
            assert is_over(say(one, 500, at_ms), say(other, 500, at_ms))
    assert not is_over(say("finished", 500), say("finished", 501))
    assert not is_over(say("finished", 500), None)


def test_a_finish_by_one_alone_before_the_end_is_leaving() -> None:
    early = ENDS_MS - 1
    assert flows(case(say("finished", 2_050, early), say("blaming", 2_050))) == EQUAL["leaving", "blaming"]
    assert flows(case(say("blaming", 2_050), say("finished", 2_050, early))) == EQUAL["blaming", "leaving"]
    assert flows(case(None, say("finished", 2_050, early))) == EQUAL["", "leaving"]
    assert flows(case(say("finished", 2_050, early), say("finished", 2_050, early))) == EQUAL["finished", "finished"]
    assert flows(case(say("finished", 2_050, early), say("leaving", 2_050, early))) == EQUAL["leaving", "leaving"]


def test_an_early_finish_said_again_later_stays_early() -> None:
    first, again = Statement("finished", 10, 5), Statement("finished", 20, ENDS_MS)
    assert restated(first, again) == Statement("finished", 20, 5)
    assert restated(first, Statement("blaming", 20, 9)) == Statement("blaming", 20, 9)
    assert restated(None, again) == again


def test_who_was_absent_at_the_start_has_nothing_to_say_but_that_it_leaves() -> None:
    nothing = {"signed": 0, "provider_absent": True}
    # Absent, it claims what is open: the other's 0 counts, and it loses δP.
    assert flows(case(say("finished", 100), say("blaming", 0), **nothing)) == (-400, 0, 400)
    assert flows(case(say("leaving", 0), say("blaming", 0), **nothing)) == (-400, -400, 0)
    assert flows(case(say("finished", 100), None, **nothing)) == (0, 0, 0)


def test_a_shortfall_that_the_provider_signed_costs_it_a_share_to_the_recipient() -> None:
    # 1,900 of 2,000 were earned in the half that is over: S is 100. U is 4,000 - 1,900 - 100 = 2,000.
    short = {"signed": 1_900, "shortfall": 100}
    assert flows(case(say("finished", 1_900), say("finished", 1_900), **short)) == (1_890, 1_890, 0)
    assert flows(case(say("leaving", 1_900), say("blaming", 1_900), **short)) == (1_690, 1_690, 0)
    assert flows(case(None, None, **short)) == (1_900, 1_900, 0)
    # At the end all but the shortfall has been earned: nothing is undelivered.
    whole = {"signed": 3_900, "shortfall": 100}
    assert flows(case(say("leaving", 3_900), say("blaming", 3_900), **whole)) == (3_890, 3_890, 0)
    assert flows(case(say("finished", 4_000), say("finished", 3_900), **whole)) == (3_890, 3_890, 0)


def test_a_result_proven_wrong_costs_the_penalty_and_lets_the_recipient_leave_free() -> None:
    # The interval of 33 earns 0, and is no part of U: 4,000 - 1,967 - 33 = 2,000.
    false = {"signed": 1_967, "voided": 33, "falsified": True}
    assert flows(case(say("finished", 1_967), say("leaving", 1_967), **false)) == (967, 1_967, 1_000)
    assert flows(case(say("leaving", 1_967), say("blaming", 1_967), **false)) == (767, 1_767, 1_000)
    assert flows(case(None, None, **false)) == (967, 1_967, 1_000)


def test_a_card_that_captures_less_pays_the_provider_first() -> None:
    settled = settle(case(say("blaming", 2_050), say("blaming", 2_050)))  # 2,050 earned, 195 to nobody
    assert to_capture(settled) == 2_245
    short = capture(settled, 2_100)
    assert [(one.target, one.amount) for one in short.payouts if one.source == "recipient"] == [
        ("provider", 2_050),
        ("nobody", 50),
    ]
    assert [(one.target, one.amount) for one in short.debts] == [("nobody", 145)]
    assert short.debt == 145
    none = capture(settled, 0)
    assert none.debt == 2_245
    assert sum(one.amount for one in none.payouts) == HALF.provider_held
    assert capture(settled, 2_245).debts == ()
    with pytest.raises(BadValue, match="2245 was to be captured"):
        capture(settled, 2_246)


def test_the_first_claim_on_a_card_is_what_was_earned() -> None:
    settled = settle(case(say("finished", 2_090), say("leaving", 2_010)))
    short = capture(settled, 2_100)
    assert [(one.target, one.amount) for one in short.payouts if one.source == "recipient"] == [
        ("provider", 2_010),
        ("provider", 90),
    ]
    assert short.debt == 2_289 - 2_100


def test_a_figure_below_the_own_signature_is_owed_and_as_much_again() -> None:
    assert owed_below_signature(0, 4_000) == 8_000
    assert owed_below_signature(2_000, 2_000) == 0
    assert owed_below_signature(2_000, 1_000) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"price": 1.5}, BadAmount),
        ({"signed": -1}, BadAmount),
        ({"signed": 4_001}, BadValue),
        ({"recipient_held": 4_399}, BadValue),
        ({"provider_held": 1_399}, BadValue),
        ({"delta_ppm": 1_000_001}, BadValue),
        ({"provider": Statement("finished", 4_001, 0)}, BadValue),
    ],
    ids=str,
)
def test_a_case_that_cannot_be_is_refused(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        msgspec.structs.replace(HALF, **change)


@pytest.mark.parametrize("words", [("gone", 0, 0), ("finished", -1, 0), ("finished", 0, -1), ("finished", True, 0)])
def test_a_statement_that_is_none_is_refused(words: tuple[object, object, object]) -> None:
    with pytest.raises((BadValue, BadAmount)):
        Statement(*words)  # type: ignore[arg-type]


def test_the_words_say_why() -> None:
    settled = settle(case(say("leaving", 2_090), say("blaming", 2_010)))
    assert settled.payouts == (
        Payout("recipient", "provider", 2_010, "what was earned"),
        Payout("recipient", "nobody", 80, "the figures differ"),
        Payout("provider", "recipient", 191, "the provider is leaving, the recipient blaming"),
        Payout("provider", "nobody", 8, "the provider is leaving, the recipient blaming, and the figures differ"),
        Payout("recipient", "recipient", 2_310, "goes back"),
        Payout("provider", "provider", 1_201, "goes back"),
    )


# --- a slow twin, from the words of the rules ---------------------------------------------------------------------


def twin(one: Case) -> tuple[int, int, int]:
    """(provider's gain, recipient's loss, nobody's part), told sentence by sentence in exact fractions."""
    delta = Fraction(one.delta_ppm, 1_000_000)

    def word(statement: Statement | None, absent: bool, other: Statement | None, other_absent: bool) -> str:
        if statement is None or (absent and statement.ending != "leaving"):
            return "silent"
        other_finished = other is not None and not other_absent and other.ending == "finished"
        if statement.ending == "finished" and statement.at_ms < one.ends_ms and not other_finished:
            return "leaving"
        return statement.ending

    provider = word(one.provider, one.provider_absent, one.recipient, one.recipient_absent)
    recipient = word(one.recipient, one.recipient_absent, one.provider, one.provider_absent)
    stated: dict[str, int] = {}
    if provider != "silent" and one.provider is not None:
        stated["provider"] = one.provider.figure
    if recipient != "silent" and one.recipient is not None:
        stated["recipient"] = one.recipient.figure
    if len(stated) == 2 and stated["provider"] == stated["recipient"]:
        counted = list(stated.values())
    else:
        top = min(one.signed + one.exposure, one.price - one.shortfall - one.voided)
        counted = [sorted((one.signed, figure, top))[1] for figure in stated.values()]
        if one.signed == top:
            counted = [top] * len(stated)
    if not counted:
        counted = [one.signed]
    paid, upper = min(counted), max(counted)

    def share(figure: int) -> int:
        return floor(delta * max(0, one.price - figure - one.shortfall - one.voided))

    provider_gain, recipient_loss, nobody = paid, upper, upper - paid
    words = {provider, recipient}
    if provider == "leaving" and recipient != "leaving":  # the provider pays δU to the recipient
        provider_gain -= share(paid)
        recipient_loss -= share(upper)
        nobody += share(paid) - share(upper)
    elif recipient == "leaving" and provider != "leaving":  # the recipient pays δU to the provider
        if not one.falsified:
            recipient_loss += share(paid)
            provider_gain += share(upper)
            nobody += share(paid) - share(upper)
    elif words == {"silent"} or words == {"finished"} or words == {"leaving"}:
        pass
    elif "silent" in words:  # who is silent loses δU to nobody
        nobody += share(paid)
        if provider == "silent":
            provider_gain -= share(paid)
        else:
            recipient_loss += share(paid)
    else:  # one blames, and the other does not leave: each loses δU to nobody
        provider_gain -= share(paid)
        recipient_loss += share(paid)
        nobody += 2 * share(paid)
    if words != {"silent"}:
        signed_short = floor(delta * one.shortfall)
        provider_gain -= signed_short
        recipient_loss -= signed_short
    if one.falsified:
        provider_gain -= one.penalty
        nobody += one.penalty
    return provider_gain, recipient_loss, nobody


@st.composite
def cases(draw: st.DrawFn) -> Case:
    price = draw(st.integers(0, 10_000))
    delta_ppm = draw(st.sampled_from([0, 10_000, 100_000, 123_457, 500_000, 1_000_000]))
    penalty = draw(st.integers(0, 3_000))
    delta = -(-price * delta_ppm // 1_000_000)
    signed = draw(st.integers(0, price))
    shortfall = draw(st.integers(0, price - signed))
    voided = draw(st.integers(0, price - signed - shortfall))

    def statement() -> Statement | None:
        ending = draw(st.sampled_from([*ENDINGS, ""]))
        near = st.integers(max(0, signed - 5), min(price, signed + 205))
        return say(ending, draw(near | st.integers(0, price)), draw(st.sampled_from([ENDS_MS - 1, ENDS_MS])))

    return Case(
        price=price,
        delta_ppm=delta_ppm,
        exposure=draw(st.sampled_from([0, 1, 100, price])),
        ends_ms=ENDS_MS,
        recipient_held=price + delta + draw(st.sampled_from([0, 2_000])),
        provider_held=delta + penalty,
        penalty=penalty,
        signed=signed,
        shortfall=shortfall,
        voided=voided,
        falsified=draw(st.booleans()),
        provider=statement(),
        recipient=statement(),
        provider_absent=draw(st.integers(0, 9)) == 0,
        recipient_absent=draw(st.integers(0, 9)) == 0,
    )


@given(cases())
def test_the_twin_says_the_same(one: Case) -> None:
    assert flows(one) == twin(one)


@given(cases())
def test_money_is_conserved(one: Case) -> None:
    settled = settle(one)
    assert all(payout.amount > 0 for payout in settled.payouts)
    for side, held in (("recipient", one.recipient_held), ("provider", one.provider_held)):
        assert sum(payout.amount for payout in settled.payouts if payout.source == side) == held
    assert settled.burnt == settled.received("nobody")


@given(cases(), st.integers(0, 1_000_000))
def test_captured_and_owed_come_to_what_was_to_be_captured(one: Case, share_ppm: int) -> None:
    settled = settle(one)
    captured = to_capture(settled) * share_ppm // 1_000_000
    done = capture(settled, captured)
    assert sum(payout.amount for payout in done.payouts) == captured + one.provider_held
    assert captured + done.debt == to_capture(settled)
    if any(payout.target == "nobody" and payout.source == "recipient" for payout in done.payouts):
        assert not any(debt.target == "provider" for debt in done.debts), "a penalty before what the provider is due"


# --- the search: does a lie pay against who states the truth? ------------------------------------------------------

# How a service can have ended, and what each side then says if it says the truth. `early`: before ends_ms.
TRUTHS = {
    "all was delivered": ("finished", "finished"),
    "the provider left": ("leaving", "blaming"),
    "the recipient left": ("blaming", "leaving"),
    "each holds the other for the cause": ("blaming", "blaming"),
}


def moves(price: int, at_ms: int) -> list[Statement | None]:
    return [None, *(Statement(ending, figure, at_ms) for ending in ENDINGS for figure in range(price + 1))]


def best_lie(one: Case, side: str) -> tuple[int, Statement | None]:
    """The most that a side gains over its truth by any other statement or by silence, and the statement."""
    liar = 0 if side == "provider" else 1
    sign = 1 if side == "provider" else -1
    truth = sign * flows(one)[liar]
    gains = []
    for at_ms in (ENDS_MS - 1, ENDS_MS):
        for move in moves(one.price, at_ms):
            gains.append((sign * flows(msgspec.structs.replace(one, **{side: move}))[liar] - truth, str(move), move))
    gain, _, move = max(gains)
    return gain, move


def situations(price: int, deltas: tuple[int, ...]) -> list[Case]:
    """All that both signed, all that is true, every e, every δ, on a small grid; the truth is within the open e."""
    found = []
    for signed, exposure, delta_ppm in itertools.product(range(0, price + 1, 3), (1, 4), deltas):
        held = -(-price * delta_ppm // 1_000_000)
        for shortfall in (0, 2):
            for true in range(signed, min(signed + exposure, price - shortfall) + 1):
                found.append(
                    Case(
                        price=price,
                        delta_ppm=delta_ppm,
                        exposure=exposure,
                        ends_ms=ENDS_MS,
                        recipient_held=price + held,
                        provider_held=held,
                        signed=signed,
                        shortfall=shortfall,
                        provider=Statement("blaming", true, ENDS_MS),
                        recipient=Statement("blaming", true, ENDS_MS),
                    )
                ) if signed + shortfall <= price else None
    return found


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("side", ["provider", "recipient"])
def test_no_lie_pays_against_the_truth(truth: str, side: str) -> None:
    """Every statement and every silence of one side, against the other's truth, in every situation of the grid."""
    words = dict(zip(("provider", "recipient"), TRUTHS[truth], strict=True))
    seen = 0
    for situation in situations(14, (100_000, 500_000)):
        stated = {one: Statement(words[one], situation.provider.figure, ENDS_MS) for one in words}  # type: ignore
        gain, move = best_lie(msgspec.structs.replace(situation, **stated), side)
        assert gain <= 0, (gain, move, situation)
        seen += 2 * len(moves(situation.price, 0))
    assert seen > 5_000


def most_gained(words: tuple[str, str], side: str, at_ms: int = ENDS_MS) -> int:
    """The best lie of one side against these words of the other, over the grid, in units of the situation's δU."""
    worst = 0
    for situation in situations(14, (500_000,)):
        figure = situation.provider.figure  # type: ignore[union-attr]
        stated = {one: say(word, figure, at_ms) for one, word in zip(("provider", "recipient"), words, strict=True)}
        worst = max(worst, best_lie(msgspec.structs.replace(situation, **stated), side)[0])
    return worst


def test_what_a_lie_gains_where_no_truth_stands_against_it() -> None:
    """What cannot be had by this table, so that the docs can say it. In the grid e is 4 at most, δU 7 (half of 14).

    Against who is silent for all of C, a provider that did its part gains the open e, and one that left saves its δU
    besides. Of two that each left by their own word, or that part early for nothing, one gains δU of the other's word
    by blaming: a `finished` before the end is `leaving`, and costs what that costs, unless the other agrees."""
    assert most_gained(("finished", ""), "provider") == 4
    assert most_gained(("leaving", ""), "provider") == 7 + 4
    assert most_gained(("", "finished"), "recipient") == 4
    assert most_gained(("leaving", "leaving"), "provider") == 7
    assert most_gained(("finished", "finished"), "provider", ENDS_MS - 1) == 7


def share_the_difference(one: Case, real: Figures) -> tuple[int, int]:
    lower, higher = real(one)
    return (lower + higher + 1) // 2, higher


def believe_the_provider(one: Case, real: Figures) -> tuple[int, int]:
    return (one.provider.figure, one.provider.figure) if one.provider and one.recipient else real(one)


@pytest.mark.parametrize("planted", [share_the_difference, believe_the_provider])
def test_the_search_finds_figures_that_pay_who_lies(
    planted: Callable[[Case, Figures], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = closing.figures
    monkeypatch.setattr(closing, "figures", lambda one: planted(one, real))
    assert most_gained(TRUTHS["the provider left"], "provider") > 0


def test_the_search_finds_a_receiver_that_counts_by_the_lower_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = closing._penalties

    def by_the_lower(one: Case, source: str, target: str, lower: int, _higher: int, *ends: str) -> list[Payout]:
        return real(one, source, target, lower, lower, *ends)  # type: ignore[arg-type]

    monkeypatch.setattr(closing, "_penalties", by_the_lower)
    assert most_gained(TRUTHS["the provider left"], "recipient") > 0


def test_the_search_finds_a_reproach_that_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(closing.TABLE, ("blaming", "blaming"), ())
    assert most_gained(TRUTHS["the provider left"], "provider") > 0
