"""`auction watch`: what is shown is what the market says, stored or served; and nothing is written."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import asked, awarded, market
from rich.console import Console

from auction.command.cli import main
from auction.command.watch_screen import Follower, draw, show_live
from auction.model.errors import BadValue, Unknown
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.overview import Overview
from auction.storage.sql_store import SqlStore

TERMS = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)


def busy(url: str) -> tuple[Moderator, str, str]:
    """A market with an agreement that failed and was settled and rated, one that has not begun, and an open auction."""
    moderator, clock = market(SqlStore(url))
    first = awarded(moderator, clock)
    clock.advance(90_000)
    moderator.end(first, "p1", "leaving", 125)
    moderator.end(first, "rita", "blaming", 125)
    moderator.rate(first, "rita", True, device="phone", remark="left at half")
    moderator.rate(first, "p1", True)
    second = awarded(moderator, clock)
    third = moderator.announce("rita", asked(clock), TERMS).auction
    moderator.bid(third, BidEntry("p0", 400))
    return moderator, first, second


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'market.db'}"


def test_an_overview_says_what_the_single_methods_say(url: str) -> None:
    moderator, first, second = busy(url)
    seen = moderator.overview()
    (waiting,) = seen.auctions
    view = moderator.auction(waiting.auction)
    assert (waiting.bid_count, waiting.closes_ms, waiting.reserve) == (1, view.closes_ms, 1_000)
    assert [one.agreement for one in seen.agreements] == [second, first]
    assert [one.state for one in seen.awards] == ["agreed", "agreed"]
    assert seen.awards[1].reasons == tuple(moderator.explain(seen.awards[1].auction).splitlines())
    whole = moderator.agreement(first)
    over = seen.agreements[1]
    assert (over.charged, over.price, over.state) == (whole.charged, whole.price, "settled")
    assert (over.provider_says, over.recipient_says) == (whole.provider_says, whole.recipient_says)
    assert (over.paid, whole.provider_says and whole.provider_says.figure) == (125, 125)
    for one in seen.ratings:
        assert one.rating == moderator.rating(one.rating.party, one.service)
    assert {(one.rating.party, one.service) for one in seen.ratings} == {
        ("p1", "anonymise"),
        ("rita", ""),
    }


def test_an_overview_is_bounded_and_can_be_of_one_party() -> None:
    moderator, clock = market()
    for _ in range(5):
        awarded(moderator, clock)
    seen = moderator.overview(limit=2)
    assert (len(seen.awards), len(seen.agreements)) == (2, 2)
    assert len(moderator.overview(party="p1").agreements) == 5
    assert moderator.overview(party="p0").agreements == ()
    for limit in (0, 201, 1.5):
        with pytest.raises(BadValue):
            moderator.overview(limit=limit)  # type: ignore[arg-type]
    with pytest.raises(Unknown):
        moderator.overview(party="nobody")


def test_following_the_journal_shows_what_the_moderator_shows_and_writes_nothing(url: str) -> None:
    moderator, clock = market(SqlStore(url))
    follower = Follower(SqlStore(url), "", 20)
    for _ in range(3):
        awarded(moderator, clock)
        seen, own = follower(), moderator.overview()
        assert (seen.version, seen.sequence) == (own.version, own.sequence)
    name = moderator.announce("rita", asked(clock), TERMS).auction
    clock.advance(1_000_000)
    before = len(list(SqlStore(url).entries()))
    assert [one.auction for one in follower().auctions] == [name]  # it is due, and not for a watcher to close
    assert len(list(SqlStore(url).entries())) == before


def test_watch_once_shows_the_four_tables(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    busy(url)
    assert main(["watch", "--once", "-d", url]) == 0
    told = capsys.readouterr().out
    for words in ("Open auctions (1)", "Awards, and why", "Agreements, and how they end", "Ratings"):
        assert words in told
    console = Console(width=250, file=io.StringIO())
    console.print(draw(Follower(SqlStore(url), "", 20)(), 250))
    wide = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"of p1 won it: it offered 2\.00,.* it is paid 2\.50", wide)
    assert re.search(r"p1; it: leaving, 1\.25; rita: blaming, 1\.25", wide)
    assert re.search(r"p1 +anonymise +1 .*left at half", wide)


def test_watch_as_json_is_the_overview(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    moderator, first, second = busy(url)
    assert main(["watch", "--json", "-d", url]) == 0
    seen = msgspec.json.decode(capsys.readouterr().out, type=Overview)
    own = moderator.overview()
    assert (seen.auctions, seen.awards, seen.agreements) == (own.auctions, own.awards, own.agreements)
    assert {one.agreement for one in seen.agreements} == {first, second}


def test_watching_a_served_market_shows_a_party_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
    from serving import OPERATOR, served

    moderator, clock = market()
    moderator.register("other", "recipient")
    given = moderator.register("p9", "provider").token
    awarded(moderator, clock)
    with served(moderator) as address:
        for token, count in ((OPERATOR, 1), (given, 0)):
            (tmp_path / "token").write_text(token)
            words = ["watch", "--json", "--market", address, "--token-file", str(tmp_path / "token")]
            assert main(words) == 0
            seen = msgspec.json.decode(capsys.readouterr().out, type=Overview)
            assert (len(seen.awards), len(seen.agreements)) == (1, count)
        assert main([*words, "--party", "rita"]) == 1
        assert msgspec.json.decode(capsys.readouterr().out)["error"] == "not_allowed"


def test_in_a_terminal_it_goes_on_until_interrupted(url: str) -> None:
    """On a real pseudo-terminal: what is new appears, and Ctrl-C ends it with status 0."""
    moderator, clock = market(SqlStore(url))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    environment: dict[str, Any] = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "auction", "watch", "-d", url], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    try:
        assert "Open auctions (0)" in read_until(master, "Ratings")
        moderator.announce("rita", asked(clock), TERMS, auction="fresh")
        assert "fresh" in read_until(master, "fresh")
        process.send_signal(signal.SIGINT)
        read_until(master, "")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(master)


def test_an_interrupt_that_gets_lost_ends_it_all_the_same() -> None:
    """As one does that comes while Python runs a finalizer."""
    looks = 0

    def look_again() -> Overview:
        nonlocal looks
        looks += 1
        assert looks == 1, "it goes on"
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise Unknown("nothing to see")

    before = signal.getsignal(signal.SIGINT)
    show_live(look_again, Console(file=io.StringIO(), force_terminal=True))
    assert signal.getsignal(signal.SIGINT) is before


def read_until(terminal: int, words: str, within_s: float = 20) -> str:
    told = ""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and (words not in told or not words):
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            told += os.read(terminal, 65_536).decode(errors="replace")
        except OSError:
            break  # the other side has closed
    return told
