from collections.abc import Iterable

KINDS: dict[int, str]
TUNNELS: dict[int, str]
OUTCOMES: dict[int, str]

class UdpPorts:
    def __init__(self, pairs: Iterable[tuple[int, int]], named: Iterable[int] = ()) -> None: ...

def explain(
    packet: bytes, link_type: int, ports: UdpPorts | None = None, *, shortcut: bool = True
) -> tuple[list[tuple[str, int, int, int, int, str]], str, int, str, int, tuple[int, ...]]: ...
