import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import PacketBatch
from streamcore.headers import UdpPorts

FLOW_DTYPE: np.dtype[np.void]
ENDED: dict[int, str]

class FlowTable:
    count: int
    evicted: int
    def __init__(
        self,
        flows_max: int,
        seed: int | None = None,
        idle_ms: int = 0,
        *,
        fragments_max: int = 65536,
        ports: UdpPorts = ...,
        by: int = 0,
    ) -> None: ...
    def find(self, batch: PacketBatch) -> NDArray[np.uint32]: ...
    def export(self) -> NDArray[np.void]: ...
    def ended(self) -> NDArray[np.void]: ...
