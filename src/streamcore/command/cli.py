"""The command: flags -> Config -> Pipeline. No logic of its own; words for people go to standard error, data and JSON
to standard output.

Start-up time counts here: what a sub-command needs is imported by that sub-command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from streamcore.command.flags import make_parser
from streamcore.core.errors import RightsError, StreamcoreError, UsageError

if TYPE_CHECKING:
    from streamcore.run.pipeline import Pipeline

LOSS, INTERRUPTED = 3, 130  # exit statuses
NOT_KEYS = ("command", "version", "config", "expression")  # everything else is a key


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command, and exits with its status."""
    parser = make_parser()
    told = parser.parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": run, "packets": packets, "flows": flows, "services": services, "check": check, "doctor": doctor,
        "demo": demo, "worker": worker, "provider": provider, "keys": keys,
    }  # fmt: skip
    try:
        if told.version:
            status = version()
        elif told.command is None:
            parser.error(f"say what to do: {', '.join(commands)}")
        else:
            status = commands[told.command](told)
        sys.stdout.flush()
    except RightsError as error:
        from streamcore.run.privileges import what_to_type

        say(f"streamcore: {error}; type: {what_to_type()}")
        status = error.exit_status
    except StreamcoreError as error:
        say(f"streamcore: {error}")
        status = error.exit_status
    except OSError as error:  # only standard output is written here; files have errors of their own
        close_output()
        if not isinstance(error, BrokenPipeError):
            say(f"streamcore: cannot write standard output: {(error.strerror or str(error)).lower()}")
        status = 1
    except KeyboardInterrupt:
        say("streamcore: interrupted")
        status = INTERRUPTED
    sys.exit(status)


def say(words: str) -> None:
    """A line for people, if anybody is there to read it."""
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr, flush=True)


def close_output() -> None:
    """Nobody takes what we write any more: the interpreter must not try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def version() -> int:
    from importlib.metadata import version as version_of

    print(f"streamcore {version_of('streamcore-auction')}")
    return 0


def run(told: argparse.Namespace) -> int:
    from streamcore.core.config import make_config

    flags = {key: value for key, value in vars(told).items() if key not in NOT_KEYS}
    flags["filter"] = " ".join(told.expression) or None
    config = make_config(told.config, flags)
    if not (config.read or config.interface) or not config.output:
        raise UsageError(
            "say what to read and where to write: streamcore run -r IN.pcap -w OUT.pcap, or -i eth0 -o eth1"
        )
    if config.json and config.write == "-":
        raise UsageError("--json and -w - both want standard output: write to a file")

    account = Account(config.json)
    signal.signal(signal.SIGUSR1, account.asked)

    from streamcore.disperse.local import launch

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that we have no use for only slow numpy's start
    # They load beside us; but with a live interface they start when we have given up our rights, without any.
    live = config.interface or config.output_interface
    launched = [] if live else [launch() for _ in range(config.workers)]

    from streamcore.run.pipeline import Pipeline
    from streamcore.run.privileges import give_up

    pipeline = account.pipeline = Pipeline(config, launched)
    interrupts = 0

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 2 or not pipeline.reading:  # or it would wait on for a pipe that nobody opens or fills
            raise KeyboardInterrupt
        (pipeline.drain if interrupts == 1 else pipeline.stop)()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if live:
            pipeline.open()
            give_up(config.user)
            if config.output_interface and not config.quiet:
                warn_of_merging(config.interfaces)
        with shown(pipeline):
            accounting = pipeline.run()
    except (StreamcoreError, KeyboardInterrupt) as error:
        if config.json:  # how far it came
            words = str(error) or "interrupted"
            so_far = {"error": words, "exit_status": getattr(error, "exit_status", INTERRUPTED)}
            print(json.dumps(pipeline.counters.as_json() | so_far), flush=True)
        raise
    except OSError as error:  # of the run's own means: files have errors of their own
        raise StreamcoreError(
            f"cannot run: {(error.strerror or str(error)).lower()} (see 'streamcore doctor')"
        ) from error
    if not config.quiet or accounting.exit_status == LOSS:
        say(accounting.text(config.verbose))
    if config.json:
        print(json.dumps(accounting.json()), flush=True)
    return accounting.exit_status


@contextlib.contextmanager
def shown(pipeline: Pipeline) -> Iterator[None]:
    """Show what the pipeline does while the block runs: on a terminal, and to Prometheus where that is wanted."""
    from streamcore.observe.progress import each_second, following

    config = pipeline.config
    on_terminal = config.progress and not config.quiet
    with contextlib.ExitStack() as stack:
        if config.metrics:
            from streamcore.observe.metrics import serving

            url = stack.enter_context(serving(pipeline, config.metrics))
            if not config.quiet:
                say(f"streamcore: metrics at {url}")
        stack.enter_context((each_second if config.interface else following)(pipeline, on_terminal))
        yield


def warn_of_merging(interfaces: Sequence[str]) -> None:
    """Say which live interfaces merge packets on receipt, before what is too long is counted by the thousand."""
    from streamcore.tools.doctor_interface import merged_on_receipt

    for words in filter(None, map(merged_on_receipt, interfaces)):
        say(f"streamcore: {words}")


class Account:
    """What SIGUSR1 asks for: the whole account so far, in words, or with --json as an object on standard output."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.pipeline: Pipeline | None = None

    def asked(self, _signal: int, _frame: Any) -> None:
        # A thread of its own: the signal may have come while the main thread holds the counters' lock.
        threading.Thread(target=self.tell, name="streamcore-account", daemon=True).start()

    def tell(self) -> None:
        if self.pipeline is None:
            say("streamcore: not begun yet")
        elif self.as_json:
            print(json.dumps(self.pipeline.account_so_far().json()), flush=True)
        else:
            say(self.pipeline.account_so_far().text(verbose=True))


def packets(told: argparse.Namespace) -> int:
    from streamcore.tools.tables import write_packets

    return write_packets(told.read, told.tsv, told.label or os.path.basename(told.read))


def flows(told: argparse.Namespace) -> int:
    from streamcore.tools.tables import write_flows

    form = "parquet" if told.parquet else "csv" if told.csv else "json"
    return write_flows(told.read, told.parquet or told.csv or told.json or "-", form)


def services(told: argparse.Namespace) -> int:
    from streamcore.service.load import describe

    described = describe()
    if told.json:
        print(json.dumps({"services": [each._asdict() for each in described]}))
        return 0
    for each in described:
        options = ", ".join(f"{key}={value}" if value else key for key, value in each.options.items())
        print(f"{each.name:<12}{each.effect:<9}{each.words}" + (f"\n{'':21}options: {options}" if options else ""))
    return 0


def check(told: argparse.Namespace) -> int:
    from streamcore.core.config import make_config
    from streamcore.core.counters import Counters
    from streamcore.parse.filter import Filter
    from streamcore.run.streams import Streams

    config = make_config(told.config)
    streams = Streams(config, Counters())
    if config.filter:
        Filter(config.filter)
    streams.classifier()
    chains = [" -> ".join(service.name for service in stream.chain.services) or "identity" for stream in streams.all]
    print(f"{told.config}: {chains[0]}, policy {config.policy}, order {config.order}, {config.workers} workers")
    for stream, chain in zip(streams.all[1:], chains[1:], strict=True):
        print(f"  stream {stream.name}: {chain}, {stream.select}")
    return 0


def doctor(told: argparse.Namespace) -> int:
    from streamcore.tools.doctor import examine

    return examine(told.json, told.interface)


def demo(told: argparse.Namespace) -> int:
    if told.market:
        from streamcore.command.demo_market import show_circle

        return show_circle(told.output, told.json)
    from streamcore.command.demo import show

    return show(told.output)


def worker(told: argparse.Namespace) -> int:
    from streamcore.core.config import check_address
    from streamcore.worker.remote import RemoteWorker

    check_address("connect", told.connect, "tcp://")
    done = RemoteWorker(told.connect, told.key, told.server_key, told.join_s).run()
    say(f"streamcore: done, {done} segments")
    return 0


def provider(told: argparse.Namespace) -> int:
    from streamcore.worker.provider import Offered, run_provider

    if told.workers < 1 or told.capacity_mbps <= 0:
        raise UsageError("a provider needs a worker (-n) and a capacity (--capacity-mbps)")
    offered = Offered(
        market=told.market, token_file=told.token_file, key=told.key, services=told.service,
        capacity_bps=int(told.capacity_mbps * 1_000_000), pricing=told.pricing, workers=told.workers, party=told.party,
        currency=told.currency, patience_s=told.patience_s, stand=told.stand,
    )  # fmt: skip
    return run_provider(offered, told.json, (lambda words: None) if told.quiet else lambda w: say(f"streamcore: {w}"))


def keys(told: argparse.Namespace) -> int:
    from streamcore.disperse.remote import make_keys

    print("\n".join(make_keys(told.name, told.directory)))
    return 0
