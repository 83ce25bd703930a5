"""What systemd is told of a run, over a socket of the test's own; and lines for the journal."""

import os
import socket
import subprocess
import sys

import pytest

from streamcore.command.systemd import notifying, tell, watchdog_s
from streamcore.core.counters import Counters
from streamcore.run.figures import Figures


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


class Run:
    """A run that reads from its third look on."""

    def __init__(self):
        self.looked = 0
        self.counters = Counters()

    @property
    def reading(self):
        self.looked += 1
        return self.looked > 2

    def look(self):
        return Figures(1.0, self.counters.copy())


def test_a_run_is_ready_when_it_reads_and_the_watchdog_hears_of_one_that_goes_on(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "60000")
    run = Run()
    run.counters.count("source.read", 5, 500)  # and nothing was written yet
    with notifying(run):
        assert manager.recv(999) == b"READY=1"
        assert manager.recv(999) == b"STATUS=5 packets read, 0 written\nWATCHDOG=1"  # it has only begun
        while manager.recv(999) != b"STATUS=5 packets read, 0 written":  # nothing moves: the watchdog hears nothing
            pass
        run.counters.count("sink.written", 5, 500)
        while manager.recv(999) != b"STATUS=5 packets read, 5 written\nWATCHDOG=1":
            pass
        assert run.looked == 3
    said = b""
    while said != b"STOPPING=1":
        said = manager.recv(999)


def test_where_nobody_asked_nobody_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    run = Run()
    with notifying(run):
        assert not tell("READY=1")
    assert run.looked == 0
    for address in ("relative", "/nosuch/socket", "@nosuch-of-this-test"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not tell("READY=1")
    for told, process, seconds in (("3000000", None, 3.0), ("3000000", "1", 0.0), ("x", None, 0.0), ("", None, 0.0)):
        monkeypatch.setenv("WATCHDOG_USEC", told)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        if process:
            monkeypatch.setenv("WATCHDOG_PID", process)
        assert watchdog_s() == seconds, (told, process)


def test_lines_for_the_journal_have_a_severity(tmp_path):
    """The journal's stream is named by its device and inode; another stream gets plain lines."""
    code = "from streamcore.command.say import ERROR, say; say('one\\ntwo'); say('three', ERROR)"
    with open(tmp_path / "stream", "w+") as stream:
        status = os.fstat(stream.fileno())
        for named, expected in (
            (f"{status.st_dev}:{status.st_ino}", "<6>one\n<6>two\n<3>three\n"),
            ("1:2", "one\ntwo\nthree\n"),
        ):
            stream.seek(0)
            stream.truncate()
            environment = os.environ | {"JOURNAL_STREAM": named}
            subprocess.run([sys.executable, "-c", code], stderr=stream, env=environment, check=True)
            assert (tmp_path / "stream").read_text() == expected
