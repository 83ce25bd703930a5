"""What was measured of a delivery, beside what was promised."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, Leg, next_state
from auction.model.delivery import Delivery, Promise, earned_ppm, evidence
from auction.model.errors import NotAllowed
from auction.model.party import Signature
from auction.model.signing import delivery_body
from auction.moderator.draft import Draft
from auction.moderator.records import Measured
from auction.moderator.rules import parties


def deliver(draft: Draft, delivery: Delivery, signature: Signature | None) -> Measured:
    name, measured_by = delivery.agreement, delivery.measured_by
    agreement = draft.agreement(name)
    state = next_state(agreement.state, "deliver")
    if not _is_party_to(draft, agreement, measured_by):
        raise NotAllowed(f"{measured_by} is no party to {name}")
    signed = parties.check_signature(draft, "delivery", name, measured_by, delivery_body(delivery), signature)
    leg = agreement.legs[-1]
    measured = Measured(
        id=draft.new_id("delivery"),
        agreement=name,
        provider=agreement.provider,
        by_recipient=measured_by != agreement.provider,
        delivery=delivery,
        evidence=evidence(_promise(agreement, leg), delivery, draft.config.delivery),
        at_ms=draft.at_ms,
        signature=signed.signature if signed else b"",
    )
    draft.put("delivery", measured.id, measured)
    if measured.by_recipient or not leg.measured_by_recipient:
        leg = msgspec.structs.replace(
            leg,
            delivered_ppm=measured.evidence.earned_ppm,
            measurement=measured.id,
            measured_by_recipient=measured.by_recipient,
        )
    delivered = msgspec.structs.replace(agreement, state=state, legs=(*agreement.legs[:-1], leg))
    draft.put("agreement", name, delivered)
    return measured


def _is_party_to(draft: Draft, agreement: Agreement, party: str) -> bool:
    if party in (agreement.provider, agreement.recipient):
        return True
    return parties.stands_for(draft, party) == agreement.recipient


def cut_short(draft: Draft, agreement: Agreement, leg: Leg) -> Leg:
    """A leg that ended before its window did has to deliver only what lies before its end."""
    if not leg.measurement:
        return leg
    measured: Measured = draft.get("delivery", leg.measurement)
    samples = tuple(sample for sample in measured.delivery.samples if sample.ends_ms <= leg.until_ms)
    delivery = msgspec.structs.replace(measured.delivery, samples=samples)
    if leg.until_ms <= leg.from_ms:
        return msgspec.structs.replace(leg, delivered_ppm=0)
    earned = earned_ppm(_promise(agreement, leg), delivery, draft.config.delivery)
    return msgspec.structs.replace(leg, delivered_ppm=earned)


def _promise(agreement: Agreement, leg: Leg) -> Promise:
    """What the leg's provider is held to."""
    return Promise(
        starts_ms=leg.from_ms,
        ends_ms=leg.until_ms,
        rate_min_bps=agreement.minimum_bps,
        rate_max_bps=agreement.maximum_bps,
        availability_ppm=agreement.availability_ppm,
        latency_ms_max=agreement.latency_ms_max,
    )
