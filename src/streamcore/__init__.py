"""A packet-processing pipeline: segments dispersed over ZeroMQ, results aggregated into a second stream.

The public surface is what `__all__` names. Each name is loaded when it is first used, so that `import streamcore` alone
imports no numpy, and not even `typing`. Everything else may change.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING:
    from typing import Any

    from streamcore.core.config import Config
    from streamcore.core.errors import SinkError, SourceError, StreamcoreError, UsageError, WorkerError
    from streamcore.core.packets import PacketBatch
    from streamcore.run.accounting import Accounting
    from streamcore.run.pipeline import Pipeline
    from streamcore.service.protocol import SegmentView, Service
    from streamcore.tools.reader import DamageWarning, Reader, read

__all__ = [
    "Accounting",
    "Config",
    "DamageWarning",
    "PacketBatch",
    "Pipeline",
    "Reader",
    "SegmentView",
    "Service",
    "SinkError",
    "SourceError",
    "StreamcoreError",
    "UsageError",
    "WorkerError",
    "read",
]

_HOME = {
    "Accounting": "run.accounting",
    "Config": "core.config",
    "DamageWarning": "tools.reader",
    "PacketBatch": "core.packets",
    "Pipeline": "run.pipeline",
    "Reader": "tools.reader",
    "SegmentView": "service.protocol",
    "Service": "service.protocol",
    "SinkError": "core.errors",
    "SourceError": "core.errors",
    "StreamcoreError": "core.errors",
    "UsageError": "core.errors",
    "WorkerError": "core.errors",
    "read": "tools.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"streamcore.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
