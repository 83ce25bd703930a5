"""Opens the sink that a Config names. SINKS has one row for each kind, whose function raises SinkError."""

from __future__ import annotations

from streamcore.core.config import Config
from streamcore.core.ends import EndKind, first_that_suits, open_end
from streamcore.sink.protocol import Sink, SinkNeeds

SINKS: dict[str, EndKind] = {  # the first row that suits
    "live": EndKind(lambda config: bool(config.output_interface), "streamcore.sink.live:open_live", needs_rights=True),
    "streams": EndKind(
        lambda config: any(each.write for each in config.stream), "streamcore.sink.per_stream:open_per_stream"
    ),
    "splitting": EndKind(lambda config: bool(config.split), "streamcore.sink.splitting:open_splitting"),
    "rotating": EndKind(lambda config: config.rotates, "streamcore.sink.rotation:open_rotating"),
    "capture": EndKind(lambda config: True, "streamcore.sink.writer:open_output"),
}


def sink_kind(config: Config) -> EndKind:
    return first_that_suits(SINKS, config)


def open_sink(config: Config, needs: SinkNeeds) -> Sink:
    """The sink of a run, open or ready to open with its first packet. Raises SinkError, RightsError."""
    sink: Sink = open_end(sink_kind(config), config, needs)
    return sink
