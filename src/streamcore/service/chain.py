"""The services of one run, in order, as the main process sees them: what they need, what they may change, what they
report.

The workers make their own objects from the same specifications; only `settle`, `merge` and `summary` run on the ones
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.errors import UsageError
from streamcore.packets import COLUMN_GROUPS
from streamcore.service.load import load
from streamcore.service.protocol import ALLOWED, Service

Settle = Callable[[NDArray[np.uint64], NDArray[np.int64]], tuple[NDArray[np.bool_], str]]


class Chain:
    """Chain(specifications) loads every service once; raises UsageError with one line where one cannot be had."""

    def __init__(self, specifications: Sequence[Any]) -> None:
        self.services: list[Service] = [load(specification) for specification in specifications]
        self.specifications: list[Any] = [
            service.prepared(specification)
            for service, specification in zip(self.services, specifications, strict=True)
        ]
        settling = [service for service in self.services if service.settles]
        if len(settling) > 1:
            raise UsageError(
                f"only one service of a run can drop by keys: {' and '.join(s.name for s in settling)} both do"
            )
        self.settle: Settle | None = settling[0].settle if settling else None

    @property
    def changes(self) -> frozenset[str]:
        """What the services together may change: "bytes", "lengths", "drops"."""
        return frozenset().union(*(ALLOWED[service.effect] for service in self.services))

    @property
    def groups(self) -> int:
        """The column groups that they read (COLUMN_GROUPS bits)."""
        bits = 0
        for service in self.services:
            for group in service.groups:
                bits |= COLUMN_GROUPS[group]
        return bits

    def merge(self, reports: list[tuple[int, Any]]) -> None:
        """Fold one segment's reports in: (index of the service, report)."""
        for index, report in reports:
            self.services[index].merge(report)

    def summaries(self) -> dict[str, dict[str, Any]]:
        """What the services report at the end, by name; a service that stands twice is numbered."""
        told: dict[str, dict[str, Any]] = {}
        for place, service in enumerate(self.services):
            if summary := service.summary():
                told[service.name if service.name not in told else f"{service.name}-{place + 1}"] = summary
        return told
