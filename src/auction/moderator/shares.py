"""Sharing a block: who may, by which of the three rules, joining and leaving while it runs, and metering.

The rules stand in `auction.sharing`; each has its own kind of member.
"""

from __future__ import annotations

from typing import Final

import msgspec

from auction.errors import BadValue, NotAllowed, TooLate
from auction.moderator.payments import PaymentCommands
from auction.moderator.records import BlockShares
from auction.moderator.state import Draft
from auction.money import check_integer
from auction.sharing import (
    Meter,
    Share,
    allocate,
    allocate_channels,
    allocate_devices,
    join,
    leave,
    measure,
    split_cost,
)

# What is shared between, and the kind of party that each member has to be.
_MEMBERS: Final = {"recipients": "recipient", "numbers": "number", "devices": "device"}


class ShareCommands(PaymentCommands):
    def share_block(
        self, block: str, holder: str, rule: str, *, channel_bps: int = 0, key: str | None = None
    ) -> BlockShares:
        """The holder opens a shareable block to members of one kind: `recipients`, telephone `numbers` (each call needs
        a whole channel of `channel_bps`), or client `devices` of several users."""

        def decide(draft: Draft) -> BlockShares:
            whole = draft.block(block)
            self._check_holder(whole, holder)
            if not whole.shareable:
                raise NotAllowed(f"the block {block} may not be shared")
            if rule not in _MEMBERS:
                raise BadValue(f"a block is shared between {', '.join(_MEMBERS)}")
            if rule == "numbers":
                check_integer(channel_bps, "rate of a channel", 1, whole.committed_bps)
            shares = BlockShares(block=block, rule=rule, channel_bps=channel_bps)
            draft.add("shares", block, shares)
            return shares

        return self._run("share_block", key, (block, holder, rule, channel_bps), decide, BlockShares)

    def join_share(self, block: str, share: Share, *, key: str | None = None) -> BlockShares:
        """A member comes in, also while the block runs. Between devices, users join first, as who has no user."""

        def decide(draft: Draft) -> BlockShares:
            shared = draft.shares(block)
            self._check_running(draft, block)
            if shared.rule == "devices" and not share.user:
                self._check_member(draft, share.member, "user")
                changed = msgspec.structs.replace(
                    shared, users=join(self._capacity(draft, shared), shared.users, share)
                )
            else:
                self._check_member(draft, share.member, _MEMBERS[shared.rule])
                if share.user and draft.party(share.member).belongs_to != share.user:
                    raise NotAllowed(f"{share.member} is no device of {share.user}")
                changed = msgspec.structs.replace(
                    shared, shares=join(self._capacity(draft, shared), shared.shares, share)
                )
            _rates(changed, self._capacity(draft, shared), None)  # refuses what would not fit together
            draft.put("shares", block, changed)
            return changed

        return self._run("join_share", key, (block, share), decide, BlockShares)

    def leave_share(self, block: str, member: str, *, key: str | None = None) -> BlockShares:
        """A member goes; what was metered of it stays. A user takes its devices along."""

        def decide(draft: Draft) -> BlockShares:
            shared = draft.shares(block)
            if any(user.member == member for user in shared.users):
                left = tuple(share for share in shared.shares if share.user != member)
                changed = msgspec.structs.replace(shared, users=leave(shared.users, member), shares=left)
            else:
                changed = msgspec.structs.replace(shared, shares=leave(shared.shares, member))
            draft.put("shares", block, changed)
            return changed

        return self._run("leave_share", key, (block, member), decide, BlockShares)

    def rates(self, block: str, asked: dict[str, int] | None = None) -> dict[str, int]:
        """What each member gets now, in bits per second (numbers: in channels, for its calls in `asked`)."""
        with self._deciding:
            draft = Draft(self._state, 0)
            shared = draft.shares(block)
            return _rates(shared, self._capacity(draft, shared), asked)

    def meter(
        self,
        block: str,
        interval_ms: int,
        used_bits: dict[str, int],
        asked: dict[str, int] | None = None,
        *,
        key: str | None = None,
    ) -> dict[str, Meter]:
        """Counts what each member was allowed and used in one interval."""

        def decide(draft: Draft) -> dict[str, Meter]:
            shared = draft.shares(block)
            rates = _rates(shared, self._capacity(draft, shared), asked)
            scale = shared.channel_bps or 1
            rates_bps = {member: rate * scale for member, rate in rates.items()}
            meters = measure(shared.meters, interval_ms, rates_bps, used_bits)
            draft.put("shares", block, msgspec.structs.replace(shared, meters=meters))
            return meters

        return self._run("meter", key, (block, interval_ms, used_bits, asked), decide, dict[str, Meter])

    def share_costs(self, block: str, price: int) -> dict[str, int]:
        """The price of a block between who shared it, by what was allowed to each."""
        with self._deciding:
            return split_cost(price, Draft(self._state, 0).shares(block).meters)

    @staticmethod
    def _check_running(draft: Draft, block: str) -> None:
        if draft.at_ms >= draft.block(block).ends_ms:
            raise TooLate(f"the window of {block} is over")

    @staticmethod
    def _check_member(draft: Draft, member: str, kind: str) -> None:
        if draft.party(member).kind != kind:
            raise NotAllowed(f"{member} is a {draft.party(member).kind}; this is shared between parties of kind {kind}")

    @staticmethod
    def _capacity(draft: Draft, shared: BlockShares) -> int:
        """What there is to share: bits per second, or whole channels."""
        committed_bps = draft.block(shared.block).committed_bps
        return committed_bps // shared.channel_bps if shared.rule == "numbers" else committed_bps


def _rates(shared: BlockShares, capacity: int, asked: dict[str, int] | None) -> dict[str, int]:
    if shared.rule == "recipients":
        return allocate(capacity, shared.shares, asked)
    if shared.rule == "numbers":
        calls = asked if asked is not None else {share.member: share.cap for share in shared.shares}
        return allocate_channels(capacity * shared.channel_bps, shared.channel_bps, shared.shares, calls)
    return allocate_devices(capacity, shared.users, shared.shares, asked)
