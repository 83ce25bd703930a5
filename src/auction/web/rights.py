"""Who may call what in a served market: a party acts only for itself, the operator for all.

Each method of the moderator names its right; here is one row for each right. This only checks that the caller may speak
for the party; the moderator's own rules apply as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from auction.model.errors import BadToken, Exists, NotAllowed
from auction.model.party import ORGANISATIONS, Party
from auction.moderator.commands import Moderator
from auction.moderator.methods import Method
from auction.moderator.records import Group
from auction.moderator.terms import AuctionView


class Caller(msgspec.Struct, frozen=True):
    """The caller: a party by its token, the operator by the market's token, or without one a stranger."""

    party: str = ""
    is_operator: bool = False


class Asked(NamedTuple):
    """A call to check. `about` is the argument that the right is about, as the caller gave it."""

    market: Moderator
    caller: Caller
    method: str
    about: Any
    arguments: Any
    open_registration: bool


class Meaning(NamedTuple):
    """The meaning of a right: `check` raises NotAllowed. A caller without a token is refused before, unless the
    arguments prove who calls."""

    check: Callable[[Asked], None]
    needs_token: bool = True


def check_right(market: Moderator, caller: Caller, method: Method, arguments: Any, open_registration: bool) -> None:
    """Raises BadToken for a stranger, NotAllowed for a caller without the right."""
    if caller.is_operator:
        return
    meaning = RIGHTS.get(method.right, RIGHTS["operator"])
    if meaning.needs_token and not caller.party:
        raise BadToken("this market requires a token")
    about = arguments
    for field in method.about.split(".") if method.about else ():
        about = getattr(about, field)
    meaning.check(Asked(market, caller, method.name, about, arguments, open_registration))


def without_secrets(market: Moderator, caller: Caller, answer: Any) -> Any:
    """The answer without secrets: hashes of tokens, the limits and pledges of other members of a group, and the award
    of an auction in which the caller took no part."""
    if caller.is_operator:
        return answer
    if isinstance(answer, Party):
        return msgspec.structs.replace(answer, token_hash="")
    if isinstance(answer, Group):
        own = {"limits": _own_alone(answer.limits, caller), "pledges": _own_alone(answer.pledges, caller)}
        return msgspec.structs.replace(answer, **own)  # hidden, from the organiser too
    if (
        isinstance(answer, AuctionView)
        and answer.award is not None
        and caller.party not in market.took_part(answer.auction)
    ):
        return msgspec.structs.replace(answer, award=None)
    if isinstance(answer, list):
        return [without_secrets(market, caller, one) for one in answer]
    return answer


def _own_alone(amounts: dict[str, int], caller: Caller) -> dict[str, int]:
    return {party: amount for party, amount in amounts.items() if party == caller.party}


def _speaks_for(market: Moderator, caller: str, party: str) -> bool:
    """A recipient speaks for itself and for its users, devices and numbers."""
    while party and party != caller:
        party = market.party(party).belongs_to
    return bool(party)


def _anyone(_asked: Asked) -> None:
    return None


def _operator(asked: Asked) -> None:
    raise NotAllowed(f"only the operator may call {asked.method}")


def _registration(asked: Asked) -> None:
    """No party is linked to another without its consent: a controller registers its parties itself, and a key needs a
    signature."""
    arguments, caller = asked.arguments, asked.caller.party
    state = asked.market.state
    if arguments.party not in state.records["party"] and state.sharing.get(arguments.party):
        raise Exists(f"{arguments.party!r} controls parties of this market: only the operator registers it")
    if arguments.controller and not (caller and _speaks_for(asked.market, caller, arguments.controller)):
        raise NotAllowed(f"{arguments.controller} must register the parties that it controls itself")
    if arguments.public_key and arguments.signature is None:
        raise NotAllowed("a public key needs a signature by it to be registered")
    if arguments.belongs_to:
        if not caller or not _speaks_for(asked.market, caller, arguments.belongs_to):
            raise NotAllowed(f"{arguments.belongs_to} must register its own users, devices and numbers")
    elif arguments.kind not in ORGANISATIONS or not asked.open_registration:
        raise NotAllowed("only the operator registers parties in this market")


def _own(asked: Asked) -> None:
    if not _speaks_for(asked.market, asked.caller.party, asked.about):
        raise NotAllowed(f"{asked.caller.party} does not speak for {asked.about}")


def _rater(asked: Asked) -> None:
    """A recipient's opinion may also come with the token of its device."""
    device, caller = asked.arguments.device, asked.caller.party
    if not device or device != caller:
        _own(asked)
    elif not _speaks_for(asked.market, asked.about, caller):
        raise NotAllowed(f"{caller} is not a device of {asked.about}")


def _recipient(asked: Asked) -> None:
    if asked.market.agreement(asked.about).recipient != asked.caller.party:
        raise NotAllowed(f"only the recipient of {asked.about} may do this")


def _provider(asked: Asked) -> None:
    if asked.market.agreement(asked.about).provider != asked.caller.party:
        raise NotAllowed(f"only the provider of {asked.about} may do this")


def _announcer(asked: Asked) -> None:
    if asked.market.announcer_of(asked.about) != asked.caller.party:
        raise NotAllowed(f"only the announcer of {asked.about} may do this")


def _participant(asked: Asked) -> None:
    if asked.caller.party not in asked.market.took_part(asked.about):
        raise NotAllowed(f"{asked.caller.party} took no part in {asked.about}, and is not shown its prices")


def _concerned(asked: Asked) -> None:
    one = asked.market.agreement(asked.about)
    if asked.caller.party in (one.provider, one.arbiter, *asked.market.stand_bys_of(asked.about)):
        return
    if not _speaks_for(asked.market, one.recipient, asked.caller.party):
        raise NotAllowed(f"{asked.caller.party} is not concerned with {one.id}")


def _side(asked: Asked) -> None:
    one = asked.market.agreement(asked.about)
    if asked.caller.party not in (one.recipient, one.provider):
        raise NotAllowed(f"{asked.caller.party} is not a side of {one.id}")


def _holder(asked: Asked) -> None:
    block = asked.market.block(asked.about)
    if asked.caller.party != (block.holder or block.provider):
        raise NotAllowed(f"{asked.caller.party} does not hold {block.id}")


def _organiser(asked: Asked) -> None:
    if asked.market.group_of(asked.about).organiser != asked.caller.party:
        raise NotAllowed(f"only the organiser of {asked.about} may do this")


def _member(asked: Asked) -> None:
    group = asked.market.group_of(asked.about)
    if asked.caller.party not in (group.organiser, *group.limits, *group.pledges):
        raise NotAllowed(f"{asked.caller.party} is not in {group.id}")


RIGHTS: Final[dict[str, Meaning]] = {
    "operator": Meaning(_operator),
    "anyone": Meaning(_anyone),
    "stranger": Meaning(_anyone, needs_token=False),
    "registration": Meaning(_registration, needs_token=False),
    "own": Meaning(_own),
    "rater": Meaning(_rater),
    "recipient": Meaning(_recipient),
    "announcer": Meaning(_announcer),
    "participant": Meaning(_participant),
    "provider": Meaning(_provider),
    "side": Meaning(_side),
    "concerned": Meaning(_concerned),
    "holder": Meaning(_holder),
    "organiser": Meaning(_organiser),
    "member": Meaning(_member),
}
