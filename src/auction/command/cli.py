"""The command `auction`. Builds the parser and turns errors into exit statuses. `steps` has the commands of a market,
grouped by noun; every other command has a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from auction.command import demo, serve, verify, watch
from auction.command.options import Parents, Parser
from auction.command.steps import add_steps
from auction.model.errors import AuctionError
from auction.moderator import Moderator


def main(arguments: Sequence[str] | None = None, market: type[Moderator] = Moderator) -> int:
    """Exit status: 0 done, 1 refused or broken (the reason on standard error, or as JSON with --json), 2 wrong usage.
    `market` is the moderator's class; commands that a subclass adds become steps too."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(market, words).parse_args(words)
    try:
        return int(options.run(options))
    except AuctionError as reason:
        if options.json:
            print(msgspec.json.encode({"error": reason.code, "message": str(reason)}).decode())
        else:
            print(f"{reason.code}: {reason}", file=sys.stderr)
        return 1


def _parser(market: type[Moderator], words: Sequence[str]) -> Parser:
    parser = Parser(
        prog="auction", description="Hold auctions of blocks of time, and carry out the agreements that follow"
    )
    parents = Parents()
    demo.add(parser, parents)
    serve.add(parser, parents, market)
    watch.add(parser, parents)
    verify.add(parser, parents)
    add_steps(parser, parents.served, market, words)
    return parser
