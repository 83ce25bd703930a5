"""`streamcore run`: flags -> Config -> Pipeline, and who hears a signal. No logic of its own; words for people go to
standard error, data and JSON to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from streamcore.command.flags import add_config, add_keys, keys_given
from streamcore.command.say import say
from streamcore.core.errors import StreamcoreError, UsageError

if TYPE_CHECKING:
    from streamcore.core.config import Config
    from streamcore.run.pipeline import Pipeline

LOSS, INTERRUPTED = 3, 130  # exit statuses
USAGE = "streamcore run -r FILE|-i NAME -w FILE|-o NAME [--service NAME]… [options] [BPF EXPRESSION]"
EPILOG = """\
examples:
  streamcore run -r in.pcapng.zst -w out.pcapng -n 2 --service anonymise 'tcp port 443'
  streamcore run -r in.pcap -w out.pcap --service dedup --service slice:96
  streamcore run --config pipeline.toml -r in.pcap -w out.pcapng.zst --json
  streamcore run -r in.pcap -o eth1 --rate-mbps 100
  tcpdump -i eth0 -w - | streamcore run -r - -w - --service anonymise | tcpdump -r -

exit status: 0 everything was delivered, 1 failure, 2 wrong usage, 3 finished with losses that the accounting names,
130 interrupted. The first Ctrl-C delivers what was read and stops; the second stops at once.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage, parser.epilog = USAGE, EPILOG
    add_config(parser)
    add_keys(parser, "run")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.core.pipeline_file import make_config

    config = make_config(arguments.config, keys_given(arguments))
    if not (config.read or config.interface) or not config.output:
        raise UsageError(
            "say what to read and where to write: streamcore run -r IN.pcap -w OUT.pcap, or -i eth0 -o eth1"
        )
    if config.json and config.write == "-":
        raise UsageError("--json and -w - both want standard output: write to a file")
    return run(config)


def run(config: Config) -> int:
    """Run a pipeline until it ends or is interrupted. Returns the exit status."""
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
    hear_interrupts(pipeline)
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


def hear_interrupts(pipeline: Pipeline) -> None:
    """SIGINT and SIGTERM: the first delivers what was read, the second stops, the third raises KeyboardInterrupt."""
    interrupts = 0

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 2 or not pipeline.reading:  # or it would wait on for a pipe that nobody opens or fills
            raise KeyboardInterrupt
        (pipeline.drain if interrupts == 1 else pipeline.stop)()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def shown(pipeline: Pipeline) -> Iterator[None]:
    """Show what the pipeline does while the block runs: on a terminal, and to Prometheus if that is wanted."""
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
            say("streamcore: the run has not begun yet")
        elif self.as_json:
            print(json.dumps(self.pipeline.account_so_far().json()), flush=True)
        else:
            say(self.pipeline.account_so_far().text(verbose=True))
