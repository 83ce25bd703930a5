"""What an admitted worker sends costs that worker its place, and nobody else anything: no exception, no packet."""

import time

import msgspec
import pytest

from streamcore.core.text import shown
from streamcore.disperse import envelope
from streamcore.disperse.places import JOINS_PER_KEY, PLACES_PER_KEY
from tests.streamcore.disperse.played import ASKS, PACKETS, Stage, Worker


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.close()


def ends_well(stage, good):
    """Every segment comes back once, by the good worker's hand, and the services' reports add up."""
    good.work()
    assert sorted(result.segment.number for result in stage.results) == list(range(stage.submitted))
    assert not any(result.dead for result in stage.results)
    assert good.is_in
    for result in stage.results:
        stage.chain.merge(result.reports)
    assert stage.chain.incomplete == []
    assert stage.chain.summaries()["count"]["packets"] == PACKETS * stage.submitted


def last_message(worker):
    """Its honest answer: outcomes, frames."""
    return worker.answer(worker.works())


def with_extra(frames, **fields):
    """The frames of an answer to one segment with other comments, reports or drops."""
    honest = msgspec.msgpack.decode(frames[0])
    return [msgspec.msgpack.encode(honest | fields), *frames[1:]]


COUNTED = {"protocols": [[17, 5, 300]], "bins": [[0, 5, 300]], "flows": [b"", b"", [0, 0]]}
BAD_FIELDS = {
    "a report of no service": {"reports": [(9, 1)]},
    "a report of a negative service": {"reports": [(-1, [1, 1])]},
    "a report of another type": {"reports": [(0, 7)]},
    "text in a bin": {"reports": [(0, COUNTED | {"bins": [[5, "a", "b"]]})]},
    "text for a bin": {"reports": [(0, COUNTED | {"bins": [["x", 1, 1]]})]},
    "negative figures": {"reports": [(0, COUNTED | {"protocols": [[6, -1, -1]]})]},
    "a protocol that does not exist": {"reports": [(0, COUNTED | {"protocols": [[257, 1, 1]]})]},
    "figures that no segment has": {"reports": [(0, COUNTED | {"protocols": [[6, 1 << 60, 7]]})]},
    "a part of a flow": {"reports": [(0, COUNTED | {"flows": [b"x", b"", [0, 0]]})]},
    "text for a number of packets": {"reports": [(0, COUNTED | {"flows": [b"", b"", ["a", 1]]})]},
    "a time in no year": {"reports": [(0, COUNTED | {"bins": [[1 << 62, 1, 1]]})]},
    "a pattern that does not exist": {
        "reports": [(1, {"packets": 1, "matched": 1, "left_out": 0, "patterns": {"x": 1}})]
    },
    "too few figures": {"reports": [(2, [1, [2], []])]},
    "half a report": {"reports": [(3, [1])]},
    "one good report and a bad one": {"reports": [(0, COUNTED), (3, ["a", 1])]},
    "a reason that no service declares": {"drops": {"\x1b[2J": (0, 0)}},
    "negative drops": {"drops": {"not_understood": (-1, 5), "duplicate": (1, -5)}},
    "a comment that is no text": {"comments": {0: [b"\xff"]}},
    "a comment for another packet": {"comments": {PACKETS: [b"a"]}},
    "a megabyte": {"comments": {0: [b"a" * 4000] * 300}},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_report_is_a_bad_result_and_the_good_worker_does_the_segment(stage, name):
    bad = Worker(stage, "B").hello()
    stage.submit(1)
    outcomes, frames = last_message(bad)
    good = Worker(stage, "G").hello()
    bad.send(bad.head(envelope.RESULT, outcomes), *with_extra(frames, **BAD_FIELDS[name]))
    assert stage.results == []
    ends_well(stage, good)


def test_messages_that_no_worker_sends_cost_its_key_the_place_for_good():
    nested = b"\x81\xa7reports\x91\x92\x00" + b"\x91" * 100_000
    honest = envelope.Outcome(0, 1, 0, 0, 0, 0, 0, 0, 0, envelope.NO_DIGEST)
    kinds = {
        "garbage": lambda w: [b"\xff" * 40],
        "nothing": lambda w: [b""],
        "a second hello": lambda w: [w.head(envelope.HELLO)],
        "a refusal without words": lambda w: [w.head(envelope.REFUSE)],
        "work": lambda w: [w.head(envelope.WORK)],
        "a stop": lambda w: [w.head(envelope.STOP)],
        "a segment that it does not have": lambda w: [w.head(envelope.RESULT, [honest._replace(number=99)])],
        "another attempt": lambda w: [w.head(envelope.RESULT, [honest._replace(attempt=2)])],
        "no status": lambda w: [w.head(envelope.RESULT, [honest._replace(status=7)])],
        "a frame too few": lambda w: [w.head(envelope.RESULT, [honest._replace(frames=3)]), b""],
        "a frame too many": lambda w: [w.head(envelope.RESULT, [honest]), nested],
    }
    for name, message in kinds.items():
        stage = Stage()
        bad = Worker(stage, "B").hello()
        stage.submit(2)
        good = Worker(stage, "G").hello()
        bad.send(*message(bad))
        assert not bad.is_in, name
        assert stage.counters.events("workers.given_up") == 1, name
        assert "given this worker's key up" in stage.asks("B")["refused"], name
        ends_well(stage, good)
        stage.close()


def test_join_requests_of_every_kind_are_answered_or_ignored(stage):
    for words in (b"", b"\xff", b"[" * 4000, b"{}", b"7", b'{"protocol": ' + b"[" * 900 + b"]" * 900 + b"}", b"null"):
        told = stage.asks("B", words)
        assert told is None or "refused" in told
    assert "slot" in stage.asks("B", b"more", ASKS)


def test_one_key_has_a_part_of_the_places_and_joins_so_often():
    stage = Stage()
    for _ in range(PLACES_PER_KEY):
        Worker(stage, "B")
    assert "64 workers have joined with this key" in stage.asks("B")["refused"]
    good = Worker(stage, "G").hello()
    for _ in range(JOINS_PER_KEY - PLACES_PER_KEY):
        stage.machine.gone(stage.slots[0].peer, "it has gone", time.monotonic())
        Worker(stage, "B")
    stage.machine.gone(stage.slots[0].peer, "it has gone", time.monotonic())
    assert "in the last 60 s" in stage.asks("B")["refused"]
    assert stage.counters.events("workers.refused") == 2
    stage.submit(3)
    ends_well(stage, good)
    stage.close()


def failed(worker, words=b"no"):
    """Its answer that it cannot process anything of what it has got."""
    works = worker.works()
    outcomes, _ = worker.answer(works)
    outcomes = [each._replace(status=envelope.FAILED, flags=0, frames=envelope.EXTRA) for each in outcomes]
    worker.send(worker.head(envelope.RESULT, outcomes), *[words] * len(outcomes))


def test_a_worker_that_fails_what_others_do_is_given_up_and_no_segment_is_lost(stage):
    bad, good = Worker(stage, "B").hello(), Worker(stage, "G").hello()
    stage.submit(30)
    joined = 1
    while bad.is_in or joined < 6:
        if not bad.is_in:
            break
        failed(bad, "\x1b[31mno\u202e\n".encode() * 999)
        stage.lose(bad)
        good.work()
        if "B" in stage.dispatcher.given_up:
            break
        bad, joined = Worker(stage, "B").hello(), joined + 1
    assert stage.counters.events("segments.dead_lettered") == 0
    reason = stage.dispatcher.given_up["B"]
    assert reason.isprintable()
    assert len(reason) <= 300
    ends_well(stage, good)


def test_a_segment_that_one_key_alone_has_failed_waits_for_another_worker(stage, monkeypatch):
    bad = Worker(stage, "B").hello()
    stage.submit(1)
    for _ in range(3):
        assert len(bad.peer.leases) == 1
        failed(bad)
    assert bad.peer.leases == {}  # it does not get it a fourth time
    assert stage.results == []
    other = Worker(stage, "C").hello()
    stage.send()
    other.work()
    assert [result.dead for result in stage.results] == [False]


def test_a_segment_that_two_keys_have_failed_is_a_dead_letter(stage):
    workers = [Worker(stage, "B").hello(), Worker(stage, "C").hello()]
    stage.submit(1)
    for _ in range(3):
        for worker in workers:
            if worker.peer.leases:
                failed(worker)
                break
    assert [result.dead for result in stage.results] == [True]
    assert stage.dispatcher.given_up == {}


def test_nobody_else_comes_and_the_segment_is_a_dead_letter(stage, monkeypatch):
    bad = Worker(stage, "B").hello()
    stage.submit(1)
    monkeypatch.setattr("streamcore.disperse.backlog.OTHERS_S", 0.0)
    for _ in range(3):
        failed(bad)
    stage.machine.tick(time.monotonic())
    stage.send()
    assert [result.dead for result in stage.results] == [True]


def test_text_is_one_bounded_line_of_printable_characters():
    assert shown("a\x1b[2J\n\tb\u202e\x00") == "a?[2J b??"
    assert shown("a" * 1000) == "a" * 299 + "…"
    assert shown("größer") == "größer"
