"""Commands about auctions: announcing, bidding, closing; what may be seen of them, and how an award is checked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from auction.formats.commit_reveal import Commitment
from auction.formats.transcript import Transcript, write_spot_transcript, write_transcript
from auction.model.award import Award, explain
from auction.model.bid import Announcement, Bid, StandingOffer
from auction.model.block import Block
from auction.model.errors import Sealed, WrongState
from auction.model.party import Signature
from auction.moderator.core import Core
from auction.moderator.draft import Draft
from auction.moderator.records import Auction
from auction.moderator.rules import announcing, awarding, bidding, holding, sealing, standing
from auction.moderator.state import decode_changes
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry, Held
from auction.storage.journal import decode_body


class Auctions(Core):
    def announce(
        self,
        announcer: str,
        block: Block | str,
        terms: AuctionTerms,
        *,
        auction: str = "",
        prime: str = "",
        key: str | None = None,
    ) -> Announcement:
        """Offers to bid. A `Block` is what a recipient asks for, and providers bid to provide it; the name of a block
        is what its holder sells, and recipients bid for it. `prime` names the agreement a part of which this
        subcontracts."""
        arguments = (announcer, block, terms, auction, prime)
        return self._run("announce", key, arguments, announcing.announce_openly, Announcement)

    def bid(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Places a bid. Raises TooLate once the moderator's sequence has closed the auction; LinkedParties,
        NoCapacity, InsufficientFunds (of the bond), BadSignature, Expired, Replayed, BadAmount."""
        return self._run("bid", key, (auction, entry), bidding.bid, Bid)

    def commit(
        self,
        auction: str,
        bidder: str,
        commitment: str,
        signature: Signature | None = None,
        *,
        key: str | None = None,
    ) -> Commitment:
        """Binds the bidder to a bid by its hash (`auction.bid.commitment`), and holds the auction's bond until it is
        revealed. Raises TooLate from the close on, Exists for a second one or a copied one."""
        return self._run("commit", key, (auction, bidder, commitment, signature), sealing.commit, Commitment)

    def reveal(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Shows the bid that was committed, after the close and before the end of revealing; its bond is free again.
        Raises BadSignature for a bid other than the committed one, TooLate when revealing is over."""
        return self._run("reveal", key, (auction, entry), sealing.reveal, Bid)

    def close(self, auction: str, *, key: str | None = None) -> Award:
        """Closes an auction whose time has come. Raises WrongState before that; the award of one that is closed
        already is the one it got."""
        return self._run("close", key, (auction,), awarding.award_of, Award)

    def hold_auction(
        self,
        announcer: str,
        block: Block | str,
        terms: AuctionTerms,
        entries: Sequence[BidEntry],
        *,
        auction: str = "",
        key: str | None = None,
    ) -> Held:
        """A whole sealed auction as one command: announced, bid in the order given, closed, and agreed with the price
        held. All or nothing: a bid that is refused, or a price that cannot be held, refuses the whole."""
        return self._run("hold_auction", key, (announcer, block, terms, entries, auction), holding.hold, Held)

    def auction(self, auction: str) -> AuctionView:
        """What anyone may see of an auction at this moment, ratings included."""
        with self._deciding:
            draft = self._draft(self._time.read())
            record = draft.auction(auction)
            placed = bidding.rated_bids(draft, record)
            shown = [one.rating for one in placed if one.rating is not None]
            is_over = record.state != "open"
            return AuctionView(
                auction=auction,
                state=record.state,
                announcement=record.announcement,
                closes_ms=record.closes_ms,
                bid_count=len(placed),
                ratings=tuple({rating.party: rating for rating in shown}.values()),
                seed=record.seed if is_over else "",
                award=awarding.whole_award(self._state, record),
                agreements=self._state.agreements_of.get(auction, ()),
            )

    def await_close(self, auction: str, *, wait_ms: int = 0) -> AuctionView:
        """The auction as soon as it is open no more, or as it is after `wait_ms`."""
        return self._when(lambda: self.auction(auction), lambda view: view.state != "open", wait_ms)

    def bids(self, auction: str, reader: str) -> list[Bid]:
        """The bids that the reader may see: all in an open format or after the close, else its own. Sealed where there
        is none of its own among bids of others."""
        with self._deciding:
            draft = self._draft(self._time.read())
            record = draft.auction(auction)
            bids = [placed.bid for placed in draft.placed_bids(auction)]
        if record.announcement.format == "open":
            # A proxy's limit is the bidder's own, before the close and after it.
            return [bid if bid.bidder == reader else msgspec.structs.replace(bid, limit=None) for bid in bids]
        if record.state != "open":
            return bids
        own = [bid for bid in bids if bid.bidder == reader]
        if bids and not own:
            raise Sealed(f"the bids of auction {auction} are sealed until its close")
        return own

    def transcript(self, auction: str) -> Transcript:
        """What lets any bidder check the award of a closed auction without trusting the moderator: see
        `auction.formats.transcript.verify_own`. Bids that could not be considered any more are not in it."""
        with self._deciding:
            draft = self._draft()
            record = draft.auction(auction)
            award = awarding.whole_award(self._state, record)
            if award is None:
                raise WrongState(f"auction {auction} has no award yet")
            if record.announcement.format == "spot" and not draft.placed_bids(auction):
                return self._spot_transcript(draft, record, award)
            excluded = {bid for bid, _ in record.excluded}
            placed = [one for one in bidding.rated_bids(draft, record) if one.bid.bid not in excluded]
        ratings = {one.bid.bidder: one.rating for one in placed if one.rating is not None}
        return write_transcript(record.announcement, [one.bid for one in placed], ratings, award)

    def _spot_transcript(self, draft: Draft, record: Auction, award: Award) -> Transcript:
        """The offers as the award found them are in the journal alone: a standing offer changes with every use."""
        self._commit_and_wait()
        offers: dict[str, StandingOffer] = {}
        for entry in self.store.entries():
            if entry.sequence >= record.announced_sequence:
                break
            for kind, name, offer in decode_changes(decode_body(entry.body))[0]:
                if kind == "offer" and offer.service == record.announcement.service:
                    offers.pop(name, None) if offer.valid_until_ms <= entry.at_ms else offers.update({name: offer})
        considered = {one.bid for one in award.standings}
        among = [offer for name, offer in offers.items() if name in considered]
        ratings = {offer.provider: standing.rating_at(draft, record, offer.provider) for offer in among}
        return write_spot_transcript(record.announcement, among, ratings, award, record.announced_ms)

    def explain(self, auction: str) -> str:
        """Why the award of a closed auction is what it is, in words and numbers."""
        view = self.auction(auction)
        if view.award is None:
            raise WrongState(f"auction {auction} has no award yet")
        return explain(view.award)
