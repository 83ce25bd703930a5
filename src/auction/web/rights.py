"""Who may ask a served market for what: a party acts for itself alone, an operator for all.

One table says it, method by method; what is not in it is the operator's. The moderator's own rules come on top: here
it is only settled that a caller is who it speaks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from auction.model.agreement import Agreement
from auction.model.errors import BadToken, NotAllowed
from auction.model.party import ORGANISATIONS, Party
from auction.moderator.facade import Moderator


class Caller(msgspec.Struct, frozen=True):
    """Who asks: a party by its token, the operator by the market's, or (with neither) a stranger."""

    party: str = ""
    is_operator: bool = False


Right = Callable[[Moderator, Caller, Any], None]


def check_right(market: Moderator, caller: Caller, method: str, arguments: Any, open_registration: bool) -> None:
    """Raises BadToken for a stranger, NotAllowed for who is not the one to ask."""
    if caller.is_operator or method in ("renew_token", "authenticate"):
        return  # for these two a signature, or the token itself, is the right
    if method == "register":
        _may_register(market, caller, arguments, open_registration)
        return
    if not caller.party:
        raise BadToken("this market wants a token")
    right = RIGHTS.get(method)
    if right is None:
        raise NotAllowed(f"{method} is the operator's")
    right(market, caller, arguments)


def without_secrets(caller: Caller, answer: Any) -> Any:
    """The answer without what only the one concerned may read: hashes of tokens, and what a card is charged by."""
    if caller.is_operator:
        return answer
    if isinstance(answer, Party):
        return msgspec.structs.replace(answer, token_hash="")
    if isinstance(answer, Agreement) and answer.recipient != caller.party:
        return msgspec.structs.replace(answer, source="")
    if isinstance(answer, list):
        return [without_secrets(caller, one) for one in answer]
    return answer


def _may_register(market: Moderator, caller: Caller, arguments: Any, open_registration: bool) -> None:
    if arguments.belongs_to:
        if not caller.party or not _speaks_for(market, caller, arguments.belongs_to):
            raise NotAllowed(f"{arguments.belongs_to} registers its own users, devices and numbers")
    elif arguments.kind not in ORGANISATIONS or not open_registration:
        raise NotAllowed("the operator registers parties in this market")


def _speaks_for(market: Moderator, caller: Caller, party: str) -> bool:
    """A recipient speaks for itself and for its users, devices and numbers."""
    while party and party != caller.party:
        party = market.party(party).belongs_to
    return bool(party)


def _anyone(_market: Moderator, _caller: Caller, _arguments: Any) -> None:
    return None


def _own(field: str) -> Right:
    """The caller is the party that the argument names; `offer.provider` names a field of an argument."""

    def check(market: Moderator, caller: Caller, arguments: Any) -> None:
        named = arguments
        for name in field.split("."):
            named = getattr(named, name)
        if not _speaks_for(market, caller, named):
            raise NotAllowed(f"{caller.party} does not speak for {named}")

    return check


def _rater(market: Moderator, caller: Caller, arguments: Any) -> None:
    """A recipient's opinion may come in by the token of the device that it comes from."""
    if not arguments.device or arguments.device != caller.party:
        _own("rater")(market, caller, arguments)
    elif not _speaks_for(market, Caller(arguments.rater), caller.party):
        raise NotAllowed(f"{caller.party} is no device of {arguments.rater}")


def _recipient(market: Moderator, caller: Caller, arguments: Any) -> None:
    if market.agreement(arguments.agreement).recipient != caller.party:
        raise NotAllowed(f"this step of {arguments.agreement} is its recipient's")


def _provider(market: Moderator, caller: Caller, arguments: Any) -> None:
    if market.agreement(arguments.agreement).provider != caller.party:
        raise NotAllowed(f"this step of {arguments.agreement} is its provider's")


def _recipient_until_the_end(market: Moderator, caller: Caller, arguments: Any) -> None:
    """The window over, the provider need not wait for a recipient that has gone."""
    if market.now_ms() >= market.agreement(arguments.agreement).ends_ms:
        _concerned(market, caller, arguments)
    else:
        _recipient(market, caller, arguments)


def _concerned(market: Moderator, caller: Caller, arguments: Any) -> None:
    """Both sides, whoever served before, those who are armed, and the recipient's devices."""
    one = market.agreement(arguments.agreement)
    providers = {one.provider, *(leg.provider for leg in one.legs), *(runner.provider for runner in one.runners_up)}
    if caller.party not in providers and not _speaks_for(market, Caller(one.recipient), caller.party):
        raise NotAllowed(f"{caller.party} has nothing to do with {one.id}")


def _side(market: Moderator, caller: Caller, arguments: Any) -> None:
    one = market.agreement(arguments.agreement)
    if caller.party not in (one.recipient, one.provider):
        raise NotAllowed(f"{caller.party} is no side of {one.id}")


def _holder(market: Moderator, caller: Caller, arguments: Any) -> None:
    block = market.block(arguments.block)
    if caller.party != (block.holder or block.provider):
        raise NotAllowed(f"{caller.party} does not hold {block.id}")


def _organiser(market: Moderator, caller: Caller, arguments: Any) -> None:
    if market.group_of(arguments.group).organiser != caller.party:
        raise NotAllowed(f"{arguments.group} is organised by another")


def _member(market: Moderator, caller: Caller, arguments: Any) -> None:
    group = market.group_of(arguments.group)
    if caller.party not in (group.organiser, *group.bids, *group.pledges):
        raise NotAllowed(f"{caller.party} is not in {group.id}")


RIGHTS: Final[dict[str, Right]] = {
    # what anyone in the market may know
    **dict.fromkeys(("party", "block", "rating", "opinions", "payment_probability_ppm", "endpoint", "offers"), _anyone),
    **dict.fromkeys(("auction", "explain", "transcript", "close", "await_close", "now_ms", "tick"), _anyone),
    # what a party does for itself
    "balance": _own("party"),
    "post_bond": _own("party"),
    "release_bond": _own("party"),
    "publish_endpoint": _own("party"),
    "announce": _own("announcer"),
    "bid": _own("entry.bidder"),
    "commit": _own("bidder"),
    "reveal": _own("entry.bidder"),
    "bids": _own("reader"),
    "stand_offer": _own("offer.provider"),
    "withdraw_offer": _own("provider"),
    "assignments": _own("provider"),
    "spot": _own("recipient"),
    "overview": _own("party"),
    "keep_warm": _own("recipient"),
    "publish_block": _own("block.provider"),
    "split_block_in_time": _own("holder"),
    "split_block_in_rate": _own("holder"),
    # what the sides of an agreement do
    "agreement": _concerned,
    "invoice": _concerned,
    "subcontracts": _side,
    "agree": _recipient,
    "start": _side,
    "deliver": _own("delivery.measured_by"),
    "replace": _recipient,
    "finish": _recipient_until_the_end,
    "charge": _side,
    "refund": _provider,
    "rate": _rater,
    "rate_as_drafted": _rater,
    "drafted_rating": _own("rater"),
    "drafted_payment_rating": _side,
    # shares and groups
    **dict.fromkeys(["share_block", "join_share", "leave_share", "rates", "meter", "share_costs"], _holder),
    "open_group": _own("organiser"),
    "offer_price": _own("by"),
    "accept_price": _own("by"),
    "reject_price": _own("by"),
    "join_group": _own("member"),
    "pledge": _own("sponsor"),
    "settle_group": _organiser,
    "group_of": _member,
}
