"""Workers elsewhere: what they may run, that their results are audited; keys and sockets that nobody else may use."""

import os
import socket
import time
from pathlib import Path

import msgspec
import pytest
import zmq

from streamcore.core.errors import UsageError, WorkerError
from streamcore.disperse import envelope, local
from streamcore.disperse.remote import SILENCE_MS_MIN, keep_alive, load_key, make_keys
from streamcore.worker.permitted import refuse_unallowed
from streamcore.worker.provider_worker import files_of
from tests.streamcore.disperse.played import FRAMES, PACKETS, Here, Stage, Worker

SERVICES = Path(__file__).parents[1] / "services_for_tests.py"


@pytest.mark.parametrize("audit", [1.0, 0.0])
def test_an_audit_finds_a_worker_elsewhere_that_lies(audit):
    """It says of its first segments what is true, and of the others that a packet had another length."""
    stage = Stage(["count"], audit=audit)
    here, there = Here(stage), Worker(stage, "B").hello()
    for lies in (False, True):
        with stage.without(here):
            stage.submit(4)
        outcomes, frames = there.answer(there.works())
        if lies:
            reports = [msgspec.msgpack.decode(frame) for frame in frames]
            for report in reports:
                report["reports"][0][1]["protocols"][0][2] += 1
            frames = list(map(msgspec.msgpack.encode, reports))
        there.send(there.head(envelope.RESULT, outcomes), *frames)
        here.work()
    assert sorted(result.segment.number for result in stage.results) == list(range(8))
    for result in stage.results:
        stage.chain.merge(result.reports)
    truth = sum(len(frame) for frame in FRAMES[: 4 * PACKETS]) * 2
    counted = stage.chain.summaries()["count"]
    events = stage.counters.as_json()["workers"]
    if audit:
        assert counted["bytes"] == truth
        assert (events["audited"], events["given_up"]) == (8, 1)
        assert events["audits_failed"] >= 1
        assert stage.dispatcher.given_up == {"B": "an audit found another result"}
        assert not there.is_in
        assert "0 of its results were not audited and had left" in stage.dispatcher.lies[0]
    else:
        assert counted["bytes"] == truth + 4
        assert there.is_in
    stage.close()


def test_an_audit_that_nobody_can_do_any_more_counts_as_passed():
    stage = Stage(["count"], audit=1.0)
    here, there = Here(stage), Worker(stage, "B").hello()
    with stage.without(here):
        stage.submit(2)
        there.work()
    assert stage.results == []
    stage.lose(here)
    assert not stage.machine.places.here
    assert len(stage.results) == 2
    stage.close()


def test_a_worker_elsewhere_runs_and_reads_the_files_that_it_was_told_to_and_no_other(tmp_path):
    service, secret = str(SERVICES), tmp_path / "secret"
    secret.write_text("shadow")
    link = tmp_path / "link.py"
    link.symlink_to(service)
    unallowed = (
        f"{service}:Slow", f"{link}:Slow", {"name": f"{service}:Slow"}, f"scan:{secret}", f"scan:patterns={secret}",
        {"name": "scan", "patterns": str(secret)}, f"anonymise:key-file={secret}",
        {"name": "anonymise", "key-file": str(secret)},
    )  # fmt: skip
    for specification in unallowed:
        with pytest.raises(WorkerError, match="--allow"):
            refuse_unallowed([["count"], [specification]], [str(tmp_path / "another.py")])
        refuse_unallowed([[specification]], [service, str(secret)])
    refuse_unallowed([["count", {"name": "scan", "text": "a=/b/"}], ["anonymise:key=" + "0" * 64]], [])
    assert files_of([["turning", [f"{service}:Slow"]], ["scan", ["scan:in=packet"]]]) == [service, "packet"]


def test_keys_are_never_overwritten_and_a_secret_that_others_can_read_is_refused(tmp_path):
    public, secret = make_keys("mine", str(tmp_path))
    before = Path(secret).read_bytes()
    assert os.stat(secret).st_mode & 0o777 == 0o600
    for gone in (None, public):
        if gone:
            os.remove(gone)
        with pytest.raises(UsageError, match="exists"):
            make_keys("mine", str(tmp_path))
    assert Path(secret).read_bytes() == before
    load_key(secret)
    for mode in (0o604, 0o620, 0o606, 0o601):
        os.chmod(secret, mode)
        with pytest.raises(UsageError, match="chmod 600"):
            load_key(secret)


def test_another_user_cannot_connect_to_the_sockets_of_a_run():
    if os.geteuid():
        pytest.skip("only root can try as another user")
    address = local.endpoint(f"test-{time.monotonic_ns()}")
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        local.for_us_alone(pull)
        pull.bind(address)

        def greeted(user):
            child = os.fork()
            if not child:
                status = 2
                try:
                    os.setuid(user)
                    with socket.socket(socket.AF_UNIX) as theirs:
                        theirs.settimeout(10)
                        theirs.connect("\0" + address.removeprefix("ipc://@"))
                        status = 0 if theirs.recv(10) else 1
                except ConnectionError:
                    status = 1
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        assert greeted(os.geteuid()) == 0
        assert greeted(65534) == 1


def test_a_silent_peer_counts_as_gone_within_the_lease():
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        for lease_ms in (SILENCE_MS_MIN, 4000, 10_000):
            keep_alive(push, lease_ms)
            assert push.getsockopt(zmq.HEARTBEAT_IVL) + push.getsockopt(zmq.HEARTBEAT_TIMEOUT) <= lease_ms
