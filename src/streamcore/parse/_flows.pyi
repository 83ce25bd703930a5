from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import PacketBatch
from streamcore.headers import UdpPorts

class FlowTable:
    count: int
    evicted: int
    first_packets: int
    dtype: np.dtype[np.void]
    def __init__(
        self,
        flows_max: int,
        seed: int | None = None,
        idle_ms: int = 0,
        *,
        active_ms: int = 0,
        closed_ms: int = 0,
        first_packets: int = 0,
        fragments_max: int = 65536,
        ports: UdpPorts = ...,
        by: int = 0,
    ) -> None: ...
    def find(self, batch: PacketBatch) -> NDArray[np.uint64]: ...
    def add(self, batch: PacketBatch) -> None: ...
    def export(self) -> NDArray[np.void]: ...
    def exported(self, rows_max: int = 16384) -> Iterator[NDArray[np.void]]: ...
    def ended(self) -> NDArray[np.void]: ...
