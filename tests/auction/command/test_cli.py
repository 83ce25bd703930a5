"""The command: every step with --json, the demonstration, replay and verification; and the example of the manual."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from auction.command.cli import main
from auction.command.demo import Demonstration
from auction.command.steps import NOUNS
from auction.moderator import Moderator
from auction.storage.sql_store import SqlStore

MANUAL = Path(__file__).parents[3] / "docs" / "auction.md"


def asked_for_json(capsys: pytest.CaptureFixture[str], url: str, *words: str) -> Any:
    """What a step prints as JSON."""
    assert main([*words, "-d", url, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def pass_time(monkeypatch: pytest.MonkeyPatch, by_s: int) -> None:
    """The clocks of the commands that follow show so much more."""
    shown = {name: getattr(time, name) for name in ("time_ns", "monotonic_ns")}
    later = {name: lambda read=read: read() + by_s * 10**9 for name, read in shown.items()}
    monkeypatch.setattr("auction.moderator.clock.time", SimpleNamespace(**later))


def test_a_market_by_commands_with_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"

    def step(*words: str) -> Any:
        return asked_for_json(capsys, url, *words)

    token = step("party", "register", "rita", "recipient")["token"]
    assert step("party", "authenticate", token) == "rita"
    step("party", "register", "phone", "device", "--belongs-to", "rita")
    assert step("account", "deposit", "rita", "100000", "EUR", "--key", "d1") == 100_000
    assert step("account", "deposit", "rita", "100000", "EUR", "--key", "d1") == 100_000
    for name in ("anton", "berta"):
        step("party", "register", name, "provider", "--capacity-bps", "10000")
        step("account", "deposit", name, "10000", "EUR")
        step("account", "post-bond", name, "10000", "EUR")
    start = time.time_ns() // 1_000_000 + 120_000
    block = {
        "id": "",
        "provider": "",
        "service": "scan",
        "starts_ms": start,
        "ends_ms": start + 60_000,
        "minimum_bps": 800,
    }
    terms = {"reserve": 5_000, "open_for_ms": 60_000, "receipts": False}
    auction = step("auction", "announce", "rita", json.dumps(block), json.dumps(terms))["auction"]
    for name, price in (("anton", 3_000), ("berta", 2_000)):
        step("bid", "place", auction, json.dumps({"bidder": name, "price": price}))
    assert step("auction", "show", auction)["state"] == "open"
    pass_time(monkeypatch, 60)
    step("market", "tick")
    assert step("auction", "close", auction)["winners"][0]["price"] == 3_000
    assert "berta won it" in step("auction", "explain", auction)
    (agreement,) = step("auction", "show", auction)["agreements"]
    assert step("agreement", "end", agreement, "rita", "finished", "1500")["state"] == "closing"
    assert step("agreement", "cost", agreement, "berta", "finished", "1500")["paid"] == 1_500
    assert step("agreement", "end", agreement, "berta", "finished", "1500")["charged"] == 1_500
    step("rating", "give", agreement, "rita", "yes", "--device", "phone")
    step("rating", "give", agreement, "berta", "yes")
    assert step("rating", "show", "berta", "--service", "scan")["count"] == 1
    assert step("agreement", "invoice", agreement)["balance"] == 1_500
    assert main(["agreement", "invoice", agreement, "-d", url]) == 0
    assert "50.0000% of" in capsys.readouterr().out
    assert main(["agreement", "invoice", agreement, "--html", "-d", url]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert step("replay")["found"] == []
    assert step("verify")["found"] == []


def test_a_refusal_has_a_code_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    asked_for_json(capsys, url, "party", "register", "rita", "recipient")
    assert main(["account", "deposit", "nobody", "1", "EUR", "-d", url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "unknown"
    assert main(["account", "deposit", "nobody", "1", "EUR", "-d", url]) == 1
    assert "nobody" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["account", "deposit", "nobody", "1.5", "EUR", "-d", url])
    assert caught.value.code == 2


def test_replay_and_verify_find_what_was_altered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    asked_for_json(capsys, url, "party", "register", "rita", "recipient")
    asked_for_json(capsys, url, "account", "deposit", "rita", "70", "EUR")
    store = SqlStore(url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE auction_posting SET amount = 71 WHERE account = 'funds:rita'")
    for command in ("replay", "verify"):
        assert main([command, "-d", url, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["found"] == ["funds:rita has 71 in postings, but 70 in the journal"]


STEPS = {method.step: name for name, method in Moderator.methods.items() if method.step}


def test_every_method_of_the_moderator_is_a_step() -> None:
    not_steps = {
        "now_ms",
        "group",
        "flush",
        "dispute",
        "resume_payments",
        "announcer_of",
        "stand_bys_of",
        "took_part",
    }  # a process's own, or a webhook's
    public = {name for name in dir(Moderator) if not name.startswith("_") and callable(getattr(Moderator, name))}
    assert public - not_steps == set(STEPS.values())
    assert {noun for noun, _ in STEPS} == set(NOUNS)


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """24 lines of 80 characters; of a noun each verb has one line that says what it does."""
    lines = help_of(capsys)
    assert len(lines) < 24, "the prompt after it needs a line as well"
    for noun in NOUNS:
        assert any(line.startswith(f"  {noun} ") for line in lines)
        verbs = help_of(capsys, noun)
        lines += verbs
        for verb in (verb for one, verb in STEPS if one == noun):
            assert any(re.match(rf"  {verb}  +[a-z]\S+ \S", line) for line in verbs), (noun, verb)
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
def test_every_step_has_help(step: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(help_of(capsys, *step)) > 8


def test_help_of_a_step_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(" ".join(help_of(capsys, "auction", "announce")).split())
    assert 'JSON with reserve, open_for_ms, format="second_score", quality={}, quantity=1,' in words
    assert "fail_over=false" in words
    assert "--capacity-bps CAPACITY_BPS (default: 0)" in " ".join(
        " ".join(help_of(capsys, "party", "register")).split()
    )


def test_the_old_names_of_steps_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    for name in STEPS.values():
        if name not in NOUNS:
            with pytest.raises(SystemExit) as ended:
                main([name.replace("_", "-"), "--help"])
            assert ended.value.code == 2
            capsys.readouterr()


def test_the_demonstration_plays_a_whole_market_and_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert main(["demo", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert time.monotonic() - started < 5
    assert result["violations"] == []
    first, rest, second = result["agreements"]
    assert (first["state"], first["recipient_ending"], first.get("provider_ending", "")) == ("settled", "blaming", "")
    # 41.00 at 3 of 8 Mbit/s for half of the time; δ of what is undelivered without the shortfall that it signed.
    shortfall = 20_50 - 7_68
    assert (first["price"], first["paid"], first["burnt"]) == (41_00, 7_68, (41_00 - 7_68 - shortfall) // 10)
    assert (rest["state"], rest["of"], rest["paid"]) == ("settled", first["id"], 41_00 // 2)  # northwind's own price
    assert "provider_absent" not in rest
    balances = {"northwind": 40_00 + 20_50, "copperline": 40_00 + 7_68, "larkspur": 40_00}
    held = second["recipient_held"]
    shortfall_delta = shortfall // 10  # to the clinic, by copperline's signature
    assert result["balances"] == {"harbour-clinic": 500_00 - 7_68 - 20_50 + shortfall_delta - held} | balances
    assert second["provider"] == rest["provider"]  # who took over and was rated well outweighs the lower price
    assert any("won it" in line for line in result["told"])


def test_the_demonstration_is_the_same_in_every_run() -> None:
    told: list[list[str]] = [[], []]
    results = [Demonstration(lines.append).play() for lines in told]
    assert told[0] == told[1]
    assert results[0] == results[1]


def test_the_manuals_twenty_lines_make_a_market(tmp_path: Path) -> None:
    example, _, _ = re.findall(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "south" in done.stdout
    assert "\n4100\n" in done.stdout
    assert "count=1" in done.stdout


@pytest.mark.parametrize(
    "words", [["verify"], ["replay"], ["watch"], ["party", "show", "rita"], ["account", "deposit", "rita", "1", "EUR"]]
)
def test_what_reads_a_market_makes_none(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = tmp_path / "misspelt.db"
    assert main([*words, "-d", f"sqlite:///{wanted}"]) == 1
    assert capsys.readouterr().err == f"unknown: there is no market in sqlite:///{wanted}\n"
    assert not wanted.exists()


def test_a_database_of_something_else_is_no_market(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert main(["verify", "-d", f"sqlite:///{other}"]) == 1
    assert "there is no market" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense://x", "nonsense", "sqlite:////nowhere/at/all.db", "mysql://x"])
def test_a_database_that_cannot_be_opened_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["party", "register", "rita", "recipient", "-d", url]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(("bad_value: cannot open the database", "store_failed: the database cannot be reached"))


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        [],
        ["nonsense"],
        ["verify", "--nonsense"],
        ["party"],
        ["party", "nonsense"],
        ["account", "deposit", "rita", "one", "EUR"],
        ["deposit", "rita", "1", "EUR"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
