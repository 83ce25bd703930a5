"""Blocks that providers publish, and what holders do with theirs: splitting and reselling before they start."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from auction.block import Block, check, check_capacity_left, resell, split_in_rate, split_in_time
from auction.errors import BadValue, NotAllowed
from auction.ledger import funds
from auction.moderator.holding import HoldingCommands
from auction.moderator.state import Draft
from auction.money import check_amount
from auction.party import check_id


class BlockCommands(HoldingCommands):
    def publish_block(self, block: Block, *, key: str | None = None) -> Block:
        """A provider sets a block of its capacity aside, to be sold in auctions. Raises NoCapacity where its blocks
        would add up to more than its capacity at some instant."""

        def decide(draft: Draft) -> Block:
            provider = draft.party(block.provider)
            if provider.kind != "provider":
                raise NotAllowed(f"{block.provider} is a {provider.kind}, and provides nothing")
            name = check_id(block.id) if block.id else draft.new_id("block")
            wanted = check(msgspec.structs.replace(block, id=name, holder=block.provider, parent="", state="free"))
            if wanted.ends_ms <= draft.at_ms:
                raise BadValue("the window of the block is over")
            peak = draft.committed_peak(provider.id, wanted)
            check_capacity_left(provider.capacity_bps, peak, wanted, provider.id)
            draft.add("block", name, wanted)
            return wanted

        return self._run("publish_block", key, block, decide, Block)

    def split_block_in_time(
        self, block: str, holder: str, at_ms: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Two blocks that follow each other in place of one that has not started."""

        def split(whole: Block, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
            return split_in_time(whole, at_ms, ids, now_ms)

        return self._run(
            "split_block_in_time", key, (block, holder, at_ms), self._splitter(block, holder, split), _Pair
        )

    def split_block_in_rate(
        self, block: str, holder: str, first_bps: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Two blocks side by side in place of one that has not started; the first with `first_bps`."""

        def split(whole: Block, ids: tuple[str, str], now_ms: int) -> tuple[Block, Block]:
            return split_in_rate(whole, first_bps, ids, now_ms)

        arguments = (block, holder, first_bps)
        return self._run("split_block_in_rate", key, arguments, self._splitter(block, holder, split), _Pair)

    def _splitter(
        self, name: str, holder: str, split: Callable[[Block, tuple[str, str], int], tuple[Block, Block]]
    ) -> Callable[[Draft], tuple[Block, Block]]:
        def decide(draft: Draft) -> tuple[Block, Block]:
            whole = draft.block(name)
            self._check_holder(whole, holder)
            self._check_paid_for(draft, name)
            first, rest = split(whole, (f"{name}.1", f"{name}.2"), draft.at_ms)
            draft.put("block", name, msgspec.structs.replace(whole, state="split"))
            draft.add("block", first.id, first)
            draft.add("block", rest.id, rest)
            return first, rest

        return decide

    def resell_block(self, block: str, seller: str, buyer: str, price: int, *, key: str | None = None) -> Block:
        """The holder of a sold block passes it on before it starts, for a price paid at once from the buyer's balance.
        An agreement about the whole block passes with it: the buyer is its recipient from then on, gets what is
        returned, and rates. (To find the best buyer, auction the block: see `announce`.)"""

        def decide(draft: Draft) -> Block:
            sold = draft.block(block)
            self._check_holder(sold, seller)
            self._check_paid_for(draft, block)
            self._check_organisation(draft, buyer)
            check_amount(price, "price")
            if buyer in (seller, sold.provider):
                raise NotAllowed(f"{buyer} is the seller or the provider of the block")
            changed = resell(sold, buyer, draft.at_ms)
            draft.transfer(funds(buyer), funds(seller), price)
            draft.put("block", block, changed)
            for name in draft.state.agreements_about.get(block, ()):
                agreement = draft.agreement(name)
                if agreement.recipient == seller and agreement.state == "agreed":
                    draft.put("agreement", name, msgspec.structs.replace(agreement, recipient=buyer))
            return changed

        return self._run("resell_block", key, (block, seller, buyer, price), decide, Block)

    def block(self, block: str) -> Block:
        """The block as it stands. Raises Unknown."""
        with self._deciding:
            return Draft(self._state, 0).block(block)

    @staticmethod
    def _check_holder(block: Block, holder: str) -> None:
        if holder != (block.holder or block.provider):
            raise NotAllowed(f"{holder} does not hold the block {block.id}")


_Pair = tuple[Block, Block]
