from collections.abc import Callable

from streamcore.core.packets import Outgoing

ALL_ROWS: int

class TimeNotHeld(Exception): ...

class Encoder:
    limit_bytes: int
    limit_ns: int
    options_removed: int
    without_time: int
    stopped_by_row: bool
    def __init__(
        self,
        descriptor: int,
        pcapng: bool,
        digits: int,
        copied_kind: int,
        source_digits: int,
        compress: Callable[[memoryview], bytes] | None,
        staging_bytes: int,
        direct_bytes: int,
        bare: bool = False,
        sectioned: bool = False,
        rounds: bool = False,
    ) -> None: ...
    @property
    def committed_bytes(self) -> int: ...
    @property
    def staged_bytes(self) -> int: ...
    def set_tick(self, interface: int, tick_ns: int) -> None: ...
    def stage(self, data: bytes) -> None: ...
    def turn_to(self, descriptor: int, committed_bytes: int) -> None: ...
    def flush(self) -> None: ...
    def write(
        self,
        out: Outgoing,
        comments: dict[int, bytes],
        flush: bool,
        first: int = 0,
        row_limit: int = ...,
        place_limit: int = ...,
    ) -> tuple[int, int, int]: ...

def rest_of(out: Outgoing, first: int) -> tuple[int, int, int]: ...
def highest_interface(out: Outgoing) -> int: ...
def first_not_accepted(out: Outgoing, accepted: bytearray) -> int: ...
