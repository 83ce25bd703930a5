"""One stream's services in order, as the main process sees them: the columns they need, the changes they may make, and
their reports.

Workers make their own objects from the same specifications. The main process calls only `drop_by_keys`, `merge` and
`summary` of its objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.errors import UsageError
from streamcore.core.packets import COLUMN_GROUPS
from streamcore.core.text import shown
from streamcore.service.identity import Identity
from streamcore.service.load import load
from streamcore.service.protocol import ALLOWED, Effect, Service
from streamcore.service.specification import parse_specification

Reports = list[tuple[int, Any]]  # (index of the service, report)
Drops = dict[str, tuple[int, int]]  # reason -> packets, bytes
ELSEWHERE = "by_a_provider"  # the reason for drops of services that are not installed here
DropByKeys = Callable[[NDArray[np.uint64], NDArray[np.int64]], tuple[NDArray[np.bool_], str]]


class Chain:
    """Chain(specifications) loads every service once. Raises UsageError with one line if one cannot be loaded."""

    def __init__(self, specifications: Sequence[Any]) -> None:
        self.services: list[Service] = [load(specification) for specification in specifications]
        self.specifications: list[Any] = [
            service.prepared(specification)
            for service, specification in zip(self.services, specifications, strict=True)
        ]
        self.unmerged = 0
        self._first_unmerged = ""
        dropping = [service for service in self.services if service.drops_by_keys]
        if len(dropping) > 1:
            raise UsageError(
                f"only one service of a run can drop by keys: {' and '.join(s.name for s in dropping)} both do"
            )
        self.drop_by_keys: DropByKeys | None = dropping[0].drop_by_keys if dropping else None
        self.dropping = dropping[0].name if dropping else ""  # the service that drops by keys

    @property
    def deterministic(self) -> bool:
        """Whether the same segment gives the same result, whichever worker processes it."""
        return all(service.deterministic for service in self.services)

    @property
    def changes(self) -> frozenset[str]:
        """What the services together may change: "bytes", "lengths", "drops"."""
        return frozenset().union(*(ALLOWED[service.effect] for service in self.services))

    @property
    def reads_checksums(self) -> bool:
        """Whether a service needs packets with true checksums."""
        return any(service.reads_checksums for service in self.services)

    @property
    def does_nothing(self) -> bool:
        """Whether packets leave as they came, and nobody looks at them."""
        return all(type(service) is Identity for service in self.services)

    @property
    def removes_metadata(self) -> bool:
        """Whether blocks of a pcapng output must contain no more than reading its packets requires."""
        return any(service.removes_metadata for service in self.services)

    @property
    def incomplete(self) -> list[str]:
        """Why the output is not all that was requested, one line for each service that says so."""
        lines = [f"{service.name}: {line}" for service in self.services if (line := service.incomplete())]
        if self.unmerged:
            lines.append(f"{self.unmerged:,} reports could not be merged, the first of {self._first_unmerged}")
        return lines

    @property
    def groups(self) -> int:
        """The column groups that the services read (COLUMN_GROUPS bits)."""
        bits = 0
        for service in self.services:
            for group in service.groups:
                if group not in COLUMN_GROUPS:
                    known = ", ".join(COLUMN_GROUPS)
                    raise UsageError(f"service {service.name}: there is no column group {group!r}: use {known}")
                bits |= COLUMN_GROUPS[group]
        return bits

    def accepted(self, reports: Reports, drops: Drops) -> tuple[Reports, Drops]:
        """What counts of the reports and drops that a worker sends with a segment: all of it. Raises ValueError if a
        service cannot have made one of them. Changes nothing.
        """
        for reason in drops:
            if not any(reason in service.reasons for service in self.services):
                raise ValueError(f"packets dropped for {reason!r}, a reason that no service declares")
        for index, report in reports:
            if not 0 <= index < len(self.services):
                raise ValueError("a report of a service that does not exist")
            service = self.services[index]
            if type(service).merge is Service.merge:
                raise ValueError(f"service {service.name}: it calls `report`, so it needs a method merge(report)")
            service.check_report(report)
        return reports, drops

    def merge(self, reports: Reports) -> None:
        """Merges one segment's accepted reports: (index of the service, report). A service that raises all the same
        ends nothing: `unmerged` counts its reports, and the output is incomplete.
        """
        for index, report in reports:
            service = self.services[index]
            try:
                service.merge(report)
            except Exception as error:
                self.unmerged += 1
                self._first_unmerged = self._first_unmerged or shown(f"{service.name}: {type(error).__name__}: {error}")

    def summaries(self) -> dict[str, dict[str, Any]]:
        """What the services report at the end, by name. A service that appears twice is numbered."""
        summaries: dict[str, dict[str, Any]] = {}
        for place, service in enumerate(self.services):
            if summary := service.summary():
                summaries[service.name if service.name not in summaries else f"{service.name}-{place + 1}"] = summary
        return summaries


class ChainElsewhere:
    """Services that cannot be loaded here. Only their declarations are known, and a provider's results are checked
    against these. Their reports are ignored.
    """

    deterministic = False
    reads_checksums = True
    does_nothing = False
    removes_metadata = True  # it is not known here whether they do
    incomplete: Sequence[str] = ()
    groups = 0
    unmerged = 0
    drop_by_keys: DropByKeys | None = None
    dropping = ""

    def __init__(self, specifications: Sequence[Any], effect: Effect) -> None:
        self.specifications: list[Any] = []
        for each in specifications:
            name, options = parse_specification(each)
            self.specifications.append(dict(each) if isinstance(each, Mapping) else {"name": name, **options})
        self.services: list[Service] = []
        self.changes = ALLOWED[effect]

    def accepted(self, reports: Reports, drops: Drops) -> tuple[Reports, Drops]:
        """What counts: no report, and the drops under one reason, because those that are declared are not known."""
        packets, byte_count = (sum(each[unit] for each in drops.values()) for unit in (0, 1))
        return [], {ELSEWHERE: (packets, byte_count)} if drops else {}

    def merge(self, reports: Reports) -> None:
        pass

    def summaries(self) -> dict[str, dict[str, Any]]:
        return {}
