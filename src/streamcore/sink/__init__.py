"""The second stream -> a capture file or standard output. Names are loaded when asked for: seal.py must stay light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamcore.sink.writer import Sink, open_sink

__all__ = ["Sink", "open_sink"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from streamcore.sink import writer

        return getattr(writer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
