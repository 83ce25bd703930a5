"""The command `streamcore`: runs the named command, and turns errors into one line and an exit status.

Each command is a file of this folder with `add_flags` and `execute`, and a row in COMMANDS. To start fast, cli.py
imports only the named command's file, which imports the rest when it runs.
"""

from __future__ import annotations

import argparse
import resource  # not first when memory lacks: then it can no longer be loaded
import sys
from importlib import import_module
from typing import Any

from streamcore.command.parser import Parser
from streamcore.command.say import ERROR, say
from streamcore.command.standard import end_as_by_sigpipe, fill_closed, forget_output, settle_output, what_went_wrong
from streamcore.core.errors import ReaderGone, RightsError, StreamcoreError

INTERRUPTED = 130  # exit status


# The file streamcore/command/NAME.py, and its line in `streamcore --help`.
COMMANDS = {
    "run": "process the packets of a capture or of a live interface",
    "packets": "write a table of packets: headers, lengths, checksums",
    "flows": "write a table of flows",
    "services": "list the services that can process packets",
    "check": "check a pipeline file without running it",
    "doctor": "check whether this machine has what streamcore needs",
    "demo": "run the main job on the bundled capture",
    "keys": "make a key pair for a pipeline, a worker or a provider",
    "worker": "process packets for a pipeline on another machine",
    "provider": "sell services in a market, and run them for the buyers",
}
EXAMPLES = """\
examples:
  streamcore demo
  streamcore run -r in.pcapng.zst -w out.pcapng --service anonymise 'tcp port 443'
  streamcore flows -r in.pcap --csv flows.csv

'streamcore COMMAND --help' describes a command.
"""


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command and exits with its status."""
    fill_closed()
    try:
        try:
            status = execute(sys.argv[1:] if arguments is None else arguments)
        except SystemExit as ended:  # argparse's, after --help or a wrong flag
            status = ended.code if isinstance(ended.code, int) else bool(ended.code)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        end_as_by_sigpipe()
    except RightsError as error:
        from streamcore.run.privileges import what_to_type

        say(f"streamcore: {error}; type: {what_to_type()}", ERROR)
        status = error.exit_status
    except StreamcoreError as error:
        say(f"streamcore: {error}", ERROR)
        status = error.exit_status
    except (MemoryError, ImportError, RuntimeError) as error:
        no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
        if not isinstance(error, MemoryError) and not (limited() and (no_thread or isinstance(error, ImportError))):
            raise
        say(f"streamcore: not enough memory{limited()}", ERROR)
        status = 1
    except OSError as error:  # only standard output is written here; files have errors of their own
        forget_output()
        say(f"streamcore: cannot write standard output: {what_went_wrong(error)}")
        status = 1
    except KeyboardInterrupt:
        say("streamcore: interrupted")
        status = INTERRUPTED
    settle_output()
    sys.exit(status)


def limited() -> str:
    """The limit on this process's address space in words; "": there is none. With a low one, even imports fail."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if soft == resource.RLIM_INFINITY else f": the address space is limited to {soft >> 20} MiB (ulimit -v)"


def execute(arguments: list[str]) -> int:
    """Runs the named command. Returns its exit status."""
    if arguments and arguments[0] in COMMANDS:
        from streamcore.command.letters import refuse_letters

        refuse_letters(arguments[0], arguments[1:])
        module, parser = command_of(arguments[0])
        return int(module.execute(parser.parse_args(arguments[1:])))
    parser = top_parser()
    known, rest = parser.parse_known_args(arguments)
    if known.version:
        return version()
    if rest:
        parser.error(f"there is no option {rest[0]}")
    if known.command:
        parser.error(f"there is no command {known.command!r}")
    return int(parser.error(f"name a command: {', '.join(COMMANDS)}"))


def command_of(name: str) -> tuple[Any, argparse.ArgumentParser]:
    """A command's module, and the parser with its flags."""
    module = import_module(f"streamcore.command.{name}")
    words = COMMANDS[name]
    parser = Parser(prog=f"streamcore {name}", description=f"{words[0].upper()}{words[1:]}.")
    module.add_flags(parser)
    return module, parser


def top_parser() -> argparse.ArgumentParser:
    """The parser that prints `streamcore --help`."""
    rows = "\n".join(f"  {name:<10}{words}" for name, words in COMMANDS.items())
    parser = Parser(
        prog="streamcore",
        usage="streamcore COMMAND [options]",
        description="Process packets in worker processes: read a stream, divide it into segments, apply services, "
        "write the results\nas a second stream.\n\ncommands:\n" + rows,
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def version() -> int:
    from importlib.metadata import version as version_of

    print(f"streamcore {version_of('streamcore-auction')}")
    return 0
