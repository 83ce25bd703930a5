from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streamcore.packets import Outgoing, PacketBatch, Result, Segment

ORDERS: tuple[str, ...]

class Aggregator:
    order: str
    resized_bytes: int
    def __init__(
        self,
        order: str,
        settle: Callable[[NDArray[np.uint64], NDArray[np.int64]], tuple[NDArray[np.bool_], str]] | None = None,
        dropped: Callable[[str, int, int], None] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def expect(self, batch: PacketBatch, segments: list[Segment]) -> None: ...
    def accept(self, result: Result) -> list[Outgoing]: ...
