"""Several streams in a run: what each selects, what is done to it, the order of the whole, and each one's account."""

import numpy as np
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.pipeline_file import make_config
from streamcore.parse.filter import Classifier, Filter
from streamcore.run.pipeline import Pipeline
from streamcore.segment._segmenter import Segmenter
from tests.streamcore.batches import make_batch
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap

SERVICES = "tests/streamcore/services_for_tests.py"
PORTS = {"web": 1024, "voice": 1025, "other": 1026}  # udp_frame(0), (1), (2)


def stream(name, select, *services, **more):
    return {"name": name, "select": select, "service": list(services)} | more


def turned(frame):
    """What services_for_tests:Slow makes of a packet."""
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])


def run(tmp_path, frames, **keys):
    source, target = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    told = {"read": str(source), "write": str(target), "workers": 2, "segment_packets": 50, "chunk_rows": 1024, **keys}
    accounting = Pipeline(Config(**told)).run()
    return accounting.json(), [packet for _, packet in read_pcap(target)]


THREE = [
    stream("web", f"port {PORTS['web']}", f"{SERVICES}:Slow"),
    stream(
        "voice", f"port {PORTS['voice']} or port {PORTS['web']}", "slice:bytes=20,from=packet"
    ),  # the first that matches wins
]


@pytest.mark.parametrize("policy", ["run", "flow", "time"])
@pytest.mark.parametrize("order", ["total", "flow", "none"])
def test_each_packet_goes_the_way_of_its_stream(tmp_path, policy, order):
    random = np.random.default_rng(7)
    flows = random.integers(0, 6, 3000).tolist()
    frames = [udp_frame(flow, number) for number, flow in enumerate(flows)]
    change = {0: turned, 1: lambda frame: frame[:20]}
    wanted = [change.get(flow, bytes)(frame) for flow, frame in zip(flows, frames, strict=True)]
    told, left = run(tmp_path, frames, stream=THREE, policy=policy, order=order, segment_ms=100)
    assert told["exit_status"] == 0
    assert "unbalanced" not in told
    assert sorted(left) == sorted(wanted)
    if order == "total":
        assert left == wanted
    if order == "flow":
        for flow in range(2, 6):  # the number is in the payload
            port = (1024 + flow).to_bytes(2, "big")
            assert [p for p in left if p[34:36] == port] == [p for p in wanted if p[34:36] == port]
    for name, flow, byte_count in (("web", 0, 70), ("voice", 1, 20)):
        account = told["streams"][name]
        count = flows.count(flow)
        assert account["packets"] == {"selected": count, "written": count, "dropped": {}}
        assert (account["bytes"]["selected"], account["bytes"]["written"]) == (70 * count, byte_count * count)
    rest = told["streams"]["rest"]["packets"]
    assert rest["selected"] == rest["written"] == sum(flow > 1 for flow in flows)


def test_a_stream_s_own_services_drop_and_report(tmp_path):
    frames = [udp_frame(number % 3, number // 3 % 10) for number in range(300)]
    streams = [stream("web", "port 1024", "dedup"), stream("voice", "port 1025", "count")]
    told, left = run(tmp_path, frames, stream=streams, service=["dedup"], segment_packets=7)
    kept = [frame for number, frame in enumerate(frames) if number % 3 == 1 or number < 30]
    assert left == kept
    assert told["packets"]["dropped"] == {"service.duplicate": 180}
    by_stream = {name: each["packets"] for name, each in told["streams"].items()}
    assert by_stream["web"] == {"selected": 100, "written": 10, "dropped": {"service.duplicate": 90}}
    assert by_stream["voice"] == {"selected": 100, "written": 100, "dropped": {}}
    assert by_stream["rest"]["written"] == 10
    assert told["streams"]["voice"]["services"]["count"]["packets"] == 100
    assert "unbalanced" not in told


def test_a_stream_fails_by_its_own_rule(tmp_path):
    frames = [udp_frame(number % 3, number) for number in range(300)]
    fails = f"{SERVICES}:Raises:every=1"
    streams = [stream("web", "port 1024", fails, on_failure="pass"), stream("voice", "port 1025", fails)]
    told, left = run(tmp_path, frames, stream=streams)
    assert left == [frame for number, frame in enumerate(frames) if number % 3 != 1]
    assert told["exit_status"] == 3
    assert told["notes"]["disperse.passed_unprocessed"] == 100
    assert told["streams"]["voice"]["packets"]["dropped"] == {"disperse.dead_lettered": 100}
    assert told["streams"]["web"]["packets"]["written"] == 100


def test_the_filter_comes_before_the_streams(tmp_path):
    frames = [udp_frame(number % 4, number) for number in range(400)]
    streams = [stream("web", "port 1024"), stream("none", "tcp")]
    told, left = run(tmp_path, frames, stream=streams, filter="port 1024 or port 1025")
    assert left == [frame for number, frame in enumerate(frames) if number % 4 < 2]
    selected = {name: each["packets"]["selected"] for name, each in told["streams"].items()}
    assert selected == {"rest": 100, "web": 100, "none": 0}
    assert told["packets"]["dropped"] == {"filter.not_matched": 200}


def test_rows_are_sorted_by_stream_and_keep_their_order():
    random = np.random.default_rng(3)
    for _ in range(200):
        flows = random.integers(0, 5, random.integers(0, 40)).tolist()
        batch = make_batch([udp_frame(flow, number) for number, flow in enumerate(flows)])
        batch.chunk.arena.set_link_type(0, 1)
        kept = list(range(len(flows)))
        if random.integers(2) and flows:
            kept = sorted(random.choice(len(flows), random.integers(1, len(flows) + 1), replace=False).tolist())
            batch.arrange(np.array(kept, np.uint32))
        stops = Classifier([Filter("port 1026"), Filter("portrange 1026-1027"), Filter("tcp")])(batch)
        stream_of = {2: 1, 3: 2}
        wanted = [[row for row in kept if stream_of.get(flows[row], 0) == number] for number in range(4)]
        rows = kept if batch.rows is None else batch.rows.tolist()
        assert [rows[a:b] for a, b in zip([0, *stops], stops, strict=False)] == wanted


def test_windows_of_time_are_each_stream_s_own():
    times = [second * 10**8 for second in range(40)]  # 0.1 s apart
    batch = make_batch([udp_frame(number % 2, number) for number in range(40)], times_ns=times)
    batch.chunk.arena.set_link_type(0, 1)
    segmenter = Segmenter("time", time_ms=1000, streams=2)
    segments = segmenter.cut(batch, Classifier([Filter("port 1025")])(batch))
    assert [(each.stream, len(each)) for each in segments] == [(0, 5)] * 4 + [(1, 5)] * 4


@pytest.mark.parametrize(
    ("streams", "match"),
    [
        ([stream("web", "prot 80")], "stream web: bad filter"),
        ([stream("web", "port 80", "slcie")], "stream web: there is no service 'slcie'"),
        ([stream("web", "port 80"), stream("web", "port 81")], "two streams are called 'web'"),
        ([stream("rest", "port 80")], "two streams are called 'rest'"),
        ([{"name": "web"}], "stream web: .*select"),
        ([stream("web", "port 80", on_failure="keep")], "stream web: on_failure: .*'keep'"),
        ([stream("web", "port 80", speed=1)], "stream web: .*speed"),
        ([stream("", "port 80")], "stream .*name"),
        ([stream("web", "port 80"), {"select": "port 80"}], "stream number 2: .*name"),
        ("web", "stream must be"),
    ],
)
def test_what_is_wrong_is_said_with_the_stream_s_name(streams, match, tmp_path):
    with pytest.raises(UsageError, match=match):
        run(tmp_path, [udp_frame(0, 0)], stream=streams)


def test_a_pipeline_file_has_tables(tmp_path):
    path = tmp_path / "pipeline.toml"
    path.write_text(
        '[[stream]]\nname = "web"\nselect = "tcp"\non-failure = "pass"\n[[stream.service]]\nname = "count"\n'
    )
    (web,) = make_config(str(path)).stream
    assert (web.name, web.select, web.on_failure, web.service) == ("web", "tcp", "pass", [{"name": "count"}])
