"""A run that was cut off at any moment and goes on ends with the output of one that never was."""

import os
import random
import time

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.run import resume
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import children, finish_run, kill, start_run, udp_frame, write_pcap

SERVICES = "tests/streamcore/services_for_tests.py"
SLOW = f"{SERVICES}:Slow"


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    frames = [udp_frame(number % 40, number, size=number % 50) for number in range(6000)]
    return write_pcap(tmp_path_factory.mktemp("in") / "in.pcap", frames)


def config(capture, target, **more):
    told = {"read": str(capture), "write": str(target), "workers": 1, "segment_packets": 40, "chunk_rows": 1024,
            "chunk_bytes": 1 << 19, "service": [SLOW], "hash_seed": 1}  # fmt: skip
    return Config(**told | more)


STREAMS = [{"name": "odd", "select": "udp[8:4] & 0 = 0 and port 1025", "service": ["slice:4"]}]


@pytest.mark.parametrize(
    "more",
    [
        {"policy": "run"},
        {"policy": "flow", "workers": 2},
        {"policy": "time", "segment_ms": 30, "filter": "portrange 1024-1050"},
        {"stream": STREAMS},
        {"ending": ".pcapng"},
        {"ending": ".pcap.gz"},
    ],
)
def test_cut_off_and_gone_on_with(tmp_path, capture, monkeypatch, more):
    ending = more.get("ending", ".pcap")
    more = {key: value for key, value in more.items() if key != "ending"}
    whole = tmp_path / f"whole{ending}"
    Pipeline(config(capture, whole, **more)).run()
    for seed in range(3):
        target = tmp_path / f"out{ending}"
        cut_off(Pipeline(config(capture, target, **more)), monkeypatch, random.Random(seed).randrange(1, 5))
        with open(target, "ab") as file:
            file.write(b"torn" * seed)
        told = Pipeline(config(capture, target, resume=True, **more)).run().json()
        assert contents(target) == contents(whole)
        assert "unbalanced" not in told
        assert told["packets"]["dropped"]["resume.delivered_before"] > 0
        assert not os.path.exists(f"{target}.resume")
        target.unlink()


def test_cut_off_among_several_and_within_limits(tmp_path, capture, monkeypatch):
    """Merged, sorted, shifted, limited, framed and in turns, the output goes on as with one capture."""
    other = write_pcap(tmp_path / "other.pcap", [udp_frame(number, 7) for number in range(900)])
    both = [str(capture), str(other)]
    for more in (
        {"read": both},
        {"read": both, "inputs": "chain", "sort_s": 0.01, "shift": "5"},
        {"skip": 100, "count": 4000, "from_": "0"},
        {"loop": 2, "vlan": 5, "mtu": 68},
    ):
        whole, target = tmp_path / "whole.pcap", tmp_path / "out.pcap"
        Pipeline(config(capture, whole, policy="run", **more)).run()
        cut_off(Pipeline(config(capture, target, policy="run", **more)), monkeypatch, 3)
        told = Pipeline(config(capture, target, policy="run", resume=True, **more)).run().json()
        assert contents(target) == contents(whole), more
        assert "unbalanced" not in told
        assert told["packets"]["dropped"]["resume.delivered_before"] > 0
    cut_off(Pipeline(config(capture, target, policy="run", read=both)), monkeypatch, 3)
    with pytest.raises(UsageError, match="the input, the services or the segments differ"):
        Pipeline(config(capture, target, policy="run", read=both[::-1], resume=True)).run()


def cut_off(pipeline, monkeypatch, after):
    """Run, and stop when so many pieces have been written, each with a point."""
    passed = resume.Points.passed
    left = [after]

    def stopping(self, outgoing, sink):
        passed(self, outgoing, sink)
        left[0] -= 1
        if left[0] == 0:
            pipeline.stop()

    with monkeypatch.context() as patch:
        patch.setattr(resume, "POINT_S", 0.0)
        patch.setattr(resume.Points, "passed", stopping)
        pipeline.run()


def contents(path):
    import gzip

    return gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()


def test_killed_twice_in_a_row(tmp_path, capture, nothing_left):
    whole, target = tmp_path / "whole.pcap", tmp_path / "out.pcap"
    Pipeline(config(capture, whole, policy="run", chunk_bytes=4 << 20, chunk_rows=65536)).run()
    arguments = ["-r", capture, "-w", target, "--segment-packets", "40", "-n", "1", "--policy", "run", "-q", "--json"]
    service = f"{SERVICES}:Slow:pause_ms=15"
    for seed in range(2):
        process = start_run(*arguments, "--service", service, *["--resume"][:seed])
        while not children(process.pid):
            time.sleep(0.01)
        time.sleep(1.2 + random.Random(seed).random() / 2)
        kill(process.pid)
        process.communicate()
        time.sleep(0.2)
    told = finish_run(start_run(*arguments, "--service", service, "--resume"))
    assert told.status == 0, told.stderr
    assert target.read_bytes() == whole.read_bytes()


def test_what_cannot_be_resumed_says_why(tmp_path, capture, monkeypatch):
    target = tmp_path / "out.pcap"
    cut_off(Pipeline(config(capture, target, service=[SLOW, "anonymise"])), monkeypatch, 2)
    assert os.path.exists(f"{target}.resume")
    with pytest.raises(UsageError, match="give keys that were drawn at random"):
        Pipeline(config(capture, target, service=[SLOW, "anonymise"], resume=True)).run()
    with pytest.raises(UsageError, match='only with order = "total"'):
        Pipeline(config(capture, target, order="flow", resume=True)).run()
    cut_off(Pipeline(config(capture, target)), monkeypatch, 2)
    os.truncate(target, 10)
    with pytest.raises(UsageError, match="is shorter than"):
        Pipeline(config(capture, target, resume=True)).run()


def test_where_a_service_knows_what_came_before_all_is_done_again(tmp_path, capture):
    target, whole = tmp_path / "out.pcap", tmp_path / "whole.pcap"
    Pipeline(config(capture, whole, service=["dedup"])).run()
    target.write_bytes(whole.read_bytes()[:1000])
    told = Pipeline(config(capture, target, service=["dedup"], resume=True)).run().json()
    assert target.read_bytes() == whole.read_bytes()
    assert "resume.delivered_before" not in told["packets"]["dropped"]
