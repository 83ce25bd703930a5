"""A provider that fails is replaced: which runner-up can take over, and what changes hands when it does."""

from __future__ import annotations

import msgspec

from auction.model.agreement import Agreement, Runner, next_state, replace_provider
from auction.model.block import Block
from auction.model.errors import BadValue, NoAward, WrongState
from auction.model.ledger import bond, held_bond, topped_up
from auction.moderator.draft import Draft
from auction.moderator.rules import chains, delivering, standing


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
    return standing.bond_needed(draft, record, standing.rating_at(draft, record, runner.provider))


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
    legs = (*legs[:-2], delivering.cut_short(draft, agreement, legs[-2]), legs[-1])
    changed = msgspec.structs.replace(decided.agreement, block=taken.id, legs=legs)
    draft.put("agreement", name, changed)
    return changed
