import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import PacketBatch
from streamcore.segment.cutter import Bounds, Preceding

class Windows:
    def __init__(self, bounds: Bounds) -> None: ...
    def feed(self, batch: PacketBatch, start: int, stop: int, preceding: Preceding | None) -> NDArray[np.int64]: ...
