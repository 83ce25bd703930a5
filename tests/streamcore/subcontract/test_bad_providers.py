"""Every kind of bad provider, with many seeds: the output is exact, the accounts of packets and of money balance."""

import collections
import os
import shutil
import threading

import pytest

from auction.model.lifecycle import CLOSING_MS
from auction.moderator.clock import system_clock
from auction.moderator.invariants import violations
from streamcore.core.config import Config
from streamcore.core.errors import WorkerError
from streamcore.run.pipeline import Pipeline
from streamcore.worker.remote import RemoteWorker
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap
from tests.streamcore.subcontract.bad_providers import DEADLINE_MS, KINDS, bad
from tests.streamcore.subcontract.test_market_run import a_market, allocator_of, trading, wealth
from tests.streamcore.subcontract.test_routing import SERVICES, free_address, turned
from tests.streamcore.subcontract.test_routing import keys as keys  # a fixture

SEEDS = int(os.environ["STREAMCORE_SEEDS"])
FRAMES = [udp_frame(number % 4, number) for number in range(400)]
WANTED = [turned(frame) if number % 4 < 2 else frame for number, frame in enumerate(FRAMES)]
TRIES = 5  # at a seed, until the provider comes to misbehave
FEW = {"shortened", "dropping", "of_another_attempt", "failing"}  # much like others: fewer seeds
HARMLESS = {"reordering"}  # the output is exact in any case, and nothing is promised that it breaks


@pytest.fixture(scope="module")
def place(tmp_path_factory, keys):
    """A directory with the capture, and the key of the worker of our own that joins in place of a process."""
    from streamcore.disperse.remote import make_keys

    folder = tmp_path_factory.mktemp("bad")
    make_keys("home", str(keys))
    (folder / "known").mkdir()
    shutil.copy(keys / "home.key", folder / "known")
    write_pcap(folder / "in.pcap", FRAMES)
    return folder


class Joining:
    """Starts the workers and providers when the market is asked, and has them try again where they come too early."""

    def __init__(self, address, keys):
        self._address, self._keys = address, keys
        self._over = threading.Event()
        self._threads = []

    def join(self, name, kind=RemoteWorker):
        thread = threading.Thread(target=self._work, args=(name, kind), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, name, kind):
        while not self._over.wait(0.005):
            try:
                secret, server = self._keys / f"{name}.key_secret", self._keys / "pipeline.key"
                kind(self._address, str(secret), str(server), join_s=0.2, allow=[SERVICES]).run()
                return
            except ConnectionResetError:
                continue
            except WorkerError as error:
                if "dead" in str(error):
                    return

    def close(self):
        self._over.set()


def play(place, keys, kind, seed):
    """One run with a bad provider (cheaper, so it is awarded) and a good one: its accounting."""
    ahead_ms, clock = [0], system_clock()
    moderator = a_market(keys, {"north": 300, "south": 400}, clock=lambda: clock() + ahead_ms[0])
    allocator = allocator_of(moderator)
    address = free_address()
    joining = Joining(address, keys)
    placed = allocator.place

    def placing(need):
        placement = placed(need)
        joining.join("home")
        joining.join("north", bad(kind, seed))
        joining.join("south")
        return placement

    allocator.place = placing
    terms = {"service": "turning", "price_max": 1000, "minimum_bps": 1000, "maximum_bps": 10**8,  # one by one
             "deadline_ms": DEADLINE_MS, "audit": 1.0 if kind == "lying" else 0.0}  # fmt: skip
    streams = [
        {"name": name, "select": f"port {port}", "service": [f"{SERVICES}:Slow"], "subcontract": terms}
        for name, port in (("web", 1024), ("voice", 1025))
    ]
    target = place / f"{kind}-{seed}.pcap"
    config = Config(read=str(place / "in.pcap"), write=str(target), workers=0, listen=address, stream=streams,
                    key=str(keys / "pipeline.key_secret"), worker_keys=str(place / "known"), segment_packets=10,
                    policy="run", chunk_rows=1024, chunk_bytes=1 << 19, lease_ms=2000)  # fmt: skip
    with trading(moderator, keys, "south"):
        try:
            told = Pipeline(config, allocator=allocator).run().json()
        finally:
            joining.close()
    assert [packet for _, packet in read_pcap(target)] == WANTED
    target.unlink()
    assert told["exit_status"] == 0
    assert "unbalanced" not in told
    assert "market_errors" not in told
    assert told["packets"]["written"] == len(FRAMES)
    ahead_ms[0] = CLOSING_MS
    moderator.tick()
    assert violations(moderator.state) == []
    costs(moderator, told["subcontracts"])
    return told


def costs(moderator, served):
    """What it costs whom, when closing is over. The bad one never says a word: it gets what the recipient measured, and
    what it left undelivered costs it δ, which goes to nobody. Who took over is paid its part; the recipient, which ends
    its run early, leaves what still runs."""
    clinic, north, south = 10_000, 10_000, 10_000
    for each in served:
        agreement = moderator.agreement(each["agreement"])
        assert agreement.state == "settled"
        assert 0 <= agreement.paid <= agreement.price
        rest = (agreement.price - agreement.paid) // 10
        if each["failures"]:
            assert (each["provider"], agreement.recipient_ending, agreement.provider_ending) == ("north", "blaming", "")
            assert (agreement.charged, agreement.burnt) == (agreement.paid, rest)
            north += agreement.paid - rest
        else:
            assert agreement.recipient_ending == "leaving"
            assert (agreement.charged, agreement.burnt) == (agreement.paid + rest, 0)
            if each["provider"] == "north":
                north += agreement.charged
            else:
                south += agreement.charged
        clinic -= agreement.charged
    taken = {moderator.agreement(each["agreement"]).of for each in served} - {""}
    assert taken <= {each["agreement"] for each in served}
    assert moderator.balance("clinic") == clinic
    assert (wealth(moderator, "north"), wealth(moderator, "south")) == (north, south)


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_is_exact_whatever_a_provider_does(place, keys, kind):
    suspended = collections.Counter()
    seeds = -(-SEEDS // 5) if kind in FEW else SEEDS
    for seed in range(seeds):
        for _ in range(1 if kind in HARMLESS else TRIES):  # a busy machine may not let it come to misbehave
            north = play(place, keys, kind, seed)["subcontracts"][0]
            assert north["provider"] == "north"
            if north["failures"]:
                break
        suspended.update(north["failures"])
    if kind not in HARMLESS:
        assert sum(suspended.values()) == seeds, suspended
