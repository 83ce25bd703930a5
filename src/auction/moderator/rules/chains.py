"""Chains of subcontracts: the agreements above and below one, and who may join the chain."""

from __future__ import annotations

from auction.model.agreement import Agreement
from auction.model.block import Block
from auction.model.errors import Cycle, NotAllowed, WrongState
from auction.model.party import are_linked
from auction.model.subcontract import check_subcontract, check_subcontractor
from auction.moderator.draft import Draft
from auction.moderator.records import Auction


def chain_of(draft: Draft, name: str) -> list[Agreement]:
    """The agreements from this one up to the first, or to the first that is still kept."""
    chain = [draft.agreement(name)]
    while chain[-1].prime and (above := draft.find("agreement", chain[-1].prime)) is not None:
        chain.append(above)
    return chain


def subcontracts_of(draft: Draft, name: str) -> list[Agreement]:
    """The agreements directly under this one."""
    return [draft.agreement(one) for one in draft.state.subcontracts_of.get(name, ())]


def check_prime(draft: Draft, announcer: str, block: Block | str, prime: str) -> None:
    """Only the provider of the whole may subcontract a part, within the window of the whole."""
    chain = chain_of(draft, prime)
    check_subcontract(chain, announcer, draft.config.subcontract_depth_max)
    if isinstance(block, str):
        raise NotAllowed("a subcontract asks for a service; it cannot sell a block")
    if block.starts_ms < chain[0].starts_ms or block.ends_ms > chain[0].ends_ms:
        raise WrongState("a subcontract must be within the window of the whole")


def check_allowed(draft: Draft, record: Auction, bidder: str) -> None:
    """Refuses a bidder that is in the chain, or linked to the provider that subcontracts."""
    chain = chain_of(draft, record.prime)
    check_subcontractor(chain, bidder)
    if are_linked(draft.party(chain[0].provider), draft.party(bidder)):
        raise NotAllowed(f"{bidder} is linked to the prime provider")


def is_allowed(draft: Draft, prime: str, bidder: str) -> bool:
    try:
        check_subcontractor(chain_of(draft, prime), bidder)
    except (NotAllowed, Cycle):
        return False
    return True


def may_take_over(draft: Draft, agreement: Agreement, provider: str) -> bool:
    """Whether the provider is neither above this agreement nor below it."""
    if agreement.prime and not is_allowed(draft, agreement.prime, provider):
        return False
    return not _stands_below(draft, agreement.id, provider)


def _stands_below(draft: Draft, name: str, provider: str) -> bool:
    return any(
        provider == one.provider or _stands_below(draft, one.id, provider) for one in subcontracts_of(draft, name)
    )
