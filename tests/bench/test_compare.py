"""`make compare` sees a planted slowdown, passes what did not change, and says in one line what it cannot do."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SLOWER = """

_plain = lower_ppm


def lower_ppm(*arguments):
    for _ in range(9):
        _plain(*arguments)
    return _plain(*arguments)
"""
# A threshold that this machine's noise does not reach: the slowdown is tenfold.
FEW = ["-k", "rating_lower_bound or spot_award"]
FEW += ["--turns", "2", "--seconds", "0.05", "--again", "0", "--threshold", "100"]


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as it stands, in a repository of its own, with its native modules, and with few benchmarks: each run of
    pytest imports all that there are."""
    copy = tmp_path_factory.mktemp("throwaway") / "tree"
    few = {"bench_auction_rules.py", "bench_command.py"}
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        kept = not Path(name).match("bench/bench_*.py") or Path(name).name in few
        if name and kept and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it stands"]):
        subprocess.run([*git, *words], cwd=copy, check=True)
    for module in (ROOT / "src").rglob("*.so"):
        shutil.copy(module, copy / module.relative_to(ROOT))
    return copy


def compare(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "bench/compare.py", *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(600)  # six runs of pytest, on a machine that may be busy
def test_a_planted_slowdown_is_seen_and_what_did_not_change_is_not(copy: Path) -> None:
    with open(copy / "src/auction/model/rating.py", "a") as module:
        module.write(SLOWER)
    slower = compare(copy, "HEAD", *FEW)
    assert slower.returncode == 1, slower.stdout + slower.stderr
    (line,) = [line for line in slower.stdout.splitlines() if line.endswith("SLOWER")]
    assert "test_rating_lower_bound" in line
    assert 5 < float(line.split()[4]) < 20  # before, its unit, after, its unit, ratio
    assert any("test_spot_award_among_100" in line for line in slower.stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nosuch"], "compare: there is no revision nosuch"),
        ([], "the following arguments are required: BASE"),
        (["HEAD", "--turns", "1"], "--turns: from 2"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_status_2(copy: Path, words: list[str], complaint: str) -> None:
    done = compare(copy, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_an_expression_that_is_none_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare
    from sides import Side

    monkeypatch.setattr(compare.signal, "signal", lambda *_: None)  # this process keeps its own
    monkeypatch.setattr(Side, "build", lambda *_: None)
    assert compare.main(["HEAD", "-k", "not (", "--turns", "2"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("compare: ")
    assert "Wrong expression passed to '-k'" in last


def test_an_expression_that_matches_nothing_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare
    from sides import Side, Turn

    monkeypatch.setattr(compare.signal, "signal", lambda *_: None)  # this process keeps its own
    monkeypatch.setattr(Side, "build", lambda *_: None)
    monkeypatch.setattr(Side, "turn", lambda *_: Turn())
    assert compare.main(["HEAD", "-k", "nosuch", "--turns", "2"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "compare: no benchmark matches nosuch"


def test_the_status_is_1_for_what_became_slower_or_broke_and_else_0() -> None:
    import compare
    from sides import Turn

    def status(before: Turn, after: Turn) -> int:
        comparison = compare.Comparison()
        comparison.add(before, after)
        return compare.status(comparison, 0.03)

    assert status(Turn({"one": 1.0}), Turn({"one": 1.0})) == 0
    assert status(Turn({"one": 1.0}), Turn({"one": 1.2})) == 1
    assert status(Turn({"one": 1.2}), Turn({"one": 1.0})) == 0
    assert status(Turn({"one": 1.0}), Turn(failed={"one": "assert 1 == 2"})) == 1
    assert status(Turn(failed={"one": "always"}), Turn(failed={"one": "always"})) == 0


def test_what_counts_as_slower() -> None:
    import compare

    def row(before: list[float], after: list[float], packets: tuple[int, int] = (0, 0)) -> compare.Row:
        return compare.Row("some", before, after, packets)

    assert row([10.0, 10.1, 10.2], [11.0, 11.1, 11.2]).slower(0.03)
    assert not row([10.0, 10.1, 10.2], [10.2, 10.1, 10.2]).slower(0.03)  # within the threshold
    assert not row([10.0, 12.0, 12.5], [11.0, 11.1, 11.2]).slower(0.03)  # the same code differs as much from itself
    assert not row([10.0, 10.1, 10.2], [9.0, 9.1, 9.2]).slower(0.03)
    other_rounds = row([10.0, 10.1], [1.2, 1.2], (1000, 100))
    assert other_rounds.ratio == pytest.approx(1.2)  # by packet
    assert not other_rounds.slower(0.03)


class Played:
    """A side that answers from a list of the times of `spoilt`; `true` always takes the same."""

    asked: list[tuple[Played, list[str]]]

    def __init__(self, spoilt_s: list[float], true_s: float, asked: list[tuple[Played, list[str]]]) -> None:
        self.spoilt_s, self.true_s, self.asked = iter(spoilt_s), true_s, asked

    def turn(self, expression: str, seconds: float, only: list[str]) -> Any:
        from sides import Turn

        self.asked.append((self, only))
        names = only or ["spoilt", "true"]
        return Turn({name: next(self.spoilt_s) if name == "spoilt" else self.true_s for name in names})


SPOILT_S, GOOD_S = [1.5, 1.5, 1.01, 1.0], [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("before_s", "after_s"), [(GOOD_S, SPOILT_S), (SPOILT_S, GOOD_S)])
def test_what_differs_is_measured_again_and_all_turns_count(before_s: list[float], after_s: list[float]) -> None:
    import compare

    asked: list[tuple[Played, list[str]]] = []
    before, after = Played(before_s, 1.0, asked), Played(after_s, 1.5, asked)
    flags = argparse.Namespace(turns=2, again=2, expression="", seconds=0.1, threshold=0.03)
    comparison = compare.measured((before, after), flags, lambda what: None)  # type: ignore[arg-type]
    assert [side for side, _ in asked] == [before, after, after, before] * 2
    assert [only for side, only in asked if side is after][2:] == [["spoilt", "true"]] * 2
    assert comparison.rows["true"].slower(0.03)
    assert not comparison.rows["spoilt"].differs
    assert (comparison.rows["spoilt"].before_s, comparison.rows["spoilt"].after_s) == (before_s, after_s)


def test_what_differs_in_every_turn_twice_over_is_certain_and_not_measured_again() -> None:
    import compare

    flags = argparse.Namespace(turns=2, threshold=0.03)
    certain = compare.Row("certain", [1.0, 1.1, 1.0, 1.1], [1.2, 1.3, 1.2, 1.3])
    seen_once = compare.Row("seen once", [1.0, 1.1], [1.2, 1.3])
    overlapping = compare.Row("overlapping", [1.0, 1.1, 1.0, 1.25], [1.2, 1.3, 1.2, 1.3])
    same = compare.Row("the same", [1.0, 1.1, 1.0, 1.1], [1.0, 1.1, 1.0, 1.1])
    rows = (certain, seen_once, overlapping, same)
    assert [row.name for row in rows if compare.is_doubtful(row, flags)] == ["seen once", "overlapping"]


def test_benchmarks_of_other_programs_are_left_out() -> None:
    listed = [sys.executable, "-m", "pytest", "bench/bench_auction_rules.py", "--collect-only", "-q", "-m", "not peer"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "test_sealed_award[" in names
    assert "auctionsi" not in names


def test_a_revision_from_before_the_marker_of_other_programs_can_be_compared(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "test_one.py").write_text("def test_one(benchmark): benchmark(int)\n")
    plugins = ["-p", "conditions", "-p", "pytest_benchmark.plugin"]
    words = [sys.executable, "-m", "pytest", "-q", *plugins, "-m", "not peer"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "bench"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_what_only_one_side_has_or_skips_or_fails_is_named() -> None:
    import compare
    from sides import Turn

    comparison = compare.Comparison()
    before = Turn({"both": 1.0, "old": 1.0}, {}, {"shy": "no root"}, {"weak": "always"})
    after = Turn({"both": 1.0, "new": 1.0}, {}, {"shy": "no root"}, {"weak": "always", "fresh": "assert 1 == 2"})
    comparison.add(before, after)
    lines = compare.table(comparison, 0.03)
    for told in ("only before: old", "only now: new", "skipped now: shy: no root", "failed now: fresh: assert 1 == 2"):
        assert told in lines
    assert list(comparison.rows) == ["both"]
    assert comparison.broken() == {"fresh": "assert 1 == 2"}
