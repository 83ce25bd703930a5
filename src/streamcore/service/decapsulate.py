"""The service `decapsulate`: takes packets out of the tunnels in which a mirror or an operator wrapped them.

The walk (headers/) knows the tunnels; docs/link-types.md lists them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from streamcore.headers import TUNNELS
from streamcore.service._decapsulate import FATES, strip
from streamcore.service.figures import Figure
from streamcore.service.options import choice
from streamcore.service.protocol import Effect, SegmentView, Service

DEPTHS = {"all": 32, "1": 1}  # as many as the walk records


class Decapsulate(Service):
    """Take packets out of the tunnels around them; a packet in no tunnel stays as it is.

    kinds: the tunnels to strip, as in kinds=vxlan+gre; all by default. depth: all, or 1 for the outermost only. In
    Ethernet captures, an inner frame stays a frame, and an inner IP packet gets an Ethernet header with the addresses
    of the outer one, without its tags. If the packet in a tunnel is a fragment, it stays in the tunnel, and is counted.
    """

    name: ClassVar[str] = "decapsulate"
    effect: ClassVar[Effect] = "resize"
    report_type: ClassVar[Any] = tuple[list[Figure], list[Figure]]  # packets by FATES, by kind of tunnel

    def __init__(self, kinds: Any = "all", depth: Any = "all") -> None:
        known = {name: kind for kind, name in TUNNELS.items() if name}
        words = [str(word) for word in kinds] if isinstance(kinds, list) else str(kinds).replace("+", ",").split(",")
        self._kinds = np.zeros(max(TUNNELS) + 1, np.uint8)
        for word in words:
            if word.strip() != "all" and word.strip() not in known:
                raise ValueError(f"there is no tunnel {word.strip()!r}: use {', '.join(known)} or all")
            for name, kind in known.items():
                if word.strip() in ("all", name):
                    self._kinds[kind] = 1
        self._tunnels_max = DEPTHS[choice("depth", str(depth), tuple(DEPTHS))]
        self._fates = [0] * len(FATES)
        self._stripped = [0] * len(TUNNELS)

    def process(self, segment: SegmentView) -> None:
        data, offset, captured, wire, fates, by_kind = strip(
            segment.data,
            np.ascontiguousarray(segment.offset),
            np.ascontiguousarray(segment.captured_length),
            np.ascontiguousarray(segment.wire_length),
            segment.link_type(),
            segment.ports,
            self._kinds,
            self._tunnels_max,
        )
        if fates[0]:
            segment.replace(data, offset, captured, wire)
        segment.report([fates, by_kind])

    def check_report(self, report: Any) -> None:
        super().check_report(report)
        if (len(report[0]), len(report[1])) != (len(self._fates), len(self._stripped)):
            raise ValueError("a report with another number of fates or tunnels")

    def merge(self, report: Any) -> None:
        self.check_report(report)
        fates, by_kind = report
        self._fates = [a + b for a, b in zip(self._fates, fates, strict=True)]
        self._stripped = [a + b for a, b in zip(self._stripped, by_kind, strict=True)]

    def summary(self) -> dict[str, Any]:
        told: dict[str, Any] = dict(zip(FATES, self._fates, strict=True))
        told["stripped"] = {TUNNELS[kind]: count for kind, count in enumerate(self._stripped) if count}
        return {"packets": sum(self._fates), **told}
