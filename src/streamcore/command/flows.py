"""`streamcore flows`: one row for each flow. tools/tables.py writes the table."""

from __future__ import annotations

import argparse

from streamcore.command.flags import add_config, add_keys, keys_given


def add_flags(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", metavar="OUT", nargs="?", const="-", dest="json_out",
        help="write one JSON object per line (default, to standard output)",
    )  # fmt: skip
    form.add_argument("--csv", metavar="OUT", nargs="?", const="-", help="write comma-separated values")
    form.add_argument("--parquet", metavar="OUT", help="write a Parquet file (needs the extra 'parquet')")
    add_config(parser)
    add_keys(parser, "flows", also={"flow_key": "--key"})


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.command.reading import capture_config
    from streamcore.tools.tables import write_flows

    form = "parquet" if arguments.parquet else "csv" if arguments.csv else "json"
    config = capture_config("flows", arguments.config, keys_given(arguments))
    return write_flows(config, arguments.parquet or arguments.csv or arguments.json_out or "-", form)
