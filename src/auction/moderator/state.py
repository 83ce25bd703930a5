"""The state of the market: the fold of the journal, and the draft in which one command is decided.

Here live the records by kind, the indexes over them and the ledger. No rule decides anything here, and nothing is
written: `core` commits drafts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from auction.agreement import Agreement
from auction.bid import StandingOffer
from auction.block import Block, Timeline
from auction.errors import Exists, InsufficientFunds, Replayed, Unknown
from auction.journal import Body
from auction.ledger import OUTSIDE, Ledger, Transfer
from auction.moderator.records import (
    RECORD_TYPES,
    Auction,
    BidSheet,
    BlockShares,
    Committed,
    Drafted,
    Group,
    Measured,
    Nonce,
    PaymentRequest,
    PlacedBid,
    Revealed,
)
from auction.moderator.reputation import Reputation
from auction.party import Party
from auction.rating import Exchange, RatingRules

_COMMITTING_STATES: Final = frozenset({"free", "offered", "sold"})


class State:
    """Everything that the journal says, as of `sequence`."""

    def __init__(self, rules: RatingRules) -> None:
        self.sequence = 0
        self.at_ms = 0
        self.records: dict[str, dict[str, Any]] = {kind: {} for kind in RECORD_TYPES}
        self.ledger = Ledger()
        self.reputation = Reputation(rules)
        self.payments_by_reference: dict[tuple[str, str], str] = {}
        self.bids_of: dict[str, list[str]] = {}
        self.links_of: dict[str, dict[str, str]] = {}  # auction -> whose interests have bid -> the bidder
        self.agreements_of: dict[str, list[str]] = {}
        self.agreements_about: dict[str, list[str]] = {}  # block -> agreements made about it
        self.subcontracts_of: dict[str, list[str]] = {}
        self.deliveries_of: dict[str, list[str]] = {}
        self.offers_of: dict[str, dict[str, StandingOffer]] = {}
        self.timelines: dict[str, Timeline] = {}
        self.commitments_of: dict[str, list[str]] = {}
        self.nonces: set[tuple[str, str]] = set()
        self._expiring: list[tuple[int, str, str]] = []  # nonces by when they may be forgotten
        self.due: list[tuple[int, str, str]] = []
        self.interests: dict[str, frozenset[str]] = {}  # of each party: names and keys that linked parties share
        self.owners: dict[str, str] = {}  # token hash -> party
        self.pending_payments: dict[str, PaymentRequest] = {}

    def apply(
        self, sequence: int, at_ms: int, changes: list[tuple[str, str, Any]], transfers: list[Any]
    ) -> list[tuple[str, str]]:
        """Folds one entry in. The records replace those of the same kind and id. Returns which records are gone:
        nonces whose statements have expired by now, and so cannot be replayed."""
        self.sequence = sequence
        self.at_ms = at_ms
        records = self.records
        for kind, name, record in changes:
            of_kind = records[kind]
            index = _INDEXES.get(kind)
            if index is not None:
                index(self, of_kind.get(name), record)
            of_kind[name] = record
        if transfers:
            self.ledger.apply(transfers)
        gone = []
        while self._expiring and self._expiring[0][0] <= at_ms:
            _, party, nonce = heapq.heappop(self._expiring)
            self.nonces.discard((party, nonce))
            del records["nonce"][f"{party}/{nonce}"]
            gone.append(("nonce", f"{party}/{nonce}"))
        return gone

    def placed_bids(self) -> Iterator[PlacedBid]:
        """The bids of all auctions."""
        yield from self.records["bid"].values()
        for sheet in self.records["sheet"].values():
            yield from sheet.placed()

    def timeline(self, provider: str) -> Timeline:
        timeline = self.timelines.get(provider)
        if timeline is None:
            timeline = self.timelines[provider] = Timeline()
        return timeline

    def _index_party(self, _old: Party | None, new: Party) -> None:
        if _old is not None and _old.token_hash:
            self.owners.pop(_old.token_hash, None)
        if new.token_hash:
            self.owners[new.token_hash] = new.id
        self.interests[new.id] = frozenset(new.interests)

    def _index_block(self, old: Block | None, new: Block) -> None:
        if old is not None and old.provider and old.state in _COMMITTING_STATES:
            self.timeline(old.provider).add(old.starts_ms, old.ends_ms, -old.committed_bps)
        if new.provider and new.state in _COMMITTING_STATES:
            self.timeline(new.provider).add(new.starts_ms, new.ends_ms, new.committed_bps)

    def _index_auction(self, old: Auction | None, new: Auction) -> None:
        if new.due_ms and (old is None or old.due_ms != new.due_ms):
            heapq.heappush(self.due, (new.due_ms, "auction", new.id))

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
        heapq.heappush(self._expiring, (new.expires_ms, new.party, new.nonce))

    def _index_agreement(self, old: Agreement | None, new: Agreement) -> None:
        if old is None:
            self.agreements_of.setdefault(new.auction, []).append(new.id)
            self.agreements_about.setdefault(new.block, []).append(new.id)
            if new.prime:
                self.subcontracts_of.setdefault(new.prime, []).append(new.id)
        if new.processor_reference:
            self.payments_by_reference[new.method, new.processor_reference] = new.id
        if new.is_over and (old is None or not old.is_over):
            self.reputation.count_deal(new, self.sequence, self.at_ms)

    def _index_delivery(self, old: Measured | None, new: Measured) -> None:
        if old is None:
            self.deliveries_of.setdefault(new.agreement, []).append(new.id)

    def _index_exchange(self, old: Exchange | None, new: Exchange) -> None:
        if old is None:
            reveal_ms = new.finished_ms + self.reputation.rules.hidden_ms
            heapq.heappush(self.due, (reveal_ms, "exchange", new.agreement))

    def _index_revealed(self, _old: Revealed | None, new: Revealed) -> None:
        exchange = self.records["exchange"][new.agreement]
        self.reputation.count_opinions(exchange, new, self.sequence)

    def _index_drafted(self, _old: Drafted | None, new: Drafted) -> None:
        heapq.heappush(self.due, (new.due_ms, "drafted", new.id))

    def _index_offer(self, _old: StandingOffer | None, new: StandingOffer) -> None:
        offers = self.offers_of.setdefault(new.service, {})
        if new.valid_until_ms <= self.at_ms:
            offers.pop(new.offer, None)
        else:
            offers[new.offer] = new

    def _index_payment(self, _old: PaymentRequest | None, new: PaymentRequest) -> None:
        if new.state == "pending":
            self.pending_payments[new.id] = new
        else:
            self.pending_payments.pop(new.id, None)

    def _index_group(self, old: Group | None, new: Group) -> None:
        if new.due_ms and (old is None or old.due_ms != new.due_ms):
            heapq.heappush(self.due, (new.due_ms, "group", new.id))


_INDEXES: Final[dict[str, Any]] = {
    "party": State._index_party,
    "block": State._index_block,
    "auction": State._index_auction,
    "bid": State._index_bid,
    "commitment": State._index_commitment,
    "nonce": State._index_nonce,
    "agreement": State._index_agreement,
    "delivery": State._index_delivery,
    "exchange": State._index_exchange,
    "revealed": State._index_revealed,
    "drafted": State._index_drafted,
    "offer": State._index_offer,
    "payment": State._index_payment,
    "group": State._index_group,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(record) for kind, record in RECORD_TYPES.items()}


def decode_changes(body: Body) -> tuple[list[tuple[str, str, Any]], list[Transfer]]:
    """The changes and transfers of a journal entry as the records they were."""
    changes = [(kind, name, _DECODERS[kind].decode(raw)) for kind, name, raw in body.changes]
    return changes, [Transfer(*transfer) for transfer in body.transfers]


class Draft:
    """One command while it is decided: reads see what the command has put so far, and nothing outside changes until
    the whole command is committed. A command that raises leaves no trace."""

    __slots__ = ("_blocks_changed", "_named", "at_ms", "changes", "links", "sequence", "state", "transfers")

    def __init__(self, state: State, at_ms: int) -> None:
        self.state = state
        self.sequence = state.sequence + 1
        self.at_ms = at_ms
        self.changes: dict[tuple[str, str], Any] = {}
        self.transfers: list[Transfer] = []
        self._named = 0
        self._blocks_changed = False
        self.links: dict[tuple[str, str], str] = {}  # (auction, interest) -> who has bid in this very command

    def new_id(self, kind: str) -> str:
        """A name that no other record has: the kind, the entry's number and a count within it."""
        self._named += 1
        return f"{kind}-{self.sequence}" if self._named == 1 else f"{kind}-{self.sequence}.{self._named}"

    def put(self, kind: str, name: str, record: Any) -> None:
        self.changes[kind, name] = record
        if kind == "block":
            self._blocks_changed = True

    def add(self, kind: str, name: str, record: Any) -> None:
        """Puts a record that must be new; Exists otherwise."""
        if (kind, name) in self.changes or name in self.state.records[kind]:
            raise Exists(f"there is a {kind} {name!r} already")
        self.put(kind, name, record)

    def find(self, kind: str, name: str) -> Any | None:
        record = self.changes.get((kind, name))
        return self.state.records[kind].get(name) if record is None else record

    def get(self, kind: str, name: str) -> Any:
        record = self.changes.get((kind, name))
        if record is None:
            record = self.state.records[kind].get(name)
            if record is None:
                raise Unknown(f"there is no {kind} {name!r}")
        return record

    def party(self, name: str) -> Party:
        return self.get("party", name)  # type: ignore[no-any-return]

    def block(self, name: str) -> Block:
        return self.get("block", name)  # type: ignore[no-any-return]

    def auction(self, name: str) -> Auction:
        return self.get("auction", name)  # type: ignore[no-any-return]

    def agreement(self, name: str) -> Agreement:
        return self.get("agreement", name)  # type: ignore[no-any-return]

    def shares(self, block: str) -> BlockShares:
        return self.get("shares", block)  # type: ignore[no-any-return]

    def placed_bids(self, auction: str) -> list[PlacedBid]:
        """The bids of an auction in the moderator's sequence."""
        sheet: BidSheet | None = self.find("sheet", auction)
        if sheet is not None:
            return sheet.placed()
        of_kind = self.state.records["bid"]
        placed = [of_kind[name] for name in self.state.bids_of.get(auction, ())]
        if self.changes:
            known = {bid.bid.bid: i for i, bid in enumerate(placed)}
            for (kind, name), record in self.changes.items():
                if kind == "bid" and record.bid.auction == auction:
                    if name in known:
                        placed[known[name]] = record
                    else:
                        placed.append(record)
        return placed

    def transfer(self, source: str, target: str, amount: int, forced: bool = False) -> None:
        """Moves money; nothing happens for zero. Raises InsufficientFunds or BadAmount."""
        if amount == 0:
            return
        wanted = Transfer(source, target, amount)
        if forced:
            self.state.ledger.check((wanted,), forced=True)
        elif self.balance(source) < amount and not source.startswith(OUTSIDE):
            raise InsufficientFunds(f"{source} has {self.balance(source)} minor units, {amount} are needed")
        else:
            self.state.ledger.check((wanted,), forced=True)  # the bounds; what it has was seen above
        self.transfers.append(wanted)

    def balance(self, account: str) -> int:
        balance = self.state.ledger.balance(account)
        for source, target, amount in self.transfers:
            balance += (target == account) * amount - (source == account) * amount
        return balance

    def committed_peak(self, provider: str, block: Block) -> int:
        """The provider's highest promise within the block's window, with what this command has put so far."""
        timeline = self.state.timeline(provider)
        if not self._blocks_changed:
            return timeline.peak_bps(block.starts_ms, block.ends_ms)
        touched = [
            (old, new)
            for (kind, name), new in self.changes.items()
            if kind == "block"
            for old in (self.state.records["block"].get(name),)
            if provider in (new.provider, old.provider if old else "")
        ]
        return self._peak_with(timeline, touched, provider, block)

    @staticmethod
    def _peak_with(timeline: Timeline, touched: list[tuple[Block | None, Block]], provider: str, block: Block) -> int:
        """Adds the changes to the timeline, looks, and takes them away again."""
        steps = [
            (one.starts_ms, one.ends_ms, sign * one.committed_bps)
            for old, new in touched
            for one, sign in ((old, -1), (new, 1))
            if one is not None and one.provider == provider and one.state in _COMMITTING_STATES
        ]
        for starts_ms, ends_ms, rate_bps in steps:
            timeline.add(starts_ms, ends_ms, rate_bps)
        try:
            return timeline.peak_bps(block.starts_ms, block.ends_ms)
        finally:
            for starts_ms, ends_ms, rate_bps in steps:
                timeline.add(starts_ms, ends_ms, -rate_bps)

    def use_nonce(self, party: str, nonce: str, expires_ms: int) -> None:
        """Remembers the nonce. Raises Replayed where this party has used it before."""
        name = f"{party}/{nonce}"
        if (party, nonce) in self.state.nonces or ("nonce", name) in self.changes:
            raise Replayed(f"{party} has used this nonce before")
        self.put("nonce", name, Nonce(party, nonce, expires_ms))
