"""What was measured of a delivery beside what was promised, and who takes over from a provider that fails."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, Leg, Runner, next_state, replace_provider
from auction.model.block import Block
from auction.model.delivery import Delivery, Promise, earned_ppm, evidence
from auction.model.errors import BadValue, NoAward, NotAllowed, WrongState
from auction.model.ledger import bond, held_bond, topped_up
from auction.model.party import Signature
from auction.model.signing import delivery_body
from auction.moderator.draft import Draft
from auction.moderator.records import Measured
from auction.moderator.rules import chains, opinions, parties


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


def replace(draft: Draft, name: str) -> Agreement:
    agreement = draft.agreement(name)
    next_state(agreement.state, "replace")
    block = draft.block(agreement.block)
    if block.state != "sold":
        raise NoAward(f"the block of {name} is {block.state}: nobody can take it over whole")
    why = "no runner-up is armed"
    for runner in agreement.runners_up:
        reason = _why_unable(draft, agreement, runner, block)
        if reason:
            why = f"{runner.provider}: {reason}"
            continue
        return _take_over(draft, agreement, runner, block)
    raise NoAward(f"nobody can take over {name}: {why}")


def _why_unable(draft: Draft, agreement: Agreement, runner: Runner, block: Block) -> str:
    needed_bond = _bond_of_runner(draft, agreement, runner)
    if draft.balance(bond(runner.provider)) < needed_bond:
        return "its bond is gone"
    rest = _rest_of(draft, agreement, block)
    if rest is None:
        return "the window is over"
    peak = draft.committed_peak(runner.provider, rest)
    if peak + rest.committed_bps > draft.party(runner.provider).capacity_bps:
        return "its capacity is taken"
    if not chains.may_take_over(draft, agreement, runner.provider):
        return "it is in the chain already"
    try:
        replace_provider(agreement, runner, draft.at_ms, needed_bond)
    except BadValue as reason:
        return str(reason)
    return ""


def _bond_of_runner(draft: Draft, agreement: Agreement, runner: Runner) -> int:
    record = draft.auction(agreement.auction)
    return opinions.bond_needed(draft, record, opinions.rating_at(draft, record, runner.provider))


def _rest_of(draft: Draft, agreement: Agreement, block: Block) -> Block | None:
    starts_ms = max(draft.at_ms, block.starts_ms)
    return msgspec.structs.replace(block, starts_ms=starts_ms) if starts_ms < block.ends_ms else None


def _take_over(draft: Draft, agreement: Agreement, runner: Runner, block: Block) -> Agreement:
    name = agreement.id
    needed_bond = _bond_of_runner(draft, agreement, runner)
    decided = replace_provider(agreement, runner, draft.at_ms, needed_bond)
    if decided.top_up_back:
        draft.transfer(topped_up(name), bond(decided.top_up_of), decided.top_up_back)
    draft.transfer(held_bond(name), topped_up(name), decided.difference)
    if agreement.bond_of:
        draft.transfer(held_bond(name), bond(agreement.bond_of), decided.bond_left)
    draft.transfer(bond(runner.provider), held_bond(name), needed_bond)
    rest = _rest_of(draft, agreement, block)
    if rest is None:
        raise WrongState("the window is over")
    # The failed provider's promise ends here, and the new one's begins: in one block each.
    number = len(decided.agreement.legs)
    if rest.starts_ms > block.starts_ms:
        draft.put("block", block.id, msgspec.structs.replace(block, ends_ms=rest.starts_ms))
    else:
        draft.put("block", block.id, msgspec.structs.replace(block, state="void"))
    taken = msgspec.structs.replace(rest, id=f"{block.id}~{number}", provider=runner.provider, parent=block.id)
    draft.put("block", taken.id, taken)
    legs = decided.agreement.legs
    legs = (*legs[:-2], cut_short(draft, agreement, legs[-2]), legs[-1])
    changed = msgspec.structs.replace(decided.agreement, block=taken.id, legs=legs)
    draft.put("agreement", name, changed)
    return changed
