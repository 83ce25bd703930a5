"""Known keys that change while a run goes on: the folder's files, the listener's handshakes, and one run."""

import contextlib
import os
import shutil
import threading
import time

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import UsageError
from streamcore.core.packets import Arena
from streamcore.disperse import envelope, known
from streamcore.disperse.dispatcher import Dispatcher
from streamcore.disperse.known import KeyFolder, KnownKeys
from streamcore.disperse.remote import make_keys
from streamcore.disperse.terms import Terms
from streamcore.run.accounting import Accounting
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import finish_run, run_command
from tests.streamcore.disperse.played import ASKS, Stage, Worker
from tests.streamcore.disperse.test_hardened import ends_well
from tests.streamcore.disperse.test_remote import SERVICES, address, capture, start_pipeline, start_worker

__all__ = ["address", "capture"]  # fixtures
pytestmark = pytest.mark.usefixtures("nothing_left")

PATIENCE_MS = 20_000
LATER_NS = 10 * known.SETTLED_NS  # when every file has been left alone for a while


def fresh():
    return zmq.curve_keypair()[0].decode()


def put(folder, name, key):
    """Writes a key file; the key is what `streamcore keys` would have written."""
    (folder / name).write_text(f'# made by a test\nmetadata\ncurve\n    public-key = "{key}"\n')


class Place:
    """A folder with one key, and what was said of it."""

    def __init__(self, path):
        self.path, self.told, self.good = path, [], fresh()
        path.mkdir()
        put(path, "good.key", self.good)
        self.folder = KeyFolder(str(path), self.told.append)

    def look(self):
        self.folder.look(time.time_ns() + LATER_NS)
        return self.folder.keys


def link_to_itself(path):
    path.symlink_to(path.name)


BAD = {
    "empty": lambda path: path.write_bytes(b""),
    "half-written": lambda path: path.write_text('curve\n    public-key = "abcdefgh'),
    "not UTF-8": lambda path: path.write_bytes(b'public-key = "' + b"\xff" * 40 + b'"'),
    "not Z85": lambda path: put(path.parent, path.name, "~" * 40),
    "two keys": lambda path: path.write_text(f'public-key = "{fresh()}"\npublic-key = "{fresh()}"\n'),
    "too long": lambda path: path.write_bytes(b"#" * (known.FILE_BYTES_MAX + 1)),
    "a directory": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a link to itself": link_to_itself,
}


def test_a_bad_file_gets_one_line_and_the_others_go_on(tmp_path):
    for name, make in BAD.items():
        place = Place(tmp_path / name)
        make(place.path / "bad.key")
        other = fresh()
        put(place.path, "other.key", other)
        assert [place.look(), place.look()] == [{place.good, other}] * 2, name
        assert len(place.told) == 1, (name, place.told)
        assert "bad.key" in place.told[0], name
        (place.path / "bad.key").rmdir() if name == "a directory" else (place.path / "bad.key").unlink()
        put(place.path, "bad.key", mended := fresh())
        assert place.look() == {place.good, other, mended}, name


def test_a_file_that_holds_no_key_any_more_strikes_it_unless_somebody_may_be_writing_it(tmp_path):
    place = Place(tmp_path / "keys")
    path = place.path / "good.key"
    path.write_text("curve\n")
    place.folder.look(path.stat().st_ctime_ns + 1)
    assert (place.folder.keys, place.told) == ({place.good}, [])
    assert place.look() == set()
    assert len(place.told) == 1
    put(place.path, "good.key", other := fresh())
    assert place.look() == {other}
    path.unlink()
    assert place.look() == set()


def test_what_cannot_be_read_strikes_nobody_and_admits_nobody(tmp_path, monkeypatch):
    place = Place(tmp_path / "keys")
    read = known.read_key

    def refuse(path):
        if path.endswith(("good.key", "new.key")):
            raise PermissionError(13, "Permission denied")
        return read(path)

    put(place.path, "new.key", new := fresh())
    put(place.path, "good.key", changed := fresh())
    monkeypatch.setattr(known, "read_key", refuse)
    assert [place.look(), place.look()] == [{place.good}] * 2
    assert len(place.told) == 2  # one for each file
    monkeypatch.setattr(known, "read_key", read)
    assert place.look() == {changed, new}

    place.path.rename(tmp_path / "away")
    assert [place.look(), place.look()] == [{changed, new}] * 2
    put(tmp_path / "away", "third.key", third := fresh())
    monkeypatch.setattr(known, "ENTRIES_MAX", 2)
    (tmp_path / "away").rename(place.path)
    assert place.look() == {changed, new}
    assert [("cannot list" in line, "none is added" in line) for line in place.told[2:]] == [(True, True)] * 2
    monkeypatch.setattr(known, "ENTRIES_MAX", 3)
    assert place.look() == {changed, new, third}


def test_a_file_that_is_removed_while_it_is_read_is_gone(tmp_path, monkeypatch):
    place = Place(tmp_path / "keys")

    def remove(path):
        raise FileNotFoundError(2, "No such file or directory")

    put(place.path, "good.key", fresh())
    monkeypatch.setattr(known, "read_key", remove)
    assert place.look() == set()
    assert place.told == []


def test_too_many_files_are_not_taken_and_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(known, "FILES_MAX", 2)
    place = Place(tmp_path / "keys")
    made = {name: fresh() for name in ("a.key", "b.key")}
    for name, key in made.items():
        put(place.path, name, key)
    assert [place.look(), place.look()] == [{place.good, made["a.key"]}] * 2
    assert len(place.told) == 1
    (place.path / "a.key").unlink()
    assert place.look() == {place.good, made["b.key"]}


def test_a_folder_that_is_bad_when_a_run_begins_is_refused(tmp_path):
    for name, make in BAD.items():
        (folder := tmp_path / name).mkdir()
        make(folder / "bad.key")
        with pytest.raises(UsageError, match=r"bad\.key"):
            KeyFolder(str(folder), print)
    (tmp_path / "none").mkdir()
    for path, words in (("none", "no .key file"), ("missing", "cannot list")):
        with pytest.raises(UsageError, match=words):
            KeyFolder(str(tmp_path / path), print)


def test_the_placer_has_the_last_word_and_providers_are_not_the_folders(tmp_path, monkeypatch):
    folder, counters, providers = tmp_path / "keys", Counters(), set()
    folder.mkdir()
    named = {name: fresh() for name in ("A", "B", "P")}
    for name, key in named.items():
        put(folder, f"{name}.key", key)
    keys = KnownKeys(str(folder), counters, lambda key: key in providers, lambda key: key in providers)
    now_s = 0.0

    def changes():
        nonlocal now_s
        now_s += known.LOOK_S
        return keys.changes(now_s)

    def may(name):
        return keys.callback("", named[name].encode())

    assert changes() == (set(), set())
    keys.strike(named["A"])
    assert (may("A"), may("B")) == (False, True)  # at once
    assert changes() == ({named["A"]}, set())
    put(folder, "A2.key", named["A"])
    assert changes() == (set(), set())
    keys.add(named["A"])
    keys.strike(named["A"])
    keys.add(named["A"])
    assert changes() == ({named["A"]}, {named["A"]})  # struck for a moment: it loses its leases all the same
    for name in ("A.key", "A2.key", "B.key"):
        (folder / name).unlink()
    assert changes() == ({named["B"]}, set())  # A is the placer's now
    assert (may("A"), may("B")) == (True, False)

    providers.update((named["P"], named["B"]))
    (folder / "P.key").unlink()
    assert may("B")  # a file that was removed has no say about a provider
    assert changes() == (set(), {named["B"]})
    assert may("P")
    keys.strike(named["P"])
    assert not may("P")
    assert changes() == ({named["P"]}, set())

    for wrong in ("", "short", "~" * 40, "\ud800" * 40):
        for change in (keys.add, keys.strike):
            with pytest.raises(UsageError, match="40 characters of Z85"):
                change(wrong)
    assert counters.events("workers.keys_struck") == 4
    monkeypatch.setattr(known, "EVER_MAX", 3)
    with pytest.raises(UsageError, match="as many as may"):
        keys.add(fresh())
    put(folder, "another.key", fresh())
    assert changes() == (set(), set())
    assert "as many as may" in keys.lines[-1]


def test_a_struck_keys_segments_go_to_the_other_worker(tmp_path):
    stage = Stage()
    known_keys = stage.workers.known = KnownKeys("", stage.counters, lambda key: False, lambda key: False)
    mine, others = fresh(), fresh()
    for key in (mine, others):
        stage.dispatcher.add_key(key)
    stage.dispatcher._change_keys(0.0)
    struck = Worker(stage, mine).hello()
    stage.submit(2)
    good = Worker(stage, others).hello()
    late = struck.answer(struck.works())
    assert struck.peer.leases
    stage.dispatcher.strike_key(mine)
    stage.dispatcher._change_keys(0.0)
    assert not struck.peer.leases
    stage.send()
    assert not struck.is_in
    assert struck.link.peer.link is None  # its socket is closed
    struck.send(struck.head(envelope.RESULT, late[0]), *late[1])  # what it still sends is only counted
    assert "does not know this key" in stage.asks(mine)["refused"]
    ends_well(stage, good)
    assert stage.dispatcher.given_up == {}
    stage.dispatcher.add_key(mine)
    stage.dispatcher._change_keys(0.0)
    assert Worker(stage, mine).hello().is_in
    assert (stage.counters.events("workers.keys_added"), stage.counters.events("workers.keys_struck")) == (3, 1)
    assert known_keys.lines == []
    stage.close()


def test_keys_cannot_change_where_nobody_can_join(tmp_path):
    stage = Stage()
    pipeline = Pipeline(Config(read=str(tmp_path / "in.pcap"), write=str(tmp_path / "out.pcap")))
    for change in (stage.dispatcher.add_key, stage.dispatcher.strike_key):
        with pytest.raises(UsageError, match="no listen"):
            change(fresh())
    for change in (pipeline.add_worker_key, pipeline.strike_worker_key):
        with pytest.raises(UsageError, match="has not begun"):
            change(fresh())
    stage.close()


def test_the_account_shows_keys_and_files_that_could_not_be_read():
    counters = Counters()
    counters.bump("workers.keys_added", 2)
    account = Accounting(counters, 1.0, (), key_files=["bad.key is none"])
    assert account.json()["key_files"] == ["bad.key is none"]
    assert account.json()["workers"]["keys_added"] == 2
    for line in ("  keys of workers: 2 added, 0 struck", "  bad.key is none"):
        assert line in account.text().splitlines()


@contextlib.contextmanager
def asking(context, address, server, name, folder):
    """A connection that asks to join: what its handshake comes to, and the socket."""
    socket = context.socket(zmq.DEALER)
    public, secret = zmq.auth.load_certificate(folder / f"{name}.key_secret")
    socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, server
    socket.linger = 0
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    socket.connect(address)
    socket.send(ASKS)
    try:
        assert monitor.poll(PATIENCE_MS)
        yield recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED, socket
    finally:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)


def test_a_real_listener_admits_whoever_is_known_now(tmp_path):
    for name in ("pipeline", "A", "B"):
        make_keys(name, str(tmp_path))
    (folder := tmp_path / "known").mkdir()
    shutil.copy(tmp_path / "A.key", folder)
    public = {name: zmq.auth.load_certificate(tmp_path / f"{name}.key")[0] for name in ("pipeline", "A", "B")}
    counters = Counters()
    terms = Terms(
        workers=0, chains=[[]], changes=[frozenset()], accepted=[], deterministic=[True], lease_ms=10_000,
        attempts_max=3, restarts_max=0, credit=1, segment_bytes=1 << 12, listen="tcp://127.0.0.1:*",
        key=str(tmp_path / "pipeline.key_secret"), worker_keys=str(folder),
    )  # fmt: skip
    dispatcher = Dispatcher(terms, Arena(2, 1 << 15, 256, shared=True), counters)
    looping = threading.Thread(target=lambda: list(dispatcher.results()))
    context = zmq.Context()
    asks = lambda name: asking(context, dispatcher.address, public["pipeline"], name, tmp_path)  # noqa: E731
    looping.start()
    try:
        with asks("A") as (admitted, socket):
            assert admitted
            assert socket.poll(PATIENCE_MS)
            assert b"slot" in socket.recv()
            with asks("B") as (admitted, _):
                assert not admitted
            dispatcher.add_key(public["B"].decode())
            with asks("B") as (admitted, other):
                assert admitted
                assert other.poll(PATIENCE_MS)
                assert b"slot" in other.recv()
            (folder / "A.key").unlink()
            wait_for(lambda: counters.events("workers.keys_struck") == 1)
            socket.send(ASKS)  # over the connection that it has: ZAP asks only when one begins
            assert socket.poll(PATIENCE_MS)
            assert b"does not know this key" in socket.recv()
            with asks("A") as (admitted, _):
                assert not admitted
            shutil.copy(tmp_path / "A.key", folder)
            wait_for(lambda: counters.events("workers.keys_added") == 2)
            with asks("A") as (admitted, again):
                assert admitted
                assert again.poll(PATIENCE_MS)
                assert b"slot" in again.recv()
    finally:
        dispatcher.cancel()
        looping.join()
        dispatcher.close()
        context.term()


def wait_for(holds, patience_s=30):
    deadline_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_run_goes_on_with_the_key_that_was_added_when_the_first_is_struck(capture, tmp_path, address):
    run_command("-r", capture, "-w", tmp_path / "whole.pcap", "--service", f"{SERVICES}:Slow")
    (own := tmp_path / "keys").mkdir()
    (own / "known").mkdir()
    for name in ("pipeline", "worker", "other"):
        make_keys(name, str(own))
    shutil.copy(own / "worker.key", own / "known")
    (begun := tmp_path / "begun").mkdir()
    service = f"{SERVICES}:Slow:pause_ms=100,begun={begun}"
    pipeline = start_pipeline(
        capture, tmp_path / "out.pcap", address, own, "--service", service, "--segment-packets", "50"
    )
    first = start_worker(address, own)
    wait_for(lambda: len(list(begun.iterdir())) == 1)
    shutil.copy(own / "other.key", own / "known")
    second = start_worker(address, own, "other")
    wait_for(lambda: len(list(begun.iterdir())) == 2)
    (own / "known" / "worker.key").unlink()
    assert first.wait(30) == 1
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "whole.pcap").read_bytes()
    workers = run.json["workers"]
    assert (workers["keys_added"], workers["keys_struck"], workers["lost"]) == (1, 1, 1)
    assert "keys of workers: 1 added, 1 struck" in run.stderr
    assert second.wait(10) == 0
    for worker in (first, second):
        worker.stderr.close()
