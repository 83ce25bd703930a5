"""Commands about agreements while they are served, and what may be seen of them. Paying is in `payments`."""

from __future__ import annotations

from auction.model.agreement import Agreement
from auction.model.billing import Invoice, invoice
from auction.model.delivery import Delivery
from auction.model.party import Signature
from auction.moderator.core import Core
from auction.moderator.records import Measured
from auction.moderator.rules import agreements, chains, delivering, replacing


class Agreements(Core):
    def start(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The service begins."""
        return self._run("start", key, (agreement,), agreements.start, Agreement)

    def deliver(self, delivery: Delivery, signature: Signature | None = None, *, key: str | None = None) -> Measured:
        """Takes in all that was measured of the delivery so far, by the recipient, one of its devices, or the provider.
        What the recipient's side measured counts; what the provider did counts where the recipient measured nothing,
        and is evidence in any case."""
        return self._run("deliver", key, (delivery, signature), delivering.deliver, Measured)

    def replace(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The serving provider has failed: the first armed runner-up who can takes over what is left of the window. Its
        price above the agreed one comes from the failed provider's bond. Raises NoAward where none can."""
        return self._run("replace", key, (agreement,), replacing.replace, Agreement)

    def finish(self, agreement: str, *, key: str | None = None) -> Agreement:
        """The service has ended; what was measured is final."""
        return self._run("finish", key, (agreement,), agreements.finish, Agreement)

    def agreement(self, agreement: str) -> Agreement:
        """The agreement as it stands. Raises Unknown."""
        with self._deciding:
            return self._draft().agreement(agreement)

    def chain(self, agreement: str) -> list[Agreement]:
        """The agreements from this one up to the first: who is liable to whom."""
        with self._deciding:
            return chains.chain_of(self._draft(), agreement)

    def subcontracts(self, agreement: str) -> list[Agreement]:
        """The agreements directly under this one."""
        with self._deciding:
            return chains.subcontracts_of(self._draft(), agreement)

    def invoice(self, agreement: str) -> Invoice:
        """The invoice of an agreement, with its metered lines; see `auction.model.billing` for text, JSON and HTML."""
        with self._deciding:
            draft = self._draft()
            record = draft.agreement(agreement)
            names = self._state.deliveries_of.get(agreement, ())
            evidence = [(name, draft.get("delivery", name).evidence) for name in names]
            shared = draft.find("shares", record.block)
        return invoice(record, evidence, shared.meters if shared is not None else None)
