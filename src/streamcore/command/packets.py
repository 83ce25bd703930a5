"""`streamcore packets`: one row for each packet. tools/tables.py writes the table."""

from __future__ import annotations

import argparse
import os

from streamcore.command.flags import add_config, add_keys, keys_given


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tsv", metavar="OUT", required=True, help="write tab-separated values; .gz compresses; -: standard output"
    )
    parser.add_argument(
        "--label", default="", metavar="TEXT", help="the first column of every row (default: the capture's file name)"
    )
    add_config(parser)
    add_keys(parser, "packets")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.command.reading import capture_config

    config = capture_config("packets", arguments.config, keys_given(arguments))
    from streamcore.tools.tables import write_packets

    return write_packets(config, arguments.tsv, arguments.label or os.path.basename(config.captures[0]))
