from collections.abc import Sequence

from streamcore.core.packets import PacketBatch, Segment

ANY_LANE: int
LANES_MAX: int

class Segmenter:
    policy: str
    lanes: int
    def __init__(
        self,
        policy: str,
        *,
        lanes: int = 1,
        packets_max: int = 65536,
        bytes_max: int = ...,
        time_ms: int = 0,
        streams: int = 1,
    ) -> None: ...
    def cut(self, batch: PacketBatch, stops: Sequence[int] | None = None) -> list[Segment]: ...
