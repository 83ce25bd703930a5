"""Checks the arguments of a call strictly against the method's type hints, before anything is decided.

Each type's check is built once, as one expression that is true for a valid value; only an invalid value is examined
again, to say where it is wrong. Nothing is converted. A valid value survives the journal unchanged.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import threading
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from auction.model.errors import AuctionError, BadAmount, BadValue
from auction.model.receipt import WideInteger

Check = Callable[[Any], bool]
Copy = Callable[[Any], Any]
_AMOUNTS: Final = frozenset(("amount", "price", "reserve", "entry.limit", "bid", "bond", "increment", "unit_price"))
WIDE_MAX: Final = 2**192  # for fields that are only stored in records, as JSON
INTEGER_MAX: Final = 2**63 - 1  # the largest value of a BIGINT column; the smallest is its negative


def is_text(value: Any) -> bool:
    """Whether a value is text that UTF-8 and every database can store: without lone surrogates and NUL."""
    if type(value) is not str or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Checks:
    """The checks of types, each built on first use."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._scope: dict[str, Any] = {
            "is_text": is_text,
            "isfinite": math.isfinite,
            "MAX": INTEGER_MAX,
            "MIN": -INTEGER_MAX,
            "WIDE_MAX": WIDE_MAX,
            "WIDE_MIN": -WIDE_MAX,
        }
        self._numbers = itertools.count()
        self._making = threading.RLock()

    def of(self, hint: Any) -> Check:
        """The check of one type. Raises TypeError for a type that no argument may have."""
        with self._making:
            check: Check = self._scope[self._name(hint)]
        return check

    def _name(self, hint: Any) -> str:
        """The name of a type's check in the shared scope."""
        name = self._names.get(hint)
        if name is None:
            name = self._names[hint] = f"is_{next(self._numbers)}"
            source = f"lambda x: {self._expression(hint, 'x')}"
            self._scope[name] = eval(source, self._scope)  # built only from our own words and names
        return name

    def _expression(self, hint: Any, x: str) -> str:
        """The expression that is true if `x` is of this type."""
        plain = _PLAIN.get(hint)
        if plain is not None:
            return plain.format(x=x)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (types.UnionType, typing.Union):
            return f"({' or '.join(self._expression(one, x) for one in inner)})"
        if origin is typing.Literal:
            return f"(type({x}) in {self._constant({type(one) for one in inner})} and {x} in {self._constant(inner)})"
        if origin is tuple and inner[-1] is not Ellipsis:
            parts = [self._expression(one, f"{x}[{place}]") for place, one in enumerate(inner)]
            return f"(type({x}) is tuple and len({x}) == {len(inner)} and {' and '.join(parts)})"
        if origin in _CONTAINERS:
            kinds = self._constant(_CONTAINERS[origin])
            each = self._expression(inner[0], "e")
            return f"(type({x}) in {kinds} and (not {x} or all([{each} for e in {x}])))"
        if origin is dict:
            keys, values = map(self._name, inner)
            return f"(type({x}) is dict and (not {x} or all(map({keys}, {x})) and all(map({values}, {x}.values()))))"
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            fields = msgspec.structs.fields(hint)
            parts = [f"type({x}) is {self._constant(hint)}"]
            parts += [self._field(field, x) for field in fields]
            if hasattr(hint, "__post_init__"):  # it passed this check when it was made, and must still
                parts.append(f"{x}.__post_init__() is None")
            return f"({' and '.join(parts)})" if "." not in x else f"{self._name(hint)}({x})"
        raise TypeError(f"an argument of the market cannot be of type {hint!r}")

    def _field(self, field: msgspec.structs.FieldInfo, x: str) -> str:
        """The expression that is true if the field of `x` is valid. It tests the default first, which most fields
        have."""
        value = f"{x}.{field.name}"
        expression = self._expression(field.type, value)
        if field.default is msgspec.NODEFAULT or copy_of(field.type) is not None:
            return expression
        return f"({value} is {self._constant(field.default)} or {expression})"

    def write(
        self,
        parameters: list[inspect.Parameter],
        hints: dict[str, Any],
        function: Callable[..., Any],
        refuse: Callable[[dict[str, Any]], None],
    ) -> Callable[..., Any]:
        """Builds the function that `checking` returns."""
        with self._making:
            declared, right, copies, passed = ["self"], ["True"], [], ["self"]
            for one in parameters:
                is_named = one.kind is inspect.Parameter.KEYWORD_ONLY
                if is_named and "*" not in declared:
                    declared.append("*")
                expression = self._expression(hints[one.name], one.name)
                if one.default is inspect.Parameter.empty:
                    declared.append(one.name)
                else:
                    default = self._constant(one.default)
                    declared.append(f"{one.name}={default}")
                    expression = f"({one.name} is {default} or {expression})"
                right.append(expression)
                copy = copy_of(hints[one.name])
                if copy is not None:
                    copies.append(f"    {one.name} = {self._constant(copy)}({one.name})")
                passed.append(f"{one.name}={one.name}" if is_named else one.name)
            given = ", ".join(f"{one.name!r}: {one.name}" for one in parameters)
            lines = [
                f"def call({', '.join(declared)}):",
                f"    if not ({' and '.join(right)}):",
                f"        {self._constant(refuse)}({{{given}}})",
                *copies,
                f"    return {self._constant(function)}({', '.join(passed)})",
            ]
            exec("\n".join(lines), self._scope)  # built only from our own words and the method's parameter names
            call: Callable[..., Any] = self._scope.pop("call")
            return call

    def _constant(self, value: Any) -> str:
        name = f"constant_{next(self._numbers)}"
        self._scope[name] = value
        return name


_PLAIN: Final[dict[Any, str]] = {
    str: "(type({x}) is str and ({x}.isprintable() or is_text({x})))",  # printable text has no surrogate and no NUL
    int: "(type({x}) is int and MIN <= {x} <= MAX)",
    WideInteger: "(type({x}) is int and WIDE_MIN <= {x} <= WIDE_MAX)",
    bool: "({x} is True or {x} is False)",
    float: "(type({x}) is float and isfinite({x}))",
    bytes: "type({x}) is bytes",
    None: "{x} is None",
    type(None): "{x} is None",
}
_CONTAINERS: Final[dict[Any, tuple[type, ...]]] = {tuple: (tuple,), list: (list,), Sequence: (list, tuple)}
_checks = Checks()


def checking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the method with its arguments checked against its type hints. Invalid arguments raise BadValue or
    BadAmount, with `is_of_arguments` set. Mutable arguments are copied, so that the caller cannot alter them
    afterwards.

    The function is generated with the signature of the method, so a valid call costs one expression."""
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    wanted = {one.name: hints[one.name] for one in parameters}

    def refuse(given: dict[str, Any]) -> None:
        for name, value in given.items():
            if not _checks.of(wanted[name])(value):
                reason = wrong(value, wanted[name], name, function.__name__)
                reason.is_of_arguments = True
                raise reason
        raise AssertionError("an argument failed its check and then passed it")

    call: Callable[..., Any] = _checks.write(parameters, wanted, function, refuse)
    return call


def check_value(value: Any, hint: Any, name: str) -> None:
    """Checks a value that is not a method's argument. Raises BadValue."""
    if not _checks.of(hint)(value):
        raise wrong(value, hint, name, "the market")


@functools.cache
def copy_of(hint: Any) -> Copy | None:
    """Returns a function that copies the mutable parts of a valid value; None if it has none."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    copies = [copy_of(one) for one in inner if one is not Ellipsis]
    if origin is dict:
        return _copy_of_dict(copies[1])
    if origin in _CONTAINERS:
        return _copy_of_items(copies[0], origin)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _copy_of_struct(hint)
    if origin in (types.UnionType, typing.Union):
        return _copy_of_one_of(dict(zip((typing.get_origin(one) or one for one in inner), copies, strict=True)))
    if any(copies):
        raise TypeError(f"an argument of the market cannot be of type {hint!r}")
    return None


def _copy_of_one_of(copies: dict[Any, Copy | None]) -> Copy | None:
    altered = {kind: copy for kind, copy in copies.items() if copy is not None}
    if not altered:
        return None

    def copied(value: Any) -> Any:
        copy = altered.get(type(value))
        return value if copy is None else copy(value)

    return copied


def _copy_of_dict(inner: Copy | None) -> Copy:
    return dict if inner is None else lambda value: {name: inner(one) for name, one in value.items()}


def _copy_of_items(inner: Copy | None, origin: Any) -> Copy | None:
    if inner is not None:
        return lambda value: type(value)(map(inner, value))
    return None if origin is tuple else lambda value: value[:]


def _copy_of_struct(hint: type[msgspec.Struct]) -> Copy | None:
    fields = {field.name: copy_of(field.type) for field in msgspec.structs.fields(hint)}
    altered = {name: copy for name, copy in fields.items() if copy is not None}
    if not altered:
        return None

    names = tuple(altered)

    def copied(value: Any) -> Any:
        for name in names:
            if getattr(value, name):
                break
        else:
            return value
        new = {name: copy(old) for name, copy in altered.items() if (old := getattr(value, name))}
        return msgspec.structs.replace(value, **new)

    return copied


def wrong(value: Any, hint: Any, where: str, method: str) -> AuctionError:
    """The error for a value that is not of this type. It names the innermost invalid part."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and type(value) is hint:
        for field in msgspec.structs.fields(hint):
            if not _checks.of(field.type)(getattr(value, field.name)):
                return wrong(getattr(value, field.name), field.type, f"{where}.{field.name}", method)
    if origin in _CONTAINERS and type(value) in _CONTAINERS[origin] and inner[-1] in (Ellipsis, inner[0]):
        for place, one in enumerate(value):
            if not _checks.of(inner[0])(one):
                return wrong(one, inner[0], f"{where}[{place}]", method)
    if origin is dict and type(value) is dict:
        for name, one in value.items():
            for part, kind in ((name, inner[0]), (one, inner[1])):
                if not _checks.of(kind)(part):
                    return wrong(part, kind, f"{where}[{name!r}]", method)
    if origin in (types.UnionType, typing.Union):
        for one in inner:
            if type(value) is (typing.get_origin(one) or one):
                return wrong(value, one, where, method)
    kind = BadAmount if {where, where.rpartition(".")[2]} & _AMOUNTS else BadValue
    if type(value) is hint:
        limits = {int: f"is not within {INTEGER_MAX} of zero", str: "has a lone surrogate or NUL in it"}
        return kind(f"{method}: {where} {limits.get(hint, 'is not finite')}")
    wanted = getattr(hint, "__name__", str(hint)) if not inner else str(hint)
    return kind(f"{method}: {where} must be {wanted}, not {type(value).__name__}")
