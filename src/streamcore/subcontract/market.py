"""The allocator that uses a market: a moderator in this process, or a server through its client. It turns a need into
a block, an agreement into a placement, and a report into a delivery, which is charged and rated.

It handles no segments and no sockets. The market's rules decide awards and charges.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import QualityWeights
from auction.model.block import Block
from auction.model.delivery import Delivery, Sample
from auction.model.endpoint import OFFERS_MAX
from auction.model.errors import AuctionError, NoAward, Unknown, WrongState
from auction.moderator import AuctionTerms, Moderator
from streamcore.core.config import Market as MarketKeys
from streamcore.core.errors import MarketError, UsageError
from streamcore.subcontract.allocator import Interval, Need, Placement, Report, Runner

if TYPE_CHECKING:
    from auction.web.client import MarketClient

SPOT_ANSWER_MS = 10_000  # the deadline of a spot award
WARM_MS = 600_000  # for how long the providers of standing offers are asked to stay connected
CLOSE_WAIT_MS = 2_000  # how much later than its time an auction may be seen to close


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks, and how. `device` measures and rates for the party; `open_for_ms` is how long an auction is open, 0: no
    auctions, standing offers alone; `overrule_ms` is how long a person has to overrule a drafted rating. Quality of 1
    is worth `quality_value` times the highest price where the objective is quality.
    """

    party: str
    device: str
    currency: str = "EUR"
    open_for_ms: int = 500
    overrule_ms: int = 0
    quality_value: int = 1


class MarketAllocator:
    """See allocator.Allocator. `market` is a Moderator or a MarketClient of the party.

    `place` takes the best standing offer that there is; with an embedded moderator that takes no input or output, with
    a served one a round trip. Where none fulfils the need it holds an auction, which takes `open_for_ms`.
    """

    def __init__(self, market: Moderator | MarketClient, terms: Terms) -> None:
        self._market = market
        self._terms = terms
        self._lock = threading.Lock()
        self._over: dict[str, dict[str, Any]] = {}  # what came of the agreements that were charged
        self._ahead_ms: int | None = None

    def listening(self, address: str, curve_key: str, services: tuple[str, ...] = ()) -> None:
        """Tells the market where providers join, and keeps those of standing offers connected beforehand."""
        self._market.publish_endpoint(self._terms.party, curve_key, address=address)
        self._keep_warm(services)

    def now_ms(self) -> int:
        """The market's time: asked for once, and carried on by the machine's clock."""
        here_ms = time.monotonic_ns() // 1_000_000
        if self._ahead_ms is None:
            self._ahead_ms = self._market.now_ms() - here_ms
        return here_ms + self._ahead_ms

    def place(self, need: Need) -> Placement | None:
        try:
            agreement = self._market.spot(
                self._terms.party, _block(need), self._auction_terms(need, SPOT_ANSWER_MS), wait=False
            )
            placement = self._placement(need, agreement)  # it is started with the first report: that waits for a commit
            return placement if placement is not None else self._started(need, agreement)
        except NoAward:
            if not self._terms.open_for_ms:
                return None
        starts_ms = need.starts_ms + self._terms.open_for_ms
        return self._hold_auction(replace(need, starts_ms=starts_ms, ends_ms=need.ends_ms + self._terms.open_for_ms))

    def renew(self, placement: Placement, starts_ms: int, ends_ms: int) -> Placement | None:
        """The next block by an auction, as long as it can close before the block begins; else from standing offers."""
        assert placement.need is not None
        need = replace(placement.need, starts_ms=starts_ms, ends_ms=ends_ms)
        self._keep_warm((need.service,))
        if self._terms.open_for_ms and self.now_ms() + self._terms.open_for_ms < starts_ms:
            following = self._hold_auction(need)
            if following is not None:
                return following
        try:
            return self._started(
                need, self._market.spot(self._terms.party, _block(need), self._auction_terms(need, SPOT_ANSWER_MS))
            )
        except NoAward:
            return None

    def replace(self, placement: Placement, reason: str, report: Report) -> Placement | None:
        """Reports what the failed provider delivered, and has the first armed runner-up who can take over."""
        self.progress(placement, report)
        try:
            taken = self._market.replace(placement.agreement)
        except (NoAward, WrongState):
            return None
        return self._placement(placement.need, taken)

    def progress(self, placement: Placement, report: Report) -> None:
        """Reports the delivery so far. Starts the agreement if it has not started."""
        if self._market.agreement(placement.agreement).state == "agreed":
            self._market.start(placement.agreement)
        self._deliver(placement, report, to_the_end=False)

    def report(self, placement: Placement, report: Report) -> dict[str, Any]:
        """Delivers, finishes, charges, and rates as drafted. Without intervals only what was reported before counts."""
        with self._lock:
            known = self._over.get(placement.agreement)
        if known is not None:
            return known
        self.progress(placement, Report(()))
        if report.intervals:
            self._deliver(placement, report, to_the_end=True)
        self._market.finish(placement.agreement)
        charged = self._market.charge(placement.agreement)
        outcome: dict[str, Any] = {
            "state": charged.state,
            "charged": charged.charged,
            "legs": [
                {"provider": leg.provider, "price": leg.price, "delivered_ppm": leg.delivered_ppm, "failed": leg.failed}
                for leg in charged.legs
            ],
        }
        outcome["satisfied"] = self._rate(placement.agreement)
        with self._lock:
            self._over[placement.agreement] = outcome
        return outcome

    def close(self) -> None:
        """What was placed without waiting is written."""
        if isinstance(self._market, Moderator):
            self._market.flush()

    def _hold_auction(self, need: Need) -> Placement | None:
        """Announces, waits for the close, and agrees. None if nobody bid within the price."""
        terms = self._auction_terms(need, self._terms.open_for_ms)
        auction = self._market.announce(self._terms.party, _block(need), terms).auction
        view = self._market.await_close(auction, wait_ms=self._terms.open_for_ms + CLOSE_WAIT_MS)
        if view.award is None or view.award.failed:
            return None
        return self._started(need, self._market.agree(view.agreements[0]))

    def _auction_terms(self, need: Need, open_for_ms: int) -> AuctionTerms:
        worth = need.price_max * self._terms.quality_value if need.objective == "quality" else 0
        return AuctionTerms(
            reserve=need.price_max,
            open_for_ms=open_for_ms,
            quality=QualityWeights(opinion=worth, evidence=worth),
        )

    def _started(self, need: Need, agreement: Agreement) -> Placement | None:
        self._market.start(agreement.id)
        placement = self._placement(need, agreement)
        if placement is not None:
            return placement
        # The winner has not said by which key it would come.
        try:
            return self._placement(need, self._market.replace(agreement.id))
        except (NoAward, WrongState):
            self._market.finish(agreement.id)
            self._market.charge(agreement.id)  # nothing was delivered, and nothing is paid
            return None

    def _placement(self, need: Need | None, agreement: Agreement) -> Placement | None:
        key = self._key(agreement.provider)
        if not key:
            return None
        armed = [(runner.provider, self._key(runner.provider)) for runner in agreement.runners_up]
        return Placement(
            agreement.id,
            agreement.provider,
            key,
            agreement.price,
            agreement.starts_ms,
            agreement.ends_ms,
            tuple(Runner(provider, known) for provider, known in armed if known),
            self._market.rating(agreement.provider, agreement.service).newcomer,
            need,
        )

    def _key(self, provider: str) -> str:
        try:
            return self._market.endpoint(provider).curve_key
        except Unknown:
            return ""

    def _keep_warm(self, services: tuple[str, ...]) -> None:
        offers = [offer.offer for service in services for offer in self._market.offers(service)]
        if offers:
            until_ms = self._market.now_ms() + WARM_MS
            self._market.keep_warm(self._terms.party, tuple(offers[:OFFERS_MAX]), until_ms)

    def _deliver(self, placement: Placement, report: Report, to_the_end: bool) -> None:
        """What was measured of who serves now, within its part of the window. Where nothing was asked for, that is
        said: the provider was ready, and has earned that time; to the end of the window if it was ready to the end."""
        leg = self._market.agreement(placement.agreement).legs[-1]
        samples = _samples(report.intervals, leg.from_ms, leg.until_ms, to_the_end)
        if not samples:
            return
        self._market.deliver(
            Delivery(
                agreement=placement.agreement,
                measured_by=self._terms.device,
                samples=samples,
                audited=report.audited,
                audits_failed=report.audits_failed,
            )
        )

    def _rate(self, agreement: str) -> bool | None:
        try:
            drafted = self._market.rate_as_drafted(
                agreement, self._terms.party, device=self._terms.device, overrule_ms=self._terms.overrule_ms
            )
        except AuctionError:
            return None  # nothing was measured, or a person was faster
        return drafted.satisfied


def open_client(url: str, token: str) -> MarketClient:
    """A client of the market at `url`, for the token's party. Raises MarketError if the address is invalid."""
    from auction.web.client import MarketClient  # only here: an embedded market needs no HTTP

    try:
        return MarketClient(url, token)
    except AuctionError as error:
        raise MarketError(f"the market at {url}: {error}") from None


def connect(keys: MarketKeys, address: str, key: str) -> MarketAllocator:
    """The allocator for a served market, which learns that we listen at `address` with the key of that file.

    Raises UsageError for the token's file, MarketError where the market does not answer.
    """
    import zmq.auth

    token = ""
    if keys.token_file:
        try:
            token = Path(keys.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the market's token: {error}") from None
    client = open_client(keys.url, token)
    try:
        party = keys.recipient or client.name
        public, _ = zmq.auth.load_certificate(key)
        terms = Terms(party, keys.device or party, open_for_ms=keys.auction_ms, overrule_ms=keys.overrule_ms)
        allocator = MarketAllocator(client, terms)
        allocator.listening(keys.address or address, public.decode())
    except AuctionError as error:
        raise MarketError(f"the market at {keys.url}: {error}") from None
    return allocator


def _block(need: Need) -> Block:
    return Block(
        id="",
        provider="",
        service=need.service,
        starts_ms=need.starts_ms,
        ends_ms=need.ends_ms,
        minimum_bps=need.minimum_bps,
        maximum_bps=need.maximum_bps,
        latency_ms_max=need.latency_ms_max,
    )


def _samples(intervals: tuple[Interval, ...], from_ms: int, until_ms: int, to_the_end: bool) -> tuple[Sample, ...]:
    """The intervals as the market takes them: within the window, in order, and idle where nothing was measured; after
    the last one only where it was ready to the end."""
    samples: list[Sample] = []
    at_ms = from_ms
    for each in intervals:
        starts_ms, ends_ms = max(each.starts_ms, at_ms), min(each.ends_ms, until_ms)
        if ends_ms <= starts_ms:
            continue
        if starts_ms > at_ms:
            samples.append(Sample(starts_ms=at_ms, ends_ms=starts_ms, asked_bits=0, got_bits=0))
        samples.append(
            Sample(
                starts_ms=starts_ms,
                ends_ms=ends_ms,
                asked_bits=each.asked_bits,
                got_bits=each.got_bits,
                latency_ms=each.latency_ms,
                available=each.available,
            )
        )
        at_ms = ends_ms
    if samples and to_the_end and at_ms < until_ms:
        samples.append(Sample(starts_ms=at_ms, ends_ms=until_ms, asked_bits=0, got_bits=0))
    return tuple(samples)


class PlainMarket:
    """A served market whose answers are plain data (as JSON has them), asked for several parties by their tokens."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        self._clients: dict[str, MarketClient] = {}  # of the parties that asked, by token

    def ask(self, method: str, token: str = "", /, **arguments: Any) -> Any:
        """Call a method of the market for whose token it is; "": whose it was made for. Raises MarketError."""
        token = token or self._token
        if token not in self._clients:
            self._clients[token] = open_client(self.url, token)
        try:
            return msgspec.to_builtins(getattr(self._clients[token], method)(**arguments))
        except AuctionError as error:
            raise MarketError(f"the market refused {method}: {error}") from None
