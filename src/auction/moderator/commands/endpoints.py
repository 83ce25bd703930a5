"""Commands that bring recipients and providers together: who listens where, and what there is to do or to see."""

from __future__ import annotations

from functools import cached_property

from auction.model.endpoint import Assignments, Endpoint, Warm
from auction.model.party import Signature
from auction.moderator.assigned import Alive, find_assignments
from auction.moderator.core import Core
from auction.moderator.overview import Overview, look
from auction.moderator.rules import endpoints


class Endpoints(Core):
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
        return self._run(
            "publish_endpoint", key, (party, curve_key, address, signature), endpoints.publish_endpoint, Endpoint
        )

    def endpoint(self, party: str) -> Endpoint:
        """What a party has published. Raises Unknown."""
        with self._deciding:
            found: Endpoint = self._draft().get("endpoint", party)
        return found

    def keep_warm(self, recipient: str, offers: tuple[str, ...], until_ms: int, *, key: str | None = None) -> Warm:
        """The recipient wants the providers of these standing offers connected until `until_ms`, so that a spot award
        or a takeover needs no new connection. It costs nothing and promises nothing; a later one replaces it."""
        return self._run("keep_warm", key, (recipient, offers, until_ms), endpoints.keep_warm, Warm)

    def assignments(
        self, provider: str, *, services: tuple[str, ...] = (), known: str = "", wait_ms: int = 0
    ) -> Assignments:
        """What the provider serves, may have to take over, or should be connected for; and the auctions of `services`
        that it can bid in. With the `version` of an answer as `known`, waits up to `wait_ms` for another."""

        def read() -> Assignments:
            with self._deciding:
                return find_assignments(self._draft(self._time.read()), self._alive, provider, services)

        return self._when(read, lambda answer: answer.version != known, wait_ms)

    def overview(self, *, party: str = "", limit: int = 20, known: str = "", wait_ms: int = 0) -> Overview:
        """The market at a glance, at most `limit` of each; agreements and ratings of a `party` alone where one is
        named. With the `version` of an answer as `known`, waits up to `wait_ms` for another."""

        def read() -> Overview:
            with self._deciding:
                return look(self._state, self._time.read(), party, limit)

        return self._when(read, lambda answer: answer.version != known, wait_ms)

    @cached_property
    def _alive(self) -> Alive:
        return Alive()
