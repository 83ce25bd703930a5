"""Opens the sink that a Config names. SINKS has one row for each kind, whose module is loaded when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from streamcore.core.config import Config
from streamcore.sink.protocol import Sink, SinkNeeds


class SinkKind(NamedTuple):
    """One kind of sink."""

    suits: Callable[[Config], bool]
    open: str  # "module:function", called as function(config, needs); raises SinkError
    needs_rights: bool = False  # open it before the run gives up its rights


SINKS: dict[str, SinkKind] = {  # the first row that suits
    "live": SinkKind(lambda config: bool(config.output_interface), "streamcore.sink.live:open_live", needs_rights=True),
    "rotating": SinkKind(lambda config: config.rotates, "streamcore.sink.rotation:open_rotating"),
    "capture": SinkKind(lambda config: True, "streamcore.sink.writer:open_output"),
}


def sink_kind(config: Config) -> SinkKind:
    return next(kind for kind in SINKS.values() if kind.suits(config))


def open_sink(config: Config, needs: SinkNeeds) -> Sink:
    """The sink of a run, open or ready to open with its first packet. Raises SinkError, RightsError."""
    module, _, name = sink_kind(config).open.partition(":")
    sink: Sink = getattr(import_module(module), name)(config, needs)
    return sink
