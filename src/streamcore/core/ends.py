"""What a row of SOURCES (source/opening.py) and of SINKS (sink/opening.py) is, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from streamcore.core.config import Config


class EndKind(NamedTuple):
    """One kind of source or sink."""

    suits: Callable[[Config], bool]
    open: str  # "module:function", called as function(config, needs)
    needs_rights: bool = False  # open it before the run gives up its rights


def first_that_suits(kinds: Mapping[str, EndKind], config: Config) -> EndKind:
    return next(kind for kind in kinds.values() if kind.suits(config))


def open_end(kind: EndKind, config: Config, needs: Any) -> Any:
    """Loads the kind's module and calls its function. Raises what that raises."""
    module, _, name = kind.open.partition(":")
    return getattr(import_module(module), name)(config, needs)
