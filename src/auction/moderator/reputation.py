"""The reputation of each party: the fold of settled deals and published opinions, readable as of any entry.

`model/weighing` and `model/rating` have the arithmetic; here is what counts, and from when on. A deal's money may still
change (a refund, a chargeback, a paid debt): then the history is recomputed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import ShownRating
from auction.model.money import PPM
from auction.model.rating import DAY_MS, EMPTY, Exchange, History, Kind, Opinion, RatingRules, Tally, show
from auction.model.weighing import (
    EMPTY_PAIR,
    Pair,
    circular_share_ppm,
    contested_ppm,
    payment_value,
    service_value,
    weigh,
)
from auction.moderator.records import Revealed

SEQUENCE_MAX = 2**63 - 1
PAYMENTS = ""  # in place of a service: payments are rated across all services


class _Deal(NamedTuple):
    """One agreement's contribution to one history. Its value is read from the current agreement."""

    agreement: str
    kind: str  # service, payment, evidence
    rater: str
    yes_ppm: int
    day: int


# The saved attributes of a reputation, with their types; the others are derived.
SAVED: Final[dict[str, Any]] = {
    "_rules": list[tuple[int, RatingRules]],
    "_versions": dict[tuple[str, str], tuple[list[int], list[History]]],
    "_deals": dict[tuple[str, str], list[_Deal]],
    "_pairs": dict[tuple[str, str, str, str], Pair],
    "_settled": dict[str, Agreement],
    "_of_party": dict[str, list[str]],
}


class Reputation:
    """Histories by party and service, in all their versions, so that an auction sees those at its announcement. Only
    the fold writes them."""

    def __init__(self, rules: RatingRules) -> None:
        self.rules = rules
        self._rules: list[tuple[int, RatingRules]] = [(0, rules)]  # each with the first entry that it applies to
        self._versions: dict[tuple[str, str], tuple[list[int], list[History]]] = {}
        self._deals: dict[tuple[str, str], list[_Deal]] = {}  # of each history, in the order in which they were counted
        self._pairs: dict[tuple[str, str, str, str], Pair] = {}  # kind, ratee, rater, service
        self._settled: dict[str, Agreement] = {}
        self._of_party: dict[str, list[str]] = {}  # its settled agreements
        self._shown: dict[tuple[str, str, int, int, int], ShownRating] = {}
        self._latest: dict[str, dict[str, ShownRating]] = {}  # by service and party, of the day `_latest_day`
        self._latest_day = 0

    def count_deal(self, former: Agreement | None, new: Agreement, sequence: int, at_ms: int) -> None:
        """Counts a settled deal: its provider's earnings are evidence. Or updates one whose money has changed since."""
        self._settled[new.id] = new
        if former is not None and former.is_over:
            self._changed(former, new, sequence, at_ms)
            return
        for party in (new.provider, new.recipient):
            self._of_party.setdefault(party, []).append(new.id)
        earned_ppm = _earned_ppm(new)
        if earned_ppm is not None:
            deal = _Deal(new.id, "evidence", new.recipient, earned_ppm, at_ms // DAY_MS)
            self._count(new.provider, new.service, deal, sequence)

    def _changed(self, former: Agreement, new: Agreement, sequence: int, at_ms: int) -> None:
        if former.stayed() == new.stayed():
            return
        deals = self._deals.setdefault((new.recipient, PAYMENTS), [])
        rated = [one for one in deals if one.agreement == new.id]
        if new.charged_back:  # the processor reports it, whatever the provider has said
            deals[:] = [one for one in deals if one.agreement != new.id]
            deals.append(_Deal(new.id, "payment", new.provider, 0, at_ms // DAY_MS))
            if not rated:
                history = self.history(new.recipient, PAYMENTS)
                self._put(PAYMENTS, msgspec.structs.replace(history, finished=history.finished + 1), sequence)
        for party, service in ((new.provider, new.service), (new.recipient, PAYMENTS)):
            self._count_anew(party, service, sequence)

    def count_opinions(self, exchange: Exchange, revealed: Revealed, agreement: Agreement, sequence: int) -> None:
        """Counts both sides' opinions when they are published. A side that did not rate adds to the other's silence."""
        sides: tuple[tuple[Kind, Opinion | None, str, str, str], ...] = (
            ("service", exchange.service, exchange.provider, exchange.recipient, revealed.service),
            ("payment", exchange.payment, exchange.recipient, exchange.provider, PAYMENTS),
        )
        for kind, opinion, ratee, rater, service in sides:
            history = self.history(ratee, service)
            finished, silent = history.finished + 1, history.silent + (opinion is None)
            remarks = history.remarks
            if opinion is not None and opinion.remark:
                remarks = (*remarks[-4:], opinion.remark)
            changed = msgspec.structs.replace(history, finished=finished, silent=silent, remarks=remarks)
            self._put(service, changed, sequence)
            if opinion is None or (kind == "payment" and agreement.charged_back):
                continue
            yes_ppm = PPM if opinion.satisfied else 0
            self._count(ratee, service, _Deal(agreement.id, kind, rater, yes_ppm, revealed.at_ms // DAY_MS), sequence)

    def _count(self, party: str, service: str, deal: _Deal, sequence: int) -> None:
        self._deals.setdefault((party, service), []).append(deal)
        self._put(service, self._with(self.history(party, service), service, deal), sequence)

    def _count_anew(self, party: str, service: str, sequence: int) -> None:
        """Recomputes a history from all its deals at their current values."""
        deals = self._deals.get((party, service), [])
        history = msgspec.structs.replace(self.history(party, service), opinions=EMPTY, evidence=EMPTY)
        for kind in ("service", "payment", "evidence"):
            for rater in {deal.rater for deal in deals}:
                self._pairs.pop((kind, party, rater, service), None)
        for deal in deals:
            history = self._with(history, service, deal)
        self._put(service, history, sequence)

    def _with(self, history: History, service: str, deal: _Deal) -> History:
        stayed = self._settled[deal.agreement].stayed()
        value_of: Callable[..., int] = payment_value if deal.kind == "payment" else service_value
        value = value_of(stayed, deal.yes_ppm > 0) if deal.kind != "evidence" else stayed.stayed + stayed.lost
        name = (deal.kind, history.party, deal.rater, service)
        tally: Tally = history.evidence if deal.kind == "evidence" else history.opinions
        before = self._pairs.get(name, EMPTY_PAIR)
        tally, self._pairs[name] = weigh(tally, before, deal.yes_ppm, value, deal.day, self.rules)
        return msgspec.structs.replace(history, **{"evidence" if deal.kind == "evidence" else "opinions": tally})

    def history(self, party: str, service: str) -> History:
        """The latest version."""
        versions = self._versions.get((party, service))
        return versions[1][-1] if versions else History(party=party)

    def circular_ppm(self, party: str) -> int:
        """The share of the party's income that went round in circles among its counterparties."""
        return circular_share_ppm(
            ((one.recipient, one.provider, one.stayed().stayed) for one in self._near(party)), party
        )

    def contested(self, party: str) -> tuple[int, int, int]:
        """Counterparties with contested ends, all counterparties, contested money in ppm of all."""
        money: dict[str, tuple[int, int]] = {}
        for one in self.settled_of(party):
            other = one.provider if one.recipient == party else one.recipient
            contested, whole = money.get(other, (0, 0))
            money[other] = (contested + one.price * one.contested, whole + one.price)
        return contested_ppm(money)

    def settled_of(self, party: str) -> list[Agreement]:
        return [self._settled[name] for name in self._of_party.get(party, ())]

    def _near(self, party: str) -> list[Agreement]:
        """The settled agreements among the party and its counterparties."""
        own = self.settled_of(party)
        near = {party, *(one.provider for one in own), *(one.recipient for one in own)}
        names = dict.fromkeys(name for one in sorted(near) for name in self._of_party.get(one, ()))
        deals = [self._settled[name] for name in names]
        return [one for one in deals if {one.provider, one.recipient} <= near]

    def card_money(self, party: str, since_ms: int) -> int:
        """The party's income from cards since then that was not returned: a bank may still take it back."""
        return sum(
            one.stayed().stayed
            for one in self.settled_of(party)
            if one.provider == party and one.method != "prepaid" and one.settled_ms > since_ms
        )

    def shown_at(self, party: str, service: str, sequence: int, at_ms: int) -> ShownRating:
        """The rating as it stood before the entry `sequence`. `service` may be PAYMENTS."""
        versions = self._versions.get((party, service))
        version = bisect_right(versions[0], sequence) if versions is not None else 0
        rules = len(self._rules) - 1 if len(self._rules) <= 2 else self._rules_at(sequence)
        name = (party, service, version, at_ms // DAY_MS, rules)
        shown = self._shown.get(name)
        if shown is None:
            history = versions[1][version - 1] if versions is not None and version else History(party=party)
            kind: Kind = "payment" if service == PAYMENTS else "service"
            if len(self._shown) >= 100_000:
                self._shown.clear()
            shown = self._shown[name] = show(history, at_ms // DAY_MS, self._rules[rules][1], kind)
        return shown

    def change_rules(self, rules: RatingRules, sequence: int) -> None:
        """Sets the rules from this entry on. Earlier announcements keep the earlier rules."""
        self.rules = rules
        self._rules.append((sequence, rules))
        self._latest.clear()

    def _rules_at(self, sequence: int) -> int:
        """The index of the rules that apply before this entry; those of the first entry apply from the start."""
        place = len(self._rules) - 1
        while place > 1 and self._rules[place][0] >= sequence:
            place -= 1
        return place

    def latest(self, service: str, at_ms: int) -> dict[str, ShownRating]:
        """A cache of the service's ratings since they last changed. Only `latest_of` may read it."""
        if self._latest_day != at_ms // DAY_MS:
            self._latest.clear()
            self._latest_day = at_ms // DAY_MS
        return self._latest.setdefault(service, {})

    def latest_of(self, known: dict[str, ShownRating], party: str, service: str, at_ms: int) -> ShownRating:
        """The current rating, from the cache of `latest` or computed."""
        shown = known.get(party)
        if shown is None:
            shown = known[party] = self.shown_at(party, service, SEQUENCE_MAX, at_ms)
        return shown

    def _put(self, service: str, history: History, sequence: int) -> None:
        if service in self._latest:
            self._latest[service].pop(history.party, None)
        sequences, histories = self._versions.setdefault((history.party, service), ([], []))
        if sequences and sequences[-1] == sequence:
            histories[-1] = history
        else:
            sequences.append(sequence)
            histories.append(history)


def _earned_ppm(one: Agreement) -> int | None:
    """The provider's earnings as a share of what it could earn: the price, or if the recipient left, the part until
    then. None if that says nothing about the provider."""
    if not one.provider_ending and not one.recipient_ending:
        return None  # neither side has stated an end
    is_free = one.recipient_ending == "leaving" or one.recipient_ending == one.provider_ending == "finished"
    fault = one.lost if is_free else one.price - one.paid
    return one.paid * PPM // (one.paid + fault) if one.paid + fault else None
