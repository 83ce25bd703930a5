"""Auctions: announcing, bidding, closing. The formats decide who wins; here is who may bid, and when it is too late."""

from __future__ import annotations

from typing import Final

import msgspec

from auction.agreement import Agreement
from auction.award import Award, explain
from auction.bid import Announcement, Bid, Closing, ShownRating, StandingOffer, commit_seed
from auction.block import Block, check, check_capacity_left
from auction.errors import (
    BadValue,
    InsufficientFunds,
    LinkedParties,
    NotAllowed,
    Sealed,
    TooLate,
    WrongState,
)
from auction.formats import check_announcement
from auction.formats.dutch import ramp_price
from auction.formats.open_bidding import OpenState, begin, step
from auction.journal import decode_body
from auction.ledger import bond
from auction.moderator.awarding import Awarding
from auction.moderator.records import SEQUENCES_OF_AN_ENTRY, Auction, PlacedBid
from auction.moderator.state import Draft, decode_changes
from auction.moderator.terms import AuctionTerms, AuctionView, BidEntry
from auction.money import check_integer
from auction.party import check_id
from auction.signing import bid_body
from auction.transcript import Transcript, write_spot_transcript, write_transcript

_NO_LINKS: Final[dict[str, str]] = {}
BIDDERS: Final = {"provide": frozenset({"provider"}), "receive": frozenset({"provider", "recipient"})}


class AuctionCommands(Awarding):
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

        def decide(draft: Draft) -> Announcement:
            return self._announce(draft, announcer, block, terms, auction, prime).announcement

        return self._run("announce", key, (announcer, block, terms, auction, prime), decide, Announcement)

    def bid(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Places a bid. Raises TooLate once the moderator's sequence has closed the auction; LinkedParties,
        NoCapacity, InsufficientFunds (of the bond), BadSignature, Expired, Replayed, BadAmount."""
        return self._run("bid", key, (auction, entry), lambda draft: self._bid(draft, auction, entry).bid, Bid)

    def close(self, auction: str, *, key: str | None = None) -> Award:
        """Closes an auction whose time has come. Raises WrongState before that; the award of one that is closed
        already is the one it got."""

        def decide(draft: Draft) -> Award:
            record = draft.auction(auction)
            if record.state == "open":
                raise WrongState(f"auction {auction} is open until {record.closes_ms}, it is {draft.at_ms}")
            if record.award is None:
                raise WrongState(f"auction {auction} was withdrawn, or waits for bids to be revealed")
            return record.award

        return self._run("close", key, (auction,), decide, Award)

    def auction(self, auction: str) -> AuctionView:
        """What anyone may see of an auction at this moment, ratings included."""
        with self._deciding:
            draft = Draft(self._state, self._time.read())
            record = draft.auction(auction)
            placed = self._rated_bids(draft, record)
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
                award=record.award,
                agreements=tuple(self._state.agreements_of.get(auction, ())),
            )

    def bids(self, auction: str, reader: str) -> list[Bid]:
        """The bids that the reader may see: all in an open format or after the close, else its own. Sealed where there
        is none of its own among bids of others."""
        with self._deciding:
            draft = Draft(self._state, self._time.read())
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
        `auction.transcript.verify_own`. Bids that could not be considered any more are not in it."""
        with self._deciding:
            draft = Draft(self._state, 0)
            record = draft.auction(auction)
            if record.award is None:
                raise WrongState(f"auction {auction} has no award yet")
            if record.announcement.format == "spot" and not draft.placed_bids(auction):
                return self._spot_transcript(draft, record, record.award)
            excluded = {bid for bid, _ in record.excluded}
            placed = [one for one in self._rated_bids(draft, record) if one.bid.bid not in excluded]
        ratings = {one.bid.bidder: one.rating for one in placed if one.rating is not None}
        return write_transcript(record.announcement, [one.bid for one in placed], ratings, record.award)

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
        considered = {standing.bid for standing in award.standings}
        among = [offer for name, offer in offers.items() if name in considered]
        ratings = {offer.provider: self._rating_at(draft, record, offer.provider) for offer in among}
        return write_spot_transcript(record.announcement, among, ratings, award, record.announced_ms)

    def explain(self, auction: str) -> str:
        """Why the award of a closed auction is what it is, in words and numbers."""
        view = self.auction(auction)
        if view.award is None:
            raise WrongState(f"auction {auction} has no award yet")
        return explain(view.award)

    # What follows decides on a draft.

    def _rated_bids(self, draft: Draft, record: Auction) -> list[PlacedBid]:
        """The bids of an auction with the ratings that every bidder of it was shown."""
        placed = draft.placed_bids(record.id)
        return [
            one if one.rating is not None else PlacedBid(one.bid, self._rating_at(draft, record, one.bid.bidder))
            for one in placed
        ]

    def _agree(self, draft: Draft, name: str) -> Agreement:
        raise NotImplementedError  # agreements are made in `agreements`

    def _announce(
        self, draft: Draft, announcer: str, block: Block | str, terms: AuctionTerms, name: str, prime: str
    ) -> Auction:
        self._check_organisation(draft, announcer)
        auction = check_id(name) if name else draft.new_id("auction")
        if prime:
            self._check_prime(draft, announcer, block, prime)
        asked = self._asked_for(draft, announcer, block, auction)
        seed = self._random_bytes(16)
        closes_ms = draft.at_ms + check_integer(terms.open_for_ms, "time to bid", 1)
        announcement = Announcement(
            auction=auction,
            block=asked.id,
            service=asked.service,
            currency=self.config.currency,
            reserve=terms.reserve,
            closing=Closing(
                opens_ms=draft.at_ms,
                closes_ms=closes_ms,
                extend_within_ms=terms.extend_within_ms,
                extend_by_ms=terms.extend_by_ms,
                extend_times_max=terms.extend_times_max,
                reveal_until_ms=closes_ms + terms.reveal_for_ms if terms.reveal_for_ms else None,
            ),
            seed_commitment=commit_seed(auction, seed),
            direction="receive" if isinstance(block, str) else "provide",
            format=terms.format,
            quality=terms.quality,
            quantity=terms.quantity,
            items=terms.items,
            increment=terms.increment,
            ramp=terms.ramp,
            bond=terms.bond,
            newcomer_share_ppm=terms.newcomer_share_ppm,
            region=asked.attributes.get("region", ""),
            rate_bps=asked.committed_bps,
            starts_ms=asked.starts_ms,
            ends_ms=asked.ends_ms,
        )
        check_announcement(announcement)
        record = Auction(
            id=auction,
            announcement=announcement,
            announcer=announcer,
            announced_sequence=draft.sequence,
            announced_ms=draft.at_ms,
            seed=seed.hex(),
            closes_ms=closes_ms,
            due_ms=closes_ms,
            block=None if isinstance(block, str) else asked,
            prime=prime,
            method=terms.method,
            source=terms.source,
        )
        draft.add("auction", auction, record)
        return record

    def _asked_for(self, draft: Draft, announcer: str, block: Block | str, auction: str) -> Block:
        """The block that is auctioned: as the recipient describes it, or the holder's own, which is then offered."""
        if isinstance(block, Block):
            return check(msgspec.structs.replace(block, id=block.id or f"block-of-{auction}", provider="", holder=""))
        known = draft.block(block)
        if announcer != (known.holder or known.provider):
            raise NotAllowed(f"{announcer} does not hold the block {block}")
        if known.state not in ("free", "sold"):
            raise WrongState(f"the block {block} is {known.state}: at most one award for a block")
        self._check_paid_for(draft, block)
        if draft.at_ms >= known.starts_ms:
            raise WrongState("a block is sold before it starts")
        draft.put("block", block, msgspec.structs.replace(known, state="offered"))
        return known

    @staticmethod
    def _check_paid_for(draft: Draft, block: str) -> None:
        """Nobody passes on what it was awarded and has not agreed to pay."""
        for name in draft.state.agreements_about.get(block, ()):
            if draft.agreement(name).state == "awarded":
                raise WrongState(f"the block {block} was awarded under {name}, which is not agreed yet")

    def _bid(self, draft: Draft, auction: str, entry: BidEntry) -> PlacedBid:
        record = draft.auction(auction)
        announcement = record.announcement
        if record.state != "open" or draft.at_ms >= record.closes_ms:
            raise TooLate(f"auction {auction} was closed before this bid came")
        if announcement.closing.reveal_until_ms is not None:
            raise WrongState("in this auction bids are committed first (see `commit`), then revealed")
        placed = self._place(draft, record, entry)
        if announcement.format == "open":
            self._bid_openly(draft, record, placed.bid)
        elif announcement.format == "dutch":
            self._accept(draft, record, placed.bid)
        else:
            self._extend(draft, record)
        return placed

    def _bid_openly(self, draft: Draft, record: Auction, bid: Bid) -> None:
        """The bidding takes one step, which may move the close; raises BadValue for a bid that is not good enough."""
        standing: OpenState = draft.find("bidding", record.id) or begin(record.announcement)
        stepped = step(record.announcement, standing, bid)
        draft.put("bidding", record.id, stepped)
        if stepped.closes_ms != record.closes_ms:
            moved = msgspec.structs.replace(
                record, closes_ms=stepped.closes_ms, due_ms=stepped.closes_ms, extensions=stepped.extensions
            )
            draft.put("auction", record.id, moved)

    def _accept(self, draft: Draft, record: Auction, bid: Bid) -> None:
        """The first who accepts the ramp's price ends the auction at once."""
        price, sign = ramp_price(record.announcement, bid.placed_ms), record.announcement.sign
        if sign * bid.price < sign * price:
            raise BadValue(f"the ramp stands at {price} and has not come to {bid.price}")
        self._close(draft, record)

    def _place(self, draft: Draft, record: Auction, entry: BidEntry) -> PlacedBid:
        """What a bid has to fulfil, whether it is placed at once or revealed after its commitment."""
        bidder = entry.bidder
        rating = self._check_bidder(draft, record, bidder)
        name = draft.new_id("bid")
        bid = Bid(
            bid=name,
            auction=record.id,
            bidder=bidder,
            price=entry.price,
            currency=record.announcement.currency,
            sequence=draft.sequence * SEQUENCES_OF_AN_ENTRY + len(draft.changes),
            placed_ms=draft.at_ms,
            quantity=entry.quantity,
            items=entry.items,
            limit=entry.limit,
            salt=entry.salt,
        )
        signature = b""
        if entry.signature is not None or self.config.signatures:
            signed = self._check_signature(draft, "bid", record.id, bidder, bid_body(bid), entry.signature)
            signature = signed.signature if signed else b""
        placed = PlacedBid(bid, rating, signature)
        draft.put("bid", name, placed)
        return placed

    def _check_bidder(self, draft: Draft, record: Auction, bidder: str) -> ShownRating:
        """Whether this party may bid; returns the rating that counts for it."""
        announcement = record.announcement
        party = draft.party(bidder)
        if party.kind not in BIDDERS[announcement.direction]:
            raise NotAllowed(f"{bidder} is a {party.kind}, and cannot bid to {announcement.direction}")
        self._check_links(draft, record, bidder)
        rating = self._rating_at(draft, record, bidder)
        needed_bond = self._bond_needed(record, rating)
        if needed_bond and draft.balance(bond(bidder)) < needed_bond:
            raise InsufficientFunds(f"a bid needs a free bond of {needed_bond}")
        if record.block is not None and announcement.quantity == 1:
            check_capacity_left(party.capacity_bps, draft.committed_peak(bidder, record.block), record.block, bidder)
        if record.prime:
            self._check_allowed(draft, record, bidder)
        return rating

    @staticmethod
    def _check_links(draft: Draft, record: Auction, bidder: str) -> None:
        """Nobody bids in its own auction, or against itself under two names."""
        state, auction = draft.state, record.id
        interests = state.interests[bidder]
        if not interests.isdisjoint(state.interests[record.announcer]):
            raise LinkedParties(f"{bidder} is linked to {record.announcer}, who announced the auction")
        before = state.links_of.get(auction, _NO_LINKS)
        now = draft.links
        for name in interests:
            other = before.get(name) or now.get((auction, name))
            if other is not None and other != bidder:
                raise LinkedParties(f"{bidder} is linked to {other}, who has bid already")
            now[auction, name] = bidder

    def _check_prime(self, draft: Draft, announcer: str, block: Block | str, prime: str) -> None:
        raise NotImplementedError  # stands in `subcontracts`

    def _check_allowed(self, draft: Draft, record: Auction, bidder: str) -> None:
        raise NotImplementedError  # stands in `subcontracts`

    def _extend(self, draft: Draft, record: Auction) -> None:
        """The soft close: a bid near the end moves it."""
        closing = record.announcement.closing
        if not closing.extend_within_ms or record.extensions >= closing.extend_times_max:
            return
        if draft.at_ms < record.closes_ms - closing.extend_within_ms:
            return
        closes_ms = max(record.closes_ms, draft.at_ms + closing.extend_by_ms)
        if closes_ms != record.closes_ms:
            changed = msgspec.structs.replace(
                record, closes_ms=closes_ms, due_ms=closes_ms, extensions=record.extensions + 1
            )
            draft.put("auction", record.id, changed)
