"""Delivery: the fraction earned against a recount in fractions, and each rule by itself."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.model.delivery import (
    Delivery,
    DeliveryRules,
    Promise,
    Sample,
    counted_bits,
    earned_ppm,
    evidence,
    sample_fraction_ppm,
)
from auction.model.errors import BadValue

RULES = DeliveryRules()
PROMISE = Promise(starts_ms=0, ends_ms=10_000, rate_min_bps=1000, rate_max_bps=5000, latency_ms_max=50)


def sample_of(starts_ms: int, ends_ms: int, asked: int, got: int, **change: Any) -> Sample:
    return Sample(starts_ms=starts_ms, ends_ms=ends_ms, asked_bits=asked, got_bits=got, **change)


def delivery_of(*samples: Sample, **change: Any) -> Delivery:
    return Delivery(agreement="g", measured_by="p", samples=samples, **change)


FULL = sample_of(0, 10_000, 10_000, 10_000)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[Promise, Delivery, DeliveryRules]:
    low = draw(st.none() | st.integers(0, 3000))
    high = draw(st.none() | st.integers(low or 0, 6000)) if low is not None else draw(st.integers(0, 6000))
    promise = Promise(
        starts_ms=1000,
        ends_ms=9000,
        rate_min_bps=low,
        rate_max_bps=high,
        availability_ppm=draw(st.sampled_from([1_000_000, 990_000, 500_000])),
        latency_ms_max=draw(st.none() | st.integers(0, 100)),
    )
    edges = sorted(draw(st.lists(st.integers(1000, 9000), unique=True, max_size=10)))
    samples = []
    for starts_ms, ends_ms in zip(edges[::2], edges[1::2], strict=False):
        samples.append(
            sample_of(
                starts_ms,
                ends_ms,
                draw(st.integers(0, 20_000)),
                draw(st.integers(0, 20_000)),
                latency_ms=draw(st.none() | st.integers(0, 200)),
                available=draw(st.booleans()),
            )
        )
    audited = draw(st.integers(0, 9))
    rules = DeliveryRules(
        late_earns_ppm=draw(st.sampled_from([0, 500_000, 1_000_000])), audit_times=draw(st.integers(0, 4))
    )
    failed = draw(st.integers(0, audited))
    return promise, delivery_of(*samples, audited=audited, audits_failed=failed), rules


def recount(promise: Promise, delivery: Delivery, rules: DeliveryRules) -> Fraction:
    """Slow twin, millisecond by millisecond and in fractions, from the words of the rules."""
    earned = Fraction(0)
    for at_ms in range(promise.starts_ms, promise.ends_ms):
        for sample in delivery.samples:
            if not sample.starts_ms <= at_ms < sample.ends_ms or not sample.available:
                continue
            fraction = Fraction(1)
            if promise.rate_min_bps:
                owed = min(sample.asked_bits, promise.rate_min_bps * (sample.ends_ms - sample.starts_ms) // 1000)
                fraction = min(Fraction(1), Fraction(sample.got_bits, owed)) if owed else fraction
            too_late = promise.latency_ms_max is not None and (sample.latency_ms or 0) > promise.latency_ms_max
            if too_late:
                fraction *= Fraction(rules.late_earns_ppm, 10**6)
            earned += fraction
    earned /= promise.ends_ms - promise.starts_ms
    earned = min(Fraction(1), earned / Fraction(promise.availability_ppm, 10**6))
    if delivery.audited:
        earned *= max(Fraction(0), 1 - rules.audit_times * Fraction(delivery.audits_failed, delivery.audited))
    return earned


@given(deliveries())
def test_fraction_earned_is_the_recount_rounded_down(world: tuple[Promise, Delivery, DeliveryRules]) -> None:
    promise, delivery, rules = world
    exact = recount(promise, delivery, rules) * 10**6
    assert 0 <= exact - earned_ppm(promise, delivery, rules) < 8  # three floors, over an availability of one half


@given(deliveries())
def test_evidence_says_what_was_earned_and_changes_with_every_sample(
    world: tuple[Promise, Delivery, DeliveryRules],
) -> None:
    promise, delivery, rules = world
    record = evidence(promise, delivery, rules)
    assert record.earned_ppm == earned_ppm(promise, delivery, rules)
    assert record == evidence(promise, delivery, rules)
    assert 0 <= record.late_ppm + 0 <= record.time_ppm <= 1_000_000
    for place, sample in enumerate(delivery.samples):
        samples = list(delivery.samples)
        samples[place] = msgspec.structs.replace(sample, got_bits=sample.got_bits + 1)
        other = msgspec.structs.replace(delivery, samples=tuple(samples))
        assert evidence(promise, other, rules).digest != record.digest


@pytest.mark.parametrize(
    ("sample", "fraction_ppm"),
    [
        (FULL, 1_000_000),
        (sample_of(0, 10_000, 20_000, 5_000), 500_000),  # half of the minimum, though more was asked
        (sample_of(0, 10_000, 4_000, 4_000), 1_000_000),  # below the minimum because no more was asked
        (sample_of(0, 10_000, 0, 0), 1_000_000),  # idle but there
        (sample_of(0, 10_000, 10_000, 10_000, latency_ms=51), 500_000),
        (sample_of(0, 10_000, 10_000, 10_000, latency_ms=50), 1_000_000),
        (sample_of(0, 10_000, 10_000, 10_000, available=False), 0),
        (sample_of(0, 10_000, 99_000, 99_000), 1_000_000),  # above the maximum earns nothing more
    ],
)
def test_each_rule_by_itself(sample: Sample, fraction_ppm: int) -> None:
    assert sample_fraction_ppm(PROMISE, sample, RULES) == fraction_ppm
    assert earned_ppm(PROMISE, delivery_of(sample), RULES) == fraction_ppm


def test_time_without_a_sample_and_failed_audits_cost() -> None:
    assert earned_ppm(PROMISE, delivery_of(), RULES) == 0
    assert earned_ppm(PROMISE, delivery_of(sample_of(0, 7_500, 7_500, 7_500)), RULES) == 750_000
    lenient = msgspec.structs.replace(PROMISE, availability_ppm=750_000)
    assert earned_ppm(lenient, delivery_of(sample_of(0, 7_500, 7_500, 7_500)), RULES) == 1_000_000
    assert earned_ppm(PROMISE, delivery_of(FULL, audited=10, audits_failed=1), RULES) == 800_000
    assert earned_ppm(PROMISE, delivery_of(FULL, audited=10, audits_failed=5), RULES) == 0


def test_bits_above_the_maximum_do_not_count() -> None:
    assert counted_bits(PROMISE, sample_of(0, 1000, 9_000, 9_000)) == 5_000
    assert counted_bits(PROMISE, sample_of(0, 1000, 9_000, 4_000)) == 4_000


@pytest.mark.parametrize(
    "change",
    [
        {"rate_min_bps": 6000},
        {"rate_min_bps": None, "rate_max_bps": None},
        {"ends_ms": 0},
        {"availability_ppm": 0},
        {"latency_ms_max": -1},
        {"rate_max_bps": 1.5},
    ],
)
def test_promises_that_are_refused(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"starts_ms": 0, "ends_ms": 10, "rate_min_bps": 1000, "rate_max_bps": 5000}
    with pytest.raises(BadValue):
        Promise(**fields | change)


def test_deliveries_that_are_refused() -> None:
    with pytest.raises(BadValue, match="overlap"):
        delivery_of(sample_of(0, 10, 0, 0), sample_of(9, 20, 0, 0))
    with pytest.raises(BadValue, match="outside"):
        earned_ppm(PROMISE, delivery_of(sample_of(0, 10_001, 0, 0)), RULES)
    with pytest.raises(BadValue):
        delivery_of(audited=1, audits_failed=2)
    for field, value in (("got_bits", -1), ("got_bits", float("nan")), ("available", 1), ("ends_ms", 0)):
        with pytest.raises(BadValue):
            msgspec.structs.replace(FULL, **{field: value})
