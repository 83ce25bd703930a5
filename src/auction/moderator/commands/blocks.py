"""Commands about blocks: publishing, and what holders do with theirs before they start."""

from __future__ import annotations

from auction.model.block import Block
from auction.moderator.core import Core
from auction.moderator.rules import blocks


class Blocks(Core):
    def publish_block(self, block: Block, *, key: str | None = None) -> Block:
        """A provider sets a block of its capacity aside, to be sold in auctions. Raises NoCapacity where its blocks
        would add up to more than its capacity at some instant."""
        return self._run("publish_block", key, (block,), blocks.publish_block, Block)

    def split_block_in_time(
        self, block: str, holder: str, at_ms: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Two blocks that follow each other in place of one that has not started."""
        return self._run("split_block_in_time", key, (block, holder, at_ms), blocks.split_block_in_time, blocks.Pair)

    def split_block_in_rate(
        self, block: str, holder: str, first_bps: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Two blocks side by side in place of one that has not started; the first with `first_bps`."""
        return self._run(
            "split_block_in_rate", key, (block, holder, first_bps), blocks.split_block_in_rate, blocks.Pair
        )

    def resell_block(self, block: str, seller: str, buyer: str, price: int, *, key: str | None = None) -> Block:
        """The holder of a sold block passes it on before it starts, for a price paid at once from the buyer's balance.
        An agreement about the whole block passes with it: the buyer is its recipient from then on, gets what is
        returned, and rates. (To find the best buyer, auction the block: see `announce`.)"""
        return self._run("resell_block", key, (block, seller, buyer, price), blocks.resell_block, Block)

    def block(self, block: str) -> Block:
        """The block as it stands. Raises Unknown."""
        with self._deciding:
            return self._draft().block(block)
