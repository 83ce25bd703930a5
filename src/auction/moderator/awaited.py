"""The moderator's methods as they are awaited. What runs them stands in `aio`; their types in `awaited.pyi`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from auction.moderator.facade import Moderator

_NOT_AWAITED: Final = {"group"}  # every answer is committed together with others in any case


def methods() -> dict[str, Callable[..., Any]]:
    """The moderator's methods that may be awaited, by name."""
    public = inspect.getmembers(Moderator, inspect.isfunction)
    return {name: method for name, method in public if not name.startswith("_") and name not in _NOT_AWAITED}


class Awaited:
    """What an AsyncModerator inherits: each method asks its `carry_out`."""


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def command(self: Any, *arguments: Any, **named: Any) -> Any:
        return await self.carry_out(lambda: getattr(self.moderator, method.__name__)(*arguments, **named))

    return command


for _name, _method in methods().items():
    setattr(Awaited, _name, _awaited(_method))
