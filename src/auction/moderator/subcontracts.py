"""Subcontracts: auctions under an agreement, and the settling of a chain from its bottom up."""

from __future__ import annotations

import msgspec

from auction.agreement import Agreement
from auction.block import Block
from auction.errors import Cycle, NotAllowed, WrongState
from auction.ledger import bond, funds, held_bond
from auction.moderator.records import Auction, PlacedBid
from auction.moderator.spot import SpotCommands
from auction.moderator.state import Draft
from auction.party import are_linked
from auction.subcontract import check_subcontract, check_subcontractor, recourse

_OVER = ("charged", "declined", "cancelled", "lapsed")


class SubcontractCommands(SpotCommands):
    def chain(self, agreement: str) -> list[Agreement]:
        """The agreements from this one up to the first: who is liable to whom."""
        with self._deciding:
            return self._chain(Draft(self._state, 0), agreement)

    def subcontracts(self, agreement: str) -> list[Agreement]:
        """The agreements directly under this one."""
        with self._deciding:
            return self._subcontracts(Draft(self._state, 0), agreement)

    # What follows decides on a draft.

    @staticmethod
    def _chain(draft: Draft, name: str) -> list[Agreement]:
        chain = []
        while name:
            agreement = draft.agreement(name)
            chain.append(agreement)
            name = agreement.prime
        return chain

    @staticmethod
    def _subcontracts(draft: Draft, name: str) -> list[Agreement]:
        return [draft.agreement(one) for one in draft.state.subcontracts_of.get(name, ())]

    def _check_prime(self, draft: Draft, announcer: str, block: Block | str, prime: str) -> None:
        """A part is subcontracted by who provides the whole, within the window of the whole."""
        chain = self._chain(draft, prime)
        check_subcontract(chain, announcer, self.config.subcontract_depth_max)
        if isinstance(block, str):
            raise NotAllowed("a subcontract asks for a service; it sells nothing")
        if block.starts_ms < chain[0].starts_ms or block.ends_ms > chain[0].ends_ms:
            raise WrongState("a part is done within the window of the whole")

    def _check_allowed(self, draft: Draft, record: Auction, bidder: str) -> None:
        chain = self._chain(draft, record.prime)
        check_subcontractor(chain, bidder)
        if are_linked(draft.party(chain[0].provider), draft.party(bidder)):
            raise NotAllowed(f"{bidder} is linked to the prime provider")

    def _is_allowed_in_chain(self, draft: Draft, prime: str, bidder: str) -> bool:
        try:
            check_subcontractor(self._chain(draft, prime), bidder)
        except (NotAllowed, Cycle):
            return False
        return True

    def _may_take_over(self, draft: Draft, agreement: Agreement, provider: str) -> bool:
        """Whether the provider stands neither above this agreement nor below it."""
        if agreement.prime and not self._is_allowed_in_chain(draft, agreement.prime, provider):
            return False
        return not self._stands_below(draft, agreement.id, provider)

    def _stands_below(self, draft: Draft, name: str, provider: str) -> bool:
        return any(
            provider == one.provider or self._stands_below(draft, one.id, provider)
            for one in self._subcontracts(draft, name)
        )

    def _why_excluded(self, draft: Draft, record: Auction, placed: PlacedBid) -> str:
        """Who has come into the chain since it bid, as who took the prime over, cannot win any more."""
        if record.prime and not self._is_allowed_in_chain(draft, record.prime, placed.bid.bidder):
            return "chain"
        return super()._why_excluded(draft, record, placed)

    def _settle(self, draft: Draft, agreement: Agreement, state: str) -> Agreement:
        """A chain is settled from the bottom: what subcontractors' bonds make good is known before the prime's bond is
        let go, and a subcontractor's bond is held until its prime is settled."""
        self._check_settleable(draft, agreement)
        subcontracts = self._subcontracts(draft, agreement.id)
        settled = super()._settle(draft, agreement, state)
        amounts = dict(recourse(settled, subcontracts))
        for one in subcontracts:
            amount = amounts.get(one.id, 0)
            draft.transfer(held_bond(one.id), funds(settled.provider), amount)
            if one.bond_of:
                draft.transfer(held_bond(one.id), bond(one.bond_of), draft.balance(held_bond(one.id)))
            draft.put("agreement", one.id, msgspec.structs.replace(one, recourse=amount))
        return settled

    def _check_settleable(self, draft: Draft, agreement: Agreement) -> None:
        for one in self._subcontracts(draft, agreement.id):
            if one.state not in _OVER:
                raise WrongState(f"{one.id} under it is {one.state}: a chain is settled from the bottom")

    def _return_bond(self, draft: Draft, agreement: Agreement) -> None:
        """A subcontractor's bond goes back, or makes good, when the prime is settled; at once where that is over."""
        if agreement.prime and agreement.state != "agreed" and draft.agreement(agreement.prime).state not in _OVER:
            return
        super()._return_bond(draft, agreement)

    def _give_up(self, draft: Draft, agreement: Agreement) -> Agreement:
        cancelled = super()._give_up(draft, agreement)
        for one in self._subcontracts(draft, agreement.id):
            if one.state in _OVER:
                super()._return_bond(draft, one)
        return cancelled
