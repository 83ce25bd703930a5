import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Segment

def pack_records(segment: Segment, region: NDArray[np.uint8], offset: NDArray[np.uint32]) -> int: ...
def adjacent_records(segment: Segment, offset: NDArray[np.uint32]) -> tuple[int, int] | None: ...
def pack_packets(
    data: NDArray[np.uint8],
    offset: NDArray[np.uint32],
    length: NDArray[np.uint32],
    region: NDArray[np.uint8],
    placed: NDArray[np.uint32],
) -> int: ...
