"""The records before an award: announcements, bids, standing offers, and the rating shown beside a bidder.

Here are these immutable records and their bounds, the value of quality and the commitment of a bid. `formats` decides
which bid wins, the moderator who may bid.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Literal

import msgspec

from auction.model.errors import BadValue
from auction.model.fees import NO_FEE, Fee
from auction.model.money import AMOUNT_MAX, PPM, check_amount, check_currency, check_integer, check_ppm

Direction = Literal["provide", "receive"]
"""`provide`: providers bid to serve, a lower price is better. `receive`: recipients bid for a block, a higher price
is."""

NAME_LENGTH_MAX = 200
_LENGTH = struct.Struct(">Q").pack
TIME_MS_MAX = 2**53  # exact in JSON readers that only have doubles
ITEMS_MAX = 64
QUANTITY_MAX = 2**40


def check_name(value: object, name: str) -> str:
    """Returns `value` if it is a printable text of 1 to 200 characters. Raises BadValue."""
    if type(value) is not str or not 1 <= len(value) <= NAME_LENGTH_MAX or not value.isprintable():
        raise BadValue(f"{name} must be 1 to {NAME_LENGTH_MAX} printable characters")
    return value


def check_time(value: object, name: str) -> int:
    """Returns `value` if it is whole milliseconds since the epoch of the market's clock. Raises BadValue."""
    if type(value) is int and 0 <= value <= TIME_MS_MAX:
        return value
    return check_integer(value, name, 0, TIME_MS_MAX)


def digest(tag: str, *parts: bytes) -> bytes:
    """SHA-256 over a tag and parts, each preceded by its length, so that two different lists of parts never hash
    alike."""
    read = [_LENGTH(len(part)) + part for part in (tag.encode(), *parts)]
    return hashlib.sha256(b"".join(read)).digest()


_SEED_TAG = _LENGTH(len(b"auction.seed")) + b"auction.seed"


def commit_seed(auction: str, seed: bytes) -> str:
    """The hex commitment of the tie-breaking seed, announced before bidding; the seed itself is shown at the close."""
    name = auction.encode()
    return hashlib.sha256(b"%b%b%b%b%b" % (_SEED_TAG, _LENGTH(len(name)), name, _LENGTH(len(seed)), seed)).hexdigest()


class QualityWeights(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The value of quality, in minor units for a quality of 1: by opinion, and by evidence of deliveries."""

    opinion: int = 0
    evidence: int = 0

    def __post_init__(self) -> None:
        check_amount(self.opinion, "weight of opinion")
        check_amount(self.evidence, "weight of evidence")


class Closing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """When bidding ends. With a soft close, a bid within the last `extend_within_ms` moves the close to `extend_by_ms`
    after the bid, at most `extend_times_max` times. With `reveal_until_ms`, bidders commit first and reveal after the
    close.
    """

    opens_ms: int
    closes_ms: int
    extend_within_ms: int = 0
    extend_by_ms: int = 0
    extend_times_max: int = 0
    reveal_until_ms: int | None = None

    def __post_init__(self) -> None:
        check_time(self.opens_ms, "opening")
        check_time(self.closes_ms, "closing")
        if self.opens_ms >= self.closes_ms:
            raise BadValue("an auction must close after it opens")
        check_time(self.extend_within_ms, "soft close window")
        check_time(self.extend_by_ms, "soft close extension")
        check_integer(self.extend_times_max, "number of extensions", 0, 1000)
        if self.reveal_until_ms is not None:
            check_time(self.reveal_until_ms, "end of revealing")
            if self.reveal_until_ms <= self.closes_ms:
                raise BadValue("the time for revealing must end after the close")


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a Dutch auction: from `start_price` it moves by `step` every `step_ms`, up to the reserve (providers
    bid) or down to it (recipients bid)."""

    start_price: int
    step: int
    step_ms: int

    def __post_init__(self) -> None:
        check_amount(self.start_price, "start of the ramp")
        if check_amount(self.step, "step of the ramp") == 0:
            raise BadValue("the step of the ramp must not be zero")
        check_integer(self.step_ms, "milliseconds of a step", 1)


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The invitation to bid. It fixes before bidding everything that decides the award, except bids and ratings.

    `reserve` is the most that is paid (providers bid) or the least that is accepted (recipients bid); in formats with
    several units it is for each unit. `seed_commitment` is `commit_seed` of the seed that breaks ties.
    `newcomer_share_ppm` is the share of auctions, drawn by that seed, in which only newcomers are considered if one
    bids within the reserve. `delta_ppm` is the share of what is undelivered that leaving costs either side. With
    `fail_over` the whole reserve stays held, to pay a provider that takes over. With `receipts` both sides sign what
    was served while it is served. `arbiter` decides about what would go to nobody; `judge` executes segments again.
    `nonce` is the announcer's contribution to the tie-breaking hash. `requires` are the attributes that a bidder must
    have. `sequence` is the journal entry of the announcement; parties registered after it come last in ties.
    `start_ppm` and `evidence_start_ppm` are the lower bounds at which new parties start, if below the prior's.
    """

    auction: str
    block: str
    service: str
    currency: str
    reserve: int
    closing: Closing
    seed_commitment: str
    direction: Direction = "provide"
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
    region: str = ""
    rate_bps: int = 0
    starts_ms: int = 0
    ends_ms: int = TIME_MS_MAX
    requires: dict[str, str] = {}
    fee: Fee = NO_FEE
    sequence: int = 0
    start_ppm: int = PPM
    evidence_start_ppm: int = PPM

    def __post_init__(self) -> None:
        check_name(self.auction, "auction")
        check_name(self.block, "block")
        check_name(self.service, "service")
        check_name(self.format, "format")
        check_currency(self.currency)
        check_amount(self.reserve, "reserve")
        if type(self.seed_commitment) is not str or len(self.seed_commitment) != 64:
            raise BadValue("the commitment of the seed is a SHA-256 in hexadecimal")
        if self.direction not in ("provide", "receive"):
            raise BadValue("the direction is `provide` or `receive`")
        check_integer(self.quantity, "quantity", 1, QUANTITY_MAX)
        if self.items != ():
            check_items(self.items)
        if check_amount(self.increment, "increment") == 0:
            raise BadValue("the increment must not be zero")
        check_ppm(self.delta_ppm, "share for leaving")
        if self.arbiter != "":
            check_name(self.arbiter, "arbiter")
        if self.judge != "":
            check_name(self.judge, "judge")
        if self.nonce != "":
            check_name(self.nonce, "nonce")
        check_ppm(self.newcomer_share_ppm, "share of newcomers")
        check_integer(self.rate_bps, "rate in bits a second")
        check_integer(self.sequence, "entry of the announcement")
        check_ppm(self.start_ppm, "start of newcomers")
        check_ppm(self.evidence_start_ppm, "start of newcomers in evidence")
        check_time(self.starts_ms, "start of the block")
        check_time(self.ends_ms, "end of the block")
        if self.starts_ms >= self.ends_ms:
            raise BadValue("a block must end after it starts")

    @property
    def weighs_ratings(self) -> bool:
        """Whether the bidders' ratings can decide, and not only their bids."""
        return bool(self.quality.opinion or self.quality.evidence or self.newcomer_share_ppm)

    @property
    def sign(self) -> int:
        """-1 if a lower price is better (providers bid), 1 if a higher one is. It lets the same code serve both
        directions."""
        return -1 if self.direction == "provide" else 1


def check_items(items: object) -> None:
    """Items are a tuple of distinct names. Raises BadValue."""
    if type(items) is not tuple or len(items) > ITEMS_MAX:
        raise BadValue(f"items are a tuple of at most {ITEMS_MAX} names")
    for item in items:
        check_name(item, "item")
    if len(set(items)) != len(items):
        raise BadValue("an item occurs twice in one list")


class Bid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A bid. The moderator assigns `sequence` on arrival; the sequence, not a clock, says which bid came first.

    `price` is for everything bid on; in the uniform-price format it is for each unit. `limit` is the proxy's limit in
    the open format: the lowest price it may go down to (providers) or the highest (recipients). `items` names a
    package. `salt` is random text from the bidder, so that the commitment reveals nothing about the price.
    `registered` is the journal entry of the bidder's registration; the moderator sets it. `insured` is additional bond
    of a provider, which pays for what it does not deliver; its share of the reserve counts as quality.
    """

    bid: str
    auction: str
    bidder: str
    price: int
    currency: str
    sequence: int = 0
    placed_ms: int = 0
    quantity: int = 1
    items: tuple[str, ...] = ()
    limit: int | None = None
    salt: str = ""
    registered: int = 0
    insured: int = 0

    def _is_plainly_right(self) -> bool:
        """Whether names and numbers are right, in one expression: bids are made more often than anything else."""
        return (
            type(self.bid) is type(self.auction) is type(self.bidder) is str
            and 0 < len(self.bid) <= NAME_LENGTH_MAX
            and 0 < len(self.auction) <= NAME_LENGTH_MAX
            and 0 < len(self.bidder) <= NAME_LENGTH_MAX
            and (self.bid + self.auction + self.bidder).isprintable()
            and type(self.price) is type(self.sequence) is type(self.placed_ms) is type(self.quantity) is int
            and 0 <= self.price <= AMOUNT_MAX
            and 0 <= self.sequence <= AMOUNT_MAX
            and 0 <= self.placed_ms <= TIME_MS_MAX
            and 1 <= self.quantity <= QUANTITY_MAX
        )

    def __post_init__(self) -> None:
        if not self._is_plainly_right():
            check_name(self.bid, "bid")
            check_name(self.auction, "auction")
            check_name(self.bidder, "bidder")
            check_amount(self.price, "price")
            check_integer(self.sequence, "sequence")
            check_time(self.placed_ms, "time of the bid")
            check_integer(self.quantity, "quantity", 1, QUANTITY_MAX)
        if self.registered or self.insured:
            check_integer(self.registered, "entry of the bidder's registration")
            check_amount(self.insured, "insured amount")
        check_currency(self.currency)
        if self.items != ():
            check_items(self.items)
        if self.limit is not None:
            check_amount(self.limit, "limit")
        if self.salt != "" and (
            type(self.salt) is not str or len(self.salt) > NAME_LENGTH_MAX or not self.salt.isascii()
        ):
            raise BadValue(f"the salt must be an ASCII text of at most {NAME_LENGTH_MAX} characters")


class StandingOffer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A firm offer that stands until `valid_until_ms`: `quantity` units at `unit_price` each, up to `rate_bps_max`, in
    the window from `available_from_ms` to `available_until_ms`. An empty region serves every region."""

    offer: str
    provider: str
    service: str
    unit_price: int
    currency: str
    quantity: int
    rate_bps_max: int
    valid_until_ms: int
    available_from_ms: int = 0
    available_until_ms: int = TIME_MS_MAX
    region: str = ""
    sequence: int = 0

    def __post_init__(self) -> None:
        check_name(self.offer, "offer")
        check_name(self.provider, "provider")
        check_name(self.service, "service")
        check_amount(self.unit_price, "price of a unit")
        check_currency(self.currency)
        check_integer(self.quantity, "quantity", 1, QUANTITY_MAX)
        check_integer(self.rate_bps_max, "maximum rate in bits a second")
        check_time(self.valid_until_ms, "end of validity")
        check_time(self.available_from_ms, "start of availability")
        check_time(self.available_until_ms, "end of availability")
        if self.available_from_ms >= self.available_until_ms:
            raise BadValue("an offer must be available for some time")
        check_integer(self.sequence, "sequence")


class ShownRating(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A party's rating as every later auction of the service shows it. Fractions are parts per million.

    `mean_ppm`, `lower_ppm` and `count` summarise opinions (yes or no), the `evidence_` fields measured deliveries.
    `silence_ppm` is the share of finished agreements after which the other side did not rate.
    """

    party: str
    mean_ppm: int = 0
    lower_ppm: int = 0
    count: int = 0
    evidence_mean_ppm: int = 0
    evidence_lower_ppm: int = 0
    evidence_count: int = 0
    silence_ppm: int = 0
    remarks: tuple[str, ...] = ()
    newcomer: bool = False

    def __post_init__(self) -> None:
        check_name(self.party, "party")
        for name in ("mean_ppm", "lower_ppm", "evidence_mean_ppm", "evidence_lower_ppm", "silence_ppm"):
            check_ppm(getattr(self, name), name)
        check_integer(self.count, "count")
        check_integer(self.evidence_count, "count of evidence")


Ratings = Mapping[str, ShownRating]
"""The ratings as they stood when the auction was announced, by bidder. A bidder without one has quality 0."""


def quality_value(weights: QualityWeights, rating: ShownRating | None, insured_ppm: int = 0) -> int:
    """The value of a bidder's quality in minor units: its lower bounds times the weights, each rounded down. An insured
    quality counts if it is higher."""
    if rating is None:
        opinion_ppm = evidence_ppm = insured_ppm
    else:
        opinion_ppm, evidence_ppm = rating.lower_ppm, rating.evidence_lower_ppm
        if insured_ppm:
            opinion_ppm, evidence_ppm = max(opinion_ppm, insured_ppm), max(evidence_ppm, insured_ppm)
    return weights.opinion * opinion_ppm // PPM + weights.evidence * evidence_ppm // PPM


def commitment(bid: Bid) -> str:
    """The hex hash that binds a bidder to a bid. It covers everything that the bidder chose and nothing that the
    moderator added."""
    chosen = (bid.auction, bid.bidder, bid.price, bid.currency, bid.quantity, bid.items, bid.limit, bid.salt)
    more = (bid.insured,) if bid.insured else ()
    return hashlib.sha256(b"auction.bid\0" + msgspec.json.encode((*chosen, *more))).hexdigest()
