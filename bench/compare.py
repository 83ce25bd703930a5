"""Sets the benchmarks of this tree beside those of another revision, in turn, and says what became slower.

    make compare BASE=main K=segment        # or: .venv/bin/python bench/compare.py main -k segment

Exit status: 0, nothing is slower; 1, something is, beyond the threshold and its own noise, or fails that did not; 2,
the two cannot be compared. Lives here: turns, ratios and the table. Not here: building and running a side (sides.py).
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import conditions
from sides import BENCH, COMMANDS, CannotCompare, Side, Turn, check_out, git, prepare

ROOT = BENCH.parent
SEEN_RATIO = 1.05  # for the closing count of what differs
TMPFS = Path("/dev/shm")


@dataclass
class Row:
    """One benchmark: the best round of every turn of either side, in seconds, and the packets of a round."""

    name: str
    before_s: list[float] = field(default_factory=list)
    after_s: list[float] = field(default_factory=list)
    packets: tuple[int, int] = (0, 0)

    @property
    def same_rounds(self) -> bool:
        return self.packets[0] == self.packets[1]

    @property
    def best_s(self) -> tuple[float, float]:
        """The best of all turns, of a round; or of a packet, where the rounds are not of the same packets."""
        divisors = (1, 1) if self.same_rounds or 0 in self.packets else self.packets
        return min(self.before_s) / divisors[0], min(self.after_s) / divisors[1]

    @property
    def ratio(self) -> float:
        before_s, after_s = self.best_s
        return after_s / before_s

    @property
    def noise(self) -> float:
        return max(noise(self.before_s), noise(self.after_s))

    @property
    def differs(self) -> bool:
        return self.same_rounds and not 1 / SEEN_RATIO <= self.ratio <= SEEN_RATIO

    def slower(self, threshold: float) -> bool:
        return self.same_rounds and self.ratio > 1 + threshold and self.ratio > self.noise

    @property
    def plain(self) -> bool:
        """Whether every turn of one side took longer than every turn of the other."""
        return max(self.before_s) < min(self.after_s) or max(self.after_s) < min(self.before_s)


def noise(turns_s: list[float]) -> float:
    """The middle of a side's turns by its best: how far the same code is from itself. 1.0 is none."""
    return statistics.median(turns_s) / min(turns_s)


class Comparison:
    """All rows and what did not run, over as many turns as were taken."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.turns: tuple[list[Turn], list[Turn]] = ([], [])

    def add(self, before: Turn, after: Turn) -> None:
        self.turns[0].append(before)
        self.turns[1].append(after)
        for name in after.best_s:
            if name in before.best_s:
                row = self.rows.setdefault(name, Row(name))
                row.before_s.append(before.best_s[name])
                row.after_s.append(after.best_s[name])
                row.packets = (before.packets.get(name, 0), after.packets.get(name, 0))

    def told(self, side: int, kind: str) -> dict[str, Any]:
        """All that the turns of a side told of a kind, by name."""
        merged: dict[str, Any] = {}
        for turn in self.turns[side]:
            merged |= getattr(turn, kind)
        return merged

    def known(self, side: int) -> set[str]:
        return set().union(*(self.told(side, kind) for kind in ("best_s", "skipped", "failed")))

    def broken(self) -> dict[str, str]:
        """What fails now and did not before."""
        before = self.told(0, "failed")
        return {name: why for name, why in self.told(1, "failed").items() if name not in before}


def measured(sides: tuple[Side, Side], flags: argparse.Namespace, note: Callable[[str], None]) -> Comparison:
    """A B, B A, A B, …, then again what differs; every turn counts.

    The machine is slower for seconds to minutes at a time, so what differs may only have met such a time on one side;
    and neither side is always the second one. What differs in every turn, and did so again, needs no more turns."""
    comparison = Comparison()

    def turn(number: int, only: list[str]) -> None:
        order = sides if number % 2 else sides[::-1]
        one, other = (side.turn(flags.expression, flags.seconds, only) for side in order)
        comparison.add(*((one, other) if order is sides else (other, one)))

    def turns(only: list[str], what: str, first: int = 1) -> None:
        for number in range(first, flags.turns + 1):
            note(f"{what}: turn {number} of {flags.turns}")
            turn(number, only)

    note(f"all: turn 1 of {flags.turns}")
    turn(1, [])
    if comparison.rows:
        turns(list(comparison.rows), f"{len(comparison.rows)} that both have", 2)
    for _ in range(flags.again):
        suspects = [row.name for row in comparison.rows.values() if is_doubtful(row, flags)]
        if not suspects:
            break
        turns(suspects, f"{len(suspects)} that differ")
    return comparison


def is_doubtful(row: Row, flags: argparse.Namespace) -> bool:
    """Whether a row differs, but not for certain."""
    certain = row.plain and len(row.before_s) >= 2 * flags.turns
    return (row.differs or row.slower(flags.threshold)) and not certain


def in_units(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3f} {unit}"
    return f"{seconds * 1e9:.2f} ns"


def table(comparison: Comparison, threshold: float) -> list[str]:
    """The rows, whole commands first, and below them everything that has none."""
    lines = [f"{'before':>12} {'after':>12} {'ratio':>6} {'noise':>6} {'noise':>6}"]
    for row in sorted(comparison.rows.values(), key=lambda row: not row.name.startswith(COMMANDS)):
        verdict = (
            "  SLOWER" if row.slower(threshold) else "" if row.same_rounds else "  by packet: other rounds, not judged"
        )
        before_s, after_s = map(in_units, row.best_s)
        noises = f"{noise(row.before_s):6.3f} {noise(row.after_s):6.3f}"
        lines.append(f"{before_s:>12} {after_s:>12} {row.ratio:6.3f} {noises}  {row.name}{verdict}")
    known = comparison.known(0), comparison.known(1)
    lines += [f"only before: {name}" for name in sorted(known[0] - known[1])]
    lines += [f"only now: {name}" for name in sorted(known[1] - known[0])]
    for side, when in enumerate(("before", "now")):
        lines += [f"skipped {when}: {name}: {why}" for name, why in comparison.told(side, "skipped").items()]
        lines += [f"failed {when}: {name}: {why}" for name, why in comparison.told(side, "failed").items()]
    return lines


def summary(comparison: Comparison, threshold: float) -> list[str]:
    rows = [row for row in comparison.rows.values() if row.same_rounds]
    differ = [row for row in rows if row.differs]
    slower = [row for row in rows if row.slower(threshold)]
    return [
        f"{len(differ)} of {len(rows)} differ by more than {SEEN_RATIO - 1:.0%}",
        f"{len(slower)} of {len(rows)} are slower by more than {threshold:.1%} and their noise",
        *(f"  {row.name}: {row.ratio:.3f}" for row in slower),
    ]


def status(comparison: Comparison, threshold: float) -> int:
    """The exit status of a comparison that was made."""
    slower = any(row.slower(threshold) for row in comparison.rows.values())
    return 1 if slower or comparison.broken() else 0


def described(sides: tuple[Side, Side]) -> list[str]:
    """What is compared: the trees, their native modules and how those were built."""
    modules = [conditions.native_modules(side.tree) for side in sides]
    same = len(set(modules[0].values()) & set(modules[1].values()))
    counts = f"native modules {len(modules[0])} and {len(modules[1])}, the same {same}"
    lines = [f"before: {sides[0].name}; after: {sides[1].name}; {counts}"]
    flags = [conditions.build_flags(side.tree) for side in sides]
    if flags[0] and flags[0] != flags[1]:
        lines += [f"WARNING: built otherwise: {', '.join(flags[0])} before, {', '.join(flags[1])} now"]
    return lines


def compare(flags: argparse.Namespace) -> int:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        captures = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="compare-", dir=TMPFS if TMPFS.is_dir() else None)
        )
        prepare(place)
        (place / "captures").symlink_to(captures)
        base = check_out(ROOT, flags.base, place / "before")
        changed = ", changed" if git(ROOT, "status", "--porcelain") else ""
        after = Side(f"this tree ({git(ROOT, 'rev-parse', 'HEAD')[:10]}{changed})", ROOT, place)
        before = Side(f"{flags.base} ({base})", place / "before", place)
        note("building both")
        after.build()
        before.build(after)
        print("\n".join(described((before, after))), flush=True)
        began = conditions.Moment.now()
        comparison = measured((before, after), flags, note)
        if not comparison.known(0) | comparison.known(1):
            raise CannotCompare(f"no benchmark matches {flags.expression}")
        print("\n".join(table(comparison, flags.threshold)))
        print("\n".join(conditions.told(conditions.between(began, conditions.Moment.now()))))
        print("\n".join(summary(comparison, flags.threshold)))
        return status(comparison, flags.threshold)


def note(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the benchmarks of this tree with those of another revision.")
    parser.add_argument("base", metavar="BASE", help="a revision of this repository")
    parser.add_argument("-k", dest="expression", default="", metavar="EXPRESSION", help="only these, as pytest's -k")
    parser.add_argument("--turns", type=int, default=5, help="of each side (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.1, help="for a benchmark in one turn (default: 0.1)")
    parser.add_argument("--again", type=int, default=4, help="times that what differs is measured again (default: 4)")
    parser.add_argument("--threshold", type=float, default=3.0, metavar="PERCENT", help="default: 3")
    flags = parser.parse_args(arguments)
    if flags.turns < 2 or flags.again < 0 or not 0 < flags.seconds <= 60 or not 0 <= flags.threshold <= 1000:
        parser.error("--turns: from 2; --again: from 0; --seconds: above 0, to 60; --threshold: 0 to 1000")
    flags.threshold /= 100
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return compare(flags)
    except CannotCompare as error:
        note(f"compare: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
