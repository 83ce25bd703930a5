"""`streamcore keys`: makes a CURVE key pair, in two files."""

from __future__ import annotations

import argparse


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the files are NAME.key (public) and NAME.key_secret")
    parser.add_argument("directory", metavar="DIRECTORY", help="the directory for the two files")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.disperse.remote import make_keys

    print("\n".join(make_keys(arguments.name, arguments.directory)))
    return 0
