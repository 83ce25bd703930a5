"""The moderator's methods as coroutines. `aio` runs them; `awaited.pyi` has their types."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from auction.moderator.commands import Moderator
from auction.moderator.methods import IsNews, Method


class Awaited:
    """The base class of AsyncModerator: each method calls its `carry_out` or `wait_for`."""


def _awaited(method: Method) -> Callable[..., Any]:
    @functools.wraps(method.function)
    async def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        return await self.carry_out(lambda: getattr(self.moderator, method.name)(*arguments, **named))

    return ask


def _waiting(method: Method, is_news: IsNews) -> Callable[..., Any]:
    """The coroutine of a method that waits: its query is repeated when there may be news, and nobody else waits for
    it."""
    signature = inspect.signature(method.function)

    @functools.wraps(method.function)
    async def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        bound = signature.bind(self.moderator, *arguments, **named)
        bound.apply_defaults()
        asked = SimpleNamespace(**bound.arguments)
        wait_ms = asked.wait_ms
        if type(wait_ms) is not int or wait_ms <= 0:  # the method itself refuses an invalid time
            return await self.carry_out(lambda: getattr(self.moderator, method.name)(*arguments, **named))
        named = {**named, "wait_ms": 0}
        return await self.wait_for(
            lambda: getattr(self.moderator, method.name)(*arguments, **named),
            lambda answer: is_news(asked, answer),
            wait_ms,
        )

    return ask


for _method in Moderator.methods.values():
    if _method.is_awaited:
        is_news = _method.is_news
        asking = _awaited(_method) if is_news is None else _waiting(_method, is_news)
        setattr(Awaited, _method.name, asking)
