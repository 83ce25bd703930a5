"""docs/auction.md says what is so: its programs run, its tables are the market's own, its commands are such."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ends_reference import CELLS, COLUMNS
from markets import market
from serving import OPERATOR, served

from auction.command.cli import _parser
from auction.model.lifecycle import as_markdown
from auction.moderator import Moderator

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "auction.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_lifecycle_is_the_one_that_is_drawn() -> None:
    drawn = re.search(r"<!-- states and commands: scripts/write-lifecycle -->\n(.*?)<!-- end", TEXT, re.DOTALL)
    assert drawn is not None
    assert drawn[1] == as_markdown()


def test_the_table_of_ends_is_the_one_that_is_paid_by() -> None:
    words = {
        "nothing more": ["nothing"],
        "recipient pays δU to provider": ["r>p"],
        "provider pays δU to recipient": ["p>r"],
        "each loses δU to nobody": ["p-", "r-"],
        "recipient loses δU to nobody": ["r-"],
        "provider loses δU to nobody": ["p-"],
        "the last receipt is paid, all else goes back": ["nothing"],
    }
    for provider in COLUMNS:
        label = "silent, absent" if provider == "silent" else provider
        (row,) = re.findall(rf"^\| {label} \| (.*) \|$", TEXT, re.MULTILINE)
        for recipient, cell in zip(COLUMNS, row.split(" | "), strict=True):
            assert words[cell] == CELLS[provider, recipient], (provider, recipient)


@pytest.mark.parametrize("text", PROGRAMS[:2], ids=["market", "receipts"])
def test_programs(text: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_program_that_calls_a_served_market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "operator.token").write_text(OPERATOR)
    monkeypatch.chdir(tmp_path)
    moderator, _ = market()
    with served(moderator) as url:
        exec(PROGRAMS[2].replace("http://127.0.0.1:8620", url), {})
    assert moderator.party("north").capacity_bps == 100_000_000


def test_the_market_is_the_readmes() -> None:
    assert PROGRAMS[0] in (ROOT / "README.md").read_text()


def test_commands_are_words_that_the_command_takes() -> None:
    commands = re.findall(r"^    auction (.*)$", TEXT, re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command)
        _parser(Moderator, words).parse_args(words)


def test_the_deal_by_hand_is_of_commands_that_the_command_takes(tmp_path: Path) -> None:
    """The shell's words, as it hands them to the command; the deal itself is tested in test_cli.py."""
    (session,) = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for name, line in (("auction", "import json, sys; print(json.dumps(sys.argv[1:]))"), ("sleep", "")):
        (tmp_path / name).write_text(f"#!{sys.executable}\n{line}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-e", "-c", session], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    commands = [json.loads(line) for line in done.stdout.splitlines()]
    assert [words[:2] for words in commands].count(["agreement", "end"]) == 2
    for words in commands:
        _parser(Moderator, words).parse_args(words)
