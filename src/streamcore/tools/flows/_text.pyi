from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, int]

PlanPiece = tuple[bytes, str, int, int, int, bytes, list[bytes] | None, int]

class Plan:
    def __init__(self, pieces: Iterable[PlanPiece]) -> None: ...
    def text(self, rows: NDArray[np.void], version: int = -1) -> memoryview: ...
