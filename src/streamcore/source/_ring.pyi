from streamcore.packets import Chunk

LINK_COOKED: int

class Ring:
    block_count: int
    checksums_missing: int
    @property
    def ready_count(self) -> int: ...
    def __init__(
        self, fd: int, block_bytes: int, block_count: int, interface: int, cooked: bool, snap_length: int
    ) -> None: ...
    def walk(self, chunk: Chunk, rows: int, used: int, rows_max: int) -> tuple[int, int, bool]: ...
    def skip(self) -> tuple[int, int]: ...
