"""`streamcore doctor`: checks this machine. The checks are in tools/doctor.py."""

from __future__ import annotations

import argparse


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interface", metavar="NAME", help="check this live interface, too")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.tools.doctor import examine

    return examine(arguments.json, arguments.interface)
