"""The two revisions that compare.py compares: where each lies, its native modules, and one turn of its benchmarks.

Both share this Python and its packages; only PYTHONPATH says whose code runs. Not here: what is made of the figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import conditions

BENCH = Path(__file__).resolve().parent
COMMANDS = "bench_command.py"  # ours for both sides: it names only what users may
WHOLE = ("bench_command.py", "captures.py", "conditions.py", "conftest.py")
TURN_S_MAX = 1800


class CannotCompare(Exception):
    """In one line, why there is nothing to compare; the exit status is 2."""


@dataclass
class Turn:
    """One run of a side's benchmarks, by name: the best round in seconds, its packets, and what did not run."""

    best_s: dict[str, float] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """A tree whose code is measured. `place` is a directory for what measuring needs, shared by both sides."""

    name: str
    tree: Path
    place: Path

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STREAMCORE_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)  # imports are measured as users have them
        path = os.pathsep.join([str(self.tree / "src"), str(self.place / "plugin")])
        return kept | {
            "PYTHONPATH": path,
            "PYTHONHASHSEED": "0",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "BENCH_CAPTURES": str(self.place / "captures"),
            "BENCH_COMMAND_ROUNDS": "3",
        }

    def run(self, words: list[str], what: str, **more: str) -> None:
        environment = self.environment() | more
        done = subprocess.run(
            [sys.executable, *words], cwd=self.tree, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
            raise CannotCompare(f"{self.name}: {what} failed: {last}")

    def build(self, other: Side | None = None) -> None:
        """Its native modules in place: those of the other side where all native sources are the same."""
        if other is not None and native_sources(self.tree) == native_sources(other.tree):
            for path in (other.tree / "src").rglob("*.so"):
                shutil.copy2(path, self.tree / path.relative_to(other.tree))
        elif not built(self.tree):
            self.run(["setup.py", "-q", "build_ext", "--inplace"], "building")
        if any("STREAMCORE_DEBUG=1" in flags for flags in conditions.build_flags(self.tree)):
            raise CannotCompare(f"{self.name} was built with bounds checks: make build")
        # What its entry points are called: other than those of the installed packages, after a move of modules.
        self.run(["setup.py", "-q", "egg_info"], "naming its entry points", STREAMCORE_NATIVE="0")
        self.check()

    def check(self) -> None:
        """That this side's code is what runs, and not what is installed."""
        program = "import auction, streamcore; print(auction.__file__, streamcore.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.tree, env=self.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise CannotCompare(f"{self.name} cannot be imported: {done.stderr.strip().splitlines()[-1]}")
        for file in done.stdout.split():
            if not Path(file).is_relative_to(self.tree / "src"):
                raise CannotCompare(f"{self.name}: {file} would run, which is not of its tree")

    def turn(self, expression: str, seconds: float, only: list[str]) -> Turn:
        """Runs its benchmarks once, those named in `only` if any: first the stages, then whole commands."""
        found = Turn()
        stages = [name for name in only if not name.startswith(COMMANDS)]
        commands = [name for name in only if name.startswith(COMMANDS)]
        if stages or not only:
            targets = stages or ["bench", f"--ignore=bench/{COMMANDS}"]
            self._pytest(self.tree, targets, expression, seconds, found)
        if commands or not only:
            self._pytest(self.place / "whole", commands or [COMMANDS], expression, seconds, found)
        return found

    def _pytest(self, folder: Path, targets: list[str], expression: str, seconds: float, found: Turn) -> None:
        figures, report = self.place / "figures.json", self.place / "report.xml"
        for path in (figures, report):
            path.unlink(missing_ok=True)
        words = [sys.executable, "-m", "pytest", *targets, "-q", "-p", "conditions", "-p", "no:cacheprovider"]
        words += ["-p", "pytest_benchmark.plugin"]  # and no other that is installed
        words += ["--benchmark-only", f"--benchmark-json={figures}", f"--junitxml={report}"]
        words += [f"--benchmark-max-time={seconds}", "--benchmark-min-rounds=5", "-k", expression, "-m", "not peer"]
        done = subprocess.run(
            words, cwd=folder, env=self.environment(), capture_output=True, text=True, timeout=TURN_S_MAX, check=False
        )
        if done.returncode not in (0, 1, 5) or not report.exists():  # 1: a benchmark failed, 5: the expression has none
            last = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
            raise CannotCompare(f"{self.name}: pytest ended with {done.returncode}: {last}")
        if figures.exists() and figures.stat().st_size:
            for one in json.loads(figures.read_text())["benchmarks"]:
                found.best_s[one["fullname"]] = one["stats"]["min"]
                if packets := one["extra_info"].get("packets"):
                    found.packets[one["fullname"]] = packets
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            for kind, into in (("skipped", found.skipped), ("failure", found.failed), ("error", found.failed)):
                if (told := case.find(kind)) is not None:
                    into[name] = (told.get("message") or "").splitlines()[0] if told.get("message") else "no reason"
                    found.best_s.pop(name, None)


def sources_of(tree: Path) -> list[Path]:
    """Everything that the native modules are made of."""
    return sorted(path for path in (tree / "src").rglob("*") if path.suffix in (".pyx", ".pxd", ".h"))


def built(tree: Path) -> bool:
    """Whether every native module is there and newer than all sources, which is `make build`'s rule too. A module whose
    source is gone is left from an earlier revision, and says nothing."""
    modules = {
        path.with_name(path.name.split(".")[0] + ".pyx"): path.stat().st_mtime for path in (tree / "src").rglob("*.so")
    }
    sources = sources_of(tree)
    newest = max((path.stat().st_mtime for path in [tree / "setup.py", *sources]), default=0.0)
    return all(modules.get(path, 0.0) >= newest for path in sources if path.suffix == ".pyx")


def native_sources(tree: Path) -> str:
    """One digest of all of them, and of how they are built."""
    digest = hashlib.sha256()
    for path in [tree / "setup.py", *sources_of(tree)]:
        digest.update(f"{path.relative_to(tree)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCompare(f"git {words[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout.strip()


def check_out(root: Path, revision: str, tree: Path) -> str:
    """Lays the files of a revision into `tree`, with nothing noted in the repository; returns its short name."""
    try:
        commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except CannotCompare:
        raise CannotCompare(f"there is no revision {revision}") from None
    archive = tree.with_suffix(".tar")
    git(root, "archive", "--output", str(archive), commit)
    with tarfile.open(archive) as packed:
        packed.extractall(tree, filter="data")
    archive.unlink()
    return commit[:10]


def prepare(place: Path) -> None:
    """What both sides use: a place for captures, the plugin, and the benchmarks of whole commands."""
    for folder in ("plugin", "whole"):
        (place / folder).mkdir()
    shutil.copy2(BENCH / "conditions.py", place / "plugin")
    for name in WHOLE:
        shutil.copy2(BENCH / name, place / "whole")
    (place / "whole" / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
