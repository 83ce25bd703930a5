"""The allocator over a market: an embedded moderator, or a served one through its client. Converts a need to a block,
an agreement to a placement, and a report to the statement of an end, with its figure.

No segments and no sockets here; the market's rules decide awards and payments.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from auction.model.agreement import Agreement
from auction.model.bid import QualityWeights
from auction.model.block import Block
from auction.model.endpoint import OFFERS_MAX
from auction.model.errors import AuctionError, NoAward, Unknown, WrongState
from auction.moderator import AuctionTerms, Moderator
from streamcore.subcontract.allocator import Need, Placement, Report, Runner
from streamcore.subcontract.ends import has_open_rest
from streamcore.subcontract.figure import figure

if TYPE_CHECKING:
    from auction.web.client import MarketClient

SPOT_ANSWER_MS = 10_000  # the deadline of a spot award
WARM_MS = 600_000  # how long providers of standing offers are asked to stay connected
ANNOUNCE_MS = 300  # the time for an announcement to arrive: an auction closes before the block begins
CLOSE_WAIT_MS = 2_000  # how long to wait for an auction after its closing time
TAKE_OVER_MS = 2_000  # how long to wait for a takeover; after that the broker checks from time to time
LOOK_MS = 50
RUNNERS_UP_MAX = 3  # the number that the market asks to stand by


@dataclass(frozen=True, slots=True)
class Terms:
    """The party and its settings. `device` measures and rates for the party; `open_for_ms` is how long an auction stays
    open (0: no auctions, only standing offers); `overrule_ms` is how long a person may overrule a drafted rating;
    `settle_ms` is how long the end of a run waits for providers' statements. With the objective quality, a quality of 1
    is worth `quality_value` times the highest price.
    """

    party: str
    device: str
    currency: str = "EUR"
    open_for_ms: int = 500
    overrule_ms: int = 0
    quality_value: int = 1
    settle_ms: int = 3_000


class MarketAllocator:
    """See allocator.Allocator. `market` is a Moderator or a MarketClient of the party.

    `place` takes the best standing offer: with an embedded moderator without input or output, with a served one in one
    round trip. If no offer fits, it holds an auction, which takes `open_for_ms`.

    A recipient that ends a block early is `leaving`, and pays the provider δ of what is undelivered. A provider that it
    blames gets what was measured; the rest pays for a takeover, in a separate agreement.
    """

    def __init__(self, market: Moderator | MarketClient, terms: Terms) -> None:
        self._market = market
        self._terms = terms
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}  # of providers that left, before we have stated an end
        self._outcomes: dict[str, dict[str, Any]] = {}  # the outcomes of agreements whose end we have stated
        self._open: dict[str, int] = {}  # those of them that are not settled, and our figure
        self._ahead_ms: int | None = None

    def listening(self, address: str, curve_key: str, services: tuple[str, ...] = ()) -> None:
        """Publishes where providers join, and asks providers of standing offers to stay connected."""
        self._market.publish_endpoint(self._terms.party, curve_key, address=address)
        self._keep_warm(services)

    def now_ms(self) -> int:
        """The market's time: read once, then advanced by the machine's clock."""
        here_ms = time.monotonic_ns() // 1_000_000
        if self._ahead_ms is None:
            self._ahead_ms = self._market.now_ms() - here_ms
        return here_ms + self._ahead_ms

    def place(self, need: Need) -> Placement | None:
        try:
            agreement = self._market.spot(
                self._terms.party, _block(need), self._auction_terms(need, SPOT_ANSWER_MS), wait=False
            )
            return self._serving(need, agreement)
        except NoAward:
            if not self._terms.open_for_ms:
                return None
        later_ms = self._market.now_ms() + self._terms.open_for_ms + ANNOUNCE_MS - need.starts_ms
        return self._hold_auction(replace(need, starts_ms=need.starts_ms + later_ms, ends_ms=need.ends_ms + later_ms))

    def renew(self, placement: Placement, starts_ms: int, ends_ms: int) -> Placement | None:
        """Finds the next block's provider by an auction, if it can close before the block begins, otherwise from
        standing offers."""
        assert placement.need is not None
        need = replace(placement.need, starts_ms=starts_ms, ends_ms=ends_ms)
        self._look_back()
        self._keep_warm((need.service,))
        if self._terms.open_for_ms and self.now_ms() + self._terms.open_for_ms + ANNOUNCE_MS < starts_ms:
            following = self._hold_auction(need)
            if following is not None:
                return following
        try:
            agreement = self._market.spot(self._terms.party, _block(need), self._auction_terms(need, SPOT_ANSWER_MS))
        except NoAward:
            return None
        return self._serving(need, agreement)

    def replace(self, placement: Placement, reason: str, report: Report) -> Placement | None:
        """Blames the failed provider, and waits a moment for a connected runner-up to take over."""
        if self._market.agreement(placement.agreement).provider_says is None:
            self._end(placement, report, "blaming")
        else:  # it left: an equal figure would settle the agreement, and nobody could take over
            self._reports[placement.agreement] = report
        return self._await_rest(placement, TAKE_OVER_MS)

    def taken_over(self, placement: Placement, is_last: bool = False) -> Placement | None:
        if is_last:  # otherwise somebody could take over, and be owed something, when nobody looks any more
            with contextlib.suppress(WrongState):  # it is settled, or a restarted run has stopped it
                self._market.stop_fail_over(placement.agreement)
        return self._await_rest(placement, 0)

    def report(self, placement: Placement, report: Report) -> dict[str, Any]:
        """States the end: `blaming` a provider that failed, `leaving` before the block is over, else `finished`."""
        with self._lock:
            known = self._outcomes.get(placement.agreement)
        if known is not None:
            return known
        kept = self._reports.pop(placement.agreement, None)
        if kept is not None or report.failures or report.audits_failed:
            return self._end(placement, kept or report, "blaming")
        return self._end(placement, report, "finished" if self._market.now_ms() >= placement.ends_ms else "leaving")

    def close(self) -> None:
        """Writes placements made without waiting, gives providers a moment to state the same figures, and rates settled
        agreements."""
        if isinstance(self._market, Moderator):
            self._market.flush()
        until_s = time.monotonic() + self._terms.settle_ms / 1000
        self._look_back(is_last=True)
        # A provider that we have blamed will hardly agree before the block is over.
        while any(self._outcomes[name]["ending"] != "blaming" for name in self._open) and time.monotonic() < until_s:
            time.sleep(LOOK_MS / 1000)
            self._look_back(is_last=True)

    def _hold_auction(self, need: Need) -> Placement | None:
        """Announces an auction and waits for its close. None if nobody bid within the price."""
        terms = self._auction_terms(need, self._terms.open_for_ms)
        auction = self._market.announce(self._terms.party, _block(need), terms).auction
        view = self._market.await_close(auction, wait_ms=self._terms.open_for_ms + CLOSE_WAIT_MS)
        return self._serving(need, self._market.agreement(view.agreements[0])) if view.agreements else None

    def _auction_terms(self, need: Need, open_for_ms: int) -> AuctionTerms:
        """The auction's terms. The whole reserve is held: the part above the price pays for a takeover. Receipts are
        not supported yet."""
        worth = need.price_max * self._terms.quality_value if need.objective == "quality" else 0
        return AuctionTerms(
            reserve=need.price_max,
            open_for_ms=open_for_ms,
            quality=QualityWeights(opinion=worth, evidence=worth),
            receipts=False,
            fail_over=True,
        )

    def _serving(self, need: Need, agreement: Agreement) -> Placement | None:
        placement = self._placement(need, agreement)
        if placement.public_key:
            return placement
        # The winner has not published its key.
        taken = self.replace(placement, "it has no key", Report(()))
        if taken is None:
            self.report(placement, Report(()))
        return taken

    def _placement(self, need: Need | None, agreement: Agreement) -> Placement:
        """The placement of an agreement. If the provider has not published a key, it has none."""
        award = self._market.auction(agreement.auction).award
        losers = award.runners_up if award is not None and not agreement.of else ()
        others = list(dict.fromkeys(one.bidder for one in losers if one.bidder != agreement.provider))
        keys = [(provider, self._key(provider)) for provider in others[:RUNNERS_UP_MAX]]
        return Placement(
            agreement.id,
            agreement.provider,
            self._key(agreement.provider),
            agreement.price,
            agreement.starts_ms,
            agreement.ends_ms,
            tuple(Runner(provider, key) for provider, key in keys if key),
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

    def _await_rest(self, placement: Placement, wait_ms: int) -> Placement | None:
        """The agreement that took over the placement's rest. Waits for it up to wait_ms."""
        until_s, known = time.monotonic() + wait_ms / 1000, ""
        while True:
            left_ms = max(0, int(1000 * (until_s - time.monotonic())))
            answer = self._market.assignments(self._terms.party, known=known, wait_ms=left_ms)
            for each in answer.assignments:
                if each.role == "recipient" and each.agreement not in self._outcomes:
                    agreement = self._market.agreement(each.agreement)
                    if agreement.of == placement.agreement:
                        return self._placement(placement.need, agreement)
            if not left_ms:
                return None
            known = answer.version

    def _end(self, placement: Placement, report: Report, ending: str) -> dict[str, Any]:
        """States an end with our figure, or with the provider's if it is lower, because the lower one is paid."""
        known = self._market.agreement(placement.agreement)
        amount = _figure(known, report, self._market.now_ms())
        if known.provider_says is not None:
            amount = min(amount, known.provider_says.figure)
        agreement = self._market.end(placement.agreement, self._terms.party, ending, amount)
        outcome: dict[str, Any] = {"ending": ending}
        with self._lock:
            self._outcomes[agreement.id] = outcome
            self._open[agreement.id] = amount
        self._note(agreement)
        return outcome

    def _look_back(self, is_last: bool = False) -> None:
        """Checks the agreements whose end we have stated. Accepts a lower figure of the provider, which settles it,
        unless a runner-up may still take over."""
        for name, amount in list(self._open.items()):
            agreement = self._market.agreement(name)
            says, ours = agreement.provider_says, agreement.recipient_says
            is_free = is_last or not has_open_rest(agreement, self._market.now_ms())
            if agreement.is_over or says is None or ours is None or not is_free:
                pass
            elif says.figure < min(amount, ours.figure):
                agreement = self._market.end(name, self._terms.party, ours.ending, says.figure)
            self._note(agreement)

    def _note(self, agreement: Agreement) -> None:
        """Notes the outcome so far, and rates a settled agreement."""
        outcome = self._outcomes[agreement.id]
        said = agreement.recipient_says
        outcome |= {"state": agreement.state, "figure": said.figure if said is not None else 0, "of": agreement.of}
        if agreement.is_over and agreement.id in self._open:
            del self._open[agreement.id]
            outcome |= {"paid": agreement.paid, "charged": agreement.charged, "burnt": agreement.burnt}
            outcome["satisfied"] = self._rate(agreement.id)

    def _rate(self, agreement: str) -> bool | None:
        try:
            drafted = self._market.rate_as_drafted(
                agreement, self._terms.party, device=self._terms.device, overrule_ms=self._terms.overrule_ms
            )
        except AuctionError:
            return None  # nothing can be drafted, or a person has already rated
        return drafted.satisfied


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


def _figure(agreement: Agreement, report: Report, now_ms: int) -> int:
    """The part of the price earned until now by our measurements; 0 if the provider failed before its first result."""
    if not report.intervals or (report.failures and not report.segments):
        return 0
    rate_bps = agreement.minimum_bps or agreement.maximum_bps
    return figure(agreement.price, agreement.starts_ms, agreement.ends_ms, rate_bps, report.intervals, now_ms)
