"""The moderator's methods as they are awaited. What runs them stands in `aio`; their types in `awaited.pyi`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from auction.moderator.commands import Moderator
from auction.moderator.methods import Method


class Awaited:
    """What an AsyncModerator inherits: each method asks its `carry_out`."""


def _awaited(method: Method) -> Callable[..., Any]:
    @functools.wraps(method.function)
    async def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        return await self.carry_out(lambda: getattr(self.moderator, method.name)(*arguments, **named))

    return ask


for _method in Moderator.methods.values():
    if _method.is_awaited:
        setattr(Awaited, _method.name, _awaited(_method))
