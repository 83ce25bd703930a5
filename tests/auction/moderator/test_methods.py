"""The table of the moderator's methods: adding one is one method, and none can be added without a right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from markets import market

from auction.command.cli import main
from auction.model.errors import AuctionError, BadToken, NotAllowed
from auction.model.party import Party, token_hash
from auction.moderator import Moderator
from auction.moderator.draft import Draft
from auction.moderator.methods import Right, command, query
from auction.storage.sql_store import SqlStore
from auction.web.client import MarketClient
from auction.web.rights import RIGHTS, Caller, check_right

ROOT = Path(__file__).parents[3]


def rename(draft: Draft, party: str, controller: str) -> Party:
    """A rule of an example: who stands behind a party."""
    record = msgspec.structs.replace(draft.party(party), controller=controller)
    draft.put("party", party, record)
    return record


class Example(Moderator):
    """A market with a command and a query of its own: this is all that it takes."""

    @command("party control", right="own", about="party")
    def control(self, party: str, controller: str, *, key: str | None = None) -> Party:
        """Says who stands behind a party. An example."""
        return self._run("control", key, (party, controller), rename, Party)

    @query("example count", right="operator")
    def count_parties(self) -> int:
        """Counts the parties. An example."""
        with self._deciding:
            return len(self._state.records["party"])


class ExampleClient(MarketClient, market=Example):
    """Its client, with both methods."""


def example(store: SqlStore, token: str = "") -> Example:
    """The example's market, in which rita has the token."""
    plain, clock = market(store)
    moderator = Example(store, clock=clock, config=plain.config)
    record = msgspec.structs.replace(moderator.party("rita"), token_hash=token_hash(token))
    moderator._run("token", None, (), lambda draft: draft.put("party", "rita", record), None)
    return moderator


def test_an_added_command_works_in_process(tmp_path: Path) -> None:
    moderator = example(SqlStore(f"sqlite:///{tmp_path / 'm.db'}"))
    assert moderator.control("rita", "holding", key="k").controller == "holding"
    before = moderator.state.sequence
    assert moderator.control("rita", "holding", key="k").controller == "holding"
    assert (moderator.party("rita").controller, moderator.state.sequence) == ("holding", before)
    assert not hasattr(Moderator, "control")
    assert "control" not in Moderator.methods


def test_an_added_command_works_over_http_for_who_has_the_right(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    from serving import OPERATOR, served

    moderator = example(SqlStore(f"sqlite:///{tmp_path / 'm.db'}"), "token of rita")
    with served(moderator) as url:
        rita, operator = ExampleClient(url, "token of rita"), ExampleClient(url, OPERATOR)
        assert rita.control("rita", "holding").controller == "holding"  # type: ignore[attr-defined]
        assert operator.count_parties() == len(moderator.state.records["party"])  # type: ignore[attr-defined]
        for refused in (lambda: rita.control("p0", "x"), rita.count_parties):  # type: ignore[attr-defined]
            with pytest.raises(NotAllowed):
                refused()
        with pytest.raises(BadToken):
            ExampleClient(url).control("rita", "x")  # type: ignore[attr-defined]
        assert main(["party", "control", "p1", "us", "--market", url, "--token-file", "/dev/null"], Example) == 1
        assert moderator.party("p1").controller == ""
        assert not hasattr(MarketClient, "control")


def test_an_added_command_is_a_step_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    example(SqlStore(url))
    assert main(["party", "control", "rita", "holding", "-d", url, "--json"], Example) == 0
    assert json.loads(capsys.readouterr().out)["controller"] == "holding"
    assert main(["example", "count", "-d", url], Example) == 0
    assert int(capsys.readouterr().out) > 1
    with pytest.raises(SystemExit):
        main(["party", "--help"], Example)
    assert re.search(r"^  control +says who stands behind a party$", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(SystemExit) as ended:
        main(["party", "control", "rita", "holding", "-d", url])
    assert ended.value.code == 2


def with_method(name: str, method: Callable[..., Any]) -> type[Moderator]:
    return type("Wrong", (Moderator,), {name: method})


def test_a_method_without_a_right_cannot_be_defined() -> None:
    def give(self: Moderator, agreement: str) -> None: ...

    def wait(self: Moderator, wait_ms: int = 0) -> None: ...

    with pytest.raises(TypeError, match="right"):
        command("party give")(give)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Wrong\.give has no right"):
        with_method("give", give)
    with pytest.raises(TypeError, match="there is no right 'everyone'"):
        command(right="everyone")  # type: ignore[arg-type]
    for right, about in (("own", ""), ("own", "party"), ("own", "entry.bidder"), ("holder", ""), ("member", "")):
        with pytest.raises(TypeError, match=f"the right '{right}' of give is about"):
            with_method("give", command(right=right, about=about)(give))  # type: ignore[arg-type]
    for step in ("give", "agreement give more", "agreement --give"):
        with pytest.raises(TypeError, match="a noun and a verb"):
            command(step, right="anyone")
    with pytest.raises(TypeError, match="two methods have one step: bid place"):
        with_method("give", command("bid place", right="side")(give))
    with pytest.raises(TypeError, match="is_news"):
        with_method("wait", query(right="anyone")(wait))
    with_method("_give", give)  # not public
    with_method("give", command("agreement give", right="side")(give))


def test_who_overrides_a_method_keeps_its_row() -> None:
    def deposit(self: Moderator, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        return 0

    row = with_method("deposit", deposit).methods["deposit"]
    assert (row.right, row.step, row.function) == ("operator", ("account", "deposit"), deposit)
    assert Moderator.methods["deposit"].function is Moderator.deposit


def test_a_client_keeps_what_is_its_own() -> None:
    @command(right="anyone")
    def call(self: Moderator) -> None: ...

    with pytest.raises(TypeError, match="already has call"):
        type("WrongClient", (MarketClient,), {}, market=with_method("call", call))


def test_every_right_has_one_meaning() -> None:
    assert set(RIGHTS) == set(get_args(Right))
    assert {name for name, meaning in RIGHTS.items() if not meaning.needs_token} == {"stranger", "registration"}


def test_a_right_without_a_meaning_is_the_operators() -> None:
    moderator, _ = market()
    method = Moderator.methods["party"]._replace(right="unheard of")  # type: ignore[arg-type]
    with pytest.raises(NotAllowed):
        check_right(moderator, Caller("rita"), method, SimpleNamespace(party="rita"), False)
    check_right(moderator, Caller(is_operator=True), method, SimpleNamespace(party="rita"), False)


def test_nobody_without_a_token_may_call_what_needs_one() -> None:
    moderator, _ = market()
    for method in Moderator.methods.values():
        expected = NotAllowed if method.right == "registration" else BadToken
        arguments = SimpleNamespace(
            party="north", belongs_to="", kind="provider", controller="", public_key="", signature=None
        )
        if method.right == "stranger":
            assert method.name in ("renew_token", "authenticate")
            continue
        with pytest.raises(AuctionError) as refused:
            check_right(moderator, Caller(), method, arguments, False)
        assert type(refused.value) is expected, method.name


def test_the_stubs_are_the_moderators_own_types() -> None:
    command = [sys.executable, ROOT / "scripts" / "method-stubs", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def errors_of(program: str, tmp_path: Path) -> list[tuple[str, str]]:
    """The lines that the type checker refuses, with its code for why."""
    path = tmp_path / "program.py"
    path.write_text(program)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", path]  # with the cache of `make lint`
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    return re.findall(r"program.py:(\d+).*\[([\w-]+)\]", shown)


def test_a_wrong_awaited_call_is_found_by_the_type_checker(tmp_path: Path) -> None:
    """And a right one is not."""
    program = (
        "from auction import AsyncModerator\n"
        "async def f(market: AsyncModerator) -> None:\n"
        "    agreement = await market.agreement('a')\n"
        "    right: str = agreement.provider\n"
        "    wrong: int = await market.rating('north')\n"
        "    await market.deposit('rita', 'ten', 'EUR')\n"
        "    await market.nonsense()\n"
        "    market.group()\n"
    )
    assert errors_of(program, tmp_path) == [
        ("5", "assignment"),
        ("6", "arg-type"),
        ("7", "attr-defined"),
        ("8", "attr-defined"),
    ]


def test_a_wrong_call_of_a_client_is_found_by_the_type_checker(tmp_path: Path) -> None:
    """A client has the moderator's served methods and nothing else of it. A right call is none."""
    program = (
        "from auction import MarketClient, Moderator\n"
        "def f(market: MarketClient) -> None:\n"
        "    right: str = market.agreement('a').provider\n"
        "    same: int = market.deposit('rita', 10, 'EUR', key='k')\n"
        "    wrong: int = market.rating('north')\n"
        "    market.deposit('rita', 'ten', 'EUR')\n"
        "    market.flush()\n"
        "    market.store\n"
        "    moderator: Moderator = market\n"
    )
    assert errors_of(program, tmp_path) == [
        ("5", "assignment"),
        ("6", "arg-type"),
        ("7", "attr-defined"),
        ("8", "attr-defined"),
        ("9", "assignment"),
    ]
