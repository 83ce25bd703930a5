"""Flags for the keys of a run, generated from the table in core/run_keys.py.

Letters mean the same as in tcpdump. The flags of a single command are in that command's file, the parser is in
parser.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from streamcore.core.config import Config
from streamcore.core.keys import KeyField, key_fields, plain


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag that names the pipeline file."""
    parser.add_argument(
        "--config", metavar="FILE", help="pipeline file (TOML) with these options as keys; flags override it"
    )


def add_keys(
    parser: argparse.ArgumentParser,
    command: str,
    kind: type[Config] = Config,
    also: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Adds the keys that have an effect in a command as flags, in groups. A flag that is not given is None.

    also: key -> a second name of its flag.
    """
    groups: dict[str, Any] = {}
    for field in key_fields(kind).values():
        if command in field.key.commands and field.key.form != "table":
            heading = field.key.group or "other options"
            if heading not in groups:
                groups[heading] = parser.add_argument_group(heading)
            if field.key.form == "words":
                groups[heading].add_argument(
                    field.name, nargs="*", metavar=field.key.metavar, help=help_of(field, field.key.help)
                )
            else:
                add_key(groups[heading], field, also.get(field.name, ""))


def add_key(group: Any, field: KeyField, also: str = "") -> None:
    """Adds one flag. also: a second name for it."""
    key, kind = field.key, field.type
    name = "--" + plain(field.name).replace("_", "-")
    if kind is bool and field.default is True:
        names, words, more = [f"--no-{name[2:]}"], key.off, {"action": "store_const", "const": False}
    elif kind is bool:
        names, words, more = [name], key.help, {"action": "store_const", "const": True}
    else:
        names, words, more = [name], field.words, {"metavar": metavar_of(field)}
        if kind in (int, float):
            more["type"] = number(kind)
        elif not is_text(kind):
            more["action"] = "append"
    letters = [key.letter] if key.letter else []
    names += [also] if also else []
    group.add_argument(*letters, *names, dest=field.name, help=help_of(field, words), **more)


def help_of(field: KeyField, words: str) -> str:
    """A line of --help, with the default."""
    shown = f" (default: {field.default_text})" if field.default_text and field.type is not bool else ""
    return (words + shown).replace("`", "").replace("%", "%%")


def is_text(kind: Any) -> bool:
    """Whether a key takes one string: any string, or one of a few."""
    return kind is str or all(isinstance(each, str) for each in get_args(kind))


def metavar_of(field: KeyField) -> str:
    """The value's placeholder in --help: the key's own, or else its allowed values."""
    return field.key.metavar or "|".join(map(str, field.key.names or get_args(field.type))) or "TEXT"


def number(kind: type) -> Callable[[str], Any]:
    """Returns a parser of numbers. It leaves other text as it is, which the Config then refuses as in a file."""

    def read(words: str) -> Any:
        try:
            return kind(words)
        except ValueError:
            return words

    return read


def keys_given(arguments: argparse.Namespace, kind: type[Config] = Config) -> dict[str, Any]:
    """The keys given on the command line."""
    fields = key_fields(kind)
    given = {name: value for name, value in vars(arguments).items() if name in fields and value is not None}
    for name in given:
        if fields[name].key.form == "words":
            given[name] = " ".join(given[name]) or None
    return given
