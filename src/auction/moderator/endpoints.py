"""Bringing recipients and providers together: who listens where, and what a provider is to be ready for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from auction.agreement import Agreement
from auction.bid import StandingOffer
from auction.endpoint import Assignment, Assignments, Endpoint, OpenAuction, Warm
from auction.errors import NotAllowed
from auction.moderator.bills import BillCommands
from auction.moderator.records import Auction
from auction.moderator.state import Draft, State
from auction.moderator.terms import AuctionView
from auction.party import ORGANISATIONS, Signature
from auction.signing import endpoint_body

Read = TypeVar("Read")
_LOOK_EVERY_MS: Final = 10  # how often an embedded moderator that waits looks again; a served one is told


class EndpointCommands(BillCommands):
    def publish_endpoint(
        self,
        party: str,
        curve_key: str,
        *,
        address: str = "",
        signature: Signature | None = None,
        key: str | None = None,
    ) -> Endpoint:
        """Says where a recipient listens for providers, or (with no address) by which CURVE public key a provider will
        come. A later one takes the place of the former."""

        def decide(draft: Draft) -> Endpoint:
            if draft.party(party).kind not in ORGANISATIONS:
                raise NotAllowed("recipients and providers publish endpoints")
            self._check_signature(draft, "endpoint", "", party, endpoint_body(address, curve_key), signature)
            published = Endpoint(party, address, curve_key, draft.at_ms)
            draft.put("endpoint", party, published)
            return published

        return self._run("publish_endpoint", key, (party, curve_key, address, signature), decide, Endpoint)

    def endpoint(self, party: str) -> Endpoint:
        """What a party has published. Raises Unknown."""
        with self._deciding:
            found: Endpoint = Draft(self._state, 0).get("endpoint", party)
        return found

    def keep_warm(self, recipient: str, offers: tuple[str, ...], until_ms: int, *, key: str | None = None) -> Warm:
        """The recipient wants the providers of these standing offers connected until `until_ms`, so that a spot award
        or a takeover needs no new connection. It costs nothing and promises nothing; a later one replaces it."""

        def decide(draft: Draft) -> Warm:
            self._check_organisation(draft, recipient)
            for offer in offers:
                draft.get("offer", offer)
            warm = Warm(recipient, offers, until_ms)
            draft.put("warm", recipient, warm)
            return warm

        return self._run("keep_warm", key, (recipient, offers, until_ms), decide, Warm)

    def assignments(
        self, provider: str, *, services: tuple[str, ...] = (), known: str = "", wait_ms: int = 0
    ) -> Assignments:
        """What the provider serves, may have to take over, or should be connected for; and the auctions of `services`
        that it can bid in. With the `version` of an answer as `known`, waits up to `wait_ms` for another."""
        return self._when(
            lambda: self._assignments(provider, services), lambda answer: answer.version != known, wait_ms
        )

    def await_close(self, auction: str, *, wait_ms: int = 0) -> AuctionView:
        """The auction as soon as it is open no more, or as it is after `wait_ms`."""
        return self._when(lambda: self.auction(auction), lambda view: view.state != "open", wait_ms)

    # What follows reads.

    def _when(self, read: Callable[[], Read], is_news: Callable[[Read], bool], wait_ms: int) -> Read:
        until_ms = time.monotonic_ns() // 1_000_000 + wait_ms
        while True:
            self.tick()
            answer = read()
            if is_news(answer) or time.monotonic_ns() // 1_000_000 >= until_ms:
                return answer
            time.sleep(_LOOK_EVERY_MS / 1000)

    def _assignments(self, provider: str, services: tuple[str, ...]) -> Assignments:
        with self._deciding:
            draft = Draft(self._state, self._time.read())
            if draft.party(provider).kind != "provider":
                raise NotAllowed(f"{provider} is no provider")
            found = (*self._agreed_with(draft, provider), *self._kept_warm(draft, provider))
            auctions = tuple(self._biddable(draft, provider, services)) if services else ()
        version = hashlib.sha256(msgspec.json.encode((found, auctions))).hexdigest()[:16]
        return Assignments(version=version, now_ms=draft.at_ms, assignments=found, auctions=auctions)

    def _agreed_with(self, draft: Draft, provider: str) -> Iterator[Assignment]:
        for one in self._alive("agreement", draft, _is_agreement_alive):
            if one.provider == provider:
                yield _assigned(draft, one, "winner", one.price)
            for runner in one.runners_up:
                if runner.provider == provider:
                    yield _assigned(draft, one, "runner_up", runner.price)
                    break

    @staticmethod
    def _kept_warm(draft: Draft, provider: str) -> Iterator[Assignment]:
        for warm in draft.state.records["warm"].values():
            if warm.until_ms <= draft.at_ms:
                continue
            for name in warm.offers:
                offer: StandingOffer = draft.get("offer", name)
                if offer.provider != provider or offer.valid_until_ms <= draft.at_ms:
                    continue
                yield Assignment(
                    role="standing",
                    recipient=warm.recipient,
                    service=offer.service,
                    price=offer.unit_price,
                    offer=name,
                    starts_ms=offer.available_from_ms,
                    ends_ms=min(offer.available_until_ms, warm.until_ms),
                    maximum_bps=offer.rate_bps_max,
                    **_met_at(draft, warm.recipient),
                )

    def _biddable(self, draft: Draft, provider: str, services: tuple[str, ...]) -> Iterator[OpenAuction]:
        for one in self._alive("auction", draft, _is_auction_alive):
            if one.block is None or one.announcement.service not in services:
                continue
            own = [placed.bid.price for placed in draft.placed_bids(one.id) if placed.bid.bidder == provider]
            yield OpenAuction(
                announcement=one.announcement,
                announcer=one.announcer,
                block=one.block,
                own_price=own[-1] if own else None,
            )

    def _alive(self, kind: str, draft: Draft, is_alive: Callable[[Any, int], bool]) -> list[Any]:
        """The records of a kind that are not over. The records stand in the order in which they were made, so only new
        ones and those that were alive the last time are looked at, however long the market has been going."""
        records = draft.state.records[kind]
        looked = self._looked.get(kind)
        if looked is None or looked.state is not draft.state:
            looked = self._looked[kind] = _Looked(draft.state)
        looked.names += islice(records, looked.count, None)
        looked.count = len(records)
        looked.names = [name for name in looked.names if is_alive(records[name], draft.at_ms)]
        return [records[name] for name in looked.names]

    @cached_property
    def _looked(self) -> dict[str, _Looked]:
        return {}


class _Looked:
    """How many records of a kind were looked at, and which of them were not over."""

    __slots__ = ("count", "names", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.count = 0
        self.names: list[str] = []


def _is_agreement_alive(one: Agreement, now_ms: int) -> bool:
    return one.state in ("awarded", "agreed", "delivering") and now_ms < one.ends_ms


def _is_auction_alive(one: Auction, _now_ms: int) -> bool:
    return one.state == "open"


def _assigned(draft: Draft, one: Agreement, role: Any, price: int) -> Assignment:
    return Assignment(
        role=role,
        recipient=one.recipient,
        service=one.service,
        price=price,
        agreement=one.id,
        state=one.state,
        starts_ms=one.starts_ms,
        ends_ms=one.ends_ms,
        minimum_bps=one.minimum_bps,
        maximum_bps=one.maximum_bps,
        attributes=draft.block(one.block).attributes,
        **_met_at(draft, one.recipient),
    )


def _met_at(draft: Draft, recipient: str) -> dict[str, Any]:
    endpoint: Endpoint | None = draft.find("endpoint", recipient)
    return {"address": endpoint.address, "curve_key": endpoint.curve_key} if endpoint is not None else {}
