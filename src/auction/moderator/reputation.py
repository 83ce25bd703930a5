"""What is known of each party: kept up as the fold of deals and revealed opinions, and read as of any entry.

The arithmetic stands in `auction.rating`; here is what counts, from when on, and what a deal weighs.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

import msgspec

from auction.model.agreement import Agreement, Leg
from auction.model.bid import ShownRating
from auction.model.circles import without_circles
from auction.model.money import PPM
from auction.model.rating import DAY_MS, EMPTY, Exchange, History, Kind, Opinion, RatingRules, Tally, record, show
from auction.moderator.records import Revealed

SEQUENCE_MAX = 2**63 - 1
PAYMENTS = ""  # in place of a service: a recipient pays alike, whatever the service


# What is saved of a reputation, with its type; all else in it can be made again.
SAVED: Final[dict[str, Any]] = {
    "_rules": list[tuple[int, RatingRules]],
    "_versions": dict[tuple[str, str], tuple[list[int], list[History]]],
    "_pairs": dict[tuple[str, str, str, str], Tally],
    "_paid": dict[tuple[str, str], int],
    "_payees": set[str],
}


class Reputation:
    """Histories by party and service, with all their versions, so that an auction sees them as they stood when it was
    announced. Written by the fold alone."""

    def __init__(self, rules: RatingRules) -> None:
        self.rules = rules
        self._rules: list[tuple[int, RatingRules]] = [(0, rules)]  # each with the entry from which on it counts
        self._versions: dict[tuple[str, str], tuple[list[int], list[History]]] = {}
        self._pairs: dict[tuple[str, str, str, str], Tally] = {}
        self._paid: dict[tuple[str, str], int] = {}
        self._payees: set[str] = set()
        self._shown: dict[tuple[str, str, int, int, int], ShownRating] = {}
        self._latest: dict[str, dict[str, ShownRating]] = {}  # by service and party, of the day `_latest_day`
        self._latest_day = 0

    def count_deal(self, agreement: Agreement, sequence: int, at_ms: int) -> None:
        """A deal is over: what was paid goes into the graph of payments, what was measured counts as evidence."""
        for leg in agreement.legs:
            amount = leg.price * leg.delivered_ppm // PPM
            if amount and agreement.state == "charged":
                pair = (agreement.recipient, leg.provider)
                self._paid[pair] = self._paid.get(pair, 0) + amount
                self._payees.add(leg.provider)
        day = at_ms // DAY_MS
        for leg in agreement.legs:
            self._count_evidence(agreement, leg, day, sequence)

    def _count_evidence(self, agreement: Agreement, leg: Leg, day: int, sequence: int) -> None:
        if not leg.measurement and not leg.failed:
            return  # nobody measured: no evidence of anything
        history = self.history(leg.provider, agreement.service)
        pair = ("evidence", leg.provider, agreement.recipient, agreement.service)
        price, delivered_ppm = _taken_on(agreement, leg)
        value = self.deal_value(agreement.recipient, leg.provider, price)
        total, with_pair = record(history.evidence, self._pairs.get(pair, EMPTY), delivered_ppm, value, day, self.rules)
        self._pairs[pair] = with_pair
        self._put(agreement.service, msgspec.structs.replace(history, evidence=total), sequence)

    def count_opinions(self, exchange: Exchange, revealed: Revealed, sequence: int) -> None:
        """Both sides' opinions come into the open at once; who said nothing adds to the other's silence."""
        sides: tuple[tuple[Kind, Opinion | None, str, str, str], ...] = (
            ("service", exchange.service, exchange.provider, exchange.recipient, revealed.service),
            ("payment", exchange.payment, exchange.recipient, exchange.provider, PAYMENTS),
        )
        for kind, opinion, ratee, rater, service in sides:
            history = self.history(ratee, service)
            finished, silent = history.finished + 1, history.silent + (opinion is None)
            opinions, remarks = history.opinions, history.remarks
            if opinion is not None:
                pair = (kind, ratee, rater, service)
                day = revealed.at_ms // DAY_MS
                yes_ppm = PPM if opinion.satisfied else 0
                before = self._pairs.get(pair, EMPTY)
                opinions, self._pairs[pair] = record(opinions, before, yes_ppm, revealed.value, day, self.rules)
                if opinion.remark:
                    remarks = (*remarks[-4:], opinion.remark)
            changed = msgspec.structs.replace(
                history, opinions=opinions, finished=finished, silent=silent, remarks=remarks
            )
            self._put(service, changed, sequence)

    def deal_value(self, payer: str, payee: str, amount: int) -> int:
        """What a deal weighs: its amount, less what flowed back to the payer in circles of payments."""
        if payer not in self._payees:
            return amount  # nobody ever paid the payer, so no circle leads through it
        left = without_circles((one, other, paid) for (one, other), paid in self._paid.items())
        return min(amount, left.get((payer, payee), 0))

    def history(self, party: str, service: str) -> History:
        """The latest version."""
        versions = self._versions.get((party, service))
        return versions[1][-1] if versions else History(party=party)

    def shown_at(self, party: str, service: str, sequence: int, at_ms: int) -> ShownRating:
        """The rating as it stood before the entry `sequence`. `service` may be PAYMENTS."""
        versions = self._versions.get((party, service))
        version = bisect_right(versions[0], sequence) if versions is not None else 0
        rules = self._rules_at(sequence)
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
        """The rules from this entry on. What was announced before goes on being rated by those before."""
        self.rules = rules
        self._rules.append((sequence, rules))
        self._latest.clear()

    def _rules_at(self, sequence: int) -> int:
        """The place of the rules that hold before this entry; those of the first entry hold from the start."""
        place = len(self._rules) - 1
        while place > 1 and self._rules[place][0] >= sequence:
            place -= 1
        return place

    def latest(self, service: str, at_ms: int) -> dict[str, ShownRating]:
        """The ratings of the service that were asked for since they last changed: to be read by `latest_of` alone."""
        if self._latest_day != at_ms // DAY_MS:
            self._latest.clear()
            self._latest_day = at_ms // DAY_MS
        return self._latest.setdefault(service, {})

    def latest_of(self, known: dict[str, ShownRating], party: str, service: str, at_ms: int) -> ShownRating:
        """The rating as it stands, from what `latest` gave or by the rule."""
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


def _taken_on(agreement: Agreement, leg: Leg) -> tuple[int, int]:
    """What a leg was worth and what of it was delivered. Who failed had taken on all that was left of the window, so
    the part that another had to serve is part of what it did not deliver."""
    if not leg.failed:
        return leg.price, leg.delivered_ppm
    window_ms, taken_ms = agreement.ends_ms - agreement.starts_ms, agreement.ends_ms - leg.from_ms
    served_ms = leg.until_ms - leg.from_ms
    return agreement.price * taken_ms // window_ms, leg.delivered_ppm * served_ms // taken_ms if taken_ms else 0
