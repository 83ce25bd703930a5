"""`streamcore flows`: one row for each flow. tools/flows/ reads the capture and writes the table."""

from __future__ import annotations

import argparse

from streamcore.command.flags import add_config, add_keys, keys_given


def add_flags(parser: argparse.ArgumentParser) -> None:
    from streamcore.tools.flows.writers import FORMATS

    form = parser.add_mutually_exclusive_group()
    for name, each in FORMATS.items():
        form.add_argument(
            f"--{name}", metavar="OUT", nargs="?", const="-", dest=f"to_{name}", help=f"write {each.words}"
        )
    add_config(parser)
    add_keys(parser, "flows", also={"flow_key": "--key"})


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.command.reading import capture_config
    from streamcore.tools.flows.reading import write_flows
    from streamcore.tools.flows.writers import FORMATS

    config = capture_config("flows", arguments.config, keys_given(arguments))
    chosen = [(name, out) for name in FORMATS if (out := getattr(arguments, f"to_{name}")) is not None]
    form, out = chosen[0] if chosen else ("json", "-")
    return write_flows(config, out, form)
