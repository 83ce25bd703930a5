"""`streamcore run`: makes a Config from the flags, runs a Pipeline with it, and handles signals.

Messages for people go to standard error, data and JSON to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from streamcore.command.flags import add_config, add_keys, keys_given
from streamcore.command.letters import expression_of
from streamcore.command.say import INFO, WARNING, say
from streamcore.core.errors import ReaderGone, StreamcoreError, UsageError

if TYPE_CHECKING:
    from streamcore.core.config import Config
    from streamcore.run.pipeline import Pipeline

LOSS, INTERRUPTED = 3, 130  # exit statuses
DESCRIPTORS, DESCRIPTORS_OF_WORKER, DESCRIPTORS_ELSEWHERE = 32, 12, 256  # open files that a run may need
INPUTS_OPEN = 256  # captures at once: OPEN_MAX of source/merged.py, which is not loaded yet
USAGE = "streamcore run -r FILE|-i NAME -w FILE|-o NAME [--service NAME]… [options] [BPF EXPRESSION]"
EPILOG = """\
examples:
  streamcore run -r in.pcapng.zst -w out.pcapng -n 2 --service anonymise 'tcp port 443'
  streamcore run -r in.pcap -w out.pcap --service dedup --service slice:96
  streamcore run --config pipeline.toml -r in.pcap -w out.pcapng.zst --json
  streamcore run -r in.pcap -o eth1 --rate-mbps 100
  tcpdump -i eth0 -w - | streamcore run -r - -w - --service anonymise | tcpdump -r -

exit status: 0 everything was delivered, 1 failure, 2 wrong usage, 3 finished with losses that the accounting names,
130 interrupted, without losses. After one Ctrl-C the run delivers the packets that it has read and stops; after two, or
after --drain-s, it stops at once.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage, parser.epilog = USAGE, EPILOG
    add_config(parser)
    parser.add_argument("-F", dest="expression_file", metavar="FILE", help="read the expression from this file")
    add_keys(parser, "run")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.core.pipeline_file import make_config

    given = keys_given(arguments)
    if arguments.expression_file is not None:
        if given.get("filter"):
            raise UsageError("-F and an expression are both given: give one of them")
        given["filter"] = expression_of(arguments.expression_file)
    config = make_config(arguments.config, given)
    if not (config.read or config.interface) or not config.output:
        raise UsageError(
            "say what to read and where to write: streamcore run -r IN.pcap -w OUT.pcap, or -i eth0 -o eth1"
        )
    if config.json and config.write == "-":
        raise UsageError("--json and -w - both use standard output: write the packets to a file")
    return run(config)


def run(config: Config) -> int:
    """Runs a pipeline until it ends or is interrupted. Returns the exit status."""
    need_descriptors(config)
    account = Account(config.json)
    signal.signal(signal.SIGUSR1, account.asked)

    from streamcore.disperse.local import launch

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads that nobody needs slow numpy's start
    # Workers load while this process loads. With a live interface they start after this process has dropped its rights.
    live = config.interface or config.output_interface
    # With a limit on its addresses this process must be able to start first.
    later = live or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    launched = [] if later else [launch() for _ in range(config.workers)]

    from streamcore.command.systemd import notifying
    from streamcore.run.pipeline import Pipeline
    from streamcore.run.privileges import give_up

    pipeline = account.pipeline = Pipeline(config, launched)
    pipeline.say_with(say)
    hear_interrupts(pipeline)
    try:
        if live:
            pipeline.open()
            give_up(config.user)
        with shown(pipeline), notifying(pipeline):
            accounting = pipeline.run()
    except (StreamcoreError, KeyboardInterrupt) as error:
        if config.json:  # the accounting up to the error
            words = str(error) or "interrupted"
            so_far = {"error": words, "exit_status": getattr(error, "exit_status", INTERRUPTED)}
            print(json.dumps(pipeline.account_of_failure().json() | so_far), flush=True)
        elif pipeline.reading and not config.quiet and not isinstance(error, ReaderGone):
            say(pipeline.account_of_failure().text(config.verbose), WARNING)
        raise
    except OSError as error:  # such as from sockets and shared memory; files raise their own errors
        raise StreamcoreError(
            f"cannot run: {(error.strerror or str(error)).lower()} (see 'streamcore doctor')"
        ) from error
    if not config.quiet or accounting.exit_status == LOSS:
        say(accounting.text(config.verbose), WARNING if accounting.exit_status == LOSS else INFO)
    if config.json:
        print(json.dumps(accounting.json()), flush=True)
    return accounting.exit_status


def need_descriptors(config: Config) -> None:
    """Raises the soft limit on open files to what the run may need. Raises StreamcoreError if the hard limit is lower:
    ZeroMQ would end the process without them.
    """
    elsewhere = DESCRIPTORS_ELSEWHERE if config.listen else 0
    inputs = max(0, min(len(config.captures), INPUTS_OPEN) - 1)  # beyond the first
    needed = DESCRIPTORS + config.workers * DESCRIPTORS_OF_WORKER + elsewhere + inputs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if needed > hard != resource.RLIM_INFINITY:
        raise StreamcoreError(f"cannot run: {hard} files may be open at once (ulimit -n), and the run needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def hear_interrupts(pipeline: Pipeline) -> None:
    """Handles SIGINT, SIGTERM and SIGHUP: after the first the run delivers what it has read, the second stops it,
    the third raises KeyboardInterrupt. A SIGHUP that the starter ignores, as nohup does, stays ignored.
    """
    interrupts = 0

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 2 or not pipeline.reading:  # otherwise it might wait for ever to open an idle pipe
            raise KeyboardInterrupt
        (pipeline.drain if interrupts == 1 else pipeline.stop)()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


@contextlib.contextmanager
def shown(pipeline: Pipeline) -> Iterator[None]:
    """Shows the pipeline's progress while the block runs: on a terminal, and to Prometheus if the Config says so."""
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


class Account:
    """Prints the accounting so far on SIGUSR1: as text, or with --json as an object on standard output."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.pipeline: Pipeline | None = None

    def asked(self, _signal: int, _frame: Any) -> None:
        # On another thread, because the main thread may hold the counters' lock when the signal arrives.
        threading.Thread(target=self.tell, name="streamcore-account", daemon=True).start()

    def tell(self) -> None:
        if self.pipeline is None:
            say("streamcore: the run has not begun yet")
        elif self.as_json:
            print(json.dumps(self.pipeline.account_so_far().json()), flush=True)
        else:
            say(self.pipeline.account_so_far().text(verbose=True))
