"""A source and a sink are added by a row and a file: examples in whole runs. Each thing is closed once."""

import pytest

from streamcore import Config, Pipeline, SinkError
from streamcore.sink import opening as sinks
from streamcore.source import opening as sources
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap
from tests.streamcore.run import example_ends
from tests.streamcore.run.example_ends import FaultySink, MemorySink, MemorySource

pytestmark = pytest.mark.usefixtures("nothing_left")
FRAMES = [udp_frame(i % 7, i) for i in range(200)]


@pytest.fixture
def tables(monkeypatch):
    """put(table, row): it stands first, and goes with the test."""

    def put(table, kind):
        rows = {"example": kind} | {name: row for name, row in table.items() if name != "example"}
        for name in list(table):
            monkeypatch.delitem(table, name)
        for name, row in rows.items():
            monkeypatch.setitem(table, name, row)

    return put


@pytest.fixture
def memory(tables, monkeypatch):
    tables(sources.SOURCES, example_ends.MEMORY_SOURCE)
    tables(sinks.SINKS, example_ends.MEMORY_SINK)
    monkeypatch.setattr(MemorySource, "held", FRAMES)


def config(**more):
    return Config(**{"read": "memory:", "write": "memory:", "workers": 1, "dead_letter": "/nonexistent/x"} | more)


def test_a_run_from_memory_to_memory(memory):
    account = Pipeline(config(service=["slice:bytes=44,from=packet"])).run()
    assert MemorySink.made.packets == [frame[:44] for frame in FRAMES]
    assert account.exit_status == 0
    assert account.counters.packets("source.read") == len(FRAMES)
    assert MemorySource.made.closed == 1
    assert MemorySink.made.ends == ["close"]


def test_what_a_source_gave_before_it_failed_is_delivered(memory, monkeypatch):
    monkeypatch.setattr(MemorySource, "fails_after", 30)
    with pytest.raises(OSError, match="the memory failed"):
        Pipeline(config()).run()
    assert MemorySink.made.packets == FRAMES[:30]
    assert MemorySource.made.closed == 1
    assert MemorySink.made.ends == ["close"]


@pytest.fixture
def faulty(tables, monkeypatch, tmp_path):
    def run(at):
        tables(sinks.SINKS, example_ends.FAULTY)
        monkeypatch.setattr(FaultySink, "at", at)
        source = write_pcap(tmp_path / "in.pcap", FRAMES)
        with pytest.raises(SinkError, match=f"injected: {at[0]} {at[1]}"):
            Pipeline(
                Config(read=source, write=tmp_path / "out.pcap", workers=1, segment_packets=20, policy="run")
            ).run()
        return tmp_path / "out.pcap"

    return run


def test_a_write_that_fails_leaves_a_whole_output(faulty):
    output = faulty(("write", 3))
    assert FaultySink.made.calls == ["write"] * 4 + ["abandon"]
    assert [data for _, data in read_pcap(output)] == FRAMES[:60]


def test_a_close_that_fails_is_told(faulty):
    faulty(("close", 0))
    assert FaultySink.made.calls[-1] == "close"
    assert FaultySink.made.calls.count("close") == 1


def test_a_failure_before_the_sink_is_there_closes_what_is_open(memory, monkeypatch):
    def refuse(self, config, needs):
        raise SinkError("refused")

    monkeypatch.setattr(MemorySink, "__init__", refuse)
    with pytest.raises(SinkError, match="refused"):
        Pipeline(config()).run()
    assert MemorySource.made.closed == 1


def test_what_was_opened_for_its_rights_is_closed_when_the_workers_cannot_start(memory, tables, monkeypatch):
    tables(sources.SOURCES, example_ends.MEMORY_SOURCE._replace(needs_rights=True))
    tables(sinks.SINKS, example_ends.MEMORY_SINK._replace(needs_rights=True))
    pipeline = Pipeline(config())
    pipeline.open()
    assert MemorySource.made.closed == 0

    def refuse(*arguments):
        raise OSError("no workers")

    monkeypatch.setattr("streamcore.run.pipeline.Dispatcher", refuse)
    with pytest.raises(OSError, match="no workers"):
        pipeline.run()
    assert MemorySource.made.closed == 1
    assert MemorySink.made.ends == ["abandon"]
