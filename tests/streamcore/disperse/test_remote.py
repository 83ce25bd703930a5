"""Workers elsewhere, on 127.0.0.1: who joins, who is refused, and what a run writes when one of them dies."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

import streamcore
from streamcore.disperse.peer import START_S
from streamcore.disperse.remote import DOMAIN, PROTOCOL
from streamcore.worker.remote import RemoteWorker
from tests.streamcore.conftest import finish_run, kill, read_pcap, run_command, start_run, udp_frame, write_pcap
from tests.streamcore.parse.packets_by_hand import ethernet, ip4, udp

pytestmark = pytest.mark.usefixtures("nothing_left")

SERVICES = Path(__file__).parents[1] / "services_for_tests.py"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A directory with key pairs; `known` in it holds the public keys of the workers that may join."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("pipeline", "worker", "other", "stranger"):
        subprocess.run([sys.executable, "-m", "streamcore", "keys", name, folder], check=True, capture_output=True)
    (folder / "known").mkdir()
    for name in ("worker", "other"):
        shutil.copy(folder / f"{name}.key", folder / "known")
    return folder


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def capture(tmp_path):
    return write_pcap(tmp_path / "in.pcap", [udp_frame(i % 100, i) for i in range(5000)])


def start_pipeline(capture, output, address, keys, *more):
    return start_run("-r", capture, "-w", output, "-n", "0", "--listen", address, "--key", keys / "pipeline.key_secret",
                     "--worker-keys", keys / "known", "--json", *more)  # fmt: skip


def start_worker(address, keys, name="worker", server="pipeline", join_s=20):
    return subprocess.Popen(
        [sys.executable, "-m", "streamcore", "worker", "--connect", address, "--key", keys / f"{name}.key_secret",
         "--server-key", keys / f"{server}.key", "--join-s", str(join_s), "--allow", SERVICES],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_workers_elsewhere_do_all_the_work(capture, tmp_path, address, keys):
    run_command("-r", capture, "-w", tmp_path / "whole.pcap", "--service", f"{SERVICES}:Slow")
    pipeline = start_pipeline(
        capture,
        tmp_path / "out.pcap",
        address,
        keys,
        "--service",
        f"{SERVICES}:Slow:pause_ms=60",
        "--segment-packets",
        "50",
    )
    workers = [start_worker(address, keys), start_worker(address, keys, "other")]
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert [worker.wait(10) for worker in workers] == [0, 0]
    assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "whole.pcap").read_bytes()
    shares = [share["packets"] for share in run.json["workers"]["shares"]]
    assert sum(shares) == 5000
    assert all(shares)
    for worker in workers:
        worker.stderr.close()


@pytest.mark.parametrize("seed", [None, 12345])
def test_every_worker_gives_a_flow_the_same_hash(capture, tmp_path, address, keys, seed):
    given = [] if seed is None else ["--hash-seed", seed]
    service = f"{SERVICES}:Hashes:pause_ms=60"
    more = ("--policy", "run", "--segment-packets", "50", "-n", "1", "--service", service, *given)
    pipeline = start_pipeline(capture, tmp_path / "out.pcap", address, keys, *more)
    worker = start_worker(address, keys)
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert [share["packets"] > 0 for share in run.json["workers"]["shares"]] == [True, True], run.json["workers"]
    ((_, told),) = run.json["services"].items()
    assert len(told["hashes"]) == 100
    assert {len(values) for values in told["hashes"].values()} == {1}
    if seed is not None:
        (batch,) = streamcore.read(capture, hash_seed=seed)
        pairs = zip(batch.source_port.tolist(), batch.flow_hash.tolist(), strict=True)
        assert {port: [value] for port, value in pairs} == {int(port): v for port, v in told["hashes"].items()}
    worker.wait(10)
    worker.stderr.close()


def test_a_worker_elsewhere_tries_the_tunnels_of_the_run(tmp_path, address, keys):
    inner = udp_frame(3, 3)
    head = bytes.fromhex("0800000000000500") + inner
    packet = ethernet(0x0800, ip4(17, udp(50_000, 8472, head)))
    capture = write_pcap(tmp_path / "in.pcap", [packet] * 10)
    more = ("--decode-as", "udp.port=8472,vxlan", "--flow-key", "inner", "--service", "decapsulate")
    pipeline = start_pipeline(capture, tmp_path / "out.pcap", address, keys, *more)
    worker = start_worker(address, keys)
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert run.json["services"]["decapsulate"]["stripped"] == {"vxlan": 10}
    assert [frame for _, frame in read_pcap(tmp_path / "out.pcap")] == [inner] * 10
    assert worker.wait(10) == 0
    worker.stderr.close()


def test_a_worker_elsewhere_that_dies_is_made_up_for(capture, tmp_path, address, keys):
    run_command("-r", capture, "-w", tmp_path / "whole.pcap", "--service", f"{SERVICES}:Slow")
    (begun := tmp_path / "begun").mkdir()
    pipeline = start_pipeline(
        capture,
        tmp_path / "out.pcap",
        address,
        keys,
        "--service",
        f"{SERVICES}:Slow:pause_ms=50,begun={begun}",
        "--segment-packets",
        "50",
    )
    first, second = start_worker(address, keys), start_worker(address, keys, "other")
    deadline_s = time.monotonic() + 30
    while len(list(begun.iterdir())) < 2:  # one alone works for 5 s
        assert time.monotonic() < deadline_s, "they did not both begin"
        time.sleep(0.01)
    kill(first.pid, signal.SIGKILL)
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert (tmp_path / "out.pcap").read_bytes() == (tmp_path / "whole.pcap").read_bytes()
    assert run.json["workers"]["lost"] == 1
    assert second.wait(10) == 0
    first.wait()
    first.stderr.close()
    second.stderr.close()


@pytest.mark.parametrize(("name", "server"), [("stranger", "pipeline"), ("worker", "other")])
def test_an_unknown_key_on_either_side_is_refused(capture, tmp_path, address, keys, name, server):
    pipeline = start_pipeline(capture, tmp_path / "out.pcap", address, keys)
    stranger = start_worker(address, keys, name, server, join_s=2)
    _, words = stranger.communicate(timeout=20)
    assert stranger.returncode == 1
    assert "that it knows this worker's key" in words
    assert pipeline.poll() is None
    welcome = start_worker(address, keys)
    run = finish_run(pipeline)
    assert run.status == 0, run.stderr
    assert run.json["workers"]["started"] == 1
    assert len(read_pcap(tmp_path / "out.pcap")) == 5000
    welcome.wait(10)
    welcome.stderr.close()


def test_who_asks_to_join_and_gives_up_is_not_waited_for(capture, tmp_path, address, keys):
    """It is let in when the pipeline comes, and never says hello: the others have all lanes."""
    with RemoteWorker(address, str(keys / "other.key_secret"), str(keys / "pipeline.key"))._secured(zmq.DEALER) as door:
        door.send(json.dumps({"protocol": PROTOCOL, "domain": DOMAIN}).encode())
        pipeline = start_pipeline(capture, tmp_path / "out.pcap", address, keys, "--policy", "flow")
        assert door.poll(20_000)
        assert "slot" in json.loads(door.recv())
    welcome = start_worker(address, keys)
    started_s = time.monotonic()
    run = finish_run(pipeline)
    assert time.monotonic() - started_s < START_S / 2
    assert run.status == 0, run.stderr
    assert len(read_pcap(tmp_path / "out.pcap")) == 5000
    assert run.json["workers"]["started"] == 2
    assert welcome.wait(10) == 0
    welcome.stderr.close()


def test_listening_without_keys_is_a_usage_error(capture, tmp_path, address):
    run = run_command("-r", capture, "-w", tmp_path / "out.pcap", "--listen", address)
    assert run.status == 2
    assert "streamcore keys" in run.stderr
