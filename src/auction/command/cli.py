"""The command `auction`: every step of the market on a database, the demonstration, replay and verification.

No rule stands here: the steps are the moderator's own methods, and their arguments and help are read from them.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from auction.command.demo import Demonstration
from auction.model.billing import Invoice, as_html, as_text
from auction.model.errors import AuctionError, BadToken, BadValue, JournalBroken, Unreachable
from auction.moderator import Moderator
from auction.moderator.config import MarketConfig, read_rules
from auction.moderator.invariants import differences, replay, verify
from auction.web.client import MarketClient
from auction.web.handler import Desk, make_token

if TYPE_CHECKING:
    from auction.storage.sql_store import SqlStore

STEPS: Final = tuple(
    """
    register renew_token authenticate party deposit withdraw post_bond release_bond balance
    publish_block split_block_in_time split_block_in_rate resell_block block
    announce bid commit reveal close tick hold_auction auction bids explain transcript
    stand_offer withdraw_offer offers spot
    agree start deliver replace finish cancel charge refund charge_back agreement chain subcontracts
    rate rate_as_drafted drafted_rating opinions rating drafted_payment_rating payment_probability_ppm
    share_block join_share leave_share rates meter share_costs
    publish_endpoint endpoint keep_warm assignments await_close overview
    open_group offer_price accept_price reject_price join_group pledge settle_group group_of invoice
    """.split()  # noqa: SIM905 - the steps as a market takes them, a subject a line
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or broken (the reason on standard error, as JSON with --json), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except AuctionError as reason:
        if options.json:
            print(msgspec.json.encode({"error": reason.code, "message": str(reason)}).decode())
        else:
            print(f"{reason.code}: {reason}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Errors are one line that says what to do."""

    def error(self, message: str) -> typing.NoReturn:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="auction", description="An auction of blocks of time, on a database.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object on standard output")
    stored = argparse.ArgumentParser(add_help=False, parents=[common])
    stored.add_argument(
        "-d", "--database", "--store", default="sqlite:///auction.db", help="SQLAlchemy URL (%(default)s)"
    )
    stored.add_argument("--currency", default="EUR", help="of the market (%(default)s)")
    _add(commands, "demo", "play a whole market in simulated time and explain it", [common], _demo)
    _add(commands, "replay", "rebuild the state from the journal and compare it with what is stored", [stored], _replay)
    _add(commands, "verify", "check the journal, the stored state and every invariant", [stored], _verify)
    _add_serve(_add(commands, "serve", "answer JSON over HTTP: the market as a process", [stored], _serve))
    served = argparse.ArgumentParser(add_help=False, parents=[stored])
    served.add_argument("-m", "--market", default="", metavar="URL", help="a served market, in place of a database")
    served.add_argument("--token-file", type=_read_file, metavar="FILE", help="whose token is shown to it")
    _add_watch(_add(commands, "watch", "the market in the terminal, as it goes", [served], _watch))
    for step in STEPS:
        method = getattr(Moderator, step)
        summary = inspect.getdoc(method) or ""
        sub = _add(commands, step.replace("_", "-"), summary.split(". ")[0], [served], _step(step), summary)
        for name, parameter in _parameters(method).items():
            _add_argument(sub, name, parameter)
        if step == "invoice":
            sub.add_argument("--html", action="store_true", help="as a page")
    return parser


def _add(
    commands: Any,
    name: str,
    summary: str,
    parents: list[argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int],
    description: str = "",
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(
        name, help=summary.replace("%", "%%"), description=(description or summary).replace("%", "%%"), parents=parents
    )
    sub.set_defaults(run=run)
    return sub


def _parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The method's parameters with their types resolved, without `self`."""
    hints = typing.get_type_hints(method)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return {one.name: one.replace(annotation=hints[one.name]) for one in parameters}


def _add_argument(sub: argparse.ArgumentParser, name: str, parameter: inspect.Parameter) -> None:
    """Positional parameters become arguments; named ones, and those with a default, become options."""
    convert = _converter(parameter.annotation)
    shape = "JSON" if _is_json(parameter.annotation) else name.upper()
    words = _help(parameter.annotation)
    if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        sub.add_argument(name, type=convert, help=words)
    else:
        required = parameter.default is inspect.Parameter.empty
        option = f"--{name.replace('_', '-')}"
        default = None if required else parameter.default
        sub.add_argument(option, dest=name, type=convert, required=required, default=default, metavar=shape, help=words)


def _is_json(hint: Any) -> bool:
    return not {str, int, bool} & set(_members(hint)) or typing.get_origin(hint) in (dict, tuple, list)


def _help(hint: Any) -> str | None:
    """The fields of a JSON argument."""
    structs = [one for one in _members(hint) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return "; ".join(f"JSON with {', '.join(one.__struct_fields__)}" for one in structs) or None


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _converter(hint: Any) -> Callable[[str], Any]:
    """From a word of the command line to what the method takes: numbers, yes and no, names, else JSON."""
    members = _members(hint)

    def convert(word: str) -> Any:
        try:
            if bool in members:
                return {"yes": True, "no": False}[word]
            if int in members:
                return int(word)
            if str in members and not (len(members) > 1 and word.startswith("{")):
                return word
            return msgspec.json.decode(word, type=hint)
        except (KeyError, ValueError, msgspec.MsgspecError) as reason:
            raise argparse.ArgumentTypeError(f"{word!r} does not fit: {reason}") from None

    return convert


def _stored(options: argparse.Namespace, create: bool = False) -> AbstractContextManager[SqlStore]:
    """The database that is asked for, closed at the end."""
    from auction.storage.sql_store import SqlStore  # only here: most of the time of a short command would be its import

    return closing(SqlStore(options.database, create=create))


def _step(step: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        named = {name: getattr(options, name) for name in _parameters(getattr(Moderator, step))}
        if options.market:
            with MarketClient(options.market, options.token_file or "") as client:
                answer = getattr(client, step)(**named)
        else:
            with _stored(options, create=step == "register") as store:
                moderator = Moderator(store, config=MarketConfig(currency=options.currency))
                answer = getattr(moderator, step)(**named)
        print(_shown(answer, options))
        return 0

    return run


def _add_serve(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--listen", default="127.0.0.1:8620", metavar="HOST:PORT", help="%(default)s; port 0: any free one"
    )
    sub.add_argument(
        "--operator-token-file", metavar="FILE", help="whose content opens what is the operator's; made if need be"
    )
    sub.add_argument("--open-registration", action="store_true", help="anyone may register as provider or recipient")
    sub.add_argument("--rules", metavar="FILE", help="TOML with fields of MarketConfig: rating, delivery, signatures")
    sub.add_argument("--tls-certificate", default="", metavar="FILE", help="PEM; answer over HTTPS")
    sub.add_argument("--tls-key", default="", metavar="FILE", help="PEM, where it is not in the certificate's file")


def _serve(options: argparse.Namespace) -> int:
    try:
        from auction.web import application as serve
    except ImportError as reason:
        print(f"serving needs the extra `serve`: pip install 'streamcore-auction[serve]' ({reason})", file=sys.stderr)
        return 1
    host, _, port = options.listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise BadValue(f"listen at HOST:PORT, not {options.listen!r}")
    config = read_rules(options.rules, options.currency) if options.rules else MarketConfig(currency=options.currency)
    token = make_token(options.operator_token_file) if options.operator_token_file else ""
    tls = serve.tls_context(options.tls_certificate, options.tls_key) if options.tls_certificate else None

    def ready(url: str) -> None:
        if options.json:
            print(msgspec.json.encode({"listening": url}).decode(), flush=True)
        else:
            print(f"the market listens at {url}", file=sys.stderr, flush=True)

    with _stored(options, create=True) as store:
        desk = Desk(Moderator(store, config=config), token, options.open_registration)
        try:
            serve.serve(desk, host.strip("[]"), int(port), tls, ready)
        except OSError as reason:
            raise Unreachable(f"cannot listen at {options.listen}: {reason.strerror or reason}") from None
    return 0


def _add_watch(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--party", default="", help="agreements and ratings of this one alone (a served market: one's own)"
    )
    sub.add_argument("--limit", type=int, default=20, help="at most so many of each (%(default)s)")
    sub.add_argument("--once", action="store_true", help="print once and end")


def _watch(options: argparse.Namespace) -> int:
    from rich.console import Console

    from auction.command import watch

    with ExitStack() as stack:
        look: watch.Look
        if options.market:
            client = stack.enter_context(MarketClient(options.market, options.token_file or "", retry_for_ms=0))
            party = options.party
            with suppress(BadToken):  # the operator sees all, any other its own
                party = party or client.name
            look = functools.partial(client.overview, party=party, limit=options.limit)
        else:
            store = stack.enter_context(_stored(options))
            look = watch.Follower(store, MarketConfig().rating, options.party, options.limit)
        if options.json:
            print(msgspec.json.encode(look()).decode())
        elif options.once or not sys.stdout.isatty():
            console = Console()
            console.print(watch.draw(look(), console.width))
        else:
            watch.show_live(look, Console())
    return 0


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {reason}") from None


def _shown(answer: Any, options: argparse.Namespace) -> str:
    if options.json:
        return msgspec.json.encode(answer).decode()
    if isinstance(answer, Invoice):
        return as_html(answer) if options.html else as_text(answer)
    if isinstance(answer, str):
        return answer
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()


def _demo(options: argparse.Namespace) -> int:
    told: list[str] = []
    result = Demonstration(told.append if options.json else print).play()
    if options.json:
        print(msgspec.json.encode({"told": told, **result}).decode())
    return 1 if result["violations"] else 0


def _replay(options: argparse.Namespace) -> int:
    with _stored(options) as store, store.snapshot() as snapshot:
        try:
            state = replay(snapshot.entries())
            found, sequence = differences(state, snapshot), state.sequence
        except JournalBroken as reason:
            found, sequence = [str(reason)], 0
    return _found(options, found, {"entries": sequence})


def _verify(options: argparse.Namespace) -> int:
    with _stored(options) as store:
        found = verify(store)
    return _found(options, found, {})


def _found(options: argparse.Namespace, found: list[str], more: dict[str, Any]) -> int:
    if options.json:
        print(msgspec.json.encode({"found": found, **more}).decode())
    else:
        print("\n".join(found) if found else "nothing is wrong")
    return 1 if found else 0
