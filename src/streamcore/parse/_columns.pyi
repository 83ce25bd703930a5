from streamcore.core.packets import PacketBatch
from streamcore.headers import UdpPorts

class ColumnParser:
    malformed: int
    truncated: int
    orphans: int
    link_unknown: int
    def __init__(self, seed: int, fragments_max: int, ports: UdpPorts, by: int = 0) -> None: ...
    def parse(self, batch: PacketBatch, groups: int) -> None: ...
