"""A packet-processing pipeline: segments dispersed over ZeroMQ, results aggregated into a second stream.

`read` and its kin are loaded when first used: `import streamcore` alone imports no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamcore.reader import DamageWarning, Reader, read

__all__ = ["DamageWarning", "Reader", "read"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from streamcore import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
