"""How long the second stream is interrupted when the provider that has it fails, beside the lease.

Each round is a run of its own: packets come through a pipe at a steady rate, go to the provider that the market chose,
and the second stream leaves through another pipe. Both providers are `streamcore worker` in processes of their own over
TCP and CURVE; in the middle the chosen one is killed (its connection ends) or stopped (its connection stays). Told: the
longest time between two pieces of the second stream from the failure on, in the median of the rounds and at most, and
the longest before the failure, which is what the machine does undisturbed.

    python bench/failover.py --rounds 10
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from allocation import DAY_MS, TOUCH

from auction import MarketConfig, Moderator
from auction.model.bid import StandingOffer
from auction.model.rating import RatingRules
from streamcore.core.config import Config
from streamcore.disperse.remote import load_public_key, make_keys
from streamcore.run.pipeline import Pipeline
from streamcore.subcontract.market import MarketAllocator
from streamcore.subcontract.market import Terms as MarketTerms
from streamcore.subcontract.pricing import Fixed
from streamcore.subcontract.trader import Trader

PRICES = {"north": 30, "south": 40}  # north is chosen, south takes over
BOND = 50  # secures what each promises
FRAME_BYTES = 400
AT_ONCE, EVERY_S = 20, 0.005  # packets that come together: 4,000 a second
QUIET_S = 1.0  # before the failure
JOIN_S = 5.0


class Watch(threading.Thread):
    """Reads the second stream and notes when its pieces come."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.came_s: list[float] = []
        self.byte_count = 0
        self.start()

    def run(self) -> None:
        with open(self._path, "rb", buffering=0) as pipe:
            while piece := pipe.read(1 << 20):
                self.came_s.append(time.monotonic())
                self.byte_count += len(piece)

    def longest_s(self, from_s: float, until_s: float) -> float:
        """Between two pieces, of which the second came in that time."""
        pairs = zip(self.came_s, self.came_s[1:], strict=False)
        return max(after - before for before, after in pairs if from_s <= after <= until_s)


def market_of(keys: Path) -> Moderator:
    """A market in memory, with a standing offer of each provider."""
    moderator = Moderator(config=MarketConfig(rating=RatingRules(newcomer_bond=BOND)))
    moderator.register("we", "recipient")
    moderator.deposit("we", 10_000, "EUR")
    for name, price in PRICES.items():
        moderator.register(name, "provider", capacity_bps=10**9)
        moderator.deposit(name, BOND, "EUR")
        moderator.post_bond(name, BOND, "EUR")
        moderator.publish_endpoint(name, load_public_key(str(keys / f"{name}.key")).decode())
        moderator.stand_offer(
            StandingOffer(
                offer=name,
                provider=name,
                service="touch",
                unit_price=price,
                currency="EUR",
                quantity=1,
                rate_bps_max=10**9 // 2,  # what stands holds its capacity
                valid_until_ms=moderator.now_ms() + DAY_MS,
            )
        )
    return moderator


def frame(number: int) -> bytes:
    """A UDP frame of a flow out of 16, as a packet record of a pcap with nanoseconds."""
    now_ns = time.time_ns()
    ipv4 = struct.pack(">BBHIBBHII", 0x45, 0, FRAME_BYTES - 14, 0, 64, 17, 0, 0x0A000001 + number % 16, 0x0A000101)
    udp = struct.pack(">HHHH", 1024 + number % 16, 53, FRAME_BYTES - 34, 0)
    data = (bytes(12) + b"\x08\x00" + ipv4 + udp).ljust(FRAME_BYTES, b"\0")
    return struct.pack("<IIII", now_ns // 10**9, now_ns % 10**9, len(data), len(data)) + data


def trade(moderator: Moderator, until: threading.Event) -> None:
    """What the process of south does at the market: it takes over what is offered to it."""
    trader = Trader(moderator, "south", ("touch",), Fixed(PRICES["south"]), 10**9, "EUR", stand=False)
    while not until.is_set():
        trader.look(500)


def feed(path: Path, until: threading.Event) -> None:
    """The first stream, at its rate, until it is to end."""
    with open(path, "wb", buffering=0) as pipe:
        pipe.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1))
        number, next_s = 0, time.monotonic()
        while not until.is_set():
            pipe.write(b"".join(map(frame, range(number, number + AT_ONCE))))
            number, next_s = number + AT_ONCE, next_s + EVERY_S
            time.sleep(max(0.0, next_s - time.monotonic()))


def one_round(folder: Path, keys: Path, how: signal.Signals, lease_ms: int) -> tuple[float, float]:
    """(longest interruption from the failure on, longest before it), in seconds."""
    for name in ("in", "out"):
        os.mkfifo(folder / name)
    watch = Watch(folder / "out")
    terms = {"service": "touch", "price_max": 100, "minimum_bps": 1_000_000, "block_ms": 600_000, "audit": 0.0}
    config = Config(
        read=str(folder / "in"), write=str(folder / "out"), workers=1, service=(TOUCH,), policy="run",
        segment_packets=AT_ONCE, lease_ms=lease_ms, listen=f"tcp://127.0.0.1:{free_port()}",
        key=str(keys / "pipeline.key_secret"), subcontract=terms,
    )  # fmt: skip
    moderator = market_of(keys)
    pipeline = Pipeline(config, allocator=MarketAllocator(moderator, MarketTerms("we", "we", settle_ms=0)))
    told: list[dict[str, object]] = []
    running = threading.Thread(target=lambda: told.append(pipeline.run().json()), daemon=True)
    over = threading.Event()
    threading.Thread(target=trade, args=(moderator, over), daemon=True).start()
    feeding = threading.Thread(target=feed, args=(folder / "in", over), daemon=True)
    running.start()
    feeding.start()
    providers = {name: provider(keys, name, str(config.listen)) for name in PRICES}
    try:
        begin_s = time.monotonic()
        while not done_elsewhere(pipeline):
            if time.monotonic() - begin_s > JOIN_S:
                raise SystemExit("the provider was not there in time")
            time.sleep(0.01)
        time.sleep(QUIET_S)
        failed_s = time.monotonic()
        providers["north"].send_signal(how)
        time.sleep(2 * lease_ms / 1000 + QUIET_S)
        over.set()
        running.join(30)
    finally:
        for process in providers.values():
            process.kill()
            process.wait()
    (result,) = told
    ours = {served["provider"]: served for served in result["subcontracts"]}  # type: ignore[attr-defined]
    if not ours["north"]["failures"] or not ours["south"]["segments"] or result["exit_status"]:
        raise SystemExit(f"south did not take over: {result['subcontracts']}")
    watch.join(5)
    for name in ("in", "out"):
        (folder / name).unlink()
    return watch.longest_s(failed_s, time.monotonic()), watch.longest_s(failed_s - QUIET_S / 2, failed_s)


def done_elsewhere(pipeline: Pipeline) -> int:
    """Segments that a provider has done: the first worker is our own."""
    return sum(share["segments"] for share in pipeline.account_so_far().json()["workers"]["shares"][1:])


def provider(keys: Path, name: str, address: str) -> subprocess.Popen[bytes]:
    command = f"""
import sys, time
from streamcore.core.errors import WorkerError
from streamcore.worker.remote import RemoteWorker
while True:
    try:
        RemoteWorker({address!r}, {str(keys / name)!r} + ".key_secret", {str(keys / "pipeline.key")!r}, 0.3,
                     allow=[{TOUCH.rpartition(":")[0]!r}]).run()
        break
    except WorkerError:
        time.sleep(0.05)
"""
    return subprocess.Popen([sys.executable, "-c", command])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lease-ms", type=int, nargs="+", default=[500, 2000])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="failover-"))
    try:
        for name in ("pipeline", *PRICES):
            make_keys(name, str(folder))
        print(f"{'the provider is':<16} {'lease ms':>9} {'rounds':>7} {'median ms':>10} {'at most':>8} {'x lease':>8}"
              f" {'undisturbed':>12}")  # fmt: skip
        for how, words in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "stopped")):
            for lease_ms in options.lease_ms:
                found = [one_round(folder, folder, how, lease_ms) for _ in range(options.rounds)]
                times = [1000 * after for after, _ in found]
                before = 1000 * max(before for _, before in found)
                print(f"{words:<16} {lease_ms:>9} {len(found):>7} {statistics.median(times):>10.0f} {max(times):>8.0f}"
                      f" {max(times) / lease_ms:>8.2f} {before:>12.0f}", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
