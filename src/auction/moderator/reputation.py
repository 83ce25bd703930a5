"""The reputation of each party: the fold of settled deals and published opinions, readable as of any entry.

`model/weighing` and `model/rating` have the arithmetic; here is what counts, and from when on. The money that stays
with a provider can change as long as charges can be taken back (a refund, a chargeback, a debt that is paid); the
history is then counted again. After that, only the deal's part in the sums is kept (see `retiring`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from auction.model.agreement import Agreement
from auction.model.bid import ShownRating
from auction.model.money import PPM
from auction.model.rating import (
    DAY_MS,
    EMPTY,
    Exchange,
    History,
    Kind,
    Opinion,
    PublicDeal,
    RatingRules,
    Tally,
    aged,
    lower_ppm,
    prior_of,
    show,
)
from auction.model.weighing import (
    AT_THE_PRIOR,
    EMPTY_PAIR,
    Pair,
    Start,
    circular_share_ppm,
    contested_ppm,
    newcomer_start_ppm,
    payment_value,
    public_eighths,
    service_value,
    weigh,
    weight_of,
)
from auction.moderator.records import Revealed

SEQUENCE_MAX = 2**63 - 1
PAYMENTS = ""  # in place of a service: payments are rated across all services
VERSIONS_KEPT_MS: Final = 60 * DAY_MS  # longer than an auction is kept, which shows the ratings of its announcement


class _Deal(NamedTuple):
    """What one agreement adds to one history. `value` is the final value, or -1 while it follows from the agreement."""

    agreement: str
    kind: str  # service, payment, evidence
    rater: str
    yes_ppm: int
    day: int
    value: int = -1


class _Latest:
    """What is shown of a service: where new parties start (None: to be computed again), and the ratings from there."""

    __slots__ = ("former", "ratings", "start")

    def __init__(self) -> None:
        self.start: Start | None = None
        self.former = AT_THE_PRIOR
        self.ratings: dict[str, ShownRating] = {}


PairName = tuple[str, str, str, str]  # kind, ratee, rater, service
# The saved attributes of a reputation, with their types; the others are derived.
SAVED: Final[dict[str, Any]] = {
    "_rules": list[tuple[int, RatingRules]],
    "_versions": dict[tuple[str, str], tuple[list[int], list[int], list[History]]],
    "_pruned": dict[tuple[str, str], int],
    "_deals": dict[tuple[str, str], list[_Deal]],
    "_base": dict[tuple[str, str], tuple[Tally, Tally]],
    "_pairs": dict[PairName, Pair],
    "_base_pairs": dict[PairName, Pair],
    "_money": dict[tuple[str, str], int],
    "_settled": dict[str, Agreement],
    "_of_party": dict[str, dict[str, None]],
    "_rated": dict[str, dict[str, None]],
}


class Reputation:
    """Histories by party and service, with their versions, so that an auction sees them as they stood when it was
    announced. Written by the fold alone."""

    def __init__(self, rules: RatingRules) -> None:
        self.rules = rules
        self._rules: list[tuple[int, RatingRules]] = [(0, rules)]  # each with the first entry that it applies to
        # By party and service: (entries, times, histories as of each).
        self._versions: dict[tuple[str, str], tuple[list[int], list[int], list[History]]] = {}
        self._pruned: dict[tuple[str, str], int] = {}  # how many versions were dropped
        self._deals: dict[tuple[str, str], list[_Deal]] = {}  # of each history, in the order in which they were counted
        self._base: dict[tuple[str, str], tuple[Tally, Tally]] = {}  # opinions and evidence of earlier deals
        self._pairs: dict[PairName, Pair] = {}
        self._base_pairs: dict[PairName, Pair] = {}
        self._money: dict[tuple[str, str], int] = {}  # the money that stayed, by who was paid or (PAYMENTS) by who paid
        self._settled: dict[str, Agreement] = {}  # while their charges can be taken back
        self._of_party: dict[str, dict[str, None]] = {}  # its settled agreements
        self._rated: dict[str, dict[str, None]] = {}  # service -> who has a history in it
        self._shown: dict[tuple[str, str, int, int, int, Start], ShownRating] = {}
        self._latest: dict[str, _Latest] = {}  # by service, of the day `_latest_day`
        self._latest_day = 0

    # --- what counts ---

    def count_deal(self, former: Agreement | None, new: Agreement, sequence: int, at_ms: int) -> None:
        """Counts a settled deal: its provider's earnings are evidence. Or updates one whose money has changed since."""
        if former is not None and former.is_over:
            if new.id in self._settled:
                self._changed(former, new, sequence, at_ms)
            return
        self._settled[new.id] = new
        for party in (new.provider, new.recipient):
            self._of_party.setdefault(party, {})[new.id] = None
        self._add_money(new, new.stayed().stayed)
        earned_ppm = _earned_ppm(new)
        if earned_ppm is not None:
            deal = _Deal(new.id, "evidence", new.recipient, earned_ppm, at_ms // DAY_MS)
            self._count(new.provider, new.service, deal, sequence, at_ms)

    def _changed(self, former: Agreement, new: Agreement, sequence: int, at_ms: int) -> None:
        self._settled[new.id] = new
        if former.stayed() == new.stayed():
            return
        self._add_money(new, new.stayed().stayed - former.stayed().stayed)
        deals = self._deals.setdefault((new.recipient, PAYMENTS), [])
        rated = [one for one in deals if one.agreement == new.id]
        if new.charged_back:  # the processor reports it, whatever the provider has said
            deals[:] = [one for one in deals if one.agreement != new.id]
            deals.append(_Deal(new.id, "payment", new.provider, 0, at_ms // DAY_MS))
            if not rated:
                history = self.history(new.recipient, PAYMENTS)
                changed = msgspec.structs.replace(history, finished=history.finished + 1)
                self._put(PAYMENTS, changed, sequence, at_ms)
        for party, service in ((new.provider, new.service), (new.recipient, PAYMENTS)):
            self._recount(party, service, sequence, at_ms)

    def _add_money(self, one: Agreement, stayed: int) -> None:
        for name in ((one.provider, one.service), (one.recipient, PAYMENTS)):
            self._money[name] = self._money.get(name, 0) + stayed
            self._outdated(name[1])

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
            self._put(service, changed, sequence, revealed.at_ms)
            if opinion is None or (kind == "payment" and agreement.charged_back):
                continue
            deal = _Deal(agreement.id, kind, rater, PPM if opinion.satisfied else 0, revealed.at_ms // DAY_MS)
            self._count(ratee, service, deal, sequence, revealed.at_ms)

    def _count(self, party: str, service: str, deal: _Deal, sequence: int, at_ms: int) -> None:
        self._deals.setdefault((party, service), []).append(deal)
        self._put(service, self._with(self.history(party, service), service, deal, self._pairs), sequence, at_ms)

    def _recount(self, party: str, service: str, sequence: int, at_ms: int) -> None:
        """Counts the deals of a history that may still change again, with their present values."""
        deals = self._deals.get((party, service), [])
        opinions, evidence = self._base.get((party, service), (EMPTY, EMPTY))
        history = msgspec.structs.replace(self.history(party, service), opinions=opinions, evidence=evidence)
        for kind in ("service", "payment", "evidence"):
            for rater in {deal.rater for deal in deals}:
                name = (kind, party, rater, service)
                if name in self._base_pairs:
                    self._pairs[name] = self._base_pairs[name]
                else:
                    self._pairs.pop(name, None)
        for deal in deals:
            history = self._with(history, service, deal, self._pairs)
        self._put(service, history, sequence, at_ms)

    def _value(self, deal: _Deal) -> int:
        """The value of a deal, in minor units."""
        if deal.value >= 0:
            return deal.value
        stayed = self._settled[deal.agreement].stayed()
        if deal.kind == "evidence":
            return stayed.stayed + stayed.lost
        value_of: Callable[..., int] = payment_value if deal.kind == "payment" else service_value
        return value_of(stayed, deal.yes_ppm > 0)

    def _with(self, history: History, service: str, deal: _Deal, pairs: dict[PairName, Pair]) -> History:
        name = (deal.kind, history.party, deal.rater, service)
        tally: Tally = history.evidence if deal.kind == "evidence" else history.opinions
        before = pairs.get(name, EMPTY_PAIR)
        tally, pairs[name] = weigh(tally, before, deal.yes_ppm, self._value(deal), deal.day, self.rules)
        return msgspec.structs.replace(history, **{"evidence" if deal.kind == "evidence" else "opinions": tally})

    def forget(self, one: Agreement) -> None:
        """The charges of a settled agreement can no longer be taken back, so its deals get their final values. Of all
        deals before the first one that may still change, only the sums are kept."""
        if one.id not in self._settled:
            return
        for name in ((one.provider, one.service), (one.recipient, PAYMENTS)):
            deals = self._deals.get(name, [])
            for place, deal in enumerate(deals):
                if deal.agreement == one.id:
                    deals[place] = deal._replace(value=self._value(deal))
            final = 0
            while final < len(deals) and deals[final].value >= 0:
                final += 1
            opinions, evidence = self._base.get(name, (EMPTY, EMPTY))
            base = History(party=name[0], opinions=opinions, evidence=evidence)
            for deal in deals[:final]:
                base = self._with(base, name[1], deal, self._base_pairs)
            del deals[:final]
            self._base[name] = (base.opinions, base.evidence)
        del self._settled[one.id]
        for party in (one.provider, one.recipient):
            del self._of_party[party][one.id]
            if not self._of_party[party]:
                del self._of_party[party]

    # --- what is shown ---

    def history(self, party: str, service: str) -> History:
        """The latest version."""
        versions = self._versions.get((party, service))
        return versions[2][-1] if versions else History(party=party)

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

    def deals_of(self, party: str, service: str, count: int) -> tuple[PublicDeal, ...]:
        """The public part (no prices) of those deals of a history that may still change, the latest first."""
        deals = self._deals.get((party, service), [])
        return tuple(
            PublicDeal(
                agreement=deal.agreement,
                kind=deal.kind,
                rater=deal.rater,
                yes_ppm=deal.yes_ppm,
                day=deal.day,
                weight_eighths=public_eighths(weight_of(self._value(deal), self.rules)),
            )
            for deal in deals[: -count - 1 : -1]
        )

    def settled_of(self, party: str) -> list[Agreement]:
        """Those whose charges can still be taken back, in the order in which they were settled."""
        settled = [self._settled[name] for name in self._of_party.get(party, ())]
        return sorted(settled, key=lambda one: (one.settled_ms, one.id))

    def _near(self, party: str) -> list[Agreement]:
        """The settled agreements among the party and its counterparties."""
        own = self.settled_of(party)
        near = {party, *(one.provider for one in own), *(one.recipient for one in own)}
        names = sorted({name for one in near for name in self._of_party.get(one, ())})
        deals = [self._settled[name] for name in names]
        return [one for one in deals if {one.provider, one.recipient} <= near]

    def card_money(self, party: str, since_ms: int) -> int:
        """The party's income from cards since then that was not returned: a bank may still take it back."""
        return sum(
            one.stayed().stayed
            for one in self.settled_of(party)
            if one.provider == party and one.method != "prepaid" and one.settled_ms > since_ms
        )

    def start(self, service: str, at_ms: int) -> Start:
        """Where new names start in a service (or in PAYMENTS) now."""
        known = self._known(service, at_ms)
        assert known.start is not None
        return known.start

    def _known(self, service: str, at_ms: int) -> _Latest:
        day = at_ms // DAY_MS
        if self._latest_day != day:
            self._latest.clear()
            self._latest_day = day
        known = self._latest.get(service)
        if known is None:
            known = self._latest[service] = _Latest()
        if known.start is None:
            known.start = self._start(service, day)
            if known.start != known.former:
                known.ratings.clear()
            known.former = known.start
        return known

    def _outdated(self, service: str) -> None:
        if service in self._latest:
            self._latest[service].start = None

    def _start(self, service: str, day: int) -> Start:
        rules = self.rules
        priors = prior_of(rules, "payment" if service == PAYMENTS else "service"), prior_of(rules, "service")
        records: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for party in self._rated.get(service, ()):
            history = self.history(party, service)
            for prior, tally, of in zip(priors, (history.opinions, history.evidence), records, strict=True):
                counted = aged(tally, day, rules)
                if counted.yes + counted.no >= rules.newcomer_weight:
                    bound = lower_ppm(prior[0] + counted.yes, prior[1] + counted.no, rules.z_squared)
                    of.append((bound, self._money.get((party, service), 0)))
        found = []
        for prior, of in zip(priors, records, strict=True):
            bound = newcomer_start_ppm(of, rules, prior) if of else PPM
            found.append(bound if bound < lower_ppm(*prior, rules.z_squared) else PPM)
        return Start(*found)

    def shown_now(self, party: str, service: str, at_ms: int) -> ShownRating:
        """The rating as it stands."""
        return self.shown_at(party, service, SEQUENCE_MAX, at_ms, self.start(service, at_ms))

    def shown_at(self, party: str, service: str, sequence: int, at_ms: int, start: Start = AT_THE_PRIOR) -> ShownRating:
        """The rating as it stood before the entry `sequence`, new names at `start`. `service` may be PAYMENTS."""
        versions = self._versions.get((party, service))
        version = named = 0
        if versions is not None:
            version = bisect_right(versions[0], sequence)
            if not version and (party, service) in self._pruned:
                version = 1  # the oldest that is kept
            named = versions[0][version - 1] if version else 0
        rules = len(self._rules) - 1 if len(self._rules) <= 2 else self._rules_at(sequence)
        name = (party, service, named, at_ms // DAY_MS, rules, start)
        shown = self._shown.get(name)
        if shown is None:
            history = versions[2][version - 1] if versions is not None and version else History(party=party)
            kind: Kind = "payment" if service == PAYMENTS else "service"
            if len(self._shown) >= 100_000:
                self._shown.clear()
            shown = self._shown[name] = show(history, at_ms // DAY_MS, self._rules[rules][1], kind, *start)
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
        return self._known(service, at_ms).ratings

    def latest_of(self, known: dict[str, ShownRating], party: str, service: str, at_ms: int) -> ShownRating:
        """The current rating, from the cache of `latest` or computed."""
        shown = known.get(party)
        if shown is None:
            shown = known[party] = self.shown_now(party, service, at_ms)
        return shown

    def _put(self, service: str, history: History, sequence: int, at_ms: int) -> None:
        self._outdated(service)
        if service in self._latest:
            self._latest[service].ratings.pop(history.party, None)
        name = (history.party, service)
        self._rated.setdefault(service, {})[history.party] = None
        sequences, times, histories = self._versions.setdefault(name, ([], [], []))
        if sequences and sequences[-1] == sequence:
            histories[-1] = history
            return
        sequences.append(sequence)
        times.append(at_ms)
        histories.append(history)
        old = 0
        while old + 1 < len(times) and times[old + 1] <= at_ms - VERSIONS_KEPT_MS:
            old += 1
        if old:
            del sequences[:old], times[:old], histories[:old]
            self._pruned[name] = self._pruned.get(name, 0) + old


def _earned_ppm(one: Agreement) -> int | None:
    """The share that the provider earned of what it owed: of the whole price, or of what had passed if the recipient
    left or both sides state that all is done. None if that says nothing about the provider."""
    if not one.provider_ending and not one.recipient_ending:
        return None  # neither side has stated an end
    is_free = one.recipient_ending == "leaving" or one.recipient_ending == one.provider_ending == "finished"
    fault = one.lost if is_free else one.price - one.paid
    return one.paid * PPM // (one.paid + fault) if one.paid + fault else None
