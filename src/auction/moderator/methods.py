"""The table of the moderator's methods. Each method is one decorated function; every list of methods is made from this
table.

The decorator states who may call the method in a served market (its right), whether it is served, and its step of the
command line. It also checks the arguments against the type hints. `web/rights.py` defines the rights.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast, get_args

from auction.model.errors import AuctionError, Conflict, Declined, PaymentUnknown, StoreFailed
from auction.moderator.arguments import checking

Function = TypeVar("Function", bound=Callable[..., Any])
IsNews = Callable[[Any, Any], bool]
Right = Literal[
    "operator",  # the market's operator, who also has every other right
    "anyone",  # every party of the market
    "stranger",  # callers without a token too: the arguments prove who calls
    "registration",  # callers that may register the party in the arguments
    "own",  # the party named in the argument, or a recipient for its users, devices and numbers
    "rater",  # the party that rates, or the device that it rates from
    "recipient",  # of the agreement
    "announcer",  # of the auction
    "participant",  # who announced, bid, committed or offered in the auction
    "provider",  # of the agreement
    "side",  # recipient or provider of the agreement
    "concerned",  # both sides, the recipient's devices, the runners-up that stand by, and the arbiter
    "holder",  # of the block
    "organiser",  # of the group
    "member",  # of the group, including its organiser and sponsors
]
# The argument that a right is about, unless the decorator names another.
_ABOUT: Final[dict[str, str]] = {
    "rater": "rater",
    **dict.fromkeys(("recipient", "provider", "side", "concerned"), "agreement"),
    **dict.fromkeys(("announcer", "participant"), "auction"),
    "holder": "block",
    **dict.fromkeys(("organiser", "member"), "group"),
}
_NEEDS_ARGUMENT: Final = frozenset({"own", *_ABOUT})
_FINAL: Final = (StoreFailed, Conflict, Declined, PaymentUnknown)  # reading the journal again does not change these
_TRIES_MAX: Final = 32
_ROW: Final = "_method_of_the_market"


class Method(NamedTuple):
    """One row of the table. `about` is the argument that the right reads (`entry.bidder`: a field of one); `step` is
    noun and verb on the command line, or empty; `is_news(arguments, answer)` says whether a waiting caller gets this
    answer."""

    name: str
    function: Callable[..., Any]
    is_command: bool
    right: Right
    about: str
    is_served: bool
    is_awaited: bool
    step: tuple[str, ...]
    is_news: IsNews | None


def command(
    step: str = "", *, right: Right, about: str = "", served: bool = True, awaited: bool = True
) -> Callable[[Function], Function]:
    """Marks a method that writes. `step` is `noun verb`; `awaited` says whether `AsyncModerator` has it."""
    return _marking(True, step, right, about, served, awaited, None)


def query(
    step: str = "", *, right: Right, about: str = "", is_news: IsNews | None = None
) -> Callable[[Function], Function]:
    """Marks a method that reads. If it takes `wait_ms`, `is_news` says when the wait ends."""
    return _marking(False, step, right, about, True, True, is_news)


def _marking(
    is_command: bool, step: str, right: Right, about: str, served: bool, awaited: bool, is_news: IsNews | None
) -> Callable[[Function], Function]:
    if right not in get_args(Right):
        raise TypeError(f"there is no right {right!r}")
    words = tuple(step.split())
    if words and (len(words) != 2 or not all(part.isalpha() for word in words for part in word.split("-"))):
        raise TypeError(f"a step is a noun and a verb, not {step!r}")

    def mark(function: Function) -> Function:
        name = function.__name__
        checked = _checking(function, is_command)
        row = Method(name, checked, is_command, right, about or _ABOUT.get(right, ""), served, awaited, words, is_news)
        setattr(checked, _ROW, row)
        return checked

    return mark


def _checking(function: Function, is_command: bool) -> Function:
    """The method with its arguments checked: wrong types raise BadValue before it is called.

    Before a query reads, and before a command is refused, it folds in what another moderator may have written."""
    call: Callable[..., Any] | None = None  # built at the first call: reading the types of all methods is slow

    @functools.wraps(function)
    def checked(self: Any, *given: Any, **named: Any) -> Any:
        nonlocal call
        if call is None:
            call = checking(function)
        if not is_command:
            self._catch_up()
        tries = 0
        while tries < _TRIES_MAX:
            refused_at = self._caught_up
            try:
                return call(self, *given, **named)
            except _FINAL:
                raise
            except AuctionError as reason:
                if reason.is_of_arguments or not self._catch_up(refused_at):
                    raise
            tries += 1
        raise Conflict(f"others kept writing to this journal while {function.__name__} was being refused")

    return cast(Function, checked)


def table_of(market: type) -> dict[str, Method]:
    """The methods of a class by name, its own last. A method that overrides another keeps its row. Raises TypeError for
    a public method without a right, for a right about an argument that the method does not have, for a method that
    waits without `is_news`, and for a step that two methods claim."""
    table: dict[str, Method] = {}
    for base in reversed(market.__mro__):
        for name, function in vars(base).items():
            if name[0] == "_" or not isinstance(function, FunctionType):
                continue
            row: Method | None = getattr(function, _ROW, None)
            if row is None:
                if name not in table:
                    raise TypeError(f"{base.__name__}.{name} has no right: decorate it with @command or @query")
                setattr(base, name, _checking(function, table[name].is_command))
            table[name] = (row or table[name])._replace(name=name, function=function)
            _check(table[name], function)
    steps = [row.step for row in table.values() if row.step]
    if len(steps) != len(set(steps)):
        twice = sorted(" ".join(step) for step in set(steps) if steps.count(step) > 1)
        raise TypeError(f"two methods have one step: {', '.join(twice)}")
    return table


def _check(row: Method, function: FunctionType) -> None:
    parameters = inspect.signature(function).parameters
    if row.right in _NEEDS_ARGUMENT and row.about.split(".")[0] not in parameters:
        raise TypeError(
            f"the right {row.right!r} of {row.name} is about {row.about!r}, which is not one of its arguments"
        )
    if "wait_ms" in parameters and row.is_news is None:
        raise TypeError(f"{row.name} takes wait_ms, but has no `is_news`")
