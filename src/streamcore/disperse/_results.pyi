from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Result, Segment

PACKED: int
LENGTHS: int
KEEP: int
KEYS: int
FLAGS_OF_CHANGE: dict[str, int]

class ResultError(Exception): ...

def region_bytes(count: int, packed: int, flags: int) -> int: ...
def write_result(
    region: NDArray[np.uint8],
    packed: int,
    keys: NDArray[np.uint64] | None,
    offset: NDArray[np.uint32] | None,
    captured_length: NDArray[np.uint32] | None,
    wire_length: NDArray[np.uint32] | None,
    keep: NDArray[np.uint8] | None,
) -> int: ...
def read_result(
    segment: Segment, region: NDArray[np.uint8], packed: int, flags: int, allowed: int, hold: Any
) -> Result: ...
def same_result(a: Result, b: Result) -> bool: ...
def dropped_of(result: Result) -> tuple[int, int]: ...
