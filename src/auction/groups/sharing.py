"""Shares of a block: between recipients, between IP telephone numbers, or between the devices of several users. Pure.

Guaranteed parts come first; the rest is shared by weighted max-min fairness, in whole bits per second that add up
exactly. Members join and leave here. `model.meter` meters use. Nothing here enforces a share on packets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cmp_to_key

import msgspec

from auction.model.bid import check_name
from auction.model.errors import BadValue, Exists, NoCapacity, Unknown
from auction.model.money import AMOUNT_MAX, check_integer, split_proportionally

UNLIMITED = AMOUNT_MAX


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One member's share of a block: its weight, its guaranteed rate, and its cap.

    Rates are in bits per second; between telephone numbers, in channels. `user` names the owner of a device.
    """

    member: str
    weight: int = 1
    guaranteed: int = 0
    cap: int = UNLIMITED
    user: str = ""

    def __post_init__(self) -> None:
        check_name(self.member, "member")
        check_integer(self.weight, "weight", 0, 2**32)
        check_integer(self.guaranteed, "guaranteed part")
        check_integer(self.cap, "cap")
        if self.guaranteed > self.cap:
            raise BadValue("a guaranteed rate must not be above the cap")


def fill(amount: int, weights: Sequence[int], limits: Sequence[int]) -> list[int]:
    """Weighted max-min fair parts of `amount`, each at most its limit (water-filling).

    A member whose limit is below the level gets its limit; the others divide the rest by weight, exactly, with leftover
    units by largest remainder. Weight 0 gets nothing. Parts add up to `amount`, or to the limits of all members with a
    weight if that is less.
    """
    parts = [0] * len(weights)
    left, weight_sum = amount, sum(weights)

    def fuller(one: int, other: int) -> int:
        return limits[one] * weights[other] - limits[other] * weights[one]

    waiting = sorted((i for i, weight in enumerate(weights) if weight), key=cmp_to_key(fuller))
    for place, i in enumerate(waiting):
        if limits[i] * weight_sum > left * weights[i]:
            # From here on every limit is above the level, so an exact share rounded up cannot exceed it.
            rest = waiting[place:]
            rest.sort()
            for j, part in zip(rest, split_proportionally(left, [weights[j] for j in rest]), strict=True):
                parts[j] = part
            return parts
        parts[i] = limits[i]
        left -= limits[i]
        weight_sum -= weights[i]
    return parts


def allocate(capacity: int, shares: Sequence[Share], asked: Mapping[str, int] | None = None) -> dict[str, int]:
    """Between recipients: each one's rate out of `capacity` bits per second.

    First each gets its guaranteed rate, or what it asks for if that is less, so others can use idle guarantees; the
    rest is divided by weight up to caps and asked rates. Without `asked` everyone asks for as much as it may have.
    Raises NoCapacity if the guaranteed rates exceed the capacity.
    """
    check_integer(capacity, "capacity")
    _check(capacity, shares)
    return _share_out(capacity, shares, asked)


def _share_out(capacity: int, shares: Sequence[Share], asked: Mapping[str, int] | None) -> dict[str, int]:
    limits = [share.cap if asked is None else min(share.cap, _asked(asked, share.member)) for share in shares]
    first = [min(share.guaranteed, limit) for share, limit in zip(shares, limits, strict=True)]
    more_limits = [limit - part for limit, part in zip(limits, first, strict=True)]
    more = fill(capacity - sum(first), [share.weight for share in shares], more_limits)
    return {share.member: part + rest for share, part, rest in zip(shares, first, more, strict=True)}


def allocate_channels(
    capacity_bps: int, channel_bps: int, shares: Sequence[Share], calls: Mapping[str, int]
) -> dict[str, int]:
    """Between IP telephone numbers: the number of channels that each number gets for its `calls`.

    A call needs a whole channel of `channel_bps`, so a remainder below that is not given to anyone. Guarantees and caps
    are in channels. The members are parties of the kind `number`, whose numbers are not in the journal. Raises
    NoCapacity, BadValue.
    """
    check_integer(channel_bps, "rate of a channel", 1)
    return allocate(check_integer(capacity_bps, "capacity") // channel_bps, shares, calls)


def allocate_devices(
    capacity: int, users: Sequence[Share], devices: Sequence[Share], asked: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Between client devices of several users: first between users, then between the devices of each.

    So a user does not gain by having more devices. A user asks for what its devices may have together. Raises Unknown
    for a device of an unlisted user, NoCapacity if the devices' guarantees exceed their user's.
    """
    _check(AMOUNT_MAX, devices)
    own: dict[str, list[Share]] = {user.member: [] for user in users}
    for device in devices:
        if device.user not in own:
            raise Unknown(f"device {device.member} belongs to no user of this block")
        own[device.user].append(device)
    for share in users:
        if sum(device.guaranteed for device in own[share.member]) > share.guaranteed:
            raise NoCapacity(f"the guarantees of {share.member}'s devices exceed {share.member}'s own")
    wanted = {
        user: min(UNLIMITED, sum(min(device.cap, _asked(asked, device.member)) for device in list_of))
        for user, list_of in own.items()
    }
    of_users = allocate(capacity, users, wanted)
    parts: dict[str, int] = {}
    for user, list_of in own.items():
        # A user's rate covers its devices' guarantees and requests: both are checked above.
        parts |= _share_out(of_users[user], list_of, asked)
    return parts


def _asked(asked: Mapping[str, int] | None, member: str) -> int:
    return UNLIMITED if asked is None else check_integer(asked.get(member, 0), "what is asked for")


def _check(capacity: int, shares: Iterable[Share]) -> None:
    seen: set[str] = set()
    guaranteed = 0
    for share in shares:
        if share.member in seen:
            raise Exists(f"{share.member} has a share already")
        seen.add(share.member)
        guaranteed += share.guaranteed
    if guaranteed > capacity:
        raise NoCapacity(f"the guaranteed rates add up to {guaranteed}, and the block has {capacity}")


def join(capacity: int, shares: tuple[Share, ...], new: Share) -> tuple[Share, ...]:
    """The shares with a new member, also while the block runs. Raises Exists, and NoCapacity if its guaranteed rate
    does not fit."""
    joined = (*shares, new)
    _check(capacity, joined)
    return joined


def leave(shares: tuple[Share, ...], member: str) -> tuple[Share, ...]:
    """The shares without a member. Raises Unknown."""
    rest = tuple(share for share in shares if share.member != member)
    if len(rest) == len(shares):
        raise Unknown(f"{member} has no share")
    return rest
