"""Agreements: agreeing, starting, measuring, replacing, finishing and charging."""

from __future__ import annotations

import msgspec

from auction.agreement import (
    Agreement,
    Leg,
    Runner,
    next_state,
    owed,
    replace_provider,
    topped_up_owed,
)
from auction.block import Block
from auction.delivery import Delivery, Promise, earned_ppm, evidence
from auction.errors import BadValue, NoAward, NotAllowed, WrongState
from auction.ledger import bond, card, funds, held, held_bond, topped_up
from auction.moderator.auctions import AuctionCommands
from auction.moderator.records import Measured
from auction.moderator.state import Draft
from auction.party import Signature
from auction.payment import PREPAID
from auction.signing import delivery_body


class AgreementCommands(AuctionCommands):
    def agree(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Authorises the recipient's payment: the price is held. Raises InsufficientFunds, PrepaymentRequired; with a
        card, Declined or PaymentUnknown (see `payments`)."""
        return self._run("agree", key, (agreement,), lambda draft: self._agree(draft, agreement), Agreement)

    def start(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The service begins."""
        return self._run("start", key, (agreement,), lambda draft: self._start(draft, agreement), Agreement)

    def deliver(self, delivery: Delivery, signature: Signature | None = None, *, key: str | None = None) -> Measured:
        """Takes in all that was measured of the delivery so far, by the recipient, one of its devices, or the provider.
        What the recipient's side measured counts; what the provider did counts where the recipient measured nothing,
        and is evidence in any case."""
        return self._run(
            "deliver", key, (delivery, signature), lambda draft: self._deliver(draft, delivery, signature), Measured
        )

    def replace(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The serving provider has failed: the first armed runner-up who can takes over what is left of the window. Its
        price above the agreed one comes from the failed provider's bond. Raises NoAward where none can."""
        return self._run("replace", key, (agreement,), lambda draft: self._replace(draft, agreement), Agreement)

    def finish(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The service has ended; what was measured is final."""
        return self._run("finish", key, (agreement,), lambda draft: self._finish(draft, agreement), Agreement)

    def cancel(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Both give the agreement up before it starts: what is held goes back, nothing is charged."""
        return self._run("cancel", key, (agreement,), lambda draft: self._cancel(draft, agreement), Agreement)

    def charge(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Captures in proportion to delivery, and gives the rest back."""
        return self._run("charge", key, (agreement,), lambda draft: self._charge(draft, agreement), Agreement)

    def agreement(self, agreement: str) -> Agreement:
        """The agreement as it stands. Raises Unknown."""
        with self._deciding:
            return Draft(self._state, 0).agreement(agreement)

    # What follows decides on a draft.

    def _agree(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        state = next_state(agreement.state, "agree")
        if agreement.method != PREPAID:
            raise WrongState(f"{name} is paid by {agreement.method}: see `pay`")
        self._check_payer(draft, agreement)
        draft.transfer(funds(agreement.recipient), held(name), agreement.price)
        return self._agreed(draft, agreement, state)

    def _agreed(self, draft: Draft, agreement: Agreement, state: str) -> Agreement:
        leg = Leg(agreement.provider, agreement.starts_ms, agreement.ends_ms, agreement.price)
        agreed = msgspec.structs.replace(agreement, state=state, held=agreement.price, legs=(leg,))
        draft.put("agreement", agreement.id, agreed)
        return agreed

    def _check_payer(self, draft: Draft, agreement: Agreement) -> None:
        raise NotImplementedError  # ratings stand in `ratings`

    def _open_exchange(self, draft: Draft, agreement: Agreement) -> None:
        raise NotImplementedError  # ratings stand in `ratings`

    def _start(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        state = next_state(agreement.state, "start")
        if draft.at_ms >= agreement.ends_ms:
            raise WrongState("the window of this agreement is over")
        if f"{name}/void" in draft.state.pending_payments:
            raise WrongState(f"{name} is being cancelled")
        started = msgspec.structs.replace(agreement, state=state)
        draft.put("agreement", name, started)
        return started

    def _deliver(self, draft: Draft, delivery: Delivery, signature: Signature | None) -> Measured:
        name, measured_by = delivery.agreement, delivery.measured_by
        agreement = draft.agreement(name)
        state = next_state(agreement.state, "deliver")
        if not self._is_party_to(draft, agreement, measured_by):
            raise NotAllowed(f"{measured_by} is no party to {name}")
        signed = self._check_signature(draft, "delivery", name, measured_by, delivery_body(delivery), signature)
        leg = agreement.legs[-1]
        measured = Measured(
            id=draft.new_id("delivery"),
            agreement=name,
            provider=agreement.provider,
            by_recipient=measured_by != agreement.provider,
            delivery=delivery,
            evidence=evidence(_promise(agreement, leg), delivery, self.config.delivery),
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

    def _cut_short(self, draft: Draft, agreement: Agreement, leg: Leg) -> Leg:
        """A leg that ended before its window did has to deliver only what lies before its end."""
        if not leg.measurement:
            return leg
        measured: Measured = draft.get("delivery", leg.measurement)
        samples = tuple(sample for sample in measured.delivery.samples if sample.ends_ms <= leg.until_ms)
        delivery = msgspec.structs.replace(measured.delivery, samples=samples)
        if leg.until_ms <= leg.from_ms:
            return msgspec.structs.replace(leg, delivered_ppm=0)
        earned = earned_ppm(_promise(agreement, leg), delivery, self.config.delivery)
        return msgspec.structs.replace(leg, delivered_ppm=earned)

    def _is_party_to(self, draft: Draft, agreement: Agreement, party: str) -> bool:
        if party in (agreement.provider, agreement.recipient):
            return True
        return self._stands_for(draft, party) == agreement.recipient

    @staticmethod
    def _stands_for(draft: Draft, party: str) -> str:
        """The recipient that a user, device or number is part of; otherwise the party itself."""
        record = draft.party(party)
        while record.belongs_to:
            record = draft.party(record.belongs_to)
        return record.id

    def _replace(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        next_state(agreement.state, "replace")
        block = draft.block(agreement.block)
        if block.state != "sold":
            raise NoAward(f"the block of {name} is {block.state}: nobody can take it over whole")
        why = "no runner-up is armed"
        for runner in agreement.runners_up:
            reason = self._why_unable(draft, agreement, runner, block)
            if reason:
                why = f"{runner.provider}: {reason}"
                continue
            return self._take_over(draft, agreement, runner, block)
        raise NoAward(f"nobody can take over {name}: {why}")

    def _why_unable(self, draft: Draft, agreement: Agreement, runner: Runner, block: Block) -> str:
        needed_bond = self._bond_of_runner(draft, agreement, runner)
        if draft.balance(bond(runner.provider)) < needed_bond:
            return "its bond is gone"
        rest = self._rest_of(draft, agreement, block)
        if rest is None:
            return "the window is over"
        peak = draft.committed_peak(runner.provider, rest)
        if peak + rest.committed_bps > draft.party(runner.provider).capacity_bps:
            return "its capacity is taken"
        if not self._may_take_over(draft, agreement, runner.provider):
            return "it is in the chain already"
        try:
            replace_provider(agreement, runner, draft.at_ms, needed_bond)
        except BadValue as reason:
            return str(reason)
        return ""

    def _may_take_over(self, draft: Draft, agreement: Agreement, provider: str) -> bool:
        raise NotImplementedError  # stands in `subcontracts`

    def _is_allowed_in_chain(self, draft: Draft, prime: str, bidder: str) -> bool:
        raise NotImplementedError  # stands in `subcontracts`

    def _bond_of_runner(self, draft: Draft, agreement: Agreement, runner: Runner) -> int:
        record = draft.auction(agreement.auction)
        return self._bond_needed(record, self._rating_at(draft, record, runner.provider))

    @staticmethod
    def _rest_of(draft: Draft, agreement: Agreement, block: Block) -> Block | None:
        starts_ms = max(draft.at_ms, block.starts_ms)
        return msgspec.structs.replace(block, starts_ms=starts_ms) if starts_ms < block.ends_ms else None

    def _take_over(self, draft: Draft, agreement: Agreement, runner: Runner, block: Block) -> Agreement:
        name = agreement.id
        needed_bond = self._bond_of_runner(draft, agreement, runner)
        decided = replace_provider(agreement, runner, draft.at_ms, needed_bond)
        if decided.top_up_back:
            draft.transfer(topped_up(name), bond(decided.top_up_of), decided.top_up_back)
        draft.transfer(held_bond(name), topped_up(name), decided.difference)
        if agreement.bond_of:
            draft.transfer(held_bond(name), bond(agreement.bond_of), decided.bond_left)
        draft.transfer(bond(runner.provider), held_bond(name), needed_bond)
        rest = self._rest_of(draft, agreement, block)
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
        legs = (*legs[:-2], self._cut_short(draft, agreement, legs[-2]), legs[-1])
        changed = msgspec.structs.replace(decided.agreement, block=taken.id, legs=legs)
        draft.put("agreement", name, changed)
        return changed

    def _finish(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        finished = msgspec.structs.replace(
            agreement, state=next_state(agreement.state, "finish"), finished_ms=draft.at_ms
        )
        draft.put("agreement", name, finished)
        return finished

    def _cancel(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        if agreement.method != PREPAID:
            raise WrongState(f"{name} is paid by {agreement.method}")
        return self._give_up(draft, agreement)

    def _give_up(self, draft: Draft, agreement: Agreement) -> Agreement:
        self._check_returnable(draft, agreement)
        cancelled = msgspec.structs.replace(agreement, state=next_state(agreement.state, "cancel"), held=0)
        self._return_bond(draft, agreement)
        for leg in agreement.legs:
            draft.transfer(topped_up(agreement.id), bond(leg.topped_up_by), leg.topped_up)
        draft.transfer(held(agreement.id), self._payer_account(agreement), agreement.held)
        self._void_block(draft, agreement)
        draft.put("agreement", agreement.id, cancelled)
        return cancelled

    @staticmethod
    def _check_returnable(draft: Draft, agreement: Agreement) -> None:
        """Only who still holds the whole block can give it back."""
        block = draft.block(agreement.block)
        if block.state != "sold" or block.holder != agreement.recipient:
            raise WrongState(f"the block of {agreement.id} has been passed on, and cannot be given back")

    def _lapse(self, draft: Draft, agreement: Agreement) -> Agreement:
        """The payment was not authorised: the block is free again, and so is the bond."""
        lapsed = msgspec.structs.replace(agreement, state=next_state(agreement.state, "lapse"))
        if agreement.bond_of:
            draft.transfer(held_bond(agreement.id), bond(agreement.bond_of), draft.balance(held_bond(agreement.id)))
        self._void_block(draft, agreement)
        draft.put("agreement", agreement.id, lapsed)
        return lapsed

    @staticmethod
    def _void_block(draft: Draft, agreement: Agreement) -> None:
        """A block that was made for this agreement is no more; one that was sold goes back to its seller."""
        block = draft.block(agreement.block)
        if draft.auction(agreement.auction).block is not None:
            draft.put("block", block.id, msgspec.structs.replace(block, state="void"))
            return
        state = "free" if agreement.provider == block.provider else "sold"
        draft.put("block", block.id, msgspec.structs.replace(block, holder=agreement.provider, state=state))

    @staticmethod
    def _payer_account(agreement: Agreement) -> str:
        """Where what is not charged goes back to."""
        return funds(agreement.recipient) if agreement.method == PREPAID else card(agreement.method)

    def _return_bond(self, draft: Draft, agreement: Agreement) -> None:
        if agreement.bond_of:
            draft.transfer(held_bond(agreement.id), bond(agreement.bond_of), draft.balance(held_bond(agreement.id)))

    def _charge(self, draft: Draft, name: str) -> Agreement:
        agreement = draft.agreement(name)
        state = next_state(agreement.state, "charge")
        if agreement.method != PREPAID:
            raise WrongState(f"{name} is paid by {agreement.method}: see `capture`")
        return self._settle(draft, agreement, state)

    def _settle(self, draft: Draft, agreement: Agreement, state: str) -> Agreement:
        """Pays each leg what is owed, tops up from the failed provider's bond, and gives back the rest of all. Where
        the payment was declined nothing is owed any more, and all goes back."""
        name = agreement.id
        charged = 0
        for leg in agreement.legs:
            amount = owed(leg) if state == "charged" else 0
            draft.transfer(held(name), funds(leg.provider), amount)
            charged += amount
            if leg.topped_up:
                extra = topped_up_owed(leg) if state == "charged" else 0
                draft.transfer(topped_up(name), funds(leg.provider), extra)
                draft.transfer(topped_up(name), bond(leg.topped_up_by), leg.topped_up - extra)
        draft.transfer(held(name), self._payer_account(agreement), agreement.held - charged)
        self._return_bond(draft, agreement)
        settled = msgspec.structs.replace(agreement, state=state, charged=charged, held=0)
        draft.put("agreement", name, settled)
        self._open_exchange(draft, settled)
        return settled


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
