"""Delivery: what was measured beside what was promised, and the fraction of the price that it earned. Pure.

All in whole numbers: rates in bits a second, times in milliseconds, fractions in parts per million, each rounded down.
Who measures and signs, and what is charged, stands elsewhere.
"""

from __future__ import annotations

import msgspec

from auction.model.bid import check_name, check_time, digest
from auction.model.errors import BadValue
from auction.model.money import PPM, check_integer, check_ppm


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider is held to in the window. At least one of the rates is set, and minimum <= maximum."""

    starts_ms: int
    ends_ms: int
    rate_min_bps: int | None = None
    rate_max_bps: int | None = None
    availability_ppm: int = PPM
    latency_ms_max: int | None = None

    def __post_init__(self) -> None:
        check_time(self.starts_ms, "start")
        check_time(self.ends_ms, "end")
        if self.starts_ms >= self.ends_ms:
            raise BadValue("a promise must end after it starts")
        if self.rate_min_bps is None and self.rate_max_bps is None:
            raise BadValue("a promise has a minimum or a maximum rate")
        for name in ("rate_min_bps", "rate_max_bps", "latency_ms_max"):
            if getattr(self, name) is not None:
                check_integer(getattr(self, name), name)
        if self.rate_min_bps is not None and self.rate_max_bps is not None and self.rate_min_bps > self.rate_max_bps:
            raise BadValue("the minimum rate is above the maximum")
        if check_ppm(self.availability_ppm, "availability") == 0:
            raise BadValue("an availability of nothing promises nothing")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in one interval: bits that the recipient asked for and got, the worst latency, and whether the
    service answered at all."""

    starts_ms: int
    ends_ms: int
    asked_bits: int
    got_bits: int
    latency_ms: int | None = None
    available: bool = True

    def __post_init__(self) -> None:
        check_time(self.starts_ms, "start of the sample")
        check_time(self.ends_ms, "end of the sample")
        if self.starts_ms >= self.ends_ms:
            raise BadValue("a sample must end after it starts")
        check_integer(self.asked_bits, "bits asked for")
        check_integer(self.got_bits, "bits got")
        if self.latency_ms is not None:
            check_integer(self.latency_ms, "latency")
        if type(self.available) is not bool:
            raise BadValue("a service is available or not")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one agreement, in order and apart from each other, and how many of the audited results failed."""

    agreement: str
    measured_by: str
    samples: tuple[Sample, ...] = ()
    audited: int = 0
    audits_failed: int = 0

    def __post_init__(self) -> None:
        check_name(self.agreement, "agreement")
        check_name(self.measured_by, "who measured")
        check_integer(self.audited, "audited results")
        check_integer(self.audits_failed, "failed audits", 0, self.audited)
        before_ms = 0
        for sample in self.samples:
            if sample.starts_ms < before_ms:
                raise BadValue("samples stand in order and do not overlap")
            before_ms = sample.ends_ms


class DeliveryRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is deducted: an interval later than promised earns `late_earns_ppm` of its fraction; the share of audits
    that failed costs `audit_times` as much of the whole."""

    late_earns_ppm: int = 500_000
    audit_times: int = 2

    def __post_init__(self) -> None:
        check_ppm(self.late_earns_ppm, "what a late interval earns")
        check_integer(self.audit_times, "times of the audit")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The measured delivery in numbers that a rating can cite by `digest`, the hash over agreement, promise and
    samples.

    `counted_bits` leaves out what exceeded the maximum rate; `time_ppm` is the share of the window that was available.
    """

    agreement: str
    measured_by: str
    digest: str
    earned_ppm: int
    time_ppm: int
    counted_bits: int
    late_ppm: int
    below_minimum_ppm: int
    audited: int
    audits_failed: int


def sample_fraction_ppm(promise: Promise, sample: Sample, rules: DeliveryRules) -> int:
    """The fraction that one interval earned.

    Nothing where the service did not answer. With a minimum rate, what was got of what was owed: the minimum, or what
    was asked if that was less. Without one, all. Of this, `late_earns_ppm` where the latency was above the promised.
    """
    if not sample.available:
        return 0
    fraction = PPM
    if promise.rate_min_bps is not None:
        owed = min(sample.asked_bits, promise.rate_min_bps * (sample.ends_ms - sample.starts_ms) // 1000)
        if sample.got_bits < owed:
            fraction = sample.got_bits * PPM // owed
    if _late(promise, sample):
        fraction = fraction * rules.late_earns_ppm // PPM
    return fraction


def _late(promise: Promise, sample: Sample) -> bool:
    return (
        promise.latency_ms_max is not None
        and sample.latency_ms is not None
        and sample.latency_ms > promise.latency_ms_max
    )


def _within(promise: Promise, delivery: Delivery) -> list[Sample]:
    """The samples, checked to lie in the promised window."""
    for sample in delivery.samples:
        if sample.starts_ms < promise.starts_ms or sample.ends_ms > promise.ends_ms:
            raise BadValue("a sample lies outside the promised window")
    return list(delivery.samples)


def earned_ppm(promise: Promise, delivery: Delivery, rules: DeliveryRules) -> int:
    """The fraction of the price that was earned, from 0 to 1,000,000. Raises BadValue for samples outside the window.

    The intervals' fractions by their time, over the promised availability of the window, at most all; time without a
    sample earned nothing. Then `audit_times` the share of failed audits is taken off. Bits beyond the maximum rate earn
    nothing more, since no interval earns more than all.
    """
    credit = sum(
        (sample.ends_ms - sample.starts_ms) * sample_fraction_ppm(promise, sample, rules)
        for sample in _within(promise, delivery)
    )
    owed_ms_ppm = (promise.ends_ms - promise.starts_ms) * promise.availability_ppm
    fraction = min(PPM, credit * PPM // owed_ms_ppm)
    if delivery.audited:
        kept = max(0, delivery.audited - rules.audit_times * delivery.audits_failed)
        fraction = fraction * kept // delivery.audited
    return fraction


def counted_bits(promise: Promise, sample: Sample) -> int:
    """The bits of an interval that count: what was got, capped at the maximum rate."""
    if promise.rate_max_bps is None:
        return sample.got_bits
    return min(sample.got_bits, promise.rate_max_bps * (sample.ends_ms - sample.starts_ms) // 1000)


def evidence(promise: Promise, delivery: Delivery, rules: DeliveryRules) -> Evidence:
    """The record of a finished delivery, the same on every machine for the same samples."""
    samples = _within(promise, delivery)
    window_ms = promise.ends_ms - promise.starts_ms
    available_ms = late_ms = below_ms = 0
    for sample in samples:
        length_ms = sample.ends_ms - sample.starts_ms
        if not sample.available:
            continue
        available_ms += length_ms
        late_ms += length_ms if _late(promise, sample) else 0
        owed = min(sample.asked_bits, (promise.rate_min_bps or 0) * length_ms // 1000)
        below_ms += length_ms if sample.got_bits < owed else 0
    parts = (msgspec.json.encode(promise), msgspec.json.encode(delivery), msgspec.json.encode(rules))
    return Evidence(
        agreement=delivery.agreement,
        measured_by=delivery.measured_by,
        digest=digest("auction.delivery", *parts).hex(),
        earned_ppm=earned_ppm(promise, delivery, rules),
        time_ppm=available_ms * PPM // window_ms,
        counted_bits=sum(counted_bits(promise, sample) for sample in samples),
        late_ppm=late_ms * PPM // window_ms,
        below_minimum_ppm=below_ms * PPM // window_ms,
        audited=delivery.audited,
        audits_failed=delivery.audits_failed,
    )
