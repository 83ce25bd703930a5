"""`streamcore services`: lists the installed services with their options."""

from __future__ import annotations

import argparse
import json


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.service.load import describe

    described = describe()
    if arguments.json:
        print(json.dumps({"services": [each._asdict() for each in described]}))
        return 0
    for each in described:
        options = ", ".join(f"{key}={value}" if value else key for key, value in each.options.items())
        print(f"{each.name:<12}{each.effect:<9}{each.words}" + (f"\n{'':21}options: {options}" if options else ""))
    return 0
