"""A provider's side of the market: its standing offers, bids, assignments, measurements and earnings.

It opens no sockets and starts no processes. It works with a Moderator in this process or with a MarketClient. If the
market refuses something, the trader notes it and continues.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auction.model.agreement import owed, topped_up_owed
from auction.model.bid import Announcement, Bid, StandingOffer
from auction.model.block import Block
from auction.model.delivery import Delivery, Sample
from auction.model.endpoint import Assignment
from auction.model.errors import AuctionError, Unreachable, WrongState
from auction.model.party import Signature
from auction.model.signing import bid_body, delivery_body, endpoint_body, offer_body, sign_statement
from auction.moderator import Moderator
from auction.moderator.terms import BidEntry
from auction.web.client import MarketClient
from streamcore.core.errors import MarketError, UsageError
from streamcore.subcontract.pricing import Pricing, Quote, checked_price
from streamcore.subcontract.work import Done, Work

OFFER_MS = 600_000  # how long a standing offer is good; renewed at half of it
OFFER_BLOCK_MS = 60_000  # the block that a unit of a standing offer is priced for
OFFER_UNITS = 1_000
SIGNED_MS = 60_000  # how long a signature is good
RETRY_MS = 1_000  # how long one question is repeated; the caller asks again


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
    """services: what the market calls those that we offer; signing_key: None where the market takes unsigned words."""

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
        self._currency = currency
        self._signing_key = signing_key
        self._say = say
        self._stand = stand
        self._version = ""
        self._offers_until_ms = 0
        self._asked: set[str] = set()  # auctions that we have looked at
        self._committed: dict[str, tuple[int, int, int]] = {}  # agreement -> starts, ends, bits a second
        self._reported_ms = 0
        self.now_ms = 0
        self.assignments: tuple[Assignment, ...] = ()
        self.work: dict[str, Work] = {}
        self.bids = 0

    @_asking
    def begin(self, curve_key: str) -> None:
        """Say by which CURVE key we come, and put up the standing offers. Raises MarketError."""
        self.now_ms = self._market.assignments(self._party).now_ms
        signature = self._signed("endpoint", "", endpoint_body("", curve_key))
        self._market.publish_endpoint(self._party, curve_key, signature=signature)
        self._offer()

    @_asking
    def look(self, wait_ms: int) -> None:
        """What is assigned to us now, waiting up to wait_ms for news; bid where an auction is open. Raises
        MarketError.
        """
        answer = self._market.assignments(self._party, services=self._services, known=self._version, wait_ms=wait_ms)
        self.now_ms, self._version = answer.now_ms, answer.version
        self.assignments = answer.assignments
        for each in answer.assignments:
            if each.role == "winner":
                rate = each.maximum_bps or each.minimum_bps or 0
                self._committed[each.agreement] = (each.starts_ms, each.ends_ms, rate)
                work = self.work.setdefault(each.agreement, Work(each.agreement, each.recipient, each.service))
                work.state = each.state
        for auction in answer.auctions:
            if auction.own_price is None and auction.announcement.auction not in self._asked:
                self._bid(auction.announcement, auction.block)
        if self.now_ms > self._offers_until_ms - OFFER_MS // 2:
            self._offer()

    def did(self, recipient: str, service: str, starts_ms: int, ends_ms: int, done: Done) -> None:
        """Workers did this of a service for a recipient in that time: it is counted under the agreement with it that
        holds then.
        """
        with_it = [each for each in self.assignments if each.role == "winner" and each.recipient == recipient]
        serving = [each for each in with_it if each.service == service] or with_it
        now = [each for each in serving if each.starts_ms <= ends_ms and each.ends_ms > starts_ms] or serving
        if now:
            self.work[now[0].agreement].add(starts_ms, ends_ms, done)
            return
        before = [each for each in self.work.values() if each.recipient == recipient]
        before = [each for each in before if each.service == service] or before
        if before:
            before[-1].add(starts_ms, ends_ms, done)

    @_asking
    def report(self) -> None:
        """Report to the market what we measured since the last report; look at agreements that have ended, and rate.
        Raises MarketError.
        """
        serving = {each.agreement for each in self.assignments if each.role == "winner"}
        for work in self.work.values():
            if work.segments > work.reported and work.samples and self._deliver(work):
                work.reported = work.segments
            if work.agreement not in serving and not work.rated:
                self._look_back(work)

    @_asking
    def end(self) -> None:
        """Withdraws the standing offers and reports the remaining work."""
        for service in self._services if self._stand else ():
            name = self._offer_name(service)
            self._try(f"withdrawing {name}", functools.partial(self._market.withdraw_offer, name, self._party))
        self.report()
        for work in self.work.values():
            self._look_back(work)

    @property
    def earned(self) -> int:
        return sum(work.earned for work in self.work.values())

    # What is asked of the market.

    def _bid(self, announcement: Announcement, block: Block) -> None:
        name = announcement.auction
        self._asked.add(name)  # whatever comes of it: asked once
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

    def _offer(self) -> None:
        """Put the standing offers up, or up again."""
        self._offers_until_ms = self.now_ms + OFFER_MS
        for service in self._services if self._stand else ():
            price = self._price(service, self._capacity_bps, self.now_ms, self.now_ms + OFFER_BLOCK_MS, None)
            if price is None:
                continue
            offer = StandingOffer(
                offer=self._offer_name(service), provider=self._party, service=service, unit_price=price,
                currency=self._currency, quantity=OFFER_UNITS, rate_bps_max=self._capacity_bps,
                valid_until_ms=self._offers_until_ms,
            )  # fmt: skip
            body = offer_body(service, price, self._currency, OFFER_UNITS, self._capacity_bps, offer.valid_until_ms, "")
            signature = self._signed("offer", offer.offer, body)
            self._try(f"offering {service}", functools.partial(self._market.stand_offer, offer, signature))

    def _price(self, service: str, rate_bps: int, starts_ms: int, ends_ms: int, reserve: int | None) -> int | None:
        taken = sum(rate for starts, ends, rate in self._committed.values() if starts < ends_ms and starts_ms < ends)
        quote = Quote(service, rate_bps, starts_ms, ends_ms, reserve, self._capacity_bps, taken)
        try:
            return checked_price(self._pricing, quote)
        except Exception as error:  # the provider's own file
            self._say(f"no price for {service}: {type(error).__name__}: {error}")
            return None

    def _deliver(self, work: Work) -> bool:
        delivery = Delivery(agreement=work.agreement, measured_by=self._party, samples=self._inside(work))
        signature = self._signed("delivery", work.agreement, delivery_body(delivery))
        return bool(delivery.samples) and self._try("", lambda: self._market.deliver(delivery, signature))

    def _inside(self, work: Work) -> tuple[Sample, ...]:
        """The samples that lie in the agreement's time."""
        starts_ms, ends_ms, _ = self._committed[work.agreement]
        return tuple(each for each in work.samples if each.starts_ms >= starts_ms and each.ends_ms <= ends_ms)

    def _look_back(self, work: Work) -> None:
        """What an agreement came to."""
        try:
            agreement = self._market.agreement(work.agreement)
            work.state = agreement.state
            if not agreement.is_over:
                return
            ours = [leg for leg in agreement.legs if leg.provider == self._party]
            if agreement.state == "charged":
                work.earned = sum(owed(leg) + topped_up_owed(leg) for leg in ours)
            if not work.rated:
                work.rated = True
                self._try("", lambda: self._market.rate_as_drafted(work.agreement, self._party))
                self._say(f"{work.agreement}: {agreement.state}, earned {work.earned} {self._currency}")
        except Unreachable:
            raise
        except AuctionError as error:
            self._say(f"{work.agreement}: {error}")

    def _try(self, what: str, call: Callable[[], Any]) -> bool:
        """Whether the market took it. Unreachable is the caller's."""
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


def connect(url: str, token_file: str, party: str, capacity_bps: int, signing_key: Ed25519PrivateKey) -> Any:
    """The client of a served market for the party whose token it is; where there is no token yet, `party` is registered
    and its token written. Raises UsageError, MarketError.
    """
    path = Path(token_file)
    try:
        if not path.exists():
            if not party:
                raise UsageError(f"there is no {path}: put the market's token in it, or register with --party NAME")
            with MarketClient(url) as client:
                registered = client.register(
                    party, "provider", public_key=_public(signing_key), capacity_bps=capacity_bps
                )
            if not registered.token:
                raise MarketError(f"{party} is registered, but its token got lost: ask the operator for a new one")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(registered.token + "\n")
        return MarketClient(url, path.read_text().strip(), retry_for_ms=RETRY_MS)
    except AuctionError as error:
        raise MarketError(f"the market at {url}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot use the market's token in {path}: {error}") from None


def party_of(market: Any, signing_key: Ed25519PrivateKey) -> tuple[str, Ed25519PrivateKey | None]:
    """Who we are there, and the key if it is the one that the market knows us by. Raises MarketError."""
    try:
        name: str = market.name
        is_known = market.party(name).public_key == _public(signing_key)
    except AuctionError as error:
        raise MarketError(f"the market: {error}") from None
    return name, signing_key if is_known else None


def _public(signing_key: Ed25519PrivateKey) -> str:
    return signing_key.public_key().public_bytes_raw().hex()


def signing_key_of(curve_secret: bytes) -> Ed25519PrivateKey:
    """The key that a provider signs with follows from its CURVE secret, so that it has one secret file to keep."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"streamcore.provider.sign\0" + curve_secret).digest())
