"""Commands about sharing a block: joining and leaving while it runs, and metering. Rules: `auction.groups.sharing`."""

from __future__ import annotations

from auction.groups.sharing import Share
from auction.model.meter import Meter, split_cost
from auction.moderator.core import Core
from auction.moderator.records import BlockShares
from auction.moderator.rules import shares


class Shares(Core):
    def share_block(
        self, block: str, holder: str, rule: str, *, channel_bps: int = 0, key: str | None = None
    ) -> BlockShares:
        """The holder opens a shareable block to members of one kind: `recipients`, telephone `numbers` (each call needs
        a whole channel of `channel_bps`), or client `devices` of several users."""
        return self._run("share_block", key, (block, holder, rule, channel_bps), shares.share_block, BlockShares)

    def join_share(self, block: str, share: Share, *, key: str | None = None) -> BlockShares:
        """A member comes in, also while the block runs. Between devices, users join first, as who has no user."""
        return self._run("join_share", key, (block, share), shares.join_share, BlockShares)

    def leave_share(self, block: str, member: str, *, key: str | None = None) -> BlockShares:
        """A member goes; what was metered of it stays. A user takes its devices along."""
        return self._run("leave_share", key, (block, member), shares.leave_share, BlockShares)

    def rates(self, block: str, asked: dict[str, int] | None = None) -> dict[str, int]:
        """What each member gets now, in bits per second (numbers: in channels, for its calls in `asked`)."""
        with self._deciding:
            return shares.rates(self._draft(), block, asked)

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
        return self._run("meter", key, (block, interval_ms, used_bits, asked), shares.meter, dict[str, Meter])

    def share_costs(self, block: str, price: int) -> dict[str, int]:
        """The price of a block between who shared it, by what was allowed to each."""
        with self._deciding:
            return split_cost(price, self._draft().shares(block).meters)
