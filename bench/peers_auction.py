"""The full path of the market beside its peers, in one run: decided, journalled, and durable where it says so.

Prints one table. Beside it: PyPI's `auctionsi` (a task submitted to ten agents that bid, execute and are settled: its
own full path, which has no ledger, no hash chain and no idempotency), and bare `sqlite3` writing rows of the shape that
one of our auctions makes. Figures are wall time on whatever else the machine does; compare within one run.

    python bench/peers_auction.py [--seconds 3] [--postgres URL]
"""

from __future__ import annotations

import argparse
import itertools
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auction import AuctionTerms, BidEntry, Block, ManualClock, MarketConfig, MemoryStore, Moderator, SqlStore
from auction.model.bid import Bid, StandingOffer
from auction.model.rating import RatingRules
from auction.model.signing import bid_body, sign_statement
from auction.storage.store import Store, Write

Step = Callable[[], object]


class Rows:
    """Measures steps and prints a row for each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        print(f"{'what':<66} {'a second':>10} {'median µs':>10} {'99 % µs':>10}")

    def measure(self, what: str, step: Step, each: int = 1, after: Step | None = None) -> float:
        """Runs the step for a while after a warm-up; `each` auctions come of one step. What comes after a step counts
        for the rate and not for its times. Returns auctions a second."""
        for _ in range(3):
            step()
        took: list[float] = []
        started = time.perf_counter()
        while time.perf_counter() - started < self._seconds or len(took) < 20:
            before = time.perf_counter()
            step()
            took.append((time.perf_counter() - before) / each)
            if after is not None:
                after()
        rate = len(took) * each / (time.perf_counter() - started)
        took.sort()
        self.row(what, rate, took[len(took) // 2], took[len(took) * 99 // 100])
        return rate

    def row(self, what: str, rate: float, median_seconds: float = 0.0, slow_seconds: float = 0.0) -> None:
        shown = [f"{1e6 * one:>10.0f}" if one else " " * 10 for one in (median_seconds, slow_seconds)]
        print(f"{what:<66} {rate:>10.0f} {shown[0]} {shown[1]}", flush=True)


class Market:
    """A market of `bidders` providers in which one whole auction after another is held."""

    def __init__(self, store: Store, bidders: int, signed: bool = False) -> None:
        self.clock = ManualClock()
        rules = RatingRules(newcomer_bond=0)
        self.moderator = Moderator(store, clock=self.clock, config=MarketConfig(rating=rules, signatures=signed))
        self.keys = [Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")) for number in range(bidders)]
        self.moderator.register("rita", "recipient")
        self.moderator.deposit("rita", 10**15, "EUR")
        for number, key in enumerate(self.keys):
            public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
            self.moderator.register(f"p{number}", "provider", capacity_bps=10**9, public_key=public)
            self.moderator.deposit(f"p{number}", 10**12, "EUR")
        self.signed = signed
        self.numbers = itertools.count()
        self.terms = AuctionTerms(reserve=1_000, open_for_ms=1_000, receipts=False)
        self.entries = [BidEntry(f"p{number}", 300 + number * 7 % 100) for number in range(bidders)]
        self.ready = self._prepared()

    def block(self) -> Block:
        number = next(self.numbers)
        start = self.clock.now_ms + 10_000 + number * 10
        return Block(id="", provider="", service="s", starts_ms=start, ends_ms=start + 10, maximum_bps=1)

    def _prepared(self) -> Iterator[tuple[str, list[BidEntry]]]:
        """Names and bids of auctions; bids are signed before the time is taken, by their bidders' machines."""
        for number in itertools.count():
            name = f"a{number}"
            yield name, [self._sign(name, entry, index) for index, entry in enumerate(self.entries)]

    def _sign(self, name: str, entry: BidEntry, index: int) -> BidEntry:
        if not self.signed:
            return entry
        bid = Bid(bid="-", auction=name, bidder=entry.bidder, price=entry.price, currency="EUR")
        expires_ms = self.clock.now_ms + 1_000_000
        body = bid_body(bid)
        signature = sign_statement(self.keys[index], "bid", name, entry.bidder, body, nonce=name, expires_ms=expires_ms)
        return msgspec.structs.replace(entry, signature=signature)

    def auction(self) -> None:
        name, entries = next(self.ready)
        held = self.moderator.hold_auction("rita", self.block(), self.terms, entries, auction=name, key=name)
        assert held.agreements

    def group(self, count: int) -> None:
        with self.moderator.group():
            for _ in range(count):
                self.auction()


def signed_step(market: Market) -> Step:
    """Signing is not ours to measure: bids are signed ahead in batches."""
    prepared: list[tuple[str, list[BidEntry]]] = []

    def step() -> None:
        name, entries = prepared.pop()
        market.moderator.hold_auction("rita", market.block(), market.terms, entries, auction=name, key=name)

    source = market.ready
    prepared.extend(next(source) for _ in range(4_000))
    return step


class LastWrite(MemoryStore):
    """Keeps what the last command would have written."""

    keeps_records = True

    def append(self, writes: list[Write]) -> None:
        super().append(writes)
        self.write = writes[-1]


def bare_rows(folder: str, auctions_a_commit: int) -> Step:
    """Bare sqlite3 with the same settings and rows: those that one of our auctions writes, under other names."""
    store = LastWrite()
    Market(store, 10).auction()
    entry, records, postings = store.write.entry, store.write.records, store.write.postings
    connection = sqlite3.connect(f"{folder}/bare-{auctions_a_commit}.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, at_ms INT, command TEXT, key TEXT, request BLOB,"
        " body BLOB, answer BLOB, hash BLOB)"
    )
    connection.execute("CREATE TABLE record (kind TEXT, id TEXT, sequence INT, body TEXT, PRIMARY KEY (kind, id))")
    connection.execute(
        "CREATE TABLE posting (sequence INT, line INT, account TEXT, amount INT, PRIMARY KEY (sequence, line))"
    )
    numbers = itertools.count()

    def step() -> None:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(auctions_a_commit):
            number = next(numbers)
            row = (number, entry.at_ms, entry.command, f"a{number}", *entry[4:])
            connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            rows = [(kind, f"{name}-{number}", number, body) for kind, name, _, body in records]
            connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
            lines = [(number, line, account, amount) for _, line, account, amount in postings]
            connection.executemany("INSERT INTO posting VALUES (?, ?, ?, ?)", lines)
        connection.execute("COMMIT")

    return step


def peer_step(folder: str | None) -> Step | None:
    """auctionsi: a task goes to ten agents; in memory, or with its SQLite store."""
    try:
        from auctionsi import Marketplace, PythonFunctionAgent, Task
        from auctionsi.storage import SQLiteStore
    except ImportError:
        return None
    named = {"store": SQLiteStore(f"{folder}/peer.db")} if folder else {}
    market = Marketplace(**named)
    for number in range(10):
        agent = PythonFunctionAgent(
            f"agent-{number}", lambda _task, _contract: {"answer": 1}, capabilities=["qa"], price=0.03 + number / 1_000
        )
        market.register(agent)
    numbers = itertools.count()
    return lambda: market.submit_task(Task(task_id=f"t{next(numbers)}", task_type="qa", budget=0.1))


def spot_step(market: Market) -> Step:
    """100 standing offers of 100 providers; the answer comes before anything is written."""
    for number in range(100):
        offer = StandingOffer(
            offer=f"o{number}",
            provider=f"p{number}",
            service="s",
            unit_price=300 + number,
            currency="EUR",
            quantity=2**30,  # δ of 3 * 10**11 is held
            rate_bps_max=10**9,
            valid_until_ms=market.clock.now_ms + 24 * 3_600_000,
        )
        market.moderator.stand_offer(offer)
    terms = AuctionTerms(reserve=1_000, open_for_ms=1_000, format="spot", receipts=False)
    return lambda: market.moderator.spot("rita", market.block(), terms, wait=False)


def clients(market: Market, count: int, seconds: float) -> float:
    """Auctions a second of `count` threads that call one moderator at the same time."""
    deadline = time.perf_counter() + seconds
    done = [0] * count
    lock = threading.Lock()

    def client(number: int) -> None:
        while time.perf_counter() < deadline:
            with lock:
                name, entries = next(market.ready)
                block = market.block()
            market.moderator.hold_auction("rita", block, market.terms, entries, auction=name, key=name)
            done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--postgres", default="", help="SQLAlchemy URL of an empty database")
    options = parser.parse_args()
    rows = Rows(options.seconds)
    ours = rows.measure("in memory, full path, 10 bids", Market(MemoryStore(), 10).auction)
    rows.measure("in memory, full path, 100 bids", Market(MemoryStore(), 100).auction)
    rows.measure("in memory, full path, 10 signed bids", signed_step(Market(MemoryStore(), 10, signed=True)))
    spot = Market(MemoryStore(), 100)
    rows.measure(
        "spot among 100 standing offers, journalled after the answer", spot_step(spot), after=spot.moderator.flush
    )
    in_memory = peer_step(None)
    peer = rows.measure("auctionsi in memory, 10 agents", in_memory) if in_memory else 0.0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        url = f"sqlite:///{folder}"
        durable = rows.measure("SQLite, one transaction an auction", Market(SqlStore(f"{url}/1.db"), 10).auction)
        bare = rows.measure("bare sqlite3, one transaction an auction", bare_rows(folder, 1))
        grouped = Market(SqlStore(f"{url}/2.db"), 10)
        in_groups = rows.measure("SQLite, 64 auctions a commit", lambda: grouped.group(64), 64)
        bare_groups = rows.measure("bare sqlite3, 64 auctions a commit", bare_rows(folder, 64), 64)
        on_disk = peer_step(folder)
        peer_durable = rows.measure("auctionsi on its SQLite store", on_disk) if on_disk else 0.0
    if options.postgres:
        market = Market(SqlStore(options.postgres), 10)
        rows.row("PostgreSQL, 8 clients of one moderator", clients(market, 8, options.seconds))
    print(f"durable beside bare sqlite3: {durable / bare:.2f} alone, {in_groups / bare_groups:.2f} in groups")
    if peer:
        print(f"beside auctionsi: {ours / peer:.1f} times in memory, {durable / peer_durable:.1f} times durable")
    else:
        print("auctionsi is not installed (pip install auctionsi), so it is not in the table")


if __name__ == "__main__":
    main()
