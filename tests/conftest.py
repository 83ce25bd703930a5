"""How the suite is spread over the cores, and how much of it is played.

A file at a time, because its tests share what they set up; files that wait (WAITING) beside files that work, slow ones
before others, so that none is left for the end. Files whose tests are many, long and independent of each other go test
by test.

With --all every seed and every kill is played, every example drawn, and every capture read under every policy; without
it the first few of the same seeds, kills and examples (PLAYED), each capture under one policy, and of long lists of
cases each so-manieth (`some`).

Commands that tests start are forked from a prepared process (forking.py), except in tests marked `new_processes`.
"""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests import forking
from tests.examples import examples

# How many are played: the variable that says so, how many without --all, how many with it. What a caller sets stands.
PLAYED = {
    "AUCTION_SEEDS": (1_000, 10_000),
    "AUCTION_KILLS": (40, 200),
    "COALITION_SEEDS": (60, 1_000),
    "DISPERSE_SCHEDULES": (1_000, 10_000),
    "STREAMCORE_SEEDS": (4, 20),
    "STREAMCORE_KILLS": (12, 50),
    "EXAMPLES_PERCENT": (30, 100),  # of the examples that a property-based test draws
}

# Where temporary files lie, if there is so much room and the caller has set no TMPDIR: databases and captures then wait
# for no disk, and what a process wrote that is killed stays there as it would on one.
IN_MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 << 30

TEST_BY_TEST = {
    "tests/auction/market/test_planted_bugs.py",
    "tests/auction/market/test_simulation.py",
    "tests/streamcore/whole/test_corpus_run.py",
}
# Files that mostly wait, for other processes or for time: the longest first. As many of them run at a time as there are
# more processes than cores, so that the cores always have work.
WAITING = [
    "tests/streamcore/whole/test_kills.py",
    "tests/streamcore/whole/test_faults.py",
    "tests/test_readme.py",
    "tests/streamcore/subcontract/test_market.py",
    "tests/streamcore/source/test_live.py",
    "tests/streamcore/disperse/test_remote.py",
    "tests/streamcore/sink/test_live.py",
    "tests/streamcore/whole/test_circle.py",
    "tests/streamcore/command/test_cli.py",
    "tests/auction/web/test_serve.py",
    "tests/streamcore/subcontract/test_failover.py",
    "tests/streamcore/run/test_live_run.py",
    "tests/streamcore/whole/test_real_programs.py",
    "tests/streamcore/whole/test_bump.py",
    "tests/streamcore/whole/test_super_packets.py",
    "tests/streamcore/run/test_resume.py",
    "tests/streamcore/sink/test_rotation.py",
    "tests/streamcore/subcontract/test_routing.py",
    "tests/streamcore/whole/test_two_machines.py",
    "tests/streamcore/subcontract/test_provider.py",
    "tests/streamcore/run/test_live_rights.py",
    "tests/streamcore/run/test_figures.py",
    "tests/streamcore/run/test_pipeline_api.py",
    "tests/streamcore/subcontract/test_market_run.py",
    "tests/streamcore/observe/test_progress.py",
]
# Other files that take more than five seconds, the slowest first; those that go test by test fill the end. A file that
# is not here, or no longer slow, costs balance and nothing else.
SLOW_FIRST = [
    "tests/bench/test_benches.py",
    "tests/streamcore/fuzz/test_fuzz.py",
    "tests/bench/test_compare.py",
    "tests/bench/test_captures.py",
    "tests/auction/storage/test_postgres.py",
    "tests/auction/moderator/test_methods.py",
    "tests/streamcore/whole/test_bad_input.py",
    "tests/streamcore/disperse/test_planted_bugs.py",
    "tests/streamcore/disperse/test_simulation.py",
    "tests/bench/test_measure.py",
    "tests/streamcore/subcontract/test_bad_providers.py",
    "tests/auction/market/test_kill.py",
    "tests/streamcore/service/test_decapsulate.py",
    "tests/streamcore/service/test_anonymise_leaks.py",
    "tests/auction/attacks/test_search.py",
    "tests/streamcore/sink/test_whole.py",
    "tests/streamcore/service/test_anonymise_tunnels.py",
    "tests/streamcore/headers/test_corpus.py",
]


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="play every seed, every kill, every policy (make test-all)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    has_room = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > MEMORY_BYTES
    if has_room and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)
    for name, numbers in PLAYED.items():
        os.environ.setdefault(name, str(numbers[config.getoption("--all")]))
    config.option.loadscopereorder = False  # by number of tests: the order is ours
    settings.register_profile("played", max_examples=examples(100), deadline=None)
    settings.load_profile("played")
    forking.install()
    gc.disable()  # while tests are collected; they stay, so later collections need not look at them


def pytest_collection_finish():
    gc.enable()
    gc.set_threshold(50_000)  # not 700: tests make many objects that live on
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def some(pytestconfig):
    """some(cases, step, first): with --all the list of cases as it is, else every `step`th of it from `first` on."""
    return lambda cases, step, first=0: cases if pytestconfig.getoption("--all") else cases[first % step :: step]


@pytest.fixture(autouse=True)
def _new_processes(request, monkeypatch):
    if request.node.get_closest_marker("new_processes"):
        monkeypatch.setenv(forking.NEW_PROCESSES, "1")


def pytest_collection_modifyitems(items):
    """Slow files first, and last those that go test by test; within a file, and among the others, the order stays."""
    places = {file: place for place, file in enumerate([*WAITING, *SLOW_FIRST])}
    places |= dict.fromkeys(TEST_BY_TEST, len(places) + 1)
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(WAITING) + len(SLOW_FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Spread(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if file in TEST_BY_TEST else file

        def _assign_work_unit(self, node):
            running = [
                file for units in self.assigned_work.values() for file, done in units.items() if not all(done.values())
            ]
            next_waits = sum(file in WAITING for file in running) < max(1, len(self.nodes) - os.cpu_count())
            file = next((file for file in self.workqueue if (file in WAITING) == next_waits), None)
            if file is not None:
                self.workqueue.move_to_end(file, last=False)
            super()._assign_work_unit(node)

    return Spread(config, log)
