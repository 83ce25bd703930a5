"""Records that are put away once nobody needs them, so that memory, a saved state and the table of records do not grow
with the deals of the past. The journal keeps everything.

Kept are parties, the sums of ratings and pairs, and what is not over. An auction with its bids, award, opinions and
group is kept for KEPT_MS after its last agreement was settled, a block and an offer as long after their end. A settled
agreement with its receipt is kept while charges can be taken back, and while something is owed for it. The indexes of
`state` note what to look at, and when; this file decides from the records alone whether it can go, so every fold of a
journal comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final

from auction.model.agreement import Agreement
from auction.model.lifecycle import CHARGEBACK_MS, KEPT_MS
from auction.model.party import is_chosen
from auction.moderator.records import Auction, Nonce

State = Any  # `state.State`, which imports this file
Gone = list[tuple[str, str]]
_STEPS: Final = ("authorise", "capture", "void")


def _is_hidden(state: State, one: Agreement) -> bool:
    """Whether the opinions about it are still to be published."""
    return one.id in state.records["exchange"] and one.id not in state.records["revealed"]


def name_digest(kind: str, name: str, owner: str = "") -> int:
    """What is kept of a name whose thing is put away, so that nothing else gets it: eight bytes. `owner`: whose it
    was."""
    return int.from_bytes(sha256(f"{kind}/{name}/{owner}".encode()).digest()[:8])


def _keep_name(state: State, kind: str, name: str, owner: str = "") -> None:
    """Names of the market's own are never given again, so there is nothing to keep of them."""
    if is_chosen(name):
        state.names_used.add(name_digest(kind, name))
        if owner:
            state.names_used.add(name_digest(kind, name, owner))


def _remove(state: State, names: Iterable[tuple[str, str]]) -> Gone:
    return [(kind, name) for kind, name in names if state.records[kind].pop(name, None) is not None]


def _nonce(state: State, name: str, at_ms: int) -> Gone:
    """A nonce whose statement has expired cannot be replayed."""
    nonce: Nonce | None = state.records["nonce"].get(name)
    if nonce is None or nonce.expires_ms > at_ms:
        return []
    state.nonces.discard((nonce.party, nonce.nonce))
    return _remove(state, [("nonce", name)])


def _auction(state: State, name: str, at_ms: int) -> Gone:
    """An auction with all that was said in it and of it."""
    record: Auction | None = state.records["auction"].get(name)
    if record is None or record.state not in ("agreed", "void"):
        return []
    agreements = [state.records["agreement"][one] for one in state.agreements_of.get(name, ())]
    over_ms = max([record.over_ms, *(one.settled_ms for one in agreements)])
    if at_ms < over_ms + KEPT_MS or not all(one.is_over for one in agreements):
        return []
    if any(_is_hidden(state, one) for one in agreements):
        return []
    if any(f"{name}/{step}" in state.pending_payments for step in _STEPS):
        return []
    group = state.records["group"].get(record.group)
    if group is not None and group.due_ms:  # what its members put in is still to be given back
        return []
    gone = [(kind, name) for kind in ("auction", "sheet", "offer_sheet", "award", "bidding")]
    gone += [("bid", one) for one in state.bids_of.pop(name, ())]
    gone += [("commitment", one) for one in state.commitments_of.pop(name, ())]
    gone += [("payment", f"{name}/{step}") for step in _STEPS]
    gone += [("group", record.group)]
    for one in agreements:
        gone += [("exchange", one.id), ("revealed", one.id)]
        gone += [("drafted", f"{one.id}/{kind}") for kind in ("service", "payment")]
        state.look_at("agreement", one.id)
    if not agreements:
        state.payments_by_reference.pop((record.method, record.processor_reference), None)
    _keep_name(state, "auction", name)
    state.links_of.pop(name, None)
    state.amounts.pop(name, None)
    state.stand_bys.pop(name, None)
    return _remove(state, gone)


def _agreement(state: State, name: str, at_ms: int) -> Gone:
    """A settled agreement, once its charges cannot be taken back. From then on ratings have its part in the sums alone,
    also where something is owed for it still, and its record stays until that is paid."""
    one: Agreement | None = state.records["agreement"].get(name)
    if one is None or not one.is_over or at_ms < one.settled_ms + CHARGEBACK_MS or _is_hidden(state, one):
        return []
    state.reputation.forget(one)
    below = (*state.rests_of.get(name, ()), *state.subcontracts_of.get(name, ()))
    refunds = state.refunds_of.get(name, [])
    if one.debt or one.auction in state.records["auction"] or any(part in state.alive["agreement"] for part in below):
        return []
    if any(refund in state.pending_payments for refund in refunds):
        return []
    if any(state.records["auction"][auction].prime == name for auction in state.alive["auction"]):
        return []  # a part of it is still to be awarded, since the market was away for long
    gone = [("agreement", name), *(("payment", refund) for refund in refunds)]
    gone += [("debt", debt) for debt in (name, f"{name}/hold", f"{name}/signed")]
    _shorten(state.agreements_of, one.auction, name)
    _shorten(state.agreements_about, one.block, name)
    _shorten(state.rests_of, one.of, name)
    _shorten(state.subcontracts_of, one.prime, name)
    for of_others in (state.rests_of, state.subcontracts_of, state.refunds_of):
        of_others.pop(name, None)
    if one.auction not in state.agreements_of:
        state.payments_by_reference.pop((one.method, one.processor_reference), None)
    state.ledger.fees_put_away += one.fee_charged
    return _remove(state, gone)


def _shorten(index: dict[str, Any], key: str, name: str) -> None:
    """Takes a name out of an index of names."""
    if key in index:
        left = type(index[key])(one for one in index[key] if one != name)
        if left:
            index[key] = left
        else:
            del index[key]


def _block(state: State, name: str, at_ms: int) -> Gone:
    """A block whose window is over. What was promised until then is looked at no more."""
    block = state.records["block"].get(name)
    if block is None or at_ms < block.ends_ms + KEPT_MS or block.state == "offered":
        return []  # an auction that was open when the market went away for long is still to be closed
    if any(one in state.alive["agreement"] for one in state.agreements_about.get(name, ())):
        return []
    if block.provider:
        state.timeline(block.provider).forget(block.ends_ms)
        if state.is_covered(block):
            state.standing[state.covering[block.offer]].forget(block.ends_ms)
    if block.offer in state.blocks_of_offer:
        state.blocks_of_offer[block.offer].pop(name, None)
        if not state.blocks_of_offer[block.offer]:
            del state.blocks_of_offer[block.offer]
    _keep_name(state, "block", name)
    return _remove(state, [("block", name), ("shares", name)])


def _offer(state: State, name: str, at_ms: int) -> Gone:
    """A standing offer that was not placed again."""
    offer = state.records["offer"].get(name)
    if offer is None or at_ms < offer.valid_until_ms + KEPT_MS or name in state.standing:
        return []
    state.offers_of.get(offer.service, {}).pop(name, None)
    _keep_name(state, "offer", name, offer.provider)
    return _remove(state, [("offer", name), ("offered", name)])


def _overdue(state: State, name: str, at_ms: int) -> Gone:
    """What was carried out late, once its time to be read is over."""
    one = state.records["overdue"].get(name)
    return [] if one is None or one.next_ms else _remove(state, [("overdue", name)])


# By kind: what can go with it now. Called with its name and the time.
RETIRE: Final[dict[str, Callable[[State, str, int], Gone]]] = {
    "nonce": _nonce,
    "auction": _auction,
    "agreement": _agreement,
    "block": _block,
    "offer": _offer,
    "overdue": _overdue,
}
