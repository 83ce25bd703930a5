"""A search for profit: coalitions of two play random sequences of commands against a truthful third.

What is served is counted at its price. A coalition profits if its money and what it was served come to more than what
it served and the open interval e of each agreement; the third is harmed beyond the bound if it loses more than e and δ
of the price of each of its agreements. What a hole of each kind would give is found, so the search is not blind.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from markets import awarded, figure_of, market, money, poll, signed

from auction.model import agreement as agreement_module
from auction.model import closing
from auction.model.agreement import Agreement
from auction.model.errors import AuctionError
from auction.model.receipt import SignedReceipt
from auction.moderator.invariants import violations
from auction.moderator.rules import ending

SEQUENCES = int(os.environ["COALITION_SEEDS"])
ENDINGS = ("finished", "leaving", "blaming")
COALITIONS = (("rita", "p0"), ("rita", "p1"), ("p0", "p1"))


class Outcome(NamedTuple):
    profit: int
    harm: int
    allowed: int
    harm_allowed: int
    moves: tuple[str, ...]


class Game:
    """One market with a recipient, a provider and a runner-up, of whom one is truthful."""

    def __init__(self, seed: int, bad: tuple[str, str]) -> None:
        self.random = random.Random(seed)
        self.bad = bad
        (self.good,) = {"rita", "p0", "p1"} - set(bad)
        self.market, self.clock = market(providers=2)
        self.had = {name: money(self.market, name) for name in ("rita", "p0", "p1")}
        self.moves: list[str] = []
        self.served: dict[str, int] = {}  # agreement -> intervals that were truly served
        self.receipts: dict[str, SignedReceipt] = {}  # what was last signed by both
        first = awarded(
            self.market, self.clock, (4_000, 4_200), reserve=5_000, receipts=True, fail_over=True,
            format="first_price",
        )  # fmt: skip
        self.agreements = [first]

    def play(self) -> Outcome:
        one = self.market.agreement(self.agreements[0])
        self.clock.advance(one.starts_ms - self.clock.now_ms)
        self._poll()
        self.clock.advance(10_000)
        self._serve()
        for _ in range(self.random.randint(2, 7)):
            self._move()
            self._truth()
            self._pass_time()
        for _ in range(10):  # to the end of every window, the truthful one being there
            self._truth()
            self.clock.advance(9_000)
            poll(self.market, self.good)
            self._serve()
        for _ in range(4):
            self._truth()
            self.clock.advance(3_700_000)
            self.market.tick()
        assert violations(self.market.state) == [], self.moves
        return self._outcome()

    def _poll(self) -> None:
        for name in (self.good, *[name for name in self.bad if self.random.random() < 0.8]):
            poll(self.market, name)

    def _pass_time(self) -> None:
        self.clock.advance(self.random.choice((500, 3_000, 9_000, 10_000)))
        self._poll()
        self.market.tick()
        self._serve()

    def _serve(self) -> None:
        """What is running is served in full, as far as both sides want it; receipts follow with an interval open."""
        for name in self.agreements:
            one = self.market.agreement(name)
            if one.state not in ("agreed", "running") or self.clock.now_ms <= one.starts_ms:
                continue
            window_ms = one.ends_ms - one.starts_ms
            gone = min(self.clock.now_ms - one.starts_ms, window_ms)
            intervals = 120 * gone // window_ms
            if one.provider in self.bad and self.random.random() < 0.3:
                continue  # it does not serve
            if intervals > self.served.get(name, 0):
                self.served[name] = intervals
                self.receipts[name] = signed(self.market, name, intervals, after=self.receipts.get(name))

    def _move(self) -> None:
        who = self.random.choice(self.bad)
        name = self.random.choice(self.agreements)
        one = self.market.agreement(name)
        choice = self.random.random()
        try:
            if choice < 0.2 and who != "rita":
                rest = self.market.take_over(name, who)
                self.agreements.append(rest.id)
                self._note(f"{who} takes {name} over")
            elif choice < 0.35 and name in self.receipts:
                self.market.hand_in(name, who, self.receipts[name])
                self._note(f"{who} hands in for {name}")
            else:
                figure = self.random.choice((0, one.price, one.price // 2, self.random.randint(0, one.price)))
                said = self.random.choice(ENDINGS)
                self.market.end(name, who, said, figure)
                self._note(f"{who} ends {name} {said} {figure}")
        except AuctionError:
            pass

    def _note(self, what: str) -> None:
        self.moves.append(what)

    def _truth(self) -> None:
        """The truthful one hands in what it has, states what is so, and takes over what it is offered."""
        good = self.good
        if good != "rita":
            for name in list(self.agreements):
                try:
                    self.agreements.append(self.market.take_over(name, good).id)
                except AuctionError:
                    continue
        for name in self.agreements:
            one = self.market.agreement(name)
            if good not in (one.provider, one.recipient):
                continue
            if name in self.receipts:
                with contextlib.suppress(AuctionError):
                    self.market.hand_in(name, good, self.receipts[name])
            self._end_truly(one)

    def _end_truly(self, one: Agreement) -> None:
        good = self.good
        is_provider = good == one.provider
        own = one.provider_says if is_provider else one.recipient_says
        other = one.recipient_says if is_provider else one.provider_says
        figure = figure_of(self.market, one.id, self.receipts[one.id]) if one.id in self.receipts else 0
        whole = self.served.get(one.id, 0) >= 120
        if one.is_over or own is not None:
            return
        over = self.clock.now_ms >= one.ends_ms
        if one.state == "closing" or other is not None or over:
            said = "finished" if whole else "blaming"
            self.market.end(one.id, good, said, figure)

    def _outcome(self) -> Outcome:
        gain = {name: money(self.market, name) - had for name, had in self.had.items()}
        profit = sum(gain[name] for name in self.bad)
        harm = -gain[self.good]
        allowed = harm_allowed = 0
        for name in self.agreements:
            one = self.market.agreement(name)
            value = one.price * self.served.get(name, 0) // 120
            both_bad = one.provider in self.bad and one.recipient in self.bad
            if not both_bad:
                sign = 1 if one.recipient in self.bad else -1
                profit += sign * value
                allowed += one.exposure
                harm += sign * value
                harm_allowed += one.exposure + one.price * one.delta_ppm // 1_000_000 + 2
        return Outcome(profit, harm, allowed, harm_allowed, tuple(self.moves))


def search(bad: tuple[str, str], sequences: int = SEQUENCES) -> list[Outcome]:
    """Outcomes beyond what is allowed."""
    found = []
    for seed in range(sequences):
        outcome = Game(seed, bad).play()
        if outcome.profit > outcome.allowed or outcome.harm > outcome.harm_allowed:
            found.append(outcome)
    return found


@pytest.mark.parametrize("bad", COALITIONS, ids="+".join)
def test_no_coalition_of_two_profits_or_harms_beyond_the_bound(bad: tuple[str, str]) -> None:
    found = search(bad)
    assert not found, max(found, key=lambda one: one.profit)


def _silence_pays_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        **closing.TABLE,
        ("", "blaming"): (("provider", "recipient"),),
        ("finished", ""): (("recipient", "provider"),),
    }
    table["blaming", "blaming"] = (("provider", "recipient"),)
    monkeypatch.setattr(closing, "TABLE", table)


def _figures_are_not_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def stated(case: closing.Case) -> tuple[int, int]:
        said = [one.figure for one in (case.provider, case.recipient) if one is not None]
        return (min(said), max(said)) if said else (case.signed, case.signed)

    monkeypatch.setattr(closing, "figures", stated)


def _higher_figure_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    former: Callable[[closing.Case], tuple[int, int]] = closing.figures

    def higher(case: closing.Case) -> tuple[int, int]:
        _, figure = former(case)
        return figure, figure

    def generous(agreement: Agreement, market: str) -> closing.Settlement:
        loose = agreement_module.msgspec.structs.replace(agreement, exposure=agreement.price)
        return settlement(loose, market)

    settlement = agreement_module.settlement_of
    monkeypatch.setattr(closing, "figures", higher)
    monkeypatch.setattr(ending, "settlement_of", generous)


def _receipts_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agreement, "earnings", lambda _self, _market: agreement_module.Earnings())


HOLES = (_silence_pays_the_other, _figures_are_not_bounded, _higher_figure_is_paid, _receipts_count_for_nothing)


@pytest.mark.parametrize("hole", HOLES, ids=lambda one: one.__name__.strip("_"))
def test_planted_hole_is_found(hole: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    hole(monkeypatch)
    assert any(search(bad, 40) for bad in COALITIONS)
