"""Parties by the command line: what a command would cost, refusing, banning, changing, and erasing a person."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from auction.command.cli import main


class Line:
    """The command on one database; each step answers as JSON."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.capsys = url, capsys

    def __call__(self, *words: str) -> Any:
        assert main([*words, "-d", self.url, "--json"]) == 0, self.capsys.readouterr()
        return json.loads(self.capsys.readouterr().out)

    def refused(self, *words: str) -> str:
        assert main([*words, "-d", self.url, "--json"]) == 1
        return str(json.loads(self.capsys.readouterr().out)["error"])


@pytest.fixture
def line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    step = Line(f"sqlite:///{tmp_path / 'm.db'}", capsys)
    step("party", "register", "rita", "recipient")
    step("account", "deposit", "rita", "100000", "EUR")
    step("party", "register", "north", "provider", "--capacity-bps", "10000")
    step("account", "deposit", "north", "50000", "EUR")
    return step


def announce(line: Line, **more: Any) -> str:
    start = time.time_ns() // 1_000_000 + 300_000
    block = {"id": "", "provider": "", "service": "scan", "starts_ms": start, "ends_ms": start + 60_000}
    terms = {"reserve": 5_000, "open_for_ms": 200_000, "receipts": False, "format": "dutch"}
    terms |= {"ramp": {"start_price": 5_000, "step": 1, "step_ms": 1_000}}
    words = json.dumps(block | {"minimum_bps": 800} | more), json.dumps(terms)
    return str(line("auction", "announce", "rita", *words)["auction"])


def test_what_withdrawing_bidding_and_leaving_would_cost(line: Line) -> None:
    auction = announce(line)
    assert line("auction", "withdraw-cost", auction) == {"of_balance": -5_500, "of_bond": 0, "to_nobody": 0}
    entry = json.dumps({"bidder": "north", "price": 5_000})
    cost = line("bid", "cost", auction, entry)  # it would win at once: δP and Φ
    assert cost == {"of_balance": 500 + 1_250, "of_bond": 0, "to_nobody": 0}
    assert line("account", "balance", "north") == 50_000
    line("bid", "place", auction, entry)
    assert line("account", "balance", "north") == 50_000 - 1_750
    (agreement,) = line("auction", "show", auction)["agreements"]
    told = line("agreement", "cost", agreement, "rita", "leaving", "0")
    assert [one[2] for one in told["payouts"] if one[:2] == ["recipient", "provider"]] == [500]
    assert line.refused("auction", "withdraw-cost", auction) == "wrong_state"


def test_a_party_is_refused_banned_and_changed(line: Line) -> None:
    assert line("party", "refuse", "rita", "north")["refused"] == ["north"]
    assert line("party", "refused", "rita") == ["north"]
    auction = announce(line)
    assert line.refused("bid", "place", auction, json.dumps({"bidder": "north", "price": 5_000})) == "not_allowed"
    assert line("party", "accept", "rita", "north")["refused"] == []
    assert line("party", "change-capacity", "north", "900")["capacity_bps"] == 900
    line("party", "change-attributes", "north", '{"iso27001": "yes"}')
    other = announce(line, requires={"iso27001": "yes", "hospital": ""})
    assert line.refused("bid", "cost", other, json.dumps({"bidder": "north", "price": 5_000})) == "not_allowed"
    assert line("party", "ban", "north")["banned_sequence"] > 0
    assert (
        line.refused("bid", "place", announce(line), json.dumps({"bidder": "north", "price": 5_000})) == "not_allowed"
    )
    assert "banned_sequence" not in line("party", "lift-ban", "north")
    token = line("party", "replace-token", "north")["token"]
    assert line("party", "authenticate", token) == "north"
    assert line("party", "revoke-token", "north") == "north"
    assert line.refused("party", "authenticate", token) == "bad_token"
    assert main(["verify", "-d", line.url]) == 0


def test_a_person_is_registered_found_and_erased(line: Line, tmp_path: Path) -> None:
    person = line("party", "register", "", "recipient", "--name", "rosa@clinic")["party"]
    number = line("party", "register", "+44 20 7946 0018", "number", "--belongs-to", person)["party"]
    assert line("party", "id", "rosa@clinic") == person
    assert line("party", "id", "+442079460018") == number
    assert line("party", "person", person) == {"about": person, "name": "rosa@clinic"}
    assert len(line("party", "erase", person)["digests"]) == 2
    assert line.refused("party", "id", "rosa@clinic") == "unknown"
    assert main(["verify", "-d", line.url]) == 0
    for path in tmp_path.iterdir():
        assert b"rosa@clinic" not in path.read_bytes()
        assert b"+442079460018" not in path.read_bytes()


def test_fees_are_the_operators(line: Line) -> None:
    assert line("account", "fees") == 0
    assert line.refused("account", "withdraw-fees", "1", "EUR") == "insufficient_funds"
