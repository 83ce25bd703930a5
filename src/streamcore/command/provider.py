"""`streamcore provider`: runs a provider's process (worker/provider.py)."""

from __future__ import annotations

import argparse

from streamcore.command.say import say
from streamcore.core.errors import UsageError


def add_flags(parser: argparse.ArgumentParser) -> None:
    market = parser.add_argument_group("the market")
    market.add_argument("--market", metavar="URL", required=True, help="the URL at which 'auction serve' listens")
    market.add_argument(
        "--token-file", metavar="FILE", required=True,
        help="our token at the market; --party writes it when it registers",
    )  # fmt: skip
    market.add_argument("--party", metavar="NAME", default="", help="register under this name if there is no token yet")
    market.add_argument(
        "--patience-s", type=float, metavar="N", default=300.0,
        help="stop after N seconds without an answer from the market (default: %(default)s)",
    )  # fmt: skip
    offer = parser.add_argument_group("the offer")
    offer.add_argument(
        "--service", metavar="[NAME=]CHAIN", action="append", required=True,
        help="a chain of services joined by +, and its name in the market (default: the chain); repeat for more chains",
    )  # fmt: skip
    offer.add_argument(
        "--capacity-mbps", type=float, metavar="N", required=True, help="total capacity in million bits per second"
    )
    offer.add_argument(
        "--pricing", metavar="RULE", required=True,
        help="fixed:PRICE, per-gigabyte:PRICE, load:BASE:SLOPE, or path/to/file.py:Class with price(quote)",
    )  # fmt: skip
    offer.add_argument("--currency", default="EUR", metavar="CODE", help="currency of prices (default: %(default)s)")
    offer.add_argument(
        "--no-standing-offers", dest="stand", action="store_false", help="bid in auctions, but make no standing offers"
    )
    work = parser.add_argument_group("the work")
    work.add_argument("--key", metavar="FILE", required=True, help="our CURVE key (.key_secret)")
    work.add_argument(
        "-n", "--workers", type=int, metavar="N", default=1,
        help="worker processes for each pipeline (default: %(default)s)",
    )  # fmt: skip
    work.add_argument("--json", action="store_true", help="at the end, print the work and the earnings as a JSON line")
    work.add_argument("-q", "--quiet", action="store_true", help="print only errors")


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.worker.provider import Offered, run_provider

    if arguments.workers < 1 or arguments.capacity_mbps <= 0:
        raise UsageError("a provider needs at least one worker (-n) and a capacity above 0 (--capacity-mbps)")
    offered = Offered(
        market=arguments.market, token_file=arguments.token_file, key=arguments.key, services=arguments.service,
        capacity_bps=int(arguments.capacity_mbps * 1_000_000), pricing=arguments.pricing, workers=arguments.workers,
        party=arguments.party,
        currency=arguments.currency, patience_s=arguments.patience_s, stand=arguments.stand,
    )  # fmt: skip
    if arguments.quiet:
        return run_provider(offered, arguments.json, lambda words: None)
    return run_provider(offered, arguments.json, lambda words: say(f"streamcore: {words}"))
