"""How the suite is spread over the cores: a file at a time, because its tests share what they set up. Files whose tests
are many, long and independent of each other go test by test, after the others, and fill what is left.

With --all every seed and every kill is played, and every capture under every policy; without it the first few of the
same seeds and kills, and each capture under one policy.
"""

import os

import pytest

# How many are played: the variable that says so, how many without --all, how many with it. What a caller sets stands.
PLAYED = {
    "AUCTION_SEEDS": (1_000, 10_000),
    "AUCTION_KILLS": (40, 200),
    "COALITION_SEEDS": (60, 1_000),
    "STREAMCORE_KILLS": (12, 50),
}

TEST_BY_TEST = {
    "tests/auction/market/test_planted_bugs.py",
    "tests/auction/market/test_simulation.py",
    "tests/streamcore/whole/test_corpus_run.py",
}


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="play every seed, every kill, every policy (make test-all)")


def pytest_configure(config):
    for name, numbers in PLAYED.items():
        os.environ.setdefault(name, str(numbers[config.getoption("--all")]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Spread(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if file in TEST_BY_TEST else file

    return Spread(config, log)
