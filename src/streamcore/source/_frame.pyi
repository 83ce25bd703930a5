from typing import Any

from numpy.typing import NDArray

from streamcore.core.packets import Chunk, PacketBatch
from streamcore.headers import UdpPorts

FRAMED_LINKS: tuple[int, ...]
WITHOUT_ADDRESSES: tuple[int, ...]

class Framer:
    rows: int
    used: int
    segmented: int
    cut: int
    refused: int
    refused_bytes: int
    def __init__(
        self,
        source: bytes,
        target: bytes,
        vlan: int,
        mtu: int,
        segments: bool,
        ports: UdpPorts,
        packet_bytes_max: int,
    ) -> None: ...
    def begin(self, chunk: Chunk | None) -> None: ...
    def take(self, batch: PacketBatch, link_types: NDArray[Any], first: int) -> int: ...
