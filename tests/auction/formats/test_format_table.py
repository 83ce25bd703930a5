"""A format is added by a file and a row: an example one is played through a whole market that was never told of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from markets import asked, market
from worlds import announce

import auction
from auction import AuctionTerms, BidEntry, SqlStore
from auction.formats import FORMATS, check_announcement
from auction.formats.format import Bidding, Format
from auction.formats.transcript import verify as verify_transcript
from auction.formats.transcript import verify_own
from auction.model.award import Award, Draw, Standing, Winning, check_bids, conclude
from auction.model.bid import Announcement, Bid, Ratings
from auction.model.errors import BadValue, TooLate, TranscriptWrong
from auction.moderator.invariants import replay, verify, violations

SOURCE = Path(auction.__file__).parent


def third_is_lucky(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Award:
    """The third bid wins at twice the reserve; the market has no such rule."""
    Draw(announcement, seed)
    ordered = check_bids(announcement, bids)
    winners, standings = [], []
    for place, bid in enumerate(ordered, 1):
        standings.append(Standing(bid.bid, bid.bidder, bid.price, 0, -place, "won" if place == 3 else "lost"))
        if place == 3:
            winners.append(Winning(bid=bid.bid, bidder=bid.bidder, price=2 * announcement.reserve))
    return conclude(announcement, seed, winners, standings)


def check_even(announcement: Announcement) -> None:
    if announcement.reserve % 2:
        raise BadValue("the reserve is odd")


def end_at_third(announcement: Announcement, bidding: Bidding, bid: Bid) -> Bidding:
    if bid.price == 13:
        raise BadValue("thirteen")
    return msgspec.structs.replace(bidding, price=bidding.price + 1, ended=bidding.price == 2)


def show_cut(bid: Bid, reader: str, is_over: bool) -> Bid:
    return msgspec.structs.replace(bid, price=0)


def check_third(announcement: Announcement, award: Award, bid: Bid, ratings: Ratings) -> None:
    if award.winners[0].price != 2 * announcement.reserve:
        raise TranscriptWrong("the lucky one gets twice the reserve")


LUCKY = Format(
    decide=third_is_lucky,
    words="the third one is lucky",
    checks=(check_even,),
    price_bound=lambda announcement, quantity, items: 2 * announcement.reserve,
    on_bid=end_at_third,
    shows=show_cut,
    runner_up=lambda winning, bid, standing: standing.offered + 1 if bid.bidder == "p1" else None,
    check_own=check_third,
)


def test_a_format_that_is_added_to_the_table_is_known_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "lucky", LUCKY)
    store = SqlStore(f"sqlite:///{tmp_path}/market.db")
    moderator, clock = market(store, providers=4)
    terms = AuctionTerms(receipts=False, reserve=100, open_for_ms=1_000, format="lucky", fail_over=True)
    with pytest.raises(BadValue, match="odd"):
        moderator.announce("rita", asked(clock), msgspec.structs.replace(terms, reserve=101))
    name = moderator.announce("rita", asked(clock), terms).auction
    with pytest.raises(BadValue, match="thirteen"):
        moderator.bid(name, BidEntry("p3", 13))
    bids = [moderator.bid(name, BidEntry(f"p{number}", 50 - number)) for number in range(3)]
    assert {bid.price for bid in moderator.bids(name, "p3")} == {0}
    with pytest.raises(TooLate):
        moderator.bid(name, BidEntry("p3", 1))
    award = moderator.close(name)
    assert [(one.bidder, one.price) for one in award.winners] == [("p2", 200)]
    (agreement,) = moderator.auction(name).agreements
    assert moderator.stand_bys_of(agreement) == ("p1",)
    transcript = moderator.transcript(name)
    verify_transcript(transcript, award, bids)
    for bid in bids:
        verify_own(transcript, award, bid)
    assert "lucky): the third one is lucky." in moderator.explain(name)
    assert violations(moderator.state) == []
    assert verify(store) == []
    monkeypatch.setitem(FORMATS, "lucky", msgspec.structs.replace(LUCKY, price_bound=lambda *_: 100))
    assert "beyond the reserve of 100" in " ".join(verify(store))
    store.close()


def names_a_format(tree: ast.AST) -> list[int]:
    """The lines in which a format is named as a text: in a comparison about a format, or, where the name is no common
    word, anywhere but as the default of a field `format`."""
    defaults = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "format"
    }
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and re.search(r"\bformat\b", ast.unparse(node)):
            lines += [one.lineno for one in ast.walk(node) if isinstance(one, ast.Constant) and one.value in FORMATS]
        if isinstance(node, ast.Constant) and node not in defaults and node.value in FORMATS and "_" in str(node.value):
            lines.append(node.lineno)
    return lines


def test_nobody_but_the_table_knows_a_format_by_its_name() -> None:
    found = {str(path): names_a_format(ast.parse(path.read_text())) for path in SOURCE.rglob("*.py")}
    del found[str(SOURCE / "formats/__init__.py")]
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert names_a_format(
        ast.parse("if record.format == 'open': pass\nSOME = ('first_price',)\nformat: str = 'dutch'")
    ) == [1, 2]


def test_every_row_has_words_and_an_unknown_name_is_refused() -> None:
    assert all(row.words and row.words[-1] != "." for row in FORMATS.values())
    assert len({row.words for row in FORMATS.values()}) == len(FORMATS)
    with pytest.raises(BadValue, match="there is no format lottery"):
        check_announcement(announce(format="lottery"))


def packages_market(store: SqlStore | None, format: str) -> tuple[auction.Moderator, str]:
    """Two items go at 700 and 800 where the reserve is 900 an item: together more than the reserve of one."""
    moderator, clock = market(store)
    terms = AuctionTerms(receipts=False, reserve=900, open_for_ms=1_000, format=format, items=("up", "down"))
    name = moderator.announce("rita", asked(clock), terms).auction
    moderator.bid(name, BidEntry("p0", 1_500, items=("up", "down")))
    moderator.bid(name, BidEntry("p1", 850, items=("up",)))
    moderator.bid(name, BidEntry("p2", 860, items=("up", "down")[1:]))
    clock.advance(1_000)
    return moderator, name


@pytest.mark.parametrize("format", ["packages", "packages_large"])
def test_an_honest_package_market_is_not_called_broken(tmp_path: Path, format: str) -> None:
    if format == "packages_large":
        pytest.importorskip("highspy", reason="the extra `packages` is not installed")
    store = SqlStore(f"sqlite:///{tmp_path}/market.db")
    moderator, name = packages_market(store, format)
    award = moderator.close(name)
    assert [(one.bidder, one.items) for one in award.winners] == [("p0", ("up", "down"))]
    assert award.winners[0].price > 900
    assert verify(store) == []
    store.close()


def test_an_award_beyond_the_reserve_of_its_items_is_found() -> None:
    moderator, name = packages_market(None, "packages")
    moderator.close(name)
    record = moderator.state.records["auction"][name]
    dear = (msgspec.structs.replace(record.winners[0], price=1_801),)
    moderator.state.records["auction"][name] = msgspec.structs.replace(record, winners=dear)
    assert any("beyond the reserve of 1800" in words for words in violations(moderator.state))


@pytest.mark.parametrize("format", ["second_score", "first_price", "spot", "uniform_price"])
def test_close_answers_the_whole_award_however_the_auction_was_held(format: str) -> None:
    moderator, clock = market()
    entries = [BidEntry("p0", 300), BidEntry("p1", 200), BidEntry("p2", 2_000)]
    terms = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=1_000, format=format)
    name = moderator.hold_auction("rita", asked(clock), terms, entries).auction
    award = moderator.close(name)
    assert len(award.standings) == 3
    assert award == moderator.auction(name).award
    assert award == FORMATS[format].decide(
        moderator.auction(name).announcement,
        moderator.bids(name, "rita"),
        {},
        bytes.fromhex(moderator.auction(name).seed),
    )
    verify_transcript(moderator.transcript(name), award, moderator.bids(name, "rita"))
    again = replay(moderator.store.entries(), moderator.config.rating)
    assert again.records["auction"][name].winners == award.winners


def test_close_answers_the_whole_award_of_a_spot_auction() -> None:
    from auction.model.bid import StandingOffer

    moderator, clock = market()
    for number, price in enumerate((250, 200, 900)):
        offer = StandingOffer(
            offer=f"o{number}",
            provider=f"p{number}",
            service="anonymise",
            unit_price=price,
            currency="EUR",
            quantity=1,
            rate_bps_max=5_000,
            valid_until_ms=clock.now_ms + 60_000,
        )
        moderator.stand_offer(offer)
    # The terms name no format; what comes of it is a spot award all the same, and says so.
    agreement = moderator.spot("rita", asked(clock), AuctionTerms(receipts=False, reserve=260, open_for_ms=50))
    award = moderator.close(agreement.auction)
    assert award == moderator.auction(agreement.auction).award
    assert [one.outcome for one in award.standings] == ["won", "lost", "beyond_reserve"]
    verify_transcript(moderator.transcript(agreement.auction), award, ())
    assert "the standing offer with the best score" in moderator.explain(agreement.auction)


def test_the_solver_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The banner of highspy is printed once a process, by its own C code: so a new process is asked."""
    import subprocess
    import sys

    pytest.importorskip("highspy", reason="the extra `packages` is not installed")
    program = (
        "import sys; sys.path.insert(0, 'tests/auction')\n"
        "from worlds import SEED, announce, bid_of\n"
        "from auction.formats import award\n"
        "bids = [bid_of('p', 50, 0, items=('u',))]\n"
        "print(len(award(announce(format='packages_large', items=('u', 'd')), bids, {}, SEED).winners))\n"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout == "1\n"
