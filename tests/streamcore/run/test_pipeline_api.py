"""A Pipeline as a library has it: from threads, several at once, told to end by another thread."""

import threading
import time
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SinkError, SourceError, UsageError
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap

SLOW = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Slow"

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def capture(tmp_path):
    return write_pcap(tmp_path / "in.pcap", [udp_frame(i % 50, i) for i in range(3_000)])


def test_several_at_once_from_threads(capture, tmp_path):
    accounts = {}

    def work(name):
        config = Config(read=capture, write=tmp_path / name, service=[SLOW], workers=1, segment_packets=100)
        accounts[name] = Pipeline(config).run()

    threads = [threading.Thread(target=work, args=(f"{name}.pcap",)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [account.exit_status for account in accounts.values()] == [0, 0, 0]
    assert all(account.json()["packets"]["written"] == 3_000 for account in accounts.values())
    written = {(tmp_path / name).read_bytes() for name in accounts}
    assert len(written) == 1
    turned = [frame[:-1] + bytes([frame[-1] ^ 0xFF]) for _, frame in read_pcap(capture)]
    assert [frame for _, frame in read_pcap(tmp_path / "a.pcap")] == turned


@pytest.mark.parametrize("how", ["drain", "stop"])
def test_another_thread_ends_it(capture, tmp_path, how):
    service = f"{SLOW}:pause_ms=100"
    small = {"chunks": 2, "chunk_bytes": 1 << 19, "chunk_rows": 1024, "segment_packets": 50}
    pipeline = Pipeline(Config(read=capture, write=tmp_path / "out.pcap", service=[service], workers=1, **small))

    def end():
        while not pipeline.counters.packets("sink.written"):
            time.sleep(0.01)
        getattr(pipeline, how)()

    thread = threading.Thread(target=end)
    thread.start()
    account = pipeline.run()
    thread.join()
    packets = account.json()["packets"]
    assert account.exit_status == (3 if how == "stop" else 130)
    assert 0 < packets["written"] < 3_000
    assert packets["dropped"].get("pipeline.undelivered", 0) == packets["read"] - packets["written"]
    assert (how == "stop") == bool(packets["dropped"])
    assert [frame[42:50] for _, frame in read_pcap(tmp_path / "out.pcap")] == [
        i.to_bytes(8, "big") for i in range(packets["written"])
    ]


def test_errors_are_raised_and_typed(capture, tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        Pipeline(Config(read=tmp_path / "nosuch.pcap", write=tmp_path / "out.pcap")).run()
    with pytest.raises(SinkError, match="no space left"):
        Pipeline(Config(read=capture, write="/dev/full")).run()
    with pytest.raises(UsageError, match="there is no service"):
        Pipeline(Config(read=capture, write=tmp_path / "out.pcap", service=["nosuch"]))
    with pytest.raises(UsageError, match="filter"):
        Pipeline(Config(read=capture, write=tmp_path / "out.pcap", filter="prt 3"))
