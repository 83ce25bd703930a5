"""One worker process of a provider: joins the pipeline that it is told of, again and again, and says what it did.

Standard input carries one JSON line of set-up and then nothing; when it ends the provider is gone, and so are we.
Standard output carries a JSON line for what happens. Who pays for it is not known here.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from streamcore.errors import StreamcoreError, WorkerError
from streamcore.remote_worker import Done, RemoteWorker
from streamcore.service.specification import parse_specification

TOLD_EVERY_S = 0.25
JOIN_S = 1.0  # a pipeline answers at once, or does not know us (yet)
PAUSE_S, PAUSE_S_MAX = 0.1, 0.5  # before it is tried again
COMMAND = "from streamcore.provider_worker import main; main()"


def check_chains(chains: list[list[Any]], offered: list[list[Any]]) -> None:
    """Raises WorkerError where a chain that has services is none of those offered. An option that the offer names must
    be as it says; others are the recipient's to choose. A file is run only where the offer names that very file.
    """
    for chain in chains:
        if chain and not any(_is_offered(chain, each) for each in offered):
            names = "+".join(parse_specification(each)[0] for each in chain)
            raise WorkerError(f"{names} is not what this provider offers")


def _is_offered(chain: list[Any], offer: list[Any]) -> bool:
    if len(chain) != len(offer):
        return False
    for wanted, offered in zip(chain, offer, strict=True):
        (name, options), (offered_name, fixed) = parse_specification(wanted), parse_specification(offered)
        if name != offered_name or any(str(options.get(key)) != str(value) for key, value in fixed.items()):
            return False
    return True


class Teller:
    """Says what was done since it said so last, but not too often."""

    def __init__(self) -> None:
        self._told = Done()
        self._at_s = 0.0

    def __call__(self, done: Done, now: bool = False) -> None:
        if done.segments == self._told.segments or (not now and time.monotonic() - self._at_s < TOLD_EVERY_S):
            return
        fields = ("segments", "packets", "bytes", "failed", "busy_ns")
        fresh: dict[str, Any] = {name: getattr(done, name) - getattr(self._told, name) for name in fields}
        fresh["latency_ns"] = list(done.latency_ns)
        done.latency_ns.clear()
        self._told = Done(*(getattr(done, name) for name in fields))
        self._at_s = time.monotonic()
        tell({"done": fresh})


def tell(what: Mapping[str, Any]) -> None:
    line = json.dumps(what).encode() + b"\n"
    os.write(1, line)  # one write: short enough for a pipe to take whole


def main() -> None:
    line = sys.stdin.buffer.readline()
    if not line:
        return
    setup = json.loads(line)
    threading.Thread(target=_watch, daemon=True).start()
    pause_s = PAUSE_S
    while True:
        teller = Teller()
        last: list[Done] = []

        def watch(done: Done, teller: Teller = teller, last: list[Done] = last) -> None:
            last[:] = [done]
            teller(done)

        try:
            worker = RemoteWorker(
                setup["connect"], setup["key"], setup["server_key"].encode(), JOIN_S,
                check=lambda chains: check_chains(chains, setup["offered"]), watch=watch,
            )  # fmt: skip
            worker.run()
            tell({"ended": "the pipeline has no more work"})
        except StreamcoreError as error:
            tell({"ended": str(error)})
        if last:
            teller(last[0], now=True)
            pause_s = PAUSE_S  # it had let us in
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)


def _watch() -> None:
    """Wait for the end of standard input: then who started us is gone."""
    while os.read(0, 1):
        pass
    os._exit(0)
