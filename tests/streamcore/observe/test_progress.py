"""What a terminal shows while a run is under way, with a run that stands still at a known place."""

import os
import pty
import select
import sys
import time

import pytest

from streamcore.core.counters import Counters
from streamcore.observe.progress import following


class StandsStill:
    def __init__(self, consumed, size, packets):
        self.counters = Counters()
        self.counters.count("source.read", packets, 60 * packets)
        self._progress = consumed, size

    def progress(self):
        return self._progress


@pytest.fixture
def terminal(monkeypatch):
    """Call it for what was shown so far. Standard error is a terminal from the first call on: a test's own, since
    pytest puts its own stream there before each test.
    """
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")

    def shown():
        monkeypatch.setattr(sys, "stderr", stream)
        stream.flush()
        text = b""
        while select.select([master], [], [], 0.2)[0]:
            text += os.read(master, 65_536)
        return text.decode()

    yield shown
    stream.close()
    os.close(master)


def test_share_packets_and_rate_of_a_file(terminal):
    assert terminal() == ""
    with following(StandsStill(250, 1_000, 12_345), True):
        time.sleep(0.6)
    shown = terminal()
    assert " 25%" in shown
    assert "12,345 packets" in shown
    assert " M/s" in shown
    assert shown.rstrip("\r\n").endswith("\x1b[2K")  # it is wiped out at the end


def test_a_pipe_has_no_share(terminal):
    assert terminal() == ""
    with following(StandsStill(250, None, 7), True):
        time.sleep(0.6)
    shown = terminal()
    assert "7 packets" in shown
    assert "%" not in shown


def test_nothing_where_it_is_not_wanted_or_no_terminal(terminal, monkeypatch, tmp_path):
    assert terminal() == ""
    with following(StandsStill(250, 1_000, 7), False):
        time.sleep(0.4)
    assert terminal() == ""
    with open(tmp_path / "stderr", "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with following(StandsStill(250, 1_000, 7), True):
            time.sleep(0.4)
    assert (tmp_path / "stderr").read_text() == ""


def test_an_error_inside_goes_through(terminal):
    assert terminal() == ""
    with pytest.raises(RuntimeError, match="inside"), following(StandsStill(1, 2, 3), True):
        raise RuntimeError("inside")
    assert "\x1b[?25h" in terminal()  # the cursor is back
