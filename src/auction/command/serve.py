"""`auction serve`: runs a market as a server. Here are only its options; `web` answers the requests."""

from __future__ import annotations

import argparse
import functools
import sys

import msgspec

from auction.command.options import Parents, Parser, open_market, open_store
from auction.model.errors import BadValue, Unreachable
from auction.moderator import Moderator
from auction.moderator.config import read_rules


def add(parser: Parser, parents: Parents, market: type[Moderator]) -> None:
    sub = parser.add("serve", "run a market as a server (JSON over HTTP)", parents=[parents.stored])
    sub.set_defaults(run=functools.partial(_serve, market))
    sub.add_argument(
        "--listen",
        default="127.0.0.1:8620",
        metavar="HOST:PORT",
        help="address to listen on (default: %(default)s); port 0: any free port",
    )
    sub.add_argument(
        "--operator-token-file", metavar="FILE", help="file with the operator's token; created if it does not exist"
    )
    sub.add_argument("--open-registration", action="store_true", help="let anyone register as a provider or recipient")
    sub.add_argument("--rules", metavar="FILE", help="rules of a new market: TOML with the fields of MarketConfig")
    sub.add_argument("--tls-certificate", default="", metavar="FILE", help="PEM file; serve over HTTPS")
    sub.add_argument(
        "--tls-key", default="", metavar="FILE", help="PEM file, if the key is not in the certificate's file"
    )


def _serve(market: type[Moderator], options: argparse.Namespace) -> int:
    try:
        from auction.web import application
    except ImportError as reason:
        print(f"serving needs the extra `serve`: pip install 'streamcore-auction[serve]' ({reason})", file=sys.stderr)
        return 1
    from auction.web.handler import RequestHandler, make_token

    host, _, port = options.listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise BadValue(f"listen at HOST:PORT, not {options.listen!r}")
    rules = read_rules(options.rules, options.market_currency or "EUR") if options.rules else None
    token = make_token(options.operator_token_file) if options.operator_token_file else ""
    tls = application.tls_context(options.tls_certificate, options.tls_key) if options.tls_certificate else None

    def ready(url: str) -> None:
        if options.json:
            print(msgspec.json.encode({"listening": url}).decode(), flush=True)
        else:
            print(f"the market listens at {url}", file=sys.stderr, flush=True)

    with open_store(options, create=True) as store:
        handler = RequestHandler(open_market(market, store, options, rules), token, options.open_registration)
        try:
            application.serve(handler, host.strip("[]"), int(port), tls, ready)
        except OSError as reason:
            raise Unreachable(f"cannot listen at {options.listen}: {reason.strerror or reason}") from None
    return 0
