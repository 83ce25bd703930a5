from streamcore.core.packets import Copier
from streamcore.headers import UdpPorts

class Completion(Copier):
    unfinished: int
    uncut: int
    def __init__(self, ports: UdpPorts, *, cuts: bool) -> None: ...
