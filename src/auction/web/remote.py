"""The served methods of the moderator as a client has them. What sends them stands in `client`; their types in
`remote.pyi`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from auction.moderator.commands import Moderator
from auction.moderator.methods import Method
from auction.web.wire import schema_of


class Remote:
    """What a MarketClient inherits: each method asks its `call`."""


def add_methods(client: type, methods: Iterable[Method]) -> None:
    """Gives a class those of the methods that are served. Raises TypeError for one that has the name of something of
    the client's own."""
    for method in methods:
        if method.is_served:
            known = getattr(client, method.name, None)
            if known is not None and not hasattr(known, "__wrapped__"):
                raise TypeError(f"a client has its own {method.name}: give the method another name")
            setattr(client, method.name, _remote(method))


def _remote(method: Method) -> Callable[..., Any]:
    """The moderator's method, asked for over the network."""

    @functools.wraps(method.function)
    def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        bound = schema_of(method).signature.bind(self, *arguments, **named).arguments
        bound.pop("self")
        key = bound.pop("key", None)
        return self.call(method, bound, key)

    return ask


add_methods(Remote, Moderator.methods.values())
