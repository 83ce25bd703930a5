from streamcore.core.packets import PacketBatch
from streamcore.headers import UdpPorts
from streamcore.parse._bpf import Program

class Matcher:
    orphans: int
    def __init__(self, seed: int, fragments_max: int, ports: UdpPorts) -> None: ...
    def select(
        self, batch: PacketBatch, choice: tuple[dict[int, Program], tuple[Program, Program] | None]
    ) -> tuple[int, int]: ...
    def classify(
        self, batch: PacketBatch, chosen: list[tuple[dict[int, Program], tuple[Program, Program] | None]]
    ) -> list[int]: ...

def link_types_of(batch: PacketBatch) -> dict[int, int]: ...
