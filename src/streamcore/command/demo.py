"""`streamcore demo`: runs a demonstration, from demo_capture.py or demo_market.py."""

from __future__ import annotations

import argparse


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        metavar="DIRECTORY",
        default="demo-output",
        help="the directory for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--market",
        action="store_true",
        help="show a market with two providers, each in its own process (needs the extra 'serve')",
    )
    parser.add_argument("--json", action="store_true", help="with --market: print the results as a JSON object")


def execute(arguments: argparse.Namespace) -> int:
    if arguments.market:
        from streamcore.command.demo_market import show_circle

        return show_circle(arguments.output, arguments.json)
    from streamcore.command.demo_capture import show

    return show(arguments.output)
