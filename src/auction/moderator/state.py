"""The state of the market: the fold of the journal.

It has the records by kind, indexes over them, and the ledger. Nothing is decided here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import StandingOffer
from auction.model.block import Block, Timeline
from auction.model.errors import AuctionError, JournalBroken, TooNew
from auction.model.ledger import Ledger, Transfer
from auction.model.lifecycle import CHARGEBACK_MS, KEPT_MS
from auction.model.party import Party
from auction.model.rating import Exchange, RatingRules
from auction.moderator.config import MarketConfig, Rules
from auction.moderator.people import People
from auction.moderator.records import (
    RECORD_TYPES,
    Auction,
    BidSheet,
    ClockWord,
    Committed,
    Debt,
    Drafted,
    Erased,
    Group,
    Nonce,
    Offered,
    Overdue,
    PaymentRequest,
    PlacedBid,
    Revealed,
)
from auction.moderator.reputation import Reputation
from auction.moderator.retiring import RETIRE, name_digest
from auction.storage.journal import FORMAT, Body

COMMITTING_STATES: Final = frozenset({"free", "offered", "sold"})


class Old:
    """The records of a journal of the previous format, unchanged: (kind, id) -> JSON."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], bytes] = {}


class State:
    """Everything that the journal says, as of `sequence`."""

    def __init__(self, rules: RatingRules | None = None) -> None:
        self.config = MarketConfig(rating=rules or RatingRules())  # until the journal's first entry sets them
        self.old: Old | None = None  # while the entries are of the previous format
        self.sequence = 0
        self.at_ms = 0
        self.records: dict[str, dict[str, Any]] = {kind: {} for kind in RECORD_TYPES}
        self.ledger = Ledger()
        self.reputation = Reputation(self.config.rating)
        self.payments_by_reference: dict[tuple[str, str], str] = {}
        self.bids_of: dict[str, list[str]] = {}
        self.links_of: dict[str, dict[str, str]] = {}  # auction -> interest -> the bidder that has it
        self.agreements_of: dict[str, tuple[str, ...]] = {}  # tuples, which the garbage collector does not track
        self.agreements_about: dict[str, tuple[str, ...]] = {}  # block -> agreements made about it
        self.subcontracts_of: dict[str, list[str]] = {}
        self.rests_of: dict[str, tuple[str, ...]] = {}  # agreement -> the agreements that serve its rest
        self.debts_of: dict[str, dict[str, Debt]] = {}  # party -> its unpaid debts
        self.polled: dict[str, int] = {}  # when each party last polled; not journalled, but its effects are
        self.amounts: dict[str, Any] = {}  # auction -> what `holds.amounts_of` has found
        self.stand_bys: dict[str, Any] = {}  # auction -> its stand-bys, a cache
        self.back_ms = 0  # when the market came back after an outage
        self.ahead_ms = 0  # by how much its time is ahead of its clock since that was set back
        self.is_clock_in_doubt = False  # from a jump of its clock until the operator confirms it
        self.offers_of: dict[str, dict[str, StandingOffer]] = {}
        self.timelines: dict[str, Timeline] = {}
        self.spare_bps: dict[str, int] = {}  # `spare_of` by provider, until its capacity or its blocks change
        self.standing: dict[str, Timeline] = {}  # offers that stand -> what was awarded out of each
        self.covering: dict[str, str] = {}  # key of one that stands -> its name
        self.blocks_of_offer: dict[str, dict[str, Block]] = {}  # by the offer's key
        self.commitments_of: dict[str, list[str]] = {}
        self.names_used: set[int] = set()  # of what is put away: see `name_digest`
        self.nonces: set[tuple[str, str]] = set()
        self._expiring: list[tuple[int, str, str]] = []  # what is to be looked at then, whether it can go
        self.refunds_of: dict[str, list[str]] = {}  # agreement -> requests for refunds
        self.alive: dict[str, dict[str, None]] = {"auction": {}, "agreement": {}}  # those that are not over
        self.due: list[tuple[int, str, str]] = []
        self.interests: dict[str, frozenset[str]] = {}  # party -> its names and keys that linked parties share
        self.sharing: dict[str, set[str]] = {}  # interest -> the parties that have it
        self.linked: set[str] = set()  # parties that share an interest with another
        self.banned: set[str] = set()
        self.erased: set[str] = set()  # parties whose personal fields were erased
        self.erased_digests: set[str] = set()
        self.people = People()  # no part of the fold: the journal has digests alone
        self.owners: dict[str, str] = {}  # token hash -> party
        self.pending_payments: dict[str, PaymentRequest] = {}

    def apply(
        self, sequence: int, at_ms: int, changes: Iterable[tuple[str, str, Any]], transfers: Iterable[Transfer]
    ) -> list[tuple[str, str]]:
        """Folds in one entry. Its records replace those of the same kind and id. Returns the records that are gone:
        those that were over for so long that nobody needs them (see `retiring`)."""
        self.sequence = sequence
        self.at_ms = at_ms
        records = self.records
        for kind, name, record in changes:
            of_kind = records[kind]
            index = INDEXES.get(kind)
            if index is not None:
                index(self, of_kind.get(name), record)
            of_kind[name] = record
        self.ledger.apply(transfers)
        if not self._expiring or self._expiring[0][0] > at_ms:
            return []
        gone = []
        while self._expiring and self._expiring[0][0] <= at_ms:
            _, kind, name = heapq.heappop(self._expiring)
            gone += RETIRE[kind](self, name, at_ms)
        return gone

    def bids_in(self, auction: str) -> list[PlacedBid]:
        """The bids of an auction in the moderator's sequence, whether placed one by one or in one command."""
        sheet: BidSheet | None = self.records["sheet"].get(auction)
        if sheet is not None:
            return sheet.placed()
        of_kind = self.records["bid"]
        return [of_kind[name] for name in self.bids_of.get(auction, ())]

    def timeline(self, provider: str) -> Timeline:
        timeline = self.timelines.get(provider)
        if timeline is None:
            timeline = self.timelines[provider] = Timeline()
        return timeline

    def spare_of(self, provider: Party) -> int:
        """The capacity that a provider has never promised to anyone, at any time: it is there in every window."""
        spare_bps = self.spare_bps.get(provider.id)
        if spare_bps is None:
            timeline = self.timelines.get(provider.id)
            spare_bps = provider.capacity_bps - (0 if timeline is None else timeline.highest_bps)
            self.spare_bps[provider.id] = spare_bps
        return spare_bps

    def is_used(self, kind: str, name: str, owner: str = "") -> bool:
        """Whether something had this name that is put away (`owner`: something of this party's)."""
        return bool(self.names_used) and name_digest(kind, name, owner) in self.names_used

    def look_at(self, kind: str, name: str, at_ms: int = 0) -> None:
        """From then on (by default now) it may be put away, if nothing needs it any more."""
        heapq.heappush(self._expiring, (at_ms, kind, name))

    def _index_rules(self, _old: Rules | None, new: Rules) -> None:
        if new.format > FORMAT:
            raise TooNew(f"the journal is of format {new.format}, this version knows {FORMAT}")
        self.config = new.config
        self.reputation.change_rules(new.config.rating, self.sequence)

    def _index_clock(self, _old: ClockWord | None, new: ClockWord) -> None:
        self.is_clock_in_doubt = not new.is_trusted
        if new.is_trusted:
            self.ahead_ms = max(0, new.at_ms - new.shown_ms)
            self.back_ms = new.at_ms  # what would have been due meanwhile is given time

    def _index_party(self, _old: Party | None, new: Party) -> None:
        if _old is not None and _old.token_hash:
            self.owners.pop(_old.token_hash, None)
        if new.token_hash:
            self.owners[new.token_hash] = new.id
        if new.erased_sequence:
            self.erased.add(new.id)
        self.spare_bps.pop(new.id, None)
        self.banned.add(new.id) if new.banned_sequence else self.banned.discard(new.id)
        former, wanted = self.interests.get(new.id, frozenset()), frozenset(new.interests)
        if former == wanted:
            return
        self.interests[new.id] = wanted
        for name in former | wanted:
            having = self.sharing.setdefault(name, set())
            having.add(new.id) if name in wanted else having.discard(new.id)
        for party in {new.id}.union(*[self.sharing[name] for name in former | wanted]):
            shares = any(len(self.sharing[name]) > 1 for name in self.interests[party])
            self.linked.add(party) if shares else self.linked.discard(party)

    def _index_block(self, old: Block | None, new: Block) -> None:
        for one, sign in ((old, -1), (new, 1)):
            if one is not None and one.provider and one.state in COMMITTING_STATES:
                self.spare_bps.pop(one.provider, None)
                self._timeline_of(one).add(one.starts_ms, one.ends_ms, sign * one.committed_bps)
        self.look_at("block", new.id, new.ends_ms + KEPT_MS)
        if new.offer:
            blocks = self.blocks_of_offer.setdefault(new.offer, {})
            if new.state in COMMITTING_STATES:
                blocks[new.id] = new
            else:
                blocks.pop(new.id, None)

    def _timeline_of(self, block: Block) -> Timeline:
        """Whose capacity a block takes: that of the standing offer that it was awarded from, else its provider's."""
        return self.standing[self.covering[block.offer]] if self.is_covered(block) else self.timeline(block.provider)

    def is_covered(self, block: Block) -> bool:
        """Whether the offer that a block was awarded from still stands, as it was placed then."""
        return bool(block.offer) and block.offer in self.covering

    def _index_offered(self, old: Offered | None, new: Offered) -> None:
        """While an offer stands, its rate is taken of its provider's capacity, and its blocks of the offer's."""
        if old is not None and (old.key, old.rate_bps) == (new.key, new.rate_bps):
            return  # only what it holds has changed
        self.spare_bps.pop(new.provider, None)
        timeline = self.timeline(new.provider)
        if old is not None and old.rate_bps:
            del self.standing[new.offer], self.covering[old.key]
            timeline.add(old.from_ms, old.until_ms, -old.rate_bps)
            for block in self.blocks_of_offer.get(old.key, {}).values():
                timeline.add(block.starts_ms, block.ends_ms, block.committed_bps)
        if not new.rate_bps:
            self.look_at("offer", new.offer)
        else:
            used = self.standing[new.offer] = Timeline()
            self.covering[new.key] = new.offer
            timeline.add(new.from_ms, new.until_ms, new.rate_bps)
            for block in self.blocks_of_offer.get(new.key, {}).values():
                timeline.add(block.starts_ms, block.ends_ms, -block.committed_bps)
                used.add(block.starts_ms, block.ends_ms, block.committed_bps)

    def _index_auction(self, old: Auction | None, new: Auction) -> None:
        if new.due_ms and (old is None or old.due_ms != new.due_ms):
            heapq.heappush(self.due, (new.due_ms, "auction", new.id))
        if new.processor_reference:
            self.payments_by_reference[new.method, new.processor_reference] = new.id
        if new.state in ("agreed", "void"):
            self.alive["auction"].pop(new.id, None)
            self.look_at("auction", new.id, new.over_ms + KEPT_MS)
            if new.prime:
                self.look_at("agreement", new.prime)
        else:
            self.alive["auction"][new.id] = None

    def _index_bid(self, old: PlacedBid | None, new: PlacedBid) -> None:
        if old is None:
            bid = new.bid
            self.bids_of.setdefault(bid.auction, []).append(bid.bid)
            links = self.links_of.setdefault(bid.auction, {})
            for name in self.interests[bid.bidder]:
                links[name] = bid.bidder

    def _index_commitment(self, old: Committed | None, new: Committed) -> None:
        if old is None:
            self.commitments_of.setdefault(new.commitment.auction, []).append(new.id)

    def _index_nonce(self, _old: Nonce | None, new: Nonce) -> None:
        self.nonces.add((new.party, new.nonce))
        self.look_at("nonce", f"{new.party}/{new.nonce}", new.expires_ms)

    def _index_agreement(self, old: Agreement | None, new: Agreement) -> None:
        if old is None:
            self.agreements_of[new.auction] = (*self.agreements_of.get(new.auction, ()), new.id)
            self.agreements_about[new.block] = (*self.agreements_about.get(new.block, ()), new.id)
            if new.prime:
                self.subcontracts_of.setdefault(new.prime, []).append(new.id)
            if new.of:
                self.rests_of[new.of] = (*self.rests_of.get(new.of, ()), new.id)
        if new.due_ms and (old is None or old.due_ms != new.due_ms):
            heapq.heappush(self.due, (new.due_ms, "agreement", new.id))
        if not new.is_over:
            self.alive["agreement"][new.id] = None
            return
        self.alive["agreement"].pop(new.id, None)
        self.look_at("auction", new.auction, new.settled_ms + KEPT_MS)
        self.look_at("agreement", new.id, new.settled_ms + CHARGEBACK_MS)
        for name in (new.id, new.of, new.prime):
            if name:
                self.look_at("agreement", name)
        self.look_at("block", new.block)
        self.reputation.count_deal(old, new, self.sequence, self.at_ms)

    def _index_exchange(self, old: Exchange | None, new: Exchange) -> None:
        if old is None:
            reveal_ms = new.finished_ms + self.reputation.rules.hidden_ms
            heapq.heappush(self.due, (reveal_ms, "exchange", new.agreement))

    def _index_revealed(self, _old: Revealed | None, new: Revealed) -> None:
        exchange, agreement = self.records["exchange"][new.agreement], self.records["agreement"][new.agreement]
        self.reputation.count_opinions(exchange, new, agreement, self.sequence)
        self.look_at("auction", agreement.auction)
        self.look_at("agreement", agreement.id)

    def _index_drafted(self, _old: Drafted | None, new: Drafted) -> None:
        heapq.heappush(self.due, (new.due_ms, "drafted", new.id))

    def _index_offer(self, old: StandingOffer | None, new: StandingOffer) -> None:
        offers = self.offers_of.setdefault(new.service, {})
        if old is not None and old.service != new.service:
            self.offers_of[old.service].pop(new.offer, None)
        self.look_at("offer", new.offer, new.valid_until_ms + KEPT_MS)
        if old is None or old.valid_until_ms != new.valid_until_ms:
            heapq.heappush(self.due, (new.valid_until_ms, "offer", new.offer))
        if new.valid_until_ms <= self.at_ms:
            offers.pop(new.offer, None)
        else:
            offers[new.offer] = new

    def _index_debt(self, _old: Debt | None, new: Debt) -> None:
        debts = self.debts_of.setdefault(new.debtor, {})
        if new.to:
            debts[new.id] = new
        else:
            debts.pop(new.id, None)

    def _index_payment(self, old: PaymentRequest | None, new: PaymentRequest) -> None:
        if old is None and new.step == "refund":
            self.refunds_of.setdefault(new.about, []).append(new.id)
        if new.state == "pending":
            self.pending_payments[new.id] = new
        else:
            self.pending_payments.pop(new.id, None)
            self.look_at("agreement" if new.step == "refund" else "auction", new.about)

    def _index_erased(self, _old: Erased | None, new: Erased) -> None:
        self.erased_digests.update(new.digests)
        self.people.drop(new.digests)

    def _index_overdue(self, _old: Overdue | None, new: Overdue) -> None:
        if new.next_ms:
            heapq.heappush(self.due, (new.next_ms, "overdue", new.id))
        else:
            self.look_at("overdue", new.id, self.at_ms + KEPT_MS)

    def _index_group(self, old: Group | None, new: Group) -> None:
        if new.due_ms and (old is None or old.due_ms != new.due_ms):
            heapq.heappush(self.due, (new.due_ms, "group", new.id))
        if not new.due_ms:
            self.look_at("auction", new.auction)


INDEXES: Final[dict[str, Any]] = {
    "rules": State._index_rules,
    "clock": State._index_clock,
    "party": State._index_party,
    "block": State._index_block,
    "auction": State._index_auction,
    "bid": State._index_bid,
    "commitment": State._index_commitment,
    "nonce": State._index_nonce,
    "agreement": State._index_agreement,
    "exchange": State._index_exchange,
    "revealed": State._index_revealed,
    "drafted": State._index_drafted,
    "offer": State._index_offer,
    "offered": State._index_offered,
    "debt": State._index_debt,
    "payment": State._index_payment,
    "group": State._index_group,
    "erased": State._index_erased,
    "overdue": State._index_overdue,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(record) for kind, record in RECORD_TYPES.items()}


def decode_changes(body: Body) -> tuple[list[tuple[str, str, Any]], list[Transfer]]:
    """Decodes the records and transfers of a journal entry. Raises TooNew for a kind of record that this version does
    not know, JournalBroken for an invalid record."""
    try:
        changes = [(kind, name, _DECODERS[kind].decode(raw)) for kind, name, raw in body.changes]
    except KeyError as kind:
        raise TooNew(f"the journal has records of the kind {kind}: a newer version wrote it") from None
    except (msgspec.MsgspecError, AuctionError) as reason:
        raise JournalBroken(f"the journal holds a record that this version cannot read: {reason}") from None
    return changes, body.transfers
