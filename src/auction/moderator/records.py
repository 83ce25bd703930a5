"""The records in the journal: one frozen struct for each kind. `model` has announcements, bids, blocks and agreements;
here are the records that the moderator adds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from auction.formats.commit_reveal import Commitment
from auction.formats.format import Bidding
from auction.formats.spot import Ranked, Row
from auction.groups.negotiation import Negotiation
from auction.groups.sharing import Share
from auction.groups.sponsorship import GroupOutcome
from auction.model.agreement import Agreement
from auction.model.award import Award, Standing, Winning
from auction.model.bid import Announcement, Bid, ShownRating, StandingOffer
from auction.model.block import Block
from auction.model.endpoint import Endpoint, Warm
from auction.model.meter import Meter
from auction.model.party import Party, Signature
from auction.model.rating import Exchange, Opinion
from auction.moderator.config import Rules
from auction.moderator.terms import BidEntry

SEQUENCES_OF_AN_ENTRY: Final = 100_000  # a bid's sequence is its entry's times this, plus its place in the entry


class Nonce(msgspec.Struct, frozen=True):
    """A nonce that a party has used, remembered until its statement expires."""

    party: str
    nonce: str
    expires_ms: int


class Auction(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """An auction. `seed` breaks ties: fixed at the announcement, shown after the close. `state` is one of the
    lifecycle."""

    id: str
    announcement: Announcement
    announcer: str
    announced_sequence: int
    announced_ms: int
    seed: str
    state: str = "open"
    closes_ms: int = 0
    extensions: int = 0
    due_ms: int = 0  # when the moderator must look at it next; 0 if it is over
    closed_sequence: int = 0
    over_ms: int = 0  # when it was awarded or void
    winners: tuple[Winning, ...] = ()  # the whole award: see `awarding.find_award`
    excluded: tuple[tuple[str, str], ...] = ()  # (bid, why it was not considered)
    block: Block | None = None  # the block asked for, if providers bid
    prime: str = ""  # the agreement of which a part is subcontracted
    held: int = 0  # held of the announcer until the award
    method: str = "prepaid"
    source: str = ""
    processor_reference: str = ""
    group: str = ""  # the group that was opened with it
    refused: tuple[str, ...] = ()  # the parties that the announcer refused at the announcement

    @property
    def lead(self) -> str:
        """The name of the block that reserves the leader's capacity in open bidding. It has a slash, which no party's
        block name has."""
        return f"{self.id}/lead"


class Refusals(msgspec.Struct, frozen=True):
    """The parties that one party refuses to deal with. Nobody else can see the list."""

    party: str
    refused: tuple[str, ...]


class Erased(msgspec.Struct, frozen=True, omit_defaults=True):
    """The personal fields of a party, and of all that are part of it, were erased. Their digests stay in the journal.
    `in_journal` counts numbers and remarks of an older version that stand in the journal itself, and stay."""

    party: str
    digests: tuple[str, ...]
    at_ms: int
    in_journal: int = 0


class PlacedBid(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A bid. `rating` is set if ratings weigh: the one that counts for it, as of the announcement. `held` is held until
    a later bid replaces this one, which sets it to 0, or until the auction is over, which leaves it as it was. Whether
    a bid binds its bidder is not told by what it holds, which may be nothing: see `Draft.live_bids`. `withdrawn`: its
    bidder was banned."""

    bid: Bid
    rating: ShownRating | None = None
    signature: bytes = b""
    held: int = 0
    arbiter: str = ""
    withdrawn: bool = False


class BidSheet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The bids of an auction held in one command, as columns, in the moderator's order.

    `ratings` is set if they weighed, `entries` if a bid has more than a price."""

    auction: str
    sequence: int
    placed_ms: int
    currency: str
    bidders: tuple[str, ...]
    prices: tuple[int, ...]
    ratings: tuple[ShownRating, ...] = ()
    entries: tuple[BidEntry, ...] = ()

    def name_of(self, index: int) -> str:
        """A bid's name: the entry's number and the place in it."""
        return f"bid-{self.sequence}.{index + 1}"

    def names(self) -> list[str]:
        return [self.name_of(index) for index in range(len(self.bidders))]

    def bids(self) -> list[Bid]:
        """The bids one by one. Raises BadValue or BadAmount for an invalid bid."""
        entries = self.entries or [BidEntry(*one) for one in zip(self.bidders, self.prices, strict=True)]
        first = self.sequence * SEQUENCES_OF_AN_ENTRY
        return [
            Bid(
                bid=name,
                auction=self.auction,
                bidder=entry.bidder,
                price=entry.price,
                currency=self.currency,
                sequence=first + place,
                placed_ms=self.placed_ms,
                quantity=entry.quantity,
                items=entry.items,
                limit=entry.limit,
                salt=entry.salt,
                insured=entry.insured,
            )
            for place, (name, entry) in enumerate(zip(self.names(), entries, strict=True), 1)
        ]

    def rating_of(self) -> dict[str, ShownRating]:
        """The ratings that weighed, by bidder."""
        return dict(zip(self.bidders, self.ratings, strict=False))

    def placed(self) -> list[PlacedBid]:
        """The bids as if each had been placed alone; without ratings if none weighed."""
        ratings = self.rating_of()
        return [
            PlacedBid(bid, ratings.get(bid.bidder), signature.signature if signature else b"")
            for bid, signature in zip(self.bids(), self.signatures(), strict=True)
        ]

    def signatures(self) -> list[Signature | None]:
        """The signature of each bid."""
        return [entry.signature for entry in self.entries] or [None] * len(self.bidders)


class OfferSheet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The standing offers of a spot award, best first: the first `within` of them are within the reserve, the rest
    beyond it; `others` were not weighed against them. The rows stay in the journal's JSON: keeping some hundred objects
    alive for each award costs the garbage collector more time than the award takes."""

    within: int
    rows: msgspec.Raw
    others: tuple[Standing, ...] = ()

    @staticmethod
    def of(ranked: Ranked) -> OfferSheet:
        rows = msgspec.Raw(msgspec.json.encode(ranked.within + ranked.beyond))
        return OfferSheet(len(ranked.within), rows, tuple(ranked.others))

    def ranked(self) -> Ranked:
        """The offers as they were ranked."""
        rows = msgspec.json.decode(self.rows, type=list[Row])
        return Ranked(rows[: self.within], rows[self.within :], list(self.others))


class Committed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sealed commitment. `held` is held until its bid is revealed, and goes to nobody if it never is. `withdrawn`:
    its bidder was banned."""

    id: str  # auction/bidder
    commitment: Commitment
    held: int = 0
    deposit: int = 0  # the highest bid that it allows, if its bidder pays
    revealed: str = ""
    forfeited: bool = False
    withdrawn: bool = False

    @property
    def is_live(self) -> bool:
        """Whether its bid can still be revealed, as long as the auction is open."""
        return not (self.revealed or self.forfeited or self.withdrawn)


class Offered(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The hold for a standing offer while it stands: money, and `rate_bps` of its provider's capacity in its window.
    The blocks that are awarded from it (`Block.offer` is its `key`) take of that. Placed again, it has another key."""

    offer: str
    provider: str
    key: str = ""
    held: int = 0
    rate_bps: int = 0
    from_ms: int = 0
    until_ms: int = 0


class Debt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a party still owes. The party is barred until it has paid. `to` are (account, amount)."""

    id: str
    agreement: str
    debtor: str
    to: tuple[tuple[str, int], ...]

    @property
    def amount(self) -> int:
        return sum(amount for _, amount in self.to)


class ClockWord(msgspec.Struct, frozen=True, kw_only=True):
    """What was last said of the market's clock: that it has jumped, or (`is_trusted`) that it is right. `at_ms` is the
    market's time then, `shown_ms` what the clock showed."""

    is_trusted: bool
    at_ms: int
    shown_ms: int


class Revealed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Marks that the two opinions about an agreement are published."""

    agreement: str
    service: str
    at_ms: int


class Drafted(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A drafted opinion that counts from `due_ms` on, unless its side has rated by itself before."""

    id: str  # agreement/kind
    opinion: Opinion
    due_ms: int


class Overdue(msgspec.Struct, frozen=True, kw_only=True):
    """What was due and could not be carried out, and why. It is tried again at `next_ms`; 0: it has been carried
    out."""

    id: str  # kind/name
    kind: str
    name: str
    due_ms: int
    reason: str
    tries: int
    next_ms: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What of nobody's money a taker was paid in all."""

    taker: str
    amount: int


class PaymentRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request to a payment processor, journalled before it is sent, so that none is sent twice or forgotten."""

    id: str  # also the idempotency key at the processor
    about: str  # the auction of an authorisation, or the agreement of a refund
    step: str  # authorise, capture, void, refund
    method: str
    source: str
    amount: int
    currency: str
    reference: str = ""
    state: str = "pending"  # approved, declined
    reason: str = ""


class BlockShares(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The members that share a block, and their meters. The rule is `recipients`, `numbers` (in channels of
    `channel_bps`) or `devices` (first divided between `users`)."""

    block: str
    rule: str
    channel_bps: int = 0
    users: tuple[Share, ...] = ()
    shares: tuple[Share, ...] = ()
    meters: dict[str, Meter] = {}


class Group(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A group that shares the price of an agreement. It is opened with the announcement, which its organiser funds;
    `extra_cost` of each served member and the signing `device` are fixed then. `limits` and `pledges` are held while it
    is open; at `due_ms` they are released if the group is not settled."""

    id: str
    organiser: str
    auction: str
    agreement: str = ""
    extra_cost: int = 0
    device: str = ""
    due_ms: int = 0
    state: str = "open"  # settled, failed
    limits: dict[str, int] = {}
    pledges: dict[str, int] = {}
    negotiation: Negotiation | None = None
    outcome: GroupOutcome | None = None


RECORD_TYPES: Final[dict[str, Any]] = {
    "rules": Rules,
    "clock": ClockWord,
    "party": Party,
    "nonce": Nonce,
    "block": Block,
    "auction": Auction,
    "bid": PlacedBid,
    "sheet": BidSheet,
    "offer_sheet": OfferSheet,
    "commitment": Committed,
    "bidding": Bidding,
    "award": Award,
    "agreement": Agreement,
    "exchange": Exchange,
    "revealed": Revealed,
    "drafted": Drafted,
    "offer": StandingOffer,
    "offered": Offered,
    "debt": Debt,
    "overdue": Overdue,
    "taken": Taken,
    "payment": PaymentRequest,
    "shares": BlockShares,
    "group": Group,
    "endpoint": Endpoint,
    "warm": Warm,
    "refusals": Refusals,
    "erased": Erased,
}
