"""Bugs planted one at a time in a copy of the rule files: the tests of that rule must fail for each.

Every bug is one replaced piece of text, which must stand in the file exactly once. The tests run in a process of their
own on the copy, with the profile `planted` of conftest.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import auction

PACKAGE = Path(auction.__file__).parent
TESTS = Path(__file__).parents[1]


class Bug(NamedTuple):
    """What is planted where, and the tests that must find it: a file, or one of its tests."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


BUGS = [
    Bug(
        "the reserve does not bound the price",
        "formats/scored.py",
        "max(signed, ranked[1][0] - ranked[0][1])",
        "ranked[1][0] - ranked[0][1]",
        "formats/test_scored.py::test_second_score_pays_the_worst_price_that_still_wins",
    ),
    Bug(
        "the second's price instead of its score",
        "formats/scored.py",
        "ranked[1][0] - ranked[0][1]",
        "ranked[1][0] - ranked[1][1]",
        "formats/test_scored.py::test_second_score_pays_the_worst_price_that_still_wins",
    ),
    Bug(
        "the reserve itself is beyond the reserve",
        "formats/scored.py",
        "if signed >= bound else",
        "if signed > bound else",
        "formats/test_scored.py::test_winner_is_the_best_score_within_the_reserve",
    ),
    Bug("the worst score wins", "formats/scored.py", ", reverse=True)", ")", "formats/test_reference.py"),
    Bug(
        "a loser is told a price that may lose",
        "formats/scored.py",
        "rival[0] - value + 1",
        "rival[0] - value - 1",
        "formats/test_scored.py::test_needed_would_have_won_for_sure",
    ),
    Bug(
        "the draw forgets the seed",
        "model/award.py",
        "sha256(self._prefix + bid.encode())",
        "sha256(bid.encode())",
        "formats/test_scored.py::test_ties_go_by_the_seed_and_not_by_who_came_first",
    ),
    Bug(
        "the first bid of a bidder counts",
        "model/award.py",
        "{bid.bidder: bid for bid in ordered}",
        "{bid.bidder: bid for bid in reversed(list(ordered))}",
        "formats/test_reference.py",
    ),
    Bug(
        "other currencies are taken",
        "model/award.py",
        "if bid.currency != currency:",
        "if False:",
        "formats/test_scored.py::test_bids_that_do_not_belong_are_refused",
    ),
    Bug(
        "the mean ranks",
        "model/bid.py",
        "weights.opinion * rating.lower_ppm",
        "weights.opinion * rating.mean_ppm",
        "model/test_bid.py",
    ),
    Bug(
        "the commitment forgets the salt",
        "model/bid.py",
        "bid.limit, bid.salt)",
        "bid.limit)",
        "model/test_bid.py",
    ),
    Bug(
        "True is an amount",
        "model/money.py",
        "    if type(value) is not int:\n        raise BadAmount",
        "    if not isinstance(value, int):\n        raise BadAmount",
        "model/test_money.py",
    ),
    Bug(
        "the remainder goes to the smallest rests",
        "model/money.py",
        "(-(total * weights[i] % weight_sum), i)",
        "(total * weights[i] % weight_sum, i)",
        "model/test_money.py",
    ),
    Bug(
        "a part that lost sets no uniform price",
        "formats/uniform_price.py",
        "units < row[2].quantity",
        "units == 0",
        "formats/test_uniform_price.py",
    ),
    Bug(
        "units are served twice",
        "formats/uniform_price.py",
        "left -= units",
        "left -= 1",
        "formats/test_uniform_price.py",
    ),
    Bug(
        "an equal limit takes the lead",
        "formats/open_bidding.py",
        "if limit > leaders_limit:",
        "if limit >= leaders_limit:",
        "formats/test_open_bidding.py",
    ),
    Bug(
        "the proxy bids past its limit",
        "formats/open_bidding.py",
        "min(limit, max(leaders_limit + increment, offered))",
        "max(leaders_limit + increment, offered)",
        "formats/test_open_bidding.py",
    ),
    Bug(
        "a bid at the close is in time",
        "formats/open_bidding.py",
        "if bid.placed_ms >= state.closes_ms:",
        "if bid.placed_ms > state.closes_ms:",
        "formats/test_open_bidding.py::test_soft_close_moves_a_stated_number_of_times",
    ),
    Bug(
        "the ramp does not wait for its step",
        "formats/dutch.py",
        "// ramp.step_ms * ramp.step",
        "* ramp.step // ramp.step_ms",
        "formats/test_dutch.py",
    ),
    Bug(
        "an offer that is over is taken",
        "formats/spot.py",
        "offer.valid_until_ms > now_ms",
        "offer.valid_until_ms >= now_ms",
        "formats/test_spot.py::test_every_misfit_is_refused_with_its_reason",
    ),
    Bug(
        "an item is given twice",
        "formats/packages.py",
        "old[with_it ^ package.mask] + package.rank",
        "old[with_it] + package.rank",
        "formats/test_packages.py",
    ),
    Bug(
        "VCG looks at the wrong items of the others",
        "formats/packages.py",
        "others_before + others_after[::-1]",
        "others_before + others_after",
        "formats/test_packages.py",
    ),
    Bug(
        "another bid than the committed one is revealed",
        "formats/commit_reveal.py",
        "if commitment(bid) != handed_in.commitment:",
        "if False:",
        "formats/test_commit_reveal.py",
    ),
    Bug(
        "the transcript may leave bids out",
        "formats/transcript.py",
        "if entries != transcript.entries:",
        "if False:",
        "formats/test_transcript.py",
    ),
    Bug(
        "a full share is still paid for",
        "groups/sharing.py",
        "        left -= limits[i]\n",
        "",
        "groups/test_sharing.py",
    ),
    Bug(
        "unused guarantees are not lent",
        "groups/sharing.py",
        "first = [min(share.guaranteed, limit) for",
        "first = [share.guaranteed for",
        "groups/test_sharing.py::test_recipients_get_guarantees_first_and_never_more_than_the_block",
    ),
    Bug(
        "who bids just its share leaves",
        "groups/sponsorship.py",
        "if bids[member] < share",
        "if bids[member] <= share",
        "groups/test_sponsorship.py",
    ),
    Bug(
        "pledges that just suffice are refunded",
        "groups/sponsorship.py",
        "sum(held.values()) >= target",
        "sum(held.values()) > target",
        "groups/test_sponsorship.py::test_pledges_are_all_or_nothing_and_every_unit_comes_back_or_counts",
    ),
    Bug(
        "a friend's weight is not bounded",
        "model/rating.py",
        "if known + weight > limit:",
        "if False:",
        "model/test_rating.py::test_weight_of_a_counterparty_is_bounded",
    ),
    Bug(
        "opinions show a millisecond late",
        "model/rating.py",
        "both or now_ms >= self.finished_ms",
        "both or now_ms > self.finished_ms",
        "model/test_rating.py::test_opinions_stay_hidden_until_both_are_in_or_14_days_have_passed",
    ),
    Bug(
        "the bound is the upper one",
        "model/rating.py",
        "z_squared // 2 - root)",
        "z_squared // 2 + root)",
        "model/test_rating.py::test_bound_is_below_the_mean_and_moves_the_right_way",
    ),
    Bug(
        "the idle are blamed",
        "model/delivery.py",
        "owed = min(sample.asked_bits, promise.rate_min_bps *",
        "owed = max(0, promise.rate_min_bps *",
        "model/test_delivery.py",
    ),
    Bug(
        "an expired offer can be accepted",
        "groups/negotiation.py",
        "now_ms >= self.offers[-1].expires_ms",
        "now_ms > self.offers[-1].expires_ms",
        "groups/test_negotiation.py",
    ),
    Bug(
        "small payments are lost",
        "model/circles.py",
        "if payer != payee and amount:",
        "if payer != payee and amount > 1:",
        "model/test_rating.py::test_circles_are_gone_and_balances_stay",
    ),
]


def run_tests(package_parent: Path, test: str) -> subprocess.CompletedProcess[str]:
    """The tests of one file, on the package in that folder."""
    environment = os.environ | {"PYTHONPATH": str(package_parent), "AUCTION_TEST_PROFILE": "planted"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        str(TESTS / test),
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def copy_package(folder: Path) -> Path:
    """A copy of the package, with what is compiled already: to compile it takes longer than many a test."""
    shutil.copytree(PACKAGE, folder / "auction")
    return folder / "auction"


def rewrite(file: Path, text: str) -> None:
    """A new text, of which no older compilation may be taken for it."""
    file.write_text(text)
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_found(bug: Bug, tmp_path: Path) -> None:
    copy = copy_package(tmp_path) / bug.file
    text = copy.read_text()
    assert text.count(bug.right) == 1, "the bug must be planted at one place"
    rewrite(copy, text.replace(bug.right, bug.wrong))
    result = run_tests(tmp_path, bug.test)
    # 1: tests ran and failed. Anything else (no test found, an import that breaks) would find nothing.
    assert result.returncode == 1, result.stdout + result.stderr
    assert " failed" in result.stdout
    assert "error" not in result.stdout.splitlines()[-1]


def test_the_copy_without_a_bug_passes_and_is_what_is_tested(tmp_path: Path) -> None:
    copy = copy_package(tmp_path)
    assert run_tests(tmp_path, "model/test_money.py").returncode == 0
    rewrite(copy / "model/money.py", "raise SystemExit('the copy is imported')\n")
    assert "the copy is imported" in (found := run_tests(tmp_path, "model/test_money.py")).stdout + found.stderr
