"""Shared by the commands of `auction`: the parser, and the options for a database and for a served market."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from auction.model.money import check_currency
from auction.moderator import Moderator
from auction.moderator.config import MarketConfig

if TYPE_CHECKING:
    from auction.storage.sql_store import SqlStore

Run = Callable[[argparse.Namespace], int]  # a command; returns the exit status


class Parser(argparse.ArgumentParser):
    """Prints an error as one line that says what to do. A parser that has only subcommands lists one on each line."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._listed: dict[str, str] = {}
        self._commands: Any = None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")

    def add(self, name: str, summary: str, description: str = "", **named: Any) -> Parser:
        """Adds a command. `summary` is its line in the list; its own help begins with `description`."""
        if self._commands is None:
            self._commands = self.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
        self._listed[name] = summary
        words = (description or summary).replace("%", "%%")
        added: Parser = self._commands.add_parser(name, prog=f"{self.prog} {name}", description=words, **named)
        return added

    def format_help(self) -> str:
        if not self._listed:
            return super().format_help()
        width = max(map(len, self._listed)) + 2
        words = self.description or ""
        lines = [f"  {name:<{width}}{summary}" for name, summary in self._listed.items()]
        head = [f"usage: {self.prog} COMMAND ...", f"{words[:1].upper()}{words[1:]}.", ""]
        return "\n".join([*head, *lines, "", f"'{self.prog} COMMAND --help' explains a command.", ""])


class Parents:
    """Options that several commands take: `common` for all, `stored` for those that open a database, `served` for those
    that can also call a served market."""

    def __init__(self) -> None:
        self.common = argparse.ArgumentParser(add_help=False)
        self.common.add_argument("--json", action="store_true", help="print one JSON object")
        self.stored = argparse.ArgumentParser(add_help=False, parents=[self.common])
        self.stored.add_argument(
            "-d",
            "--database",
            "--store",
            default="sqlite:///auction.db",
            help="the market's database, a SQLAlchemy URL (default: %(default)s)",
        )
        self.stored.add_argument(
            "--currency",
            dest="market_currency",
            help="the currency of a new market (default: EUR); refuse a market that has another",
        )
        self.served = argparse.ArgumentParser(add_help=False, parents=[self.stored])
        self.served.add_argument(
            "-m", "--market", default="", metavar="URL", help="call this served market instead of opening a database"
        )
        self.served.add_argument(
            "--token-file", type=_read_file, metavar="FILE", help="file with the caller's token for --market"
        )


def open_store(options: argparse.Namespace, create: bool = False) -> AbstractContextManager[SqlStore]:
    """The database that the options name, as a context manager that closes it."""
    from auction.storage.sql_store import SqlStore  # only here: the import takes longer than a short command

    return closing(SqlStore(options.database, create=create))


def open_market(
    market: type[Moderator], store: SqlStore, options: argparse.Namespace, rules: MarketConfig | None = None
) -> Moderator:
    """The market in the store, with the rules stored there; a new one gets `rules`. Raises OtherRules or BadCurrency if
    the options name other ones."""
    currency: str | None = options.market_currency
    if currency and rules is None and next(iter(store.entries()), None) is None:
        rules = MarketConfig(currency=currency)
    moderator = market(store, config=rules)
    for words, number in moderator.upgraded.items():
        print(f"upgraded: {words}: {number}", file=sys.stderr)
    if currency:
        check_currency(currency, moderator.config.currency)
    return moderator


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {reason}") from None
