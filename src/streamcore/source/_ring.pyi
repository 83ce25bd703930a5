from streamcore.core.packets import Chunk

CAN_PEEK: bool
LINK_COOKED: int
SPACE_BYTES_MAX: int

class RingSpace:
    def __init__(self, bytes_max: int) -> None: ...

class Borrowed:
    offloads: bool

class Ring:
    block_count: int
    @property
    def ready_count(self) -> int: ...
    @property
    def borrowed_count(self) -> int: ...
    def __init__(
        self,
        space: RingSpace,
        fd: int,
        block_bytes: int,
        block_count: int,
        interface: int,
        cooked: bool,
        snap_length: int,
        peeks: bool = False,
        bell: int = -1,
        *,
        virtio: bool = False,
        cuts: bool = False,
    ) -> None: ...
    def gather_into(
        self,
        chunk: Chunk,
        borrowed: Borrowed,
        rows: int,
        used: int,
        rows_max: int,
        due_s: float,
        until_s: float,
        wake: int,
    ) -> tuple[int, int, bool]: ...
    def skip(self) -> tuple[int, int]: ...
