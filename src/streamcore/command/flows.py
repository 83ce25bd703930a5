"""`streamcore flows`: one row for each flow. tools/flows/ reads the capture and writes the table."""

from __future__ import annotations

import argparse
import sys

from streamcore.command.flags import add_config, add_keys, keys_given
from streamcore.core.errors import UsageError
from streamcore.tools.flows.writers import FORMATS, SORTS, TOP


def add_flags(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    for name, each in FORMATS.items():
        form.add_argument(
            f"--{name}", metavar="OUT", nargs="?", const="-", dest=f"to_{name}", help=f"write {each.words}"
        )
    parser.add_argument(
        "--sort", choices=SORTS, metavar="|".join(SORTS), help="order of --table (default: bytes); the largest first"
    )
    parser.add_argument("--top", type=int, metavar="N", help=f"rows of --table; 0: all (default: {TOP})")
    add_config(parser)
    add_keys(parser, "flows", also={"flow_key": "--key"})


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.command.reading import capture_config

    config = capture_config("flows", arguments.config, keys_given(arguments))
    chosen = [(name, out) for name in FORMATS if (out := getattr(arguments, f"to_{name}")) is not None]
    options = {name: value for name in ("sort", "top") if (value := getattr(arguments, name)) is not None}
    form, out = chosen[0] if chosen else ("table" if options or sys.stdout.isatty() else "json", "-")
    if options and form != "table":
        raise UsageError(f"--{next(iter(options))} has no effect without --table")
    if options.get("top", 0) < 0:
        raise UsageError("--top must be a whole number of 0 or more")
    from streamcore.tools.flows.reading import write_flows

    return write_flows(config, out, form, **options)
