"""Opens the source that a Config names. SOURCES has one row for each kind, whose function may raise SourceError."""

from __future__ import annotations

from streamcore.core.config import Config
from streamcore.core.ends import EndKind, first_that_suits, open_end
from streamcore.source.protocol import Source, SourceNeeds

SOURCES: dict[str, EndKind] = {  # the first row that suits
    "live": EndKind(lambda config: bool(config.interface), "streamcore.source.live:open_live", needs_rights=True),
    "capture": EndKind(lambda config: True, "streamcore.source.captures:open_captures"),
}


def source_kind(config: Config) -> EndKind:
    return first_that_suits(SOURCES, config)


def open_source(config: Config, needs: SourceNeeds) -> Source:
    """Opens the source of a run. Raises SourceError, UsageError, RightsError."""
    source: Source = open_end(source_kind(config), config, needs)
    return source
