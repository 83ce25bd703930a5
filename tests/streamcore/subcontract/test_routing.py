"""Streams that providers run, on 127.0.0.1: who gets them, what comes out, and what happens without a provider."""

import contextlib
import socket
import threading
from dataclasses import replace

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import UsageError, WorkerError
from streamcore.disperse.remote import load_public_key, make_keys
from streamcore.run.pipeline import Pipeline
from streamcore.subcontract.allocator import Fixed
from streamcore.worker.remote import RemoteWorker
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap

SERVICES = "tests/streamcore/services_for_tests.py"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("pipeline", "north", "south"):
        make_keys(name, str(folder))
    return folder


def key_of(keys, name):
    return load_public_key(str(keys / f"{name}.key")).decode()


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


class Provider(threading.Thread):
    """A provider that does what it should, in a thread of this process."""

    def __init__(self, address, keys, name, kind=RemoteWorker, tries=40):
        super().__init__(daemon=True)
        files = (str(keys / f"{name}.key_secret"), str(keys / "pipeline.key"))
        self.make = lambda: kind(address, *files, join_s=0.5, allow=[SERVICES])
        self.tries = tries
        self.done = 0
        self.error = None
        self.start()

    def run(self):
        for _ in range(self.tries):  # who is turned away, because nothing is placed yet, is not asked in again
            try:
                self.done = self.make().run()
                self.error = None
                return
            except WorkerError as error:
                self.error = error


def subcontract(**more):
    return {"price_max": 100, "minimum_bps": 1000, "audit": 0.0, "deadline_ms": 500, "join_ms": 20_000} | more


def turned(frame):
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])


def run(tmp_path, keys, allocator, frames, address, streams, **more):
    source, target = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    told = {"read": str(source), "write": str(target), "workers": 1, "segment_packets": 50, "chunk_rows": 1024,
            "listen": address, "key": str(keys / "pipeline.key_secret"), "stream": streams,
            "lease_ms": 500}  # fmt: skip
    accounting = Pipeline(Config(**told | more), allocator=allocator).run()
    return accounting.json(), [packet for _, packet in read_pcap(target)]


@pytest.mark.parametrize("order", ["total", "flow"])
def test_two_streams_with_the_same_need_go_to_one_provider(tmp_path, keys, order):
    frames = [udp_frame(number % 3, number) for number in range(3000)]
    allocator = Fixed([("north", key_of(keys, "north"))])
    address = free_address()
    provider = Provider(address, keys, "north")
    streams = [
        {"name": name, "select": f"port {port}", "service": [f"{SERVICES}:Slow"], "subcontract": subcontract(audit=0.2)}
        for name, port in (("web", 1024), ("voice", 1025))
    ]
    told, left = run(tmp_path, keys, allocator, frames, address, streams, order=order)
    wanted = [turned(frame) if number % 3 < 2 else frame for number, frame in enumerate(frames)]
    assert (left if order == "total" else sorted(left)) == (wanted if order == "total" else sorted(wanted))
    provider.join(5)
    (served,) = told["subcontracts"]
    assert served["provider"] == "north"
    assert served["streams"] == ["web", "voice"]
    assert served["segments"] == provider.done
    assert served["failures"] == []
    assert served["audited"] > 0
    assert served["audits_failed"] == 0
    assert told["exit_status"] == 0
    (_, report) = allocator.reports[0]
    assert sum(each.got_bits for each in report.intervals) == 8 * 2000 * 70


def test_one_provider_may_hold_agreements_for_different_needs(tmp_path, keys):
    frames = [udp_frame(number % 3, number) for number in range(900)]
    allocator = Fixed([("north", key_of(keys, "north"))])
    address = free_address()
    provider = Provider(address, keys, "north")
    streams = [
        {"name": "web", "select": "port 1024", "service": [f"{SERVICES}:Slow"], "subcontract": subcontract()},
        {"name": "voice", "select": "port 1025", "service": ["slice:bytes=20,from=packet"],
         "subcontract": subcontract()},
    ]  # fmt: skip
    told, left = run(tmp_path, keys, allocator, frames, address, streams)
    provider.join(5)
    change = [turned, lambda frame: frame[:20], bytes]
    assert left == [change[number % 3](frame) for number, frame in enumerate(frames)]
    assert [each["streams"] for each in told["subcontracts"]] == [["web"], ["voice"]]
    assert [(each["segments"] > 0, each["failures"]) for each in told["subcontracts"]] == [(True, [])] * 2


class Lasting(Provider):
    """One that joins again when it is told that there is no more work."""

    def run(self):
        self.runs = []
        while self.tries:
            with contextlib.suppress(WorkerError):
                self.runs.append(self.make().run())


class NorthFollows(Fixed):
    """North has the first need; south has the first block of the other, and north the next."""

    def place(self, need):
        self._providers.sort(key=lambda runner: runner.provider, reverse="slice" in str(need))
        placement = super().place(need)
        return placement and replace(placement, runners_up=())

    def renew(self, placement, starts_ms, ends_ms):
        self._providers = [each for each in self._providers if each.provider == "north"]
        return super().renew(placement, starts_ms, ends_ms)


def test_a_provider_that_wins_another_need_while_it_is_joined_is_told_its_services(tmp_path, keys):
    frames = [udp_frame(number % 2, number) for number in range(2000)]
    allocator = NorthFollows([(name, key_of(keys, name)) for name in ("north", "south")])
    address = free_address()
    providers = [Lasting(address, keys, name) for name in ("north", "south")]
    terms = subcontract(otherwise="refuse", block_ms=500, maximum_bps=400_000)
    streams = [
        {"name": "web", "select": "port 1024", "service": [f"{SERVICES}:Slow"], "subcontract": terms},
        {"name": "voice", "select": "port 1025", "service": ["slice:bytes=20,from=packet"], "subcontract": terms},
    ]
    told, left = run(tmp_path, keys, allocator, frames, address, streams)
    for provider in providers:
        provider.tries = 0
        provider.join(5)
    assert left == [frame[:20] if number % 2 else turned(frame) for number, frame in enumerate(frames)]
    served = {(each["provider"], *each["streams"]) for each in told["subcontracts"] if each["segments"]}
    assert served == {("north", "web"), ("south", "voice"), ("north", "voice")}
    assert [each["failures"] for each in told["subcontracts"]] == [[]] * len(told["subcontracts"])
    assert (told["segments"]["resent"], told["exit_status"]) == (0, 0)


@pytest.mark.parametrize(("otherwise", "status"), [("in-house", 0), ("pass", 3), ("refuse", 3)])
def test_without_a_provider_the_rule_says_what_happens(tmp_path, keys, otherwise, status):
    frames = [udp_frame(number % 2, number) for number in range(500)]
    terms = subcontract(otherwise=otherwise)
    streams = [{"name": "web", "select": "port 1024", "service": [f"{SERVICES}:Slow"], "subcontract": terms}]
    told, left = run(tmp_path, keys, Fixed([]), frames, "tcp://127.0.0.1:*", streams)
    change = {"in-house": turned, "pass": bytes}.get(otherwise)
    if change is None:
        assert left == frames[1::2]
        assert told["streams"]["web"]["packets"]["dropped"] == {"disperse.dead_lettered": 250}
        assert told["dead_letter"]["reasons"] == {"no agreement with a provider": 5}
    else:
        assert left == [change(frame) if number % 2 == 0 else frame for number, frame in enumerate(frames)]
    assert told["exit_status"] == status
    assert "unbalanced" not in told


def test_a_provider_that_does_not_join_is_replaced_by_the_armed_one(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(2000)]
    allocator = Fixed([(name, key_of(keys, name)) for name in ("north", "south")])
    address = free_address()
    provider = Provider(address, keys, "south")
    streams = [{"name": "web", "select": "udp", "service": [f"{SERVICES}:Slow"],
                "subcontract": subcontract(join_ms=1500)}]  # fmt: skip
    told, left = run(tmp_path, keys, allocator, frames, address, streams)
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    north, south = told["subcontracts"]
    assert (north["provider"], north["failures"]) == ("north", ["it has not joined"])
    assert (south["provider"], south["failures"]) == ("south", [])
    assert allocator.replaced == [("north", "it has not joined")]
    assert provider.done > 0


def test_a_service_that_is_not_to_be_had_here_runs_at_the_provider(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(300)]
    address = free_address()

    class Knows(RemoteWorker):
        """Has the service that the pipeline does not have."""

        def _join(self):
            told = super()._join()
            assert told["chains"] == [[], [{"name": "turning"}]]
            return told | {"chains": [[], [f"{SERVICES}:Slow"]]}

    provider = Provider(address, keys, "north", Knows)
    terms = subcontract(when="missing", effect="rewrite", otherwise="refuse")
    streams = [{"name": "web", "select": "udp", "service": ["turning"], "subcontract": terms}]
    told, left = run(tmp_path, keys, Fixed([("north", key_of(keys, "north"))]), frames, address, streams)
    provider.join(5)
    assert provider.error is None
    assert left == [turned(frame) for frame in frames]
    assert told["exit_status"] == 0


def test_a_maximum_rate_holds(tmp_path, keys):
    frames = [udp_frame(0, number) for number in range(600)]  # 70 bytes each
    address = free_address()
    provider = Provider(address, keys, "north")
    terms = subcontract(minimum_bps=0, maximum_bps=600_000)
    streams = [{"name": "web", "select": "udp", "service": ["identity"], "subcontract": terms}]
    allocator = Fixed([("north", key_of(keys, "north"))])
    told, left = run(tmp_path, keys, allocator, frames, address, streams)
    provider.join(5)
    assert left == frames
    bits, one_segment = 600 * 70 * 8, 50 * 70 * 8
    assert told["seconds"] >= (bits - one_segment) / 600_000 - 0.05
    (_, report) = allocator.reports[0]
    assert sum(each.got_bits for each in report.intervals) == bits


def test_overloaded_workers_get_help(tmp_path, keys):
    frames = [udp_frame(number % 50, number) for number in range(1200)]
    address = free_address()
    provider = Provider(address, keys, "north")
    streams = [{"name": "web", "select": "udp", "service": [f"{SERVICES}:Slow:pause_ms=20"],
                "subcontract": subcontract(when="overloaded", overload_ms=50)}]  # fmt: skip
    allocator = Fixed([("north", key_of(keys, "north"))])
    told, left = run(tmp_path, keys, allocator, frames, address, streams, segment_packets=10)
    provider.join(5)
    assert left == [turned(frame) for frame in frames]
    (served,) = told["subcontracts"]
    ours, theirs = (share["segments"] for share in told["workers"]["shares"])
    assert served["segments"] == theirs > 0
    assert ours > 0


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"minimum_bps": 0}, "needs minimum_bps, maximum_bps or both"),
        ({"maximum_bps": 10}, "above maximum_bps"),
        ({"when": "cheaper"}, "needs in_house_price"),
        ({"in_house_price": 5}, "in_house_price has no effect"),
        ({"overload_ms": 5}, "overload_ms has no effect"),
        ({"when": "missing"}, "needs otherwise"),
        ({"objective": "luck"}, "subcontract.objective: .*'luck'"),
        ({"price": 3}, "unknown field `price`"),
    ],
)
def test_terms_that_make_no_sense_are_refused(tmp_path, keys, terms, match):
    streams = [{"name": "web", "select": "udp", "subcontract": subcontract(**terms)}]
    with pytest.raises(UsageError, match=match):
        run(tmp_path, keys, Fixed([]), [], "tcp://127.0.0.1:*", streams)
