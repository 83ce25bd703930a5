"""What the commands of `auction` share: the parser, the options for a database and for a served market."""

from __future__ import annotations

import argparse
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
    """Errors are one line that says what to do. A parser of nothing but commands lists them, a line each."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._listed: dict[str, str] = {}
        self._commands: Any = None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")

    def add(self, name: str, summary: str, description: str = "", **named: Any) -> Parser:
        """Adds a command: `summary` is its line in the list, `description` what its own help begins with."""
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
        lines = [f"  {name:<{width}}{summary}" for name, summary in self._listed.items()]
        head = [f"usage: {self.prog} COMMAND ...", f"{self.description}:", ""]
        return "\n".join([*head, *lines, "", f"'{self.prog} COMMAND --help' explains a command.", ""])


class Parents:
    """Options that several commands take: `common` all, `stored` those that open a database, `served` those that can
    also ask a served market."""

    def __init__(self) -> None:
        self.common = argparse.ArgumentParser(add_help=False)
        self.common.add_argument("--json", action="store_true", help="one JSON object on standard output")
        self.stored = argparse.ArgumentParser(add_help=False, parents=[self.common])
        self.stored.add_argument(
            "-d", "--database", "--store", default="sqlite:///auction.db", help="SQLAlchemy URL (%(default)s)"
        )
        self.stored.add_argument(
            "--currency", dest="market_currency", help="of a market that is made (EUR); of any other, what it must be"
        )
        self.served = argparse.ArgumentParser(add_help=False, parents=[self.stored])
        self.served.add_argument("-m", "--market", default="", metavar="URL", help="a served market, not a database")
        self.served.add_argument("--token-file", type=_read_file, metavar="FILE", help="its caller's token")


def open_store(options: argparse.Namespace, create: bool = False) -> AbstractContextManager[SqlStore]:
    """The database that is asked for, closed at the end."""
    from auction.storage.sql_store import SqlStore  # only here: most of the time of a short command would be its import

    return closing(SqlStore(options.database, create=create))


def open_market(
    market: type[Moderator], store: SqlStore, options: argparse.Namespace, rules: MarketConfig | None = None
) -> Moderator:
    """The market in the store, by the rules that stand there; a new one by `rules`. Raises OtherRules or BadCurrency
    where the options ask for others."""
    currency: str | None = options.market_currency
    if currency and rules is None and next(iter(store.entries()), None) is None:
        rules = MarketConfig(currency=currency)
    moderator = market(store, config=rules)
    if currency:
        check_currency(currency, moderator.config.currency)
    return moderator


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {reason}") from None
