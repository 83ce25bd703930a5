from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streamcore.core.packets import Outgoing
from streamcore.headers import UdpPorts

CALLS_OF_END: int
DATAGRAM: int
SEGMENT: int
FIRST_FRAGMENT: int
FRAGMENT: int
End = tuple[bytes, int]
Handed = tuple[int, int, End, End, int | tuple[int, int], bool, bytes]

class MediaTable:
    beyond: int
    used: int
    def __init__(self, ports: UdpPorts, ends_max: int) -> None: ...
    def add(self, address: bytes, port: int, file: int, until_ns: int, own: bool) -> None: ...
    def listen(self, port: int) -> None: ...
    def begin(self, out: Outgoing) -> None: ...
    def put(self, files: Iterable[int]) -> None: ...
    def taken(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]: ...
    def next(self) -> Handed | None: ...
