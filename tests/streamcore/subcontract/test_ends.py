"""What is measured in money, and what a provider makes of a recipient's word: beside a slow twin, and case by case."""

import random
from fractions import Fraction

import pytest

from auction.model.agreement import Agreement
from auction.model.closing import Statement
from streamcore.subcontract.allocator import Interval
from streamcore.subcontract.ends import Word, answer
from streamcore.subcontract.figure import figure, sure_figure

STARTS, ENDS, PRICE = 1_000, 11_000, 4_000


def drawn(seed):
    """Intervals in order, some outside the block, some with gaps between them."""
    numbers = random.Random(seed)
    at_ms, found = numbers.randrange(0, 3_000), []
    for _ in range(numbers.randrange(0, 12)):
        at_ms += numbers.choice((0, 0, 300))
        ends_ms = at_ms + numbers.randrange(1, 2_000)
        asked = numbers.choice((0, 500, 10_000, 10**6))
        got, wrong = int(asked * numbers.choice((0, 0.5, 1))), int(numbers.random() < 0.1)
        found.append(Interval(at_ms, ends_ms, asked, got, 5, wrong))
        at_ms = ends_ms
    return found


def millisecond_by_millisecond(intervals, rate_bps, until_ms, idle):
    earned = Fraction(0)
    for at_ms in range(STARTS, min(ENDS, until_ms)):
        here = [each for each in intervals if each.starts_ms <= at_ms < each.ends_ms]
        if not here:
            earned += idle
            continue
        (one,) = here
        promised = rate_bps * (one.ends_ms - one.starts_ms) // 1000 if rate_bps else one.asked_bits
        owed = min(one.asked_bits, promised) if idle else promised
        share = min(10**6, one.got_bits * 10**6 // owed) if owed else 10**6
        earned += Fraction(0 if one.wrong and idle else share, 10**6)
    return int(PRICE * earned / (ENDS - STARTS))


@pytest.mark.parametrize("seed", range(60))
def test_a_figure_is_that_of_a_sum_over_every_millisecond(seed):
    intervals, rate_bps = drawn(seed), random.Random(-seed).choice((None, 1_000, 100_000))
    until_ms = random.Random(seed).randrange(0, 13_000)
    known = [each for each in intervals if each.ends_ms > STARTS]
    # An interval that lies partly outside counts there by its share of the time: the whole rate of it is compared.
    inside = [each for each in known if each.starts_ms >= STARTS and each.ends_ms <= min(ENDS, max(STARTS, until_ms))]
    wanted = millisecond_by_millisecond(inside, rate_bps, until_ms, idle=1)
    assert figure(PRICE, STARTS, ENDS, rate_bps, inside, until_ms) == wanted
    if rate_bps:
        inside = [each for each in known if each.starts_ms >= STARTS and each.ends_ms <= ENDS]
        assert sure_figure(PRICE, STARTS, ENDS, rate_bps, inside) == millisecond_by_millisecond(
            inside, rate_bps, ENDS, idle=0
        )


def test_what_is_sure_is_never_more_than_what_was_earned():
    for seed in range(300):
        intervals = [each for each in drawn(seed) if not each.wrong]
        assert sure_figure(PRICE, STARTS, ENDS, 5_000, intervals) <= figure(PRICE, STARTS, ENDS, 5_000, intervals, ENDS)


def agreement(recipient=None, provider=None, held=4_400):
    return Agreement(
        id="one", auction="a", recipient="clinic", provider="north", service="s", block="b", price=PRICE,
        currency="EUR", starts_ms=STARTS, ends_ms=ENDS, delta_ppm=100_000, penalty=1_000, exposure=PRICE,
        recipient_held=held, provider_held=1_400, recipient_says=recipient, provider_says=provider, state="closing",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "sure", "now_ms", "wanted"),
    [
        (None, 100, ENDS - 1, None),  # it goes on
        (None, 100, ENDS + 9_999, None),
        (None, 100, ENDS + 10_000, Word("finished", 2_000)),  # a recipient that is gone
        (("finished", 1_500, ENDS), 1_500, ENDS, Word("finished", 1_500)),
        (("finished", 1_500, ENDS - 1), 100, ENDS, Word("blaming", 1_500)),  # early: it has left
        (("leaving", 1_500, ENDS - 1), 1_578, ENDS, Word("blaming", 1_500)),  # within what may have come too late
        (("leaving", 0, ENDS - 1), 1_579, ENDS, Word("blaming", 2_000)),  # it does not cover what is sure
        (("blaming", 0, ENDS - 1), 0, ENDS - 1, Word("blaming", 0)),
    ],
)
def test_what_a_provider_answers(said, sure, now_ms, wanted):
    assert answer(agreement(Statement(*said) if said else None), sure, 2_000, now_ms) == wanted


def test_it_waits_until_the_rest_is_taken_over():
    blamed = Statement("blaming", 500, 5_000)
    assert answer(agreement(blamed, held=8_000), 0, 2_000, 6_000) is None
    assert answer(agreement(blamed, held=4_400), 0, 2_000, 6_000) == Word("blaming", 500)
    assert answer(agreement(blamed, held=8_000), 0, 2_000, ENDS) == Word("blaming", 500)


def test_what_it_has_said_it_does_not_say_again_and_who_left_has_left():
    finished = Statement("finished", 1_500, ENDS)
    assert answer(agreement(finished, Statement("finished", 1_500, ENDS)), 0, 2_000, ENDS) is None
    assert answer(agreement(finished, Statement("leaving", 1_600, 5_000)), 0, 2_000, ENDS) == Word("leaving", 1_500)


def test_who_was_away_says_so_and_takes_the_recipients_word():
    blamed = Statement("blaming", 500, 5_000)
    assert answer(agreement(), 0, 2_000, 6_000, was_away=True) == Word("leaving", 2_000)
    assert answer(agreement(), 0, 2_000, ENDS, was_away=True) is None  # it claims nothing of who is silent
    assert answer(agreement(blamed), 0, 2_000, 6_000, was_away=True) == Word("leaving", 500)
