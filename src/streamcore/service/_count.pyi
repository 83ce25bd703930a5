from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOW: np.dtype[np.void]

class Flows:
    used: int
    entries_max: int
    def __init__(self, entries_max: int) -> None: ...
    def clear(self) -> None: ...
    def rows(self) -> NDArray[np.void]: ...
    def add_rows(self, rows: NDArray[np.void]) -> None: ...
    def add_packets(
        self,
        source_address: NDArray[np.uint8],
        target_address: NDArray[np.uint8],
        source_port: NDArray[np.uint16],
        target_port: NDArray[np.uint16],
        protocol: NDArray[np.uint8],
        ip_version: NDArray[np.uint8],
        wire_length: NDArray[np.uint32],
    ) -> None: ...

def by_protocol(
    protocol: NDArray[np.uint8], ip_version: NDArray[np.uint8], wire_length: NDArray[np.uint32]
) -> NDArray[np.uint64]: ...
def by_time(timestamp_ns: NDArray[Any], wire_length: NDArray[np.uint32], bin_ns: int) -> NDArray[np.int64]: ...
