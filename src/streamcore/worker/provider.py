"""The provider's process (`streamcore provider`). It trades in the market, and keeps worker processes connected to
the pipelines with which it has agreements or expects them.

It connects subcontract/trader.py (the market) and provider_worker.py (the work). If it is killed, its workers end too,
and the pipelines send their segments to others.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamcore.core.errors import MarketError
from streamcore.service.load import find
from streamcore.service.specification import parse_specification
from streamcore.worker.provider_worker import COMMAND

if TYPE_CHECKING:
    from streamcore.subcontract.trader import Assignment, Trader

LOOK_MS = 500  # how long one request to the market waits for news
REPORT_S = 0.5  # between checks of agreements that are ending
LINGER_S = 5.0  # how long workers stay connected after no agreement needs them
RESTART_S = 1.0  # between two starts in one place
DRAIN_S = 0.3
PAUSE_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Offered:
    """A provider's offer and its terms."""

    market: str
    token_file: str
    key: str
    services: list[str]  # a chain each: "anonymise", "count+anonymise:key=…", "cleaning=path/to/file.py:Class"
    capacity_bps: int
    pricing: str
    workers: int
    party: str = ""  # the name to register under if the token's file does not exist yet
    currency: str = "EUR"
    patience_s: float = 300.0  # how long to go on without the market
    stand: bool = True  # place standing offers


def chain_of(words: str) -> tuple[str, list[str]]:
    """The (name in the market, specifications) of one --service: NAME=CHAIN, or a chain alone, whose name is the names
    of its services; several services are joined by "+". Raises UsageError if a service cannot be loaded.
    """
    matched = re.match(r"([\w.+-]+)=(?=[^=:]+(:|\+|$))", words)
    chain = words[matched.end() if matched else 0 :].split("+")
    names = [parse_specification(each)[0] for each in chain]
    for name in names:
        find(name)
    return matched[1] if matched else "+".join(names), chain


Place = tuple[str, str, str]  # recipient, address, CURVE key


class Workforce:
    """Worker processes, by place. Spare ones are started beforehand and wait for a place."""

    def __init__(self, count: int, key: str, offered: Sequence[tuple[str, list[str]]]) -> None:
        self._count = count
        self._setup = {"key": key, "offered": offered}
        self._spare: list[subprocess.Popen[bytes]] = []
        self._at: dict[Place, list[subprocess.Popen[bytes]]] = {}
        self._wanted_s: dict[Place, float] = {}
        self._started_s: dict[Place, float] = {}
        self._rest: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self.started = 0

    def keep(self, places: set[Place]) -> None:
        """Keeps workers at these pipelines. Workers at other pipelines end after a while."""
        now_s = time.monotonic()
        for place in places:
            self._wanted_s[place] = now_s
            here = self._at.setdefault(place, [])
            for process in [each for each in here if each.poll() is not None]:
                self._end(process)
                here.remove(process)
            if len(here) < self._count and now_s - self._started_s.get(place, 0.0) >= RESTART_S:
                self._started_s[place] = now_s
                while len(here) < self._count:
                    here.append(self._send(place))
        for place in [each for each, wanted_s in self._wanted_s.items() if now_s - wanted_s > LINGER_S]:
            for process in self._at.pop(place):
                self._end(process)
            del self._wanted_s[place]
        while len(self._spare) < self._count:
            self._spare.append(self._launch())

    def news(self) -> list[tuple[Place, dict[str, Any]]]:
        """The workers' messages since the last call."""
        messages = []
        for chosen, _ in self._selector.select(0):
            place, process = chosen.data
            piece = os.read(chosen.fd, 1 << 16)
            if not piece:
                self._selector.unregister(chosen.fileobj)
                continue
            *lines, self._rest[process.pid] = (self._rest.get(process.pid, b"") + piece).split(b"\n")
            messages += [(place, json.loads(line)) for line in lines]
        return messages

    def close(self) -> None:
        for process in [*self._spare, *(each for here in self._at.values() for each in here)]:
            self._end(process)
        self._spare, self._at = [], {}

    def _launch(self) -> subprocess.Popen[bytes]:
        self.started += 1
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )  # fmt: skip

    def _send(self, place: Place) -> subprocess.Popen[bytes]:
        process = self._spare.pop() if self._spare else self._launch()
        assert process.stdin is not None
        assert process.stdout is not None
        _, address, server_key = place
        line = json.dumps(self._setup | {"connect": address, "server_key": server_key}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # it died: another will fill its place
            process.stdin.write(line)
            process.stdin.flush()
        self._selector.register(process.stdout, selectors.EVENT_READ, (place, process))
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.stdout)
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()
        self._rest.pop(process.pid, None)


class Provider:
    """Runs until `stop`, or until the market does not answer for patience_s (MarketError)."""

    def __init__(self, trader: Trader, workforce: Workforce, patience_s: float, say: Callable[[str], None]) -> None:
        self._trader = trader
        self._workforce = workforce
        self._patience_s = patience_s
        self._say = say
        self._stopping = False
        self._since_ms: dict[tuple[str, str], int] = {}
        self._joined: set[str] = set()  # recipients whose pipelines our workers have joined
        trader.is_connected = self._joined.__contains__

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        heard_s = reported_s = time.monotonic()
        pause_s = 0.1
        places: set[Place] = set()
        while not self._stopping:
            try:
                self._trader.look(LOOK_MS)
                if time.monotonic() - reported_s >= REPORT_S:
                    self._trader.report()
                    reported_s = time.monotonic()
                heard_s, pause_s = time.monotonic(), 0.1
                places = {
                    (each.recipient, each.address, each.curve_key)
                    for each in self._trader.assignments
                    if each.address and _lets_us_in(each)
                }
            except MarketError as error:
                if time.monotonic() - heard_s > self._patience_s:
                    raise
                if pause_s == 0.1:
                    self._say(f"{error}; trying again for {self._patience_s:.0f} s")
                time.sleep(pause_s)  # the workers go on; their work is reported later
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
            self._workforce.keep(places)
            self._hear()
        self._finish()

    def _hear(self) -> None:
        from streamcore.subcontract.work import Done

        now_ms = self._trader.now_ms
        for (recipient, address, _), message in self._workforce.news():
            if "done" in message:
                service = message["service"]
                starts_ms = min(self._since_ms.get((recipient, service), now_ms - LOOK_MS), now_ms - 1)
                self._trader.did(recipient, service, starts_ms, now_ms, Done(**message["done"]))
                self._since_ms[recipient, service] = now_ms
            elif "joined" in message:
                self._joined.add(recipient)
            elif "ended" in message:
                self._joined.discard(recipient)
                self._say(f"{recipient} at {address}: {message['ended']}")

    def _finish(self) -> None:
        time.sleep(DRAIN_S)
        self._hear()
        self._workforce.close()
        try:
            self._trader.end()
        except MarketError as error:
            self._say(str(error))


def _lets_us_in(each: Assignment) -> bool:
    """Whether its pipeline lets our workers join now: not for a possible assignment or one that is over."""
    return each.role in ("runner_up", "offer") or (each.role == "winner" and each.state != "closing")


def run_provider(offered: Offered, as_json: bool, say: Callable[[str], None]) -> int:
    """The command. Raises UsageError, MarketError."""
    from streamcore.disperse.remote import load_key
    from streamcore.subcontract.pricing import make_pricing
    from streamcore.subcontract.registering import connect, party_of, signing_key_of
    from streamcore.subcontract.trader import Trader

    chains = [chain_of(words) for words in offered.services]
    services = [name for name, _ in chains]
    pricing = make_pricing(offered.pricing)
    public, secret = load_key(offered.key)
    signing_key = signing_key_of(secret)
    workforce = Workforce(offered.workers, os.path.abspath(offered.key), chains)
    with contextlib.ExitStack() as stack:
        stack.callback(workforce.close)
        market = connect(offered.market, offered.token_file, offered.party, offered.capacity_bps, signing_key)
        stack.callback(market.disconnect)
        party, signs = party_of(market, signing_key)
        trader = Trader(
            market, party, services, pricing, offered.capacity_bps, offered.currency, signs, say, offered.stand
        )
        trader.begin(public.decode())
        say(f"{party} offers {', '.join(services)} at {offered.market}")
        provider = Provider(trader, workforce, offered.patience_s, say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _signal, _frame: provider.stop())
        provider.run()
    work = list(trader.work.values())
    segments = sum(each.segments for each in work)
    say(f"{party}: {segments} segments under {len(work)} agreements, paid {trader.in_words(trader.earned)}")
    if as_json:
        account = {"party": party, "bids": trader.bids, "earned": trader.earned, "currency": offered.currency}
        print(json.dumps(account | {"agreements": [each.json() for each in work]}), flush=True)
    return 0
