"""The arguments and answers of commands: terms and bids that a caller sends, and views that it gets."""

from __future__ import annotations

import msgspec

from auction.model.award import Award
from auction.model.bid import Announcement, QualityWeights, Ramp, ShownRating
from auction.model.party import Signature


class AuctionTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An announcer's terms for an auction; see `Announcement` for the fields. Bidding is open for `open_for_ms`; with
    `reveal_for_ms` bidders commit first and reveal after that. `method` and `source` say how the winner is paid:
    `prepaid`, or a card processor's name with the card's token, which must be authorised (see `pay`) before anyone can
    bid."""

    reserve: int
    open_for_ms: int
    format: str = "second_score"
    quality: QualityWeights = QualityWeights()
    quantity: int = 1
    items: tuple[str, ...] = ()
    increment: int = 1
    ramp: Ramp | None = None
    newcomer_share_ppm: int = 0
    delta_ppm: int = 100_000
    fail_over: bool = False
    receipts: bool = True
    arbiter: str = ""
    judge: str = ""
    nonce: str = ""
    extend_within_ms: int = 0
    extend_by_ms: int = 0
    extend_times_max: int = 0
    reveal_for_ms: int = 0
    method: str = "prepaid"
    source: str = ""


class BidEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bid as the bidder sends it. See `Bid` for the fields. `arbiter` counts if the announcement names the same
    one, `insured` if quality weighs."""

    bidder: str
    price: int
    quantity: int = 1
    items: tuple[str, ...] = ()
    limit: int | None = None
    salt: str = ""
    signature: Signature | None = None
    arbiter: str = ""
    insured: int = 0


class AuctionView(msgspec.Struct, frozen=True):
    """The view of an auction. `seed` is empty and `award` None until it is closed. A served market shows the award
    with all its prices to who took part, and to others the `winners` alone. `ratings` are those of the bidders, or of
    the seller, as of the announcement."""

    auction: str
    state: str
    announcement: Announcement
    closes_ms: int
    bid_count: int
    ratings: tuple[ShownRating, ...]
    seed: str = ""
    award: Award | None = None
    agreements: tuple[str, ...] = ()
    winners: tuple[str, ...] = ()


class Cost(msgspec.Struct, frozen=True):
    """What a command would take from a party's balance and free bond, and the part of it lost to nobody; the rest is
    held, or paid to others. Negative amounts come back."""

    of_balance: int
    of_bond: int
    to_nobody: int = 0


class ClockView(msgspec.Struct, frozen=True, kw_only=True):
    """The market's own time, what its clock shows, and whether that is in doubt since it has jumped by an hour."""

    now_ms: int
    shown_ms: int
    is_in_doubt: bool


class Registered(msgspec.Struct, frozen=True):
    """`token` is returned only once; it is empty if the same command is sent again (see `renew_token`)."""

    party: str
    token: str


class Held(msgspec.Struct, frozen=True):
    """The result of an auction held in one command."""

    auction: str
    state: str
    agreements: tuple[str, ...]


class Standing(msgspec.Struct, frozen=True):
    """Facts about a party that its rating leaves out: the share of its income that went round in circles among its
    counterparties, the number of counterparties with a contested end, and the share of money in those."""

    party: str
    circular_ppm: int
    contested_with: int
    counterparties: int
    contested_ppm: int
