"""A provider's side of the market: standing offers, bids, assignments, takeovers, and statements of ends.

It opens no sockets and starts no processes. It works with a Moderator in this process or with a MarketClient. If the
market refuses something, the trader notes it and continues.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auction.model.agreement import Agreement
from auction.model.bid import Announcement, Bid, StandingOffer
from auction.model.block import Block
from auction.model.endpoint import Assignment as Assignment
from auction.model.errors import AuctionError, NoAward, Unreachable, WrongState
from auction.model.holding import DELTA_PPM, of_offer, of_provider
from auction.model.money import as_decimal
from auction.model.party import Signature
from auction.model.signing import bid_body, endpoint_body, offer_body, sign_statement
from auction.moderator import Moderator
from auction.moderator.terms import BidEntry
from auction.web.client import MarketClient
from streamcore.core.errors import MarketError
from streamcore.subcontract.ends import Word, answer
from streamcore.subcontract.figure import figure, sure_figure
from streamcore.subcontract.pricing import Pricing, Quote, checked_price
from streamcore.subcontract.work import Done, Work

OFFER_MS = 600_000  # a standing offer's validity, renewed at half of it; it binds even a stopped provider
OFFER_EVERY_MS = 5_000  # between checks whether to renew it
OFFER_BLOCK_MS = 60_000  # the length of block that a unit of a standing offer is priced for
OFFER_UNITS_MAX = 100
SIGNED_MS = 60_000  # how long a signature is valid
LOOKED_BACK = 50  # agreements that a provider checks when it starts
PAUSE_MS_MAX = 30_000  # between checks of an agreement that is not settled


def _asking(call: Callable[..., None]) -> Callable[..., None]:
    """Turns the market's refusals into MarketErrors."""

    @functools.wraps(call)
    def asked(*arguments: Any) -> None:
        try:
            call(*arguments)
        except AuctionError as error:
            raise MarketError(f"the market: {error}") from None

    return asked


class Trader:
    """services: the names of what we offer in the market; signing_key: None if the market accepts unsigned
    statements."""

    def __init__(
        self,
        market: Moderator | MarketClient,
        party: str,
        services: Sequence[str],
        pricing: Pricing,
        capacity_bps: int,
        currency: str,
        signing_key: Ed25519PrivateKey | None = None,
        say: Callable[[str], None] = lambda words: None,
        stand: bool = True,
    ) -> None:
        self._market = market
        self._party = party
        self._services = tuple(services)
        self._pricing = pricing
        self._capacity_bps = capacity_bps
        # A standing offer holds its capacity, so only half of ours is for them, and half for auctions and takeovers.
        self._standing_bps = max(1, capacity_bps // (2 * max(1, len(self._services))))
        self._currency = currency
        self._signing_key = signing_key
        self._say = say
        self._stand = stand
        self._version = ""
        self._offer_at_ms = 0
        self._standing: set[str] = set()  # offers
        self._asked: set[str] = set()  # auctions that we have handled
        self._committed: dict[str, tuple[int, int, int]] = {}  # agreement -> starts, ends, bits a second
        self.is_connected: Callable[[str], bool] = lambda recipient: True  # whether our workers are connected to it
        self.now_ms = 0
        self.assignments: tuple[Assignment, ...] = ()
        self.work: dict[str, Work] = {}
        self.bids = 0

    @_asking
    def begin(self, curve_key: str) -> None:
        """Publishes our CURVE key, and places the standing offers. Raises MarketError."""
        self.now_ms = self._market.assignments(self._party).now_ms
        signature = self._signed("endpoint", "", endpoint_body("", curve_key))
        self._market.publish_endpoint(self._party, curve_key, signature=signature)
        for one in self._market.overview(party=self._party, limit=LOOKED_BACK).agreements:
            if one.provider == self._party and one.state in ("running", "closing") and one.starts_ms <= self.now_ms:
                self.work[one.agreement] = Work(one.agreement, one.recipient, one.service, one.state, was_away=True)
        self._offer()

    @_asking
    def look(self, wait_ms: int) -> None:
        """Reads our assignments, waiting up to wait_ms for news. Takes over what is offered, and bids in open auctions.
        Raises MarketError.
        """
        seen = self._market.assignments(self._party, services=self._services, known=self._version, wait_ms=wait_ms)
        self.now_ms, self._version = seen.now_ms, seen.version
        self.assignments = seen.assignments
        for each in seen.assignments:
            if each.role == "winner":
                rate = each.maximum_bps or each.minimum_bps or 0
                self._committed[each.agreement] = (each.starts_ms, each.ends_ms, rate)
                work = self.work.setdefault(each.agreement, Work(each.agreement, each.recipient, each.service))
                work.state = each.state
            elif each.role == "offer" and self.is_connected(each.recipient):
                self._take_over(each)
        for auction in seen.auctions:
            if auction.own_price is None and auction.announcement.auction not in self._asked:
                self._bid(auction.announcement, auction.block)
        if self.now_ms >= self._offer_at_ms:
            self._offer()

    def did(self, recipient: str, service: str, starts_ms: int, ends_ms: int, done: Done) -> None:
        """Notes work on a service for a recipient in that time, under the agreement of that time."""
        with_it = [each for each in self.assignments if each.role == "winner" and each.recipient == recipient]
        serving = [each for each in with_it if each.service == service] or with_it
        now = [each for each in serving if each.starts_ms <= ends_ms and each.ends_ms > starts_ms] or serving
        if now:
            work = self.work[now[0].agreement]
            if not work.segments:
                self._say(f"{work.agreement}: the first segments are done")
            work.add(starts_ms, ends_ms, done)
            return
        before = [each for each in self.work.values() if each.recipient == recipient]
        before = [each for each in before if each.service == service] or before
        if before:
            before[-1].add(starts_ms, ends_ms, done)

    @_asking
    def report(self) -> None:
        """Checks agreements that are ending, states their ends with our figures, and rates settled ones. Raises
        MarketError.
        """
        serving = {each.agreement for each in self.assignments if each.role == "winner" and each.state != "closing"}
        for work in self.work.values():
            if work.agreement not in serving and not work.is_over and self.now_ms >= work.look_at_ms:
                self._look_at(work)
                work.pause_ms = min(2 * work.pause_ms, PAUSE_MS_MAX)
                work.look_at_ms = self.now_ms + work.pause_ms

    @_asking
    def end(self) -> None:
        """Withdraws the standing offers, and leaves agreements that are not over."""
        for name in self._standing:
            self._try(f"withdrawing {name}", functools.partial(self._market.withdraw_offer, name, self._party))
        for work in self.work.values():
            if not work.is_over:
                self._look_at(work, is_going=True)

    @property
    def earned(self) -> int:
        """What the provider was paid in all, in minor units."""
        return sum(work.earned for work in self.work.values())

    def in_words(self, amount: int) -> str:
        """An amount of minor units for people: 77 is 0.77 EUR."""
        return f"{as_decimal(amount, self._currency)} {self._currency}"

    # Requests to the market.

    def _bid(self, announcement: Announcement, block: Block) -> None:
        name = announcement.auction
        self._asked.add(name)  # only one attempt, whatever its outcome
        if announcement.direction != "provide":
            return
        rate = block.maximum_bps or block.minimum_bps or 0
        price = self._price(announcement.service, rate, block.starts_ms, block.ends_ms, announcement.reserve)
        if price is None:
            return
        bid = Bid(bid="bid", auction=name, bidder=self._party, price=price, currency=announcement.currency)
        entry = BidEntry(self._party, price, signature=self._signed("bid", name, bid_body(bid)))
        if self._try(f"bidding in {name}", lambda: self._market.bid(name, entry)):
            self.bids += 1
            self._say(f"bid {price} in {name} for {announcement.service}")

    def _take_over(self, offered: Assignment) -> None:
        """Takes over another provider's rest, at our own price for it."""
        try:
            taken = self._market.take_over(offered.agreement, self._party)
        except (NoAward, WrongState):
            return  # another provider was faster
        except Unreachable:
            raise
        except AuctionError as error:
            self._say(f"taking over {offered.agreement}: {error}")
            return
        self._say(f"took over the rest of {offered.agreement} as {taken.id} for {taken.price}")

    def _offer(self) -> None:
        """Places or renews the standing offers, with as many units as our bond secures if all are awarded."""
        self._offer_at_ms = self.now_ms + OFFER_EVERY_MS
        for service in self._services if self._stand else ():
            price = self._price(service, self._capacity_bps, self.now_ms, self.now_ms + OFFER_BLOCK_MS, None)
            if price is None:
                continue
            mine = [each for each in self._market.offers(service) if each.offer == self._offer_name(service)]
            units = self._secured_units(price, mine)
            is_good = mine and mine[0].valid_until_ms - self.now_ms > OFFER_MS // 2 and mine[0].unit_price == price
            if units and not (is_good and mine[0].quantity * 2 > units):
                self._stand_offer(service, price, units)

    def _secured_units(self, price: int, mine: Sequence[StandingOffer]) -> int:
        """How many units our bond secures, divided between our services. An awarded unit holds what its provider can
        lose."""
        had = sum(of_offer(each.unit_price, each.quantity, DELTA_PPM) for each in mine)
        secured = self._market.bond(self._party) + had
        a_unit = of_provider(price, DELTA_PPM)
        return min(OFFER_UNITS_MAX, secured // (len(self._services) * a_unit)) if a_unit else OFFER_UNITS_MAX

    def _stand_offer(self, service: str, price: int, units: int) -> None:
        offer = StandingOffer(
            offer=self._offer_name(service), provider=self._party, service=service, unit_price=price,
            currency=self._currency, quantity=units, rate_bps_max=self._standing_bps,
            valid_until_ms=self.now_ms + OFFER_MS,
        )  # fmt: skip
        body = offer_body(service, price, self._currency, units, self._standing_bps, offer.valid_until_ms, "")
        signature = self._signed("offer", offer.offer, body)
        if self._try(f"offering {service}", functools.partial(self._market.stand_offer, offer, signature)):
            self._standing.add(offer.offer)

    def _price(self, service: str, rate_bps: int, starts_ms: int, ends_ms: int, reserve: int | None) -> int | None:
        taken = sum(rate for starts, ends, rate in self._committed.values() if starts < ends_ms and starts_ms < ends)
        quote = Quote(service, rate_bps, starts_ms, ends_ms, reserve, self._capacity_bps, taken)
        try:
            return checked_price(self._pricing, quote)
        except Exception as error:  # the provider's own file
            self._say(f"no price for {service}: {type(error).__name__}: {error}")
            return None

    def _look_at(self, work: Work, is_going: bool = False) -> None:
        """Checks an agreement, and states our end of it."""
        try:
            agreement = self._market.agreement(work.agreement)
            if not agreement.is_over:
                word = self._word(agreement, work, is_going)
                if word is not None:
                    agreement = self._market.end(agreement.id, self._party, word.ending, word.figure)
            work.state = agreement.state
            if agreement.is_over:
                work.is_over, work.earned = True, agreement.charged
                self._try("", lambda: self._market.rate_as_drafted(work.agreement, self._party))
                self._say(f"{work.agreement}: {agreement.state}, paid {self.in_words(work.earned)}")
        except Unreachable:
            raise
        except AuctionError as error:
            self._say(f"{work.agreement}: {error}")

    def _word(self, agreement: Agreement, work: Work, is_going: bool) -> Word | None:
        rate_bps = agreement.minimum_bps or agreement.maximum_bps
        terms = (agreement.price, agreement.starts_ms, agreement.ends_ms, rate_bps)
        sure = sure_figure(*terms, work.intervals)
        served = figure(*terms, work.intervals, self.now_ms if work.was_away else work.until_ms)
        word = answer(agreement, sure, served, self.now_ms, work.was_away)
        if word is not None or not is_going or agreement.provider_says is not None:
            return word
        return Word("finished" if self.now_ms >= agreement.ends_ms else "leaving", served)

    def _try(self, what: str, call: Callable[[], Any]) -> bool:
        """Makes a call. Returns whether the market accepted it. Passes Unreachable on."""
        try:
            call()
        except Unreachable:
            raise
        except WrongState as error:
            if what:
                self._say(f"{what}: {error}")
            return False
        except AuctionError as error:
            self._say(f"{what or 'the market'}: {error}")
            return False
        return True

    def _signed(self, purpose: str, subject: str, body: dict[str, Any]) -> Signature | None:
        if self._signing_key is None:
            return None
        nonce = secrets.token_hex(16)
        return sign_statement(
            self._signing_key, purpose, subject, self._party, body, nonce=nonce, expires_ms=self.now_ms + SIGNED_MS
        )

    def _offer_name(self, service: str) -> str:
        return f"{self._party}-{hashlib.sha256(service.encode()).hexdigest()[:8]}"
