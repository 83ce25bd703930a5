"""`auction watch`: shows the market in a terminal and keeps it up to date. It only reads. `watch_screen` draws."""

from __future__ import annotations

import argparse
import functools
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from auction.command.options import Parents, Parser, open_store
from auction.model.errors import BadToken

if TYPE_CHECKING:
    from auction.command.watch_screen import Look


def add(parser: Parser, parents: Parents) -> None:
    sub = parser.add("watch", "show the market in the terminal and keep it up to date", parents=[parents.served])
    sub.set_defaults(run=_watch)
    sub.add_argument(
        "--party", default="", help="show only this party's agreements and ratings (with --market: the caller's)"
    )
    sub.add_argument("--limit", type=int, default=20, help="rows of each table at most (default: %(default)s)")
    sub.add_argument("--once", action="store_true", help="print once and exit")


def _watch(options: argparse.Namespace) -> int:
    from rich.console import Console

    from auction.command import watch_screen
    from auction.web.client import MarketClient

    with ExitStack() as stack:
        look: Look
        if options.market:
            client = stack.enter_context(MarketClient(options.market, options.token_file or "", retry_for_ms=0))
            party = options.party
            with suppress(BadToken):  # the operator sees everything, a party only its own
                party = party or client.name
            look = functools.partial(client.overview, party=party, limit=options.limit)
        else:
            store = stack.enter_context(open_store(options))
            look = watch_screen.Follower(store, options.party, options.limit)
        if options.json:
            print(msgspec.json.encode(look()).decode())
        elif options.once or not sys.stdout.isatty():
            console = Console()
            console.print(watch_screen.draw(look(), console.width))
        else:
            watch_screen.show_live(look, Console())
    return 0
