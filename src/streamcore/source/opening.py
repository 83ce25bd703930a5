"""Opens the source that a Config names. SOURCES has one row for each kind, whose module is loaded when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from streamcore.core.config import Config
from streamcore.source.protocol import Source, SourceNeeds


class SourceKind(NamedTuple):
    """One kind of source."""

    suits: Callable[[Config], bool]
    open: str  # "module:function", called as function(config, needs); raises SourceError, UsageError
    needs_rights: bool = False  # open it before the run gives up its rights


SOURCES: dict[str, SourceKind] = {  # the first row that suits
    "live": SourceKind(lambda config: bool(config.interface), "streamcore.source.live:open_live", needs_rights=True),
    "capture": SourceKind(lambda config: True, "streamcore.source.capture:open_capture"),
}


def source_kind(config: Config) -> SourceKind:
    return next(kind for kind in SOURCES.values() if kind.suits(config))


def open_source(config: Config, needs: SourceNeeds) -> Source:
    """Opens the source of a run. Raises SourceError, UsageError, RightsError."""
    module, _, name = source_kind(config).open.partition(":")
    source: Source = getattr(import_module(module), name)(config, needs)
    return source
