"""`kill -9` at random moments, of the pipeline, of the provider, of the market's database server: the output has no
torn record, the market's invariants hold, and the run, or the one that goes on with it, ends as one never killed.

Everything is a process of its own. The moments come from a seed; STREAMCORE_KILLS has another number of them played.
"""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
from pathlib import Path

import pytest

from streamcore.core.errors import StreamcoreError
from streamcore.subcontract.served import PlainMarket
from tests.streamcore.conftest import children, finish_run, kill, read_pcap, start_run, udp_frame, write_pcap

sys.path.append(str(Path(__file__).parents[2] / "auction"))  # where servers for tests stand
import postgres
import serving

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
if postgres.server_programs() is None:
    pytest.skip("no PostgreSQL server is installed (Debian: postgresql)", allow_module_level=True)

MOMENTS = int(os.environ["STREAMCORE_KILLS"])
VICTIMS = ("pipeline", "provider", "database")
SEED = 20_261_123
KEY = "5a" * 32
FRAMES, FRAME_BYTES, RATE_BPS = 1_500, 400, 6_000_000  # 0.8 seconds
PATIENCE_S = 30.0
RULES = "[rating]\nnewcomer_bond = 0\n"


class World:
    """A market on PostgreSQL that is served, a provider with standing offers, and a pipeline file that takes them."""

    def __init__(self, place, database):
        self.place = place
        self.database = database
        (place / "rules.toml").write_text(RULES)
        self._market, url = serving.start_process(database.url, place, 0, "--rules", str(place / "rules.toml"))
        self.market = PlainMarket(url, serving.OPERATOR)
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.tokens = {}
        for party, kind in (("clinic", "recipient"), ("north", "provider")):
            told = self.market.ask("register", party=party, kind=kind, capacity_bps=10**9 if kind == "provider" else 0)
            self.tokens[party] = told["token"]
            self.market.ask("deposit", party=party, amount=10**9, currency="EUR")
            if kind == "provider":
                self.market.ask("post_bond", told["token"], party=party, amount=10**6, currency="EUR")
            (place / f"{party}.token").write_text(told["token"])
            command([sys.executable, "-m", "streamcore", "keys", party, str(place / "keys")])
        self.frames = [udp_frame(number % 40, number, FRAME_BYTES - 50) for number in range(FRAMES)]
        self.input = write_pcap(place / "in.pcap", self.frames)
        (place / "pipeline.toml").write_text(self._pipeline())
        self.provider = None
        self.start_provider()

    def _pipeline(self):
        return f"""
read = "{self.input}"
workers = 1
segment-packets = 30
chunk-rows = 1024
hash-seed = 1
service = ["anonymise:key={KEY}"]
listen = "{self.address}"
key = "{self.place / "keys" / "clinic.key_secret"}"

[market]
url = "{self.market.url}"
token-file = "{self.place / "clinic.token"}"
auction-ms = 0

[subcontract]
service = "anonymise"
price-max = 1000000
maximum-bps = {RATE_BPS}
block-ms = 4000
deadline-ms = 1500
audit = 0.2
otherwise = "in-house"
"""

    def start_provider(self):
        log = (self.place / "north.log").open("w")
        words = [
            "streamcore",
            "provider",
            "--market",
            self.market.url,
            "--key",
            str(self.place / "keys/north.key_secret"),
        ]
        words += ["--service", "anonymise", "--token-file", str(self.place / "north.token"), "--pricing", "fixed:10"]
        words += ["--capacity-mbps", "1000", "--patience-s", "60"]
        self.provider = subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log)
        log.close()
        until(lambda: "offers" in (self.place / "north.log").read_text(), "the provider offers")

    def run(self, target, *more):
        return start_run("--config", self.place / "pipeline.toml", "-w", target, "--json", "-q", *more)

    def broken(self):
        """What `auction verify` finds on the database as it stands."""
        from auction.moderator.invariants import verify
        from auction.storage.sql_store import SqlStore

        store = SqlStore(self.database.url)
        try:
            return verify(store)
        finally:
            store.close()

    def close(self):
        for process in (self.provider, self._market):
            process.kill()
            process.wait()
        self._market.stdout.close()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def command(words):
    subprocess.run(words, check=True, capture_output=True)


def until(look, what):
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, f"it did not come that far: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def world():
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    with postgres.restartable_server(postgres.server_programs()) as database:
        played = World(place, database)
        try:
            yield played
        finally:
            played.close()


@pytest.fixture(scope="module")
def whole(world):
    """What a run comes to that nobody disturbs; a provider did its part."""
    target = world.place / "whole.pcap"
    told = finish_run(world.run(target))
    assert told.status == 0, told.stderr
    assert [len(frame) for _, frame in read_pcap(target)] == [len(frame) for frame in world.frames]
    assert sum(served["segments"] for served in told.json["subcontracts"]) > 0
    return target.read_bytes()


def moments():
    numbers = random.Random(SEED)
    return [(VICTIMS[number % len(VICTIMS)], round(numbers.uniform(0.2, 1.5), 3)) for number in range(MOMENTS)]


@pytest.mark.parametrize(("victim", "after_s"), moments())
def test_a_kill_at_any_moment(world, whole, victim, after_s, tmp_path):
    target = tmp_path / "out.pcap"
    process = world.run(target)
    time.sleep(after_s)
    if victim == "pipeline":
        told = go_on(world, process, target, whole)
    elif victim == "provider":
        world.provider.kill()
        world.provider.wait()
        told = finish_run(process)
        world.start_provider()
    else:
        world.database.kill()
        world.database.start()
        told = finish_run(process)
    assert told.status == 0, told.stderr
    assert target.read_bytes() == whole
    assert "unbalanced" not in told.json
    assert told.json["packets"]["written"] + told.json["packets"]["dropped"].get("resume.delivered_before", 0) == FRAMES
    assert world.broken() == []


def go_on(world, process, target, whole):
    """Kills the run, looks at what it left, and has another go on."""
    workers = children(process.pid)
    kill(process.pid)
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "its workers have cut what was torn")
    if target.exists() and target.stat().st_size:
        left = target.read_bytes()
        assert len(read_pcap(target)) <= FRAMES
        assert whole.startswith(left)
    return finish_run(world.run(target, "--resume"))


def test_in_the_end_the_market_still_answers_and_pays_whom_it_owes(world, whole):
    told = finish_run(world.run(world.place / "last.pcap"))
    assert told.status == 0, told.stderr
    assert (world.place / "last.pcap").read_bytes() == whole
    (served, *_) = told.json["subcontracts"]
    assert served["state"] == "settled"
    agreement = world.market.ask("agreement", agreement=served["agreement"])
    assert agreement["charged"] == served["charged"] > 0
    with pytest.raises((StreamcoreError, urllib.error.URLError)):
        world.market.ask("balance", "nobody's token", party="north")
