"""The counters add up, and say so where they do not."""

import threading
from pathlib import Path

import pytest

from streamcore.core.counters import EVENTS, NAMES, Counters
from streamcore.run.accounting import Accounting


def counters_of_a_run():
    counters = Counters()
    counters.count("source.read", 100, 10_000)
    counters.count("filter.not_matched", 30, 2_000)
    counters.count("segment.cut", 70, 8_000)
    counters.count("service.duplicate", 10, 1_000)
    counters.count("disperse.dead_lettered", 5, 500)
    counters.count("service.resized", 0, -2_500)
    counters.count("sink.written", 55, 4_000)
    return counters


def test_a_run_that_adds_up():
    counters = counters_of_a_run()
    assert counters.balance() == []
    assert counters.missing() == (0, 0)
    told = counters.as_json()
    assert told["packets"] == {
        "read": 100,
        "written": 55,
        "dropped": {"filter.not_matched": 30, "disperse.dead_lettered": 5, "service.duplicate": 10},
    }
    told = told["bytes"]
    assert told["read"] == told["written"] + sum(told["dropped"].values()) - told["resized"]


@pytest.mark.parametrize(
    ("name", "packets", "byte_count", "words"),
    [
        ("source.read", 1, 0, "101 packets read, but 30 not matched and 70 cut"),
        ("source.read", 0, 1, "10,001 bytes read"),
        ("segment.cut", 1, 0, "71 packets cut into segments, of which 1 are not"),
        ("service.resized", 0, 7, "8,000 bytes cut into segments, of which 7 are not"),
        ("sink.written", 1, 0, "of which -1 are not"),
    ],
)
def test_what_does_not_add_up_is_named_and_ends_with_3(name, packets, byte_count, words):
    counters = Counters()
    counters.count("source.read", 3, 300)
    counters.count("segment.cut", 3, 300)
    counters.count("sink.written", 3, 300)
    assert Accounting(counters, 1.0, ()).exit_status == 0

    counters = counters_of_a_run()
    counters.count(name, packets, byte_count)
    assert any(words in line for line in counters.balance()), counters.balance()
    accounting = Accounting(counters, 1.0, ())
    assert accounting.exit_status == 3
    assert accounting.json()["unbalanced"] == counters.balance()
    assert counters.balance()[0] in accounting.text()


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("filter.not_matched", False),
        ("service.duplicate", False),
        ("disperse.dead_lettered", True),
        ("disperse.passed_unprocessed", True),
        ("pipeline.undelivered", True),
    ],
)
def test_what_counts_as_a_loss(name, lost):
    counters = Counters()
    counters.count(name, 1, 60)
    assert counters.lost is lost


def test_a_name_that_is_not_in_the_table_is_an_error():
    with pytest.raises(KeyError):
        Counters().count("sink.writen", 1, 1)
    with pytest.raises(KeyError):
        Counters().bump("workers.bored")


def test_threads_lose_no_count():
    counters = Counters()

    def work():
        for _ in range(5_000):
            counters.count("source.read", 1, 2)
            counters.bump("segments.dispersed")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counters.packets("source.read"), counters.bytes("source.read")) == (20_000, 40_000)
    assert counters.events("segments.dispersed") == 20_000


def test_every_name_stands_in_the_manual():
    manual = (Path(__file__).parents[3] / "docs" / "accounting.md").read_text()
    for name, (kind, _) in NAMES.items():
        if kind in ("dropped", "lost"):
            assert f"| `{name}` |" in manual
    for name in [*EVENTS, "disperse.passed_unprocessed"]:
        assert f"`{name}`" in manual


def test_a_live_run_says_so_even_when_nothing_came():
    counters = Counters()
    assert "live" not in counters.as_json()
    counters.live = True
    assert counters.as_json()["live"] == {"received": 0, "dropped": {}}
    assert counters.copy().as_json() == counters.as_json()
    counters.count("source.read", 5, 500)
    counters.count("segment.cut", 5, 500)
    counters.count("sink.written", 5, 500)
    assert any("the kernel received 0 packets" in line for line in counters.balance())
    counters.count("kernel.received", 7, 0)
    counters.count("kernel.dropped", 2, 0)
    assert counters.balance() == []
    assert counters.lost
