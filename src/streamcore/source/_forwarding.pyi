from collections.abc import Callable, Sequence

from streamcore.core.capture_form import Interface
from streamcore.core.packets import Chunk, Outgoing
from streamcore.source._ring import Ring

class Told:
    def __init__(self, bounds_s: tuple[float, ...]) -> None: ...
    def take(self) -> tuple[tuple[int, int], tuple[int, int], list[int], float]: ...

def forward(
    ring: Ring,
    chunk: Chunk,
    interfaces: Sequence[Interface],
    told: Told,
    write: Callable[[Outgoing], tuple[int, int]],
    due_s: float,
    wait_s: float,
    until_s: float,
    wake: int,
    number: int,
) -> tuple[int, int, float]: ...
