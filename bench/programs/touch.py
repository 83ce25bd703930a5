"""A service that rewrites next to nothing, and so sends every byte back: for bench/curve.py."""

from streamcore.service.protocol import SegmentView, Service


class Touch(Service):
    effect = "rewrite"

    def process(self, segment: SegmentView) -> None:
        segment.writable()
