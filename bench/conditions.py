"""The conditions of a measurement: one core, no garbage collection, what else the machine did, which build.

A plugin of pytest that needs the standard library only: conftest.py loads it, and compare.py gives it to either side.
Not here: what is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SEVERAL_PROCESSES = {"bench_disperse.py", "bench_command.py"}  # work in more than one process at once: not on one core
STEAL_MAX = 0.01  # of the machine's time, taken by other virtual machines
OTHERS_MAX = 0.10  # of the machine's time, taken by processes that are not ours
BEGAN = pytest.StashKey["Moment"]()
SEEN = pytest.StashKey[dict[str, float]]()


@dataclass(frozen=True)
class Moment:
    """The machine's clocks at one time, in seconds of all cores together (proc(5)), and its load of the last minute."""

    load: float
    total_s: float
    busy_s: float  # by anybody on this machine
    steal_s: float  # by other machines on the same hardware
    own_s: float  # by this process and the children that it waited for

    @classmethod
    def now(cls) -> Moment:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, idle, waiting, interrupts, soft_interrupts, steal = (
            each / os.sysconf("SC_CLK_TCK") for each in ticks
        )
        busy = user + nice + system + interrupts + soft_interrupts
        return cls(os.getloadavg()[0], busy + idle + waiting + steal, busy, steal, sum(os.times()[:4]))


def between(before: Moment, after: Moment) -> dict[str, float]:
    """Load before and after, and the shares of the machine's time that were stolen and that others had."""
    total_s = max(after.total_s - before.total_s, 1e-9)
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return {
        "load_before": before.load,
        "load_after": after.load,
        "steal": max(0.0, (after.steal_s - before.steal_s) / total_s),
        "others": max(0.0, others_s / total_s),
    }


def told(seen: dict[str, float]) -> list[str]:
    """One line of what was seen, and a warning where it spoils figures."""
    lines = [
        f"load {seen['load_before']:.2f} before, {seen['load_after']:.2f} after; of the machine's time others took "
        f"{seen['others']:.1%}, other machines {seen['steal']:.1%}"
    ]
    if seen["steal"] > STEAL_MAX or seen["others"] > OTHERS_MAX:
        lines.append("WARNING: the machine was not ours alone: trust no difference that a second run does not show")
    return lines


def native_modules(tree: Path) -> dict[str, str]:
    """The SHA-256 of each native module of a tree, shortened, by the module's place in src/."""
    found = sorted((tree / "src").rglob("*.so"))
    return {str(path.relative_to(tree / "src")): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in found}


def build_flags(tree: Path) -> list[str]:
    """The compiler's flags of the tree's native modules, as Cython noted them in the C that it wrote; sorted sets."""
    flags = set()
    for path in (tree / "build" / "cython").rglob("*.c"):
        head = path.read_text(errors="replace")[:20_000]
        start, stop = head.find("{"), head.find("END: Cython Metadata")
        if 0 < start < stop:
            distutils = json.loads(head[start : head.rfind("}", 0, stop) + 1])["distutils"]
            macros = [f"-D{name}={value}" for name, value in distutils.get("define_macros", [])]
            flags.add(" ".join([*distutils.get("extra_compile_args", []), *macros]))
    return sorted(flags)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "peer: times another program; older revisions do not know it")
    config.stash[BEGAN] = Moment.now()
    config.option.benchmark_disable_gc = True


@pytest.fixture(autouse=True)
def one_core(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps a benchmark of one process on one core, the last that it may use."""
    allowed = os.sched_getaffinity(0)
    name = request.path.name
    if name.startswith("bench_") and name not in SEVERAL_PROCESSES:
        os.sched_setaffinity(0, {max(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["native_modules"] = native_modules(config.rootpath)
    machine_info["build_flags"] = build_flags(config.rootpath)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["conditions"] = between(config.stash[BEGAN], Moment.now())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.option.benchmark_disable:
        terminalreporter.section("conditions")
        for line in told(between(config.stash[BEGAN], Moment.now())):
            terminalreporter.line(line)
