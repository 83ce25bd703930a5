"""How the suite is spread over the cores: a file at a time, because its tests share what they set up. Files whose tests
are many, long and independent of each other go test by test, after the others, and fill what is left.
"""

import pytest

TEST_BY_TEST = {
    "tests/auction/market/test_planted_bugs.py",
    "tests/auction/market/test_simulation.py",
    "tests/streamcore/whole/test_corpus_run.py",
}


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
