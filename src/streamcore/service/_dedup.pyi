import numpy as np
from numpy.typing import NDArray

PACKET_BYTES_MAX: int
KEY_WORDS: int

def hash_packets(
    data: NDArray[np.uint8],
    offset: NDArray[np.uint32],
    captured_length: NDArray[np.uint32],
    wire_length: NDArray[np.uint32],
    key: NDArray[np.uint64],
    keys: NDArray[np.uint64],
) -> None: ...

class Window:
    packets: int
    nanoseconds: int
    def __init__(self, packets: int, nanoseconds: int) -> None: ...
    def duplicates(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> NDArray[np.bool_]: ...
