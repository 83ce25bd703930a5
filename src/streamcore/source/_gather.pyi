from typing import Any

from numpy.typing import NDArray

from streamcore.core.packets import Chunk, PacketBatch

class Gatherer:
    rows: int
    used: int
    contiguous: bool
    def __init__(self, pcapng: bool, digits: int) -> None: ...
    def begin(self, chunk: Chunk | None) -> None: ...
    def take(
        self,
        batches: list[PacketBatch],
        numbers: list[NDArray[Any]],
        digits: list[int],
        which: NDArray[Any],
        row: NDArray[Any],
        first: int,
    ) -> int: ...
    def merge(
        self,
        batches: list[PacketBatch],
        numbers: list[NDArray[Any]],
        digits: list[int],
        keys: list[NDArray[Any]],
        at: NDArray[Any],
        stop: NDArray[Any],
    ) -> bool: ...

def shift_times(batch: PacketBatch, shift_ns: int, ticks: NDArray[Any], unit_ns: int) -> int: ...
