"""The served methods of the moderator, for the client. `client` sends them; `remote.pyi` has their types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from auction.moderator.commands import Moderator
from auction.moderator.methods import Method
from auction.web.wire import schema_of


class Remote:
    """The base class of MarketClient: each method calls its `call`."""


def add_methods(client: type, methods: Iterable[Method]) -> None:
    """Adds the served methods to a class. Raises TypeError if the class has an attribute of the same name."""
    for method in methods:
        if method.is_served:
            known = getattr(client, method.name, None)
            if known is not None and not hasattr(known, "__wrapped__"):
                raise TypeError(f"the client already has {method.name}: give the method another name")
            setattr(client, method.name, _remote(method))


def _remote(method: Method) -> Callable[..., Any]:
    """The moderator's method, called over the network."""

    @functools.wraps(method.function)
    def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        bound = schema_of(method).signature.bind(self, *arguments, **named).arguments
        bound.pop("self")
        key = bound.pop("key", None)
        return self.call(method, bound, key)

    return ask


add_methods(Remote, Moderator.methods.values())
