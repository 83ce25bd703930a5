"""The service `identity`: changes nothing, so a run with it measures the pipeline itself."""

from __future__ import annotations

from typing import ClassVar

from streamcore.service.protocol import Effect, SegmentView, Service


class Identity(Service):
    """Leave every packet as it is."""

    name: ClassVar[str] = "identity"
    effect: ClassVar[Effect] = "observe"
    reads_checksums: ClassVar[bool] = False

    def process(self, segment: SegmentView) -> None:
        """Does nothing."""
