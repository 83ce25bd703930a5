from streamcore.core.packets import PacketBatch

HEADER_GROUPS: int
ROWS: int

class PacketText:
    def __init__(self, label: bytes, tunnels: list[bytes]) -> None: ...
    def lines(self, batch: PacketBatch, start: int) -> bytes: ...
