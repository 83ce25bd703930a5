"""One worker process of a provider. It joins one pipeline, rejoins it if the connection ends, and reports its work.

It reads one JSON line of set-up from standard input, and exits when standard input ends, because the provider is gone
then. It writes one JSON line for each event to standard output. It knows nothing of payment.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from streamcore.core.errors import StreamcoreError, WorkerError
from streamcore.service.specification import parse_specification
from streamcore.worker.remote import Done, RemoteWorker

REPORT_EVERY_S = 0.25
COUNTED = ("segments", "packets", "bytes", "failed", "busy_ns")
JOIN_S = 1.0  # a pipeline answers at once, or does not know our key (yet)
PAUSE_S, PAUSE_S_MAX = 0.1, 0.5  # before the next attempt
COMMAND = "from streamcore.worker.provider_worker import main; main()"


def check_chains(chains: list[list[Any]], offered: list[list[Any]]) -> list[str]:
    """The market's name of each chain, by the offers as [name, chain]; "" for a chain without services, which sends
    nothing. Raises WorkerError for a chain that is not offered. An option that the offer sets must have that value; the
    recipient chooses the others. A file is run only if the offer names exactly that file.
    """
    names = []
    for chain in chains:
        of_chain = [name for name, each in offered if _is_offered(chain, each)] if chain else [""]
        if not of_chain:
            wanted = "+".join(parse_specification(each)[0] for each in chain)
            raise WorkerError(f"the pipeline wants {wanted}, which this provider does not offer")
        names.append(of_chain[0])
    return names


def _is_offered(chain: list[Any], offer: list[Any]) -> bool:
    if len(chain) != len(offer):
        return False
    for wanted, offered in zip(chain, offer, strict=True):
        (name, options), (offered_name, fixed) = parse_specification(wanted), parse_specification(offered)
        if name != offered_name or any(str(options.get(key)) != str(value) for key, value in fixed.items()):
            return False
    return True


def files_of(offered: list[list[Any]]) -> list[str]:
    """The files that the offers name: of services, and in the options that they set. A recipient can name no other."""
    files = []
    for _, chain in offered:
        for name, options in map(parse_specification, chain):
            files += [name.rpartition(":")[0], *(str(value) for value in options.values())]
    return [each for each in files if each]


class Reporter:
    """Reports the work done for each service since the last report, but not too often."""

    def __init__(self) -> None:
        self.services: list[str] = []  # by the index of their chain
        self._reported: list[Done] = []
        self._at_s = 0.0
        self._last: list[Done] = []

    def __call__(self, done: list[Done], now: bool = False) -> None:
        self._last = done
        self._reported = self._reported or [Done() for _ in done]
        if not now and time.monotonic() - self._at_s < REPORT_EVERY_S:
            return
        for place, (service, did, before) in enumerate(zip(self.services, done, self._reported, strict=True)):
            if did.segments > before.segments:
                fresh: dict[str, Any] = {name: getattr(did, name) - getattr(before, name) for name in COUNTED}
                fresh["latency_ns"] = list(did.latency_ns)
                did.latency_ns.clear()
                self._reported[place] = Done(*(getattr(did, name) for name in COUNTED))
                self._at_s = time.monotonic()
                write_line({"service": service, "done": fresh})

    def finish(self) -> bool:
        """Reports the rest. Returns whether any work was ever done."""
        self(self._last, now=True)
        return bool(self._last)


def write_line(what: Mapping[str, Any]) -> None:
    line = json.dumps(what).encode() + b"\n"
    os.write(1, line)  # one write, short enough to be atomic on a pipe


def main() -> None:
    line = sys.stdin.buffer.readline()
    if not line:
        return
    setup = json.loads(line)
    threading.Thread(target=_watch, daemon=True).start()
    pause_s = PAUSE_S
    while True:
        reporter = Reporter()

        def check(chains: list[list[Any]], reporter: Reporter = reporter) -> None:
            reporter.services = check_chains(chains, setup["offered"])
            write_line({"joined": reporter.services})

        try:
            worker = RemoteWorker(
                setup["connect"], setup["key"], setup["server_key"].encode(), JOIN_S,
                allow=files_of(setup["offered"]), check=check, watch=reporter,
            )  # fmt: skip
            worker.run()
            write_line({"ended": "the pipeline has no more work"})
        except StreamcoreError as error:
            write_line({"ended": str(error)})
        if reporter.finish():
            pause_s = PAUSE_S  # it had let us join
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)


def _watch() -> None:
    """Waits for the end of standard input: then the provider's process is gone."""
    while os.read(0, 1):
        pass
    os._exit(0)
