import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Outgoing
from streamcore.headers import UdpPorts

KINDS: tuple[str, ...]
REST: int
End = tuple[bytes, int]

class KeyTable:
    kind: str
    beyond: int
    def __init__(self, kind: str, ports: UdpPorts, inner: bool, files_max: int) -> None: ...
    def assign(self, out: Outgoing) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]: ...
    def take_new(self) -> list[tuple[int, int, int, bool, End, End, tuple[int, ...]]]: ...
