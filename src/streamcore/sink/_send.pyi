from collections.abc import Callable

from streamcore.core.packets import Outgoing
from streamcore.headers import UdpPorts

class Sender:
    stopped: bool
    @property
    def shortened(self) -> int: ...
    def __init__(
        self,
        descriptors: list[int],
        trouble: Callable[[int, int, int], bool],
        time_scale: float = 0.0,
        ns_per_packet: float = 0.0,
        ns_per_byte: float = 0.0,
        *,
        spreads: bool = False,
        virtio: bool = False,
        ports: UdpPorts = ...,
    ) -> None: ...
    def set_mtu(self, number: int, mtu: int) -> None: ...
    def sent_on(self, number: int) -> int: ...
    def send(self, out: Outgoing) -> tuple[int, int]: ...
