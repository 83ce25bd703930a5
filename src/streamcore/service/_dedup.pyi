import numpy as np
from numpy.typing import NDArray

from streamcore.headers import UdpPorts

IGNORE_LINK: int
IGNORE_TTL: int
IGNORE_PADDING: int
KEEP_EMPTY_TCP: int
BLOCK_BYTES: int
KEY_WORDS: int

def hash_packets(
    data: NDArray[np.uint8],
    offset: NDArray[np.uint32],
    captured_length: NDArray[np.uint32],
    wire_length: NDArray[np.uint32],
    key: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    how: int = 0,
    link_type: NDArray[np.uint16] | None = None,
    ports: UdpPorts | None = None,
) -> None: ...

class Window:
    packets: int
    nanoseconds: int
    def __init__(self, packets: int, nanoseconds: int) -> None: ...
    def duplicates(self, keys: NDArray[np.uint64], timestamp_ns: NDArray[np.int64]) -> NDArray[np.bool_]: ...
