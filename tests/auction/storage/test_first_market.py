"""A database of the first rules (made by commit 6b91ae7, see make_first_market.py) opens: each deal ends as is stated
there, open auctions are withdrawn, what was held goes back, and the market says what was done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from markets import asked

from auction import AuctionTerms, BidEntry, ManualClock, Moderator, SqlStore
from auction.command.cli import main
from auction.model.errors import UnderWay
from auction.moderator.invariants import replay, verify, violations
from auction.moderator.older import OldMarket, upgrade_market
from auction.payment.protocol import Dispute, Outcome

DUMP = Path(__file__).with_name("first_market.sql")
# Balance and bond of each party by hand, from the figures in make_first_market.py. What a bond held is bond again.
WHOLE = 10_000
EXPECTED = {
    "settled": ((WHOLE - 500, 0), (WHOLE + 500, WHOLE)),
    "takenback": ((WHOLE - 500 + 100, 0), (WHOLE + 500 - 100, WHOLE)),
    "cancelled": ((WHOLE, 0), (WHOLE, WHOLE)),
    "running": ((WHOLE - 300, 0), (WHOLE + 300, WHOLE)),
    "claimed": ((WHOLE, 0), (WHOLE, WHOLE)),
    "reported": ((WHOLE - 750, 0), (WHOLE + 750, WHOLE)),
    "replaced": ((WHOLE - 50 - 100, 0), (WHOLE + 50, WHOLE - 50)),
    "card": ((WHOLE, 0), (WHOLE, WHOLE)),  # until its card is captured
    "unserved": ((WHOLE, 0), (WHOLE, WHOLE)),
    "prime": ((WHOLE, 0), (WHOLE - 50, WHOLE)),
    "agreed": ((WHOLE, 0), (WHOLE, WHOLE)),
    "awarded": ((WHOLE, 0), (WHOLE, WHOLE)),
    "grouped": ((WHOLE, 0), (WHOLE, WHOLE)),
    "held": ((WHOLE, 0), (WHOLE, WHOLE)),
    "open": ((WHOLE, 0), (WHOLE, WHOLE)),
}
OTHERS = {
    "q-second": (WHOLE + 100 + 50, WHOLE),
    "q-sub": (WHOLE + 50, WHOLE),
    "q-seller": (WHOLE, WHOLE),
    "r-buyer": (WHOLE, 0),
    "m-one": (WHOLE, 0),
    "m-two": (WHOLE, 0),
}


class Cards:
    """A processor that does what it is asked."""

    def __init__(self) -> None:
        self.captured: dict[str, int] = {}
        self.voided: list[str] = []

    def authorise(self, key: str, source: str, amount: int, currency: str) -> Outcome:
        raise AssertionError("nothing is authorised")

    def capture(self, key: str, reference: str, amount: int) -> Outcome:
        self.captured[reference] = amount
        return Outcome(True, reference)

    def void(self, key: str, reference: str) -> Outcome:
        self.voided.append(reference)
        return Outcome(True, reference)

    def refund(self, key: str, reference: str, amount: int) -> Outcome:
        raise AssertionError("nothing is refunded")

    def read_dispute(self, payload: bytes, signature: str) -> Dispute | None:
        return None


@pytest.fixture
def url(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "m.db") as database:
        database.executescript(DUMP.read_text())
    database.close()
    return f"sqlite:///{tmp_path / 'm.db'}"


def opened(
    url: str, processors: dict[str, Cards] | None = None, later_ms: int = 60_000
) -> tuple[Moderator, ManualClock]:
    """The market as it opens so long after its last command."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        (last_ms,) = database.execute("SELECT max(at_ms) FROM auction_journal").fetchone()
    clock = ManualClock()
    clock.advance(last_ms + later_ms - clock.now_ms)
    return Moderator(SqlStore(url), clock=clock, processors=processors), clock


def agreement_of(market: Moderator, provider: str) -> str:
    (name,) = [name for name, one in market.state.records["agreement"].items() if one.provider == provider]
    return str(name)


def test_every_deal_ends_as_the_recipients_side_had_measured(url: str) -> None:
    market, _ = opened(url, {"card": Cards()})
    assert market.upgraded["offer: ended, for it held nothing"] == 1
    assert market.offers("carry") == []
    got = {}
    for name in EXPECTED:
        got[name] = tuple((market.balance(party), market.bond(party)) for party in (f"r-{name}", f"q-{name}"))
    assert got == EXPECTED
    assert {name: (market.balance(name), market.bond(name)) for name in OTHERS} == OTHERS
    assert all(one.state == "settled" for one in market.state.records["agreement"].values())
    assert {one.state for one in market.state.records["auction"].values()} == {"agreed", "void"}
    waiting = {
        account: amount
        for account, amount in market.state.ledger.balances.items()
        if amount and account.startswith(("held", "pledged", "topped_up"))
    }
    assert waiting == {f"held:{agreement_of(market, 'q-card')}": 150}
    assert violations(market.state) == []


def test_a_card_is_captured_for_what_was_measured_and_another_is_let_go(url: str) -> None:
    cards = Cards()
    market, _ = opened(url, {"card": cards})
    asked_of_cards = {one.step: one.amount for one in market.state.pending_payments.values()}
    assert asked_of_cards == {"capture": 150, "void": 0}
    market.tick()
    assert cards.captured == {f"card-{agreement_of(market, 'q-card')}/authorise": 150}
    assert cards.voided == [f"card-{agreement_of(market, 'q-unserved')}/authorise"]
    assert (market.balance("q-card"), market.balance("r-card")) == (WHOLE + 150, WHOLE)
    assert market.agreement(agreement_of(market, "q-card")).charged == 150
    assert market.state.pending_payments == {}
    assert violations(market.state) == []


def test_the_upgrade_says_what_it_did_in_its_entry_and_on_the_command_line(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["market", "rules", "-d", url]) == 0
    told = capsys.readouterr().err
    did = {
        "auction: open, withdrawn": 3,
        "agreement: ended by what the recipient's side had measured": 4,
        "agreement: ended, the recipient had measured nothing": 6,
        "agreement: awarded and not agreed, void": 2,
        "agreement: over, kept": 3,
        "agreement: void, kept": 1,
        "group: open, given back": 1,
        "commitment: its bond given back": 1,
        "delivery: left out": 10,
        # 300 + 750 + 50 + 100 of prices and 50 of a bond
        "money: paid to providers": 1_250,
    }
    for words, number in did.items():
        assert f"upgraded: {words}: {number}\n" in told, told
    entry = next(one for one in SqlStore(url).entries() if one.command == "upgrade")
    written = msgspec.json.decode(entry.answer, type=dict[str, int])
    assert did.items() <= written.items()
    assert main(["market", "rules", "-d", url]) == 0
    assert "upgraded" not in capsys.readouterr().err  # once
    assert main(["verify", "-d", url]) == 0
    assert verify(SqlStore(url)) == []


@pytest.mark.parametrize("days", [0, 46, 400])
def test_however_late_it_is_opened_the_rows_are_what_the_journal_says(url: str, days: int) -> None:
    """Blocks and deals that were over for long are put away by the upgrade itself. What it ended is kept from then on
    like what ended then."""
    market, clock = opened(url, later_ms=60_000 + days * 86_400_000)
    assert verify(SqlStore(url)) == []
    assert ("blk-open" in market.state.records["block"]) == (not days)
    auctions = {name: one.state for name, one in market.state.records["auction"].items()}
    assert {"agreed", "void"} == set(auctions.values())
    clock.advance(44 * 86_400_000)
    market.tick()
    assert auctions.keys() == market.state.records["auction"].keys()
    assert verify(SqlStore(url)) == []


def test_the_market_goes_on_by_the_present_rules(url: str) -> None:
    market, clock = opened(url, {"card": Cards()})
    assert market.rating("q-settled", "carry").count == 1
    assert market.rating("q-running", "carry").evidence_count == 1
    assert market.rating("q-claimed", "carry").evidence_count == 0  # nobody is believed about itself
    assert market.rating("q-settled", "carry").remarks == ("as promised",)
    auction = market.announce(
        "r-open", asked(clock), AuctionTerms(reserve=2_000, open_for_ms=1_000, receipts=False)
    ).auction
    market.bid(auction, BidEntry("q-open", 300))
    clock.advance(1_000)
    assert market.close(auction).winners[0].bidder == "q-open"
    for view in (market.auction(name) for name in market.state.records["auction"]):
        if view.award is not None and not view.award.failed:
            assert market.explain(view.auction)
            assert market.transcript(view.auction).entries or market.transcript(view.auction).offers
    block = market.block("blk-open")
    assert (block.state, block.holder) == ("free", "q-open")
    assert (market.block("blk-sold").state, market.block("blk-sold").holder) == ("free", "q-seller")
    market.register("desk", "device", belongs_to="r-running")
    market.rate(agreement_of(market, "q-running"), "r-running", True, device="desk")  # what was ended can be rated
    again = Moderator(SqlStore(url), clock=clock)
    assert again.state.records == market.state.records == replay(SqlStore(url).entries()).records
    clock.advance(40 * 24 * 3_600_000)
    market.tick()
    assert violations(market.state) == []


def test_money_that_is_held_for_what_cannot_be_read_stops_the_upgrade() -> None:
    """Nothing is lost in silence: an agreement that is none, and a bond of an account that nothing names."""
    record = {"id": "agreement-9", "legs": []}
    for balances in (
        {"held:agreement-9": 5},
        {"held_bond:auction-1/x": 1},
        {"topped_up:agreement-9": 1},
        {"pledged:g": 1},
    ):
        with pytest.raises(UnderWay, match=next(iter(balances))):
            upgrade_market(OldMarket(9, 9, {("agreement", "agreement-9"): record}, balances))
