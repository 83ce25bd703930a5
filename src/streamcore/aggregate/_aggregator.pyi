from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Outgoing, PacketBatch, Result, Segment

ORDERS: tuple[str, ...]
DropByKeys = Callable[[NDArray[np.uint64], NDArray[np.int64]], tuple[NDArray[np.bool_], str]]

class Aggregator:
    order: str
    resized_bytes: int
    left: list[list[int]]
    def __init__(
        self,
        order: str,
        drop_by_keys: Sequence[DropByKeys | None] = (None,),
        dropped: Callable[[int, str, int, int], None] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def expect(self, batch: PacketBatch, segments: list[Segment]) -> None: ...
    def accept(self, result: Result) -> list[Outgoing]: ...
    def withdraw(self, provider: str) -> list[Segment]: ...
