"""Key: the description that each field of a Config carries, and the error messages made from it.

A field of a Config is `Annotated[type, Meta(bounds), Key(…)]`. The flags (command/flags.py), the tables of
docs/pipeline-file.md (scripts/write-keys) and the error messages are generated from it. run_keys.py defines the keys.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from streamcore.core.errors import UsageError

RUN = ("run",)
FILE, DIRECTORY, NAME, ADDRESS = "FILE", "DIRECTORY", "NAME", "HOST:PORT"


class Key(msgspec.Struct, frozen=True):
    """Describes a field beyond its type and bounds. --help leaves out the backticks."""

    help: str  # one line: in --help, and at the beginning of the row in the manual
    letter: str = ""  # of the flag: "-n"
    metavar: str = ""  # "": chosen by the type
    group: str = ""  # the heading in --help
    more: str = ""  # only in the manual
    off: str = ""  # the help of the flag --no-NAME, for a key that is true by default
    default: str = ""  # in words, if the default value itself does not explain it
    form: Literal["flag", "words", "table"] = "flag"  # words: the rest of the command line; table: only in the file
    names: Mapping[str, Any] = {}  # a table: the key takes the names of its rows
    commands: tuple[str, ...] = RUN  # the commands in which it has an effect; the others refuse it
    only: str = ""  # the runs in which it has an effect, a row of rules.RUNS; the others refuse it; "": all
    instead: str = ""  # what serves in the other runs, for that message


def plain(name: str) -> str:
    """A field's name as people write it: `from` for from_, which Python does not take as a name."""
    return name.rstrip("_")


class KeyField(NamedTuple):
    """A field with its Key, for the flags and the manual."""

    name: str
    annotation: Any
    default: Any  # msgspec.NODEFAULT if the key is required
    key: Key

    @property
    def type(self) -> Any:
        """The type without annotations and without None."""
        return plain_type(self.annotation)

    @property
    def words(self) -> str:
        """The key's help. If the key takes the names of a table, each row's description follows."""
        rows = [f"`{name}`: {row.words}" for name, row in self.key.names.items()]
        return f"{self.key.help}: {'; '.join(rows)}" if rows else self.key.help

    @property
    def default_text(self) -> str:
        """The default as the manual and --help show it; "" if there is nothing to show."""
        if self.key.default:
            return self.key.default
        value = self.default
        if value is msgspec.NODEFAULT or value is None or value == "" or value == []:
            return ""
        return str(value).lower() if isinstance(value, bool) else tidy(value)


def tidy(value: Any) -> str:
    """A value as text for people, such as 1000000 for 1000000.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def plain_type(annotation: Any) -> Any:
    """A field's type without annotations and None; other unions and Literals stay as they are."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
        if len(members) == 1:
            return plain_type(members[0])
    return annotation


@lru_cache
def key_fields(kind: type[msgspec.Struct]) -> dict[str, KeyField]:
    """The fields of a Struct by name, in the manual's order. Each must have a Key."""
    annotations: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        annotations |= vars(each).get("__annotations__", {})
    defaults = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    fields = {}
    for name in annotations:
        if name in kind.__struct_fields__:
            (key,) = [note for note in annotations[name].__metadata__ if isinstance(note, Key)]
            fields[name] = KeyField(name, annotations[name], value_of(defaults.get(name)), key)
    return fields


def value_of(default: Any) -> Any:
    """A default as a value. A factory that is a type, such as list, is called; any other factory gives None."""
    factory = getattr(default, "factory", None)
    if factory is None:
        return default
    return factory() if isinstance(factory, type) else None


def refuse_useless(kind: type[msgspec.Struct], names: Iterable[str], command: str) -> None:
    """Raises UsageError if one of these keys has no effect in the command."""
    fields = key_fields(kind)
    for name in names:
        if name in fields and command not in fields[name].key.commands:
            others = " and ".join(f"'streamcore {each}'" for each in fields[name].key.commands)
            raise UsageError(f"{plain(name)} has no effect in 'streamcore {command}': it is a key of {others}")


def explain(error: msgspec.ValidationError, values: Mapping[str, Any], kind: type[msgspec.Struct]) -> str:
    """The error message for a value that is not allowed: the key, the allowed values, the given value."""
    words, _, where = str(error).rpartition(" - at `$.")
    where = where.rstrip("`")
    key = where.partition("[")[0].partition(".")[0]
    if key not in values:
        return str(error)
    if key == "stream" and isinstance(values[key], list):
        return in_a_stream(words, where, values[key])
    if isinstance(values[key], Mapping) and key_fields(kind)[key].key.form == "table":
        return f"{where}: {words[:1].lower()}{words[1:]}"
    return f"{plain(key)} must be {allowed(kind, key)}, not {values[key]!r}"


def in_a_stream(words: str, where: str, streams: list[Any]) -> str:
    """The error message for a value in a `[[stream]]` table, with the stream's name if it has one."""
    place, _, key = where.removeprefix("stream[").partition("]")
    stream = streams[int(place)] if place.isdecimal() and int(place) < len(streams) else None
    name = stream.get("name", f"number {int(place) + 1}") if isinstance(stream, Mapping) else place or "stream"
    return f"stream {name}: {key.lstrip('.') + ': ' if key.lstrip('.') else ''}{words[:1].lower()}{words[1:]}"


def allowed(kind: type[msgspec.Struct], name: str) -> str:
    """The allowed values of a key, in words."""
    from msgspec import inspect

    if names := key_fields(kind)[name].key.names:
        return one_of(names)

    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    taken: Any = next(field.type for field in info.fields if field.name == name)
    if isinstance(taken, inspect.UnionType):
        members = [member for member in taken.types if not isinstance(member, inspect.NoneType)]
        if len(members) > 1:
            return "a string or a list of strings"
        taken = members[0]
    if isinstance(taken, inspect.LiteralType):
        return one_of(taken.values)
    if isinstance(taken, inspect.IntType | inspect.FloatType):
        words = "a whole number" if isinstance(taken, inspect.IntType) else "a number"
        return f"{words} of {taken.ge} or more" if taken.le is None else f"{words} from {taken.ge} to {tidy(taken.le)}"
    if isinstance(taken, inspect.BoolType):
        return "true or false"
    if isinstance(taken, inspect.StrType):
        return "a string"
    if isinstance(taken, inspect.StructType):
        return "a table"
    tables = isinstance(taken, inspect.ListType) and isinstance(taken.item_type, inspect.StructType)
    if isinstance(taken, inspect.ListType) and isinstance(taken.item_type, inspect.StrType):
        return "a list of strings"
    return "a list of tables" if tables else "a list of names or tables"


def one_of(values: Iterable[Any]) -> str:
    *most, last = sorted(filter(None, map(str, values)))
    return f"{', '.join(most)} or {last}"
