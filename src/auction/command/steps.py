"""The steps of a market on the command line, grouped by noun: `auction bid place`. They are built from the table of the
moderator's methods; arguments and help come from the methods. No market rule is here."""

from __future__ import annotations

import argparse
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from auction.command.options import Parser, Run, open_market, open_store
from auction.model.billing import Invoice, as_html, as_text
from auction.moderator import Moderator
from auction.moderator.methods import Method

_TRUTH: Final = {"yes": True, "true": True, "no": False, "false": False}
_NAMES: Final = {True: "yes", False: "no"}
NOUNS: Final = {
    "party": "register, show, change and ban parties, manage their tokens",
    "account": "deposit and withdraw money, post and release bonds",
    "endpoint": "publish a recipient's address or a provider's key",
    "block": "publish, split and resell blocks of time",
    "auction": "announce, pay for, close and explain auctions, award at once",
    "bid": "place, commit and reveal bids",
    "offer": "place and withdraw standing offers",
    "agreement": "hand in receipts, end or take over an agreement, show its invoice",
    "payment": "refund a charge, book a chargeback, predict a payment",
    "rating": "rate the other side, show and draft ratings",
    "share": "share a block between members and meter their use",
    "group": "share the price of an auction within a group, sponsors included",
    "market": "show the whole market, show or change its rules, run what is due",
}


def add_steps(parser: Parser, parent: argparse.ArgumentParser, market: type[Moderator], words: Sequence[str]) -> None:
    """Adds a group for each noun. Fills only the groups that the command line names: reading the signatures of all
    methods would take longer than the command."""
    steps = [one for one in market.methods.values() if one.step]
    used = {one.step[0] for one in steps}
    for noun in (*(one for one in NOUNS if one in used), *sorted(used - NOUNS.keys())):
        group = parser.add(noun, NOUNS.get(noun, ""))
        if noun in words:
            own = [one for one in steps if one.step[0] == noun]
            for method in sorted(own, key=lambda one: not one.is_command):
                _add_step(group, method, parent, market)


def _add_step(group: Parser, method: Method, parent: argparse.ArgumentParser, market: type[Moderator]) -> None:
    words = inspect.getdoc(method.function) or ""
    summary = words.split(". ")[0].split("\n")[0].rstrip(".")
    sub = group.add(method.step[1], summary[:1].lower() + summary[1:], words, parents=[parent])
    sub.set_defaults(run=_run(method, market))
    for name, parameter in _parameters(method).items():
        _add_argument(sub, name, parameter)
    if typing.get_type_hints(method.function)["return"] is Invoice:
        sub.add_argument("--html", action="store_true", help="print it as an HTML page")


def _run(method: Method, market: type[Moderator]) -> Run:
    def run(options: argparse.Namespace) -> int:
        named = {name: getattr(options, name) for name in _parameters(method)}
        if options.market:
            from auction.web.client import MarketClient  # only here: HTTP is slow to import

            with MarketClient(options.market, options.token_file or "") as client:
                key = named.pop("key", None)
                answer = client.call(method, named, key)
        else:
            with open_store(options, create=method.name == "register") as store:
                moderator = open_market(market, store, options)
                answer = getattr(moderator, method.name)(**named)
        print(_shown(answer, options))
        return 0

    return run


def _shown(answer: Any, options: argparse.Namespace) -> str:
    if options.json:
        return msgspec.json.encode(answer).decode()
    if isinstance(answer, Invoice):
        return as_html(answer) if options.html else as_text(answer)
    if isinstance(answer, str):
        return answer
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()


def _parameters(method: Method) -> dict[str, inspect.Parameter]:
    """The method's parameters with their types resolved, without `self`."""
    hints = typing.get_type_hints(method.function)
    parameters = list(inspect.signature(method.function).parameters.values())[1:]
    return {one.name: one.replace(annotation=hints[one.name]) for one in parameters}


def _add_argument(sub: argparse.ArgumentParser, name: str, parameter: inspect.Parameter) -> None:
    """Positional parameters become arguments. Keyword parameters and those with a default become options."""
    convert = _converter(parameter.annotation)
    shape = "JSON" if _is_json(parameter.annotation) else name.upper()
    words = _help(parameter)
    if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        sub.add_argument(name, type=convert, help=words)
    else:
        required = parameter.default is inspect.Parameter.empty
        option = f"--{name.replace('_', '-')}"
        default = None if required else parameter.default
        sub.add_argument(option, dest=name, type=convert, required=required, default=default, metavar=shape, help=words)


def _is_json(hint: Any) -> bool:
    return not {str, int, bool} & set(_members(hint)) or typing.get_origin(hint) in (dict, tuple, list)


def _help(parameter: inspect.Parameter) -> str | None:
    """The two words of a truth, or the fields of a JSON argument with their defaults; then the argument's default."""
    hint, default = parameter.annotation, parameter.default
    structs = [one for one in _members(hint) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    words = ["yes or no"] if hint is bool else ["; ".join(f"JSON with {_fields(one)}" for one in structs)]
    if default not in (inspect.Parameter.empty, None, ""):
        words.append(f"(default: {_NAMES.get(default) if hint is bool else _as_json(default)})")
    return " ".join(filter(None, words)).replace("%", "%%") or None


def _fields(struct: type[msgspec.Struct]) -> str:
    """The fields of a struct, those with a default as name=default."""
    shown = []
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        shown.append(field.name if default is msgspec.NODEFAULT else f"{field.name}={_as_json(default)}")
    return ", ".join(shown)


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _converter(hint: Any) -> Callable[[str], Any]:
    """Returns a function that converts a word of the command line to the method's type: a number, yes or no, a name, or
    JSON."""
    members = _members(hint)

    def convert(word: str) -> Any:
        try:
            if bool in members:
                return _TRUTH[word.lower()]
            if int in members:
                return int(word)
            if str in members and not (len(members) > 1 and word.startswith("{")):
                return word
            return msgspec.json.decode(word, type=hint)
        except KeyError:
            raise argparse.ArgumentTypeError(f"{word!r} is neither yes nor no") from None
        except (ValueError, msgspec.MsgspecError) as reason:
            raise argparse.ArgumentTypeError(f"{word!r} does not fit: {reason}") from None

    return convert
