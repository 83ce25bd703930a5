KINDS: dict[int, str]
TUNNELS: dict[int, str]
OUTCOMES: dict[int, str]

def explain(
    packet: bytes, link_type: int, *, shortcut: bool = True
) -> tuple[list[tuple[str, int, int, int, int, str]], str, int, str, int, tuple[int, ...]]: ...
