"""What a caller says of an auction and of a bid, and what it is shown of them; and of who has registered."""

from __future__ import annotations

import msgspec

from auction.model.award import Award
from auction.model.bid import Announcement, QualityWeights, Ramp, ShownRating
from auction.model.party import Signature


class AuctionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What an announcer decides about an auction; see `Announcement` for what each field means. Open for
    `open_for_ms`; with `reveal_for_ms` bids are committed first and revealed after that. `method` and `source` say how
    the winner is paid: `prepaid`, or a card processor's name with the card's token, which is then to be authorised (see
    `pay`) before anybody can bid."""

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


class BidEntry(msgspec.Struct, frozen=True):
    """A bid as it comes in. See `Bid` for the fields. `arbiter` counts where the announcement names the same."""

    bidder: str
    price: int
    quantity: int = 1
    items: tuple[str, ...] = ()
    limit: int | None = None
    salt: str = ""
    signature: Signature | None = None
    arbiter: str = ""


class AuctionView(msgspec.Struct, frozen=True):
    """What anyone may see of an auction. `seed` is empty and `award` None until it is closed; `ratings` are those of
    who has bid, or of who sells, as they stood at the announcement."""

    auction: str
    state: str
    announcement: Announcement
    closes_ms: int
    bid_count: int
    ratings: tuple[ShownRating, ...]
    seed: str = ""
    award: Award | None = None
    agreements: tuple[str, ...] = ()


class Cost(msgspec.Struct, frozen=True):
    """What a command would take of a party's balance and of its free bond, and what of it would be lost to nobody; the
    rest is held, or paid to others. Below zero is what comes back."""

    of_balance: int
    of_bond: int
    to_nobody: int = 0


class Registered(msgspec.Struct, frozen=True):
    """`token` is shown this once; it is empty when the same command is sent again (see `renew_token`)."""

    party: str
    token: str


class Held(msgspec.Struct, frozen=True):
    """What came of an auction that was held in one command."""

    auction: str
    state: str
    agreements: tuple[str, ...]


class Standing(msgspec.Struct, frozen=True):
    """What is shown of a party beside its ratings, and is no defence: the share of what it was paid that went round
    among those it dealt with; with how many of its counterparties an end was contested, and the share of the money."""

    party: str
    circular_ppm: int
    contested_with: int
    counterparties: int
    contested_ppm: int
