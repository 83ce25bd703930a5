from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcore.core.capture_form import Interface

COLUMN_GROUPS: dict[str, int]
ALL_GROUPS: int
FLAGS: dict[str, int]
ABSENT: int
RECORD_HEADS: tuple[int, ...]

class ArenaClosed(Exception): ...

class Arena:
    fd: int
    chunk_count: int
    data_bytes_max: int
    rows_max: int
    stride: int
    size: int
    writable: bool
    def __init__(
        self,
        chunk_count: int,
        data_bytes_max: int,
        rows_max: int,
        *,
        shared: bool = False,
        fd: int = -1,
        writable: bool = False,
    ) -> None: ...
    def acquire(self, timeout_s: float | None = None) -> Chunk | None: ...
    def chunk(self, index: int) -> Chunk: ...
    def close(self) -> None: ...
    @property
    def free_count(self) -> int: ...
    def readonly_fd(self) -> int: ...
    def set_link_type(self, interface: int, link_type: int) -> None: ...
    def link_type(self, interface: int) -> int: ...
    def set_committed_bytes(self, size: int) -> None: ...
    @property
    def committed_bytes(self) -> int: ...
    def set_output_path(self, path: bytes) -> None: ...
    @property
    def output_path(self) -> bytes: ...

class Chunk:
    arena: Arena
    index: int
    borrowed_from: object | None
    @property
    def data(self) -> Any: ...  # NDArray[np.uint8], and a buffer, which numpy's stubs say only from Python 3.12 on

class Copier:
    added: int
    added_bytes: int

class PacketBatch:
    chunk: Chunk
    count: int
    first_number: int
    span_start: int
    span_stop: int
    interfaces: list[Interface]
    groups: int
    row_count: int
    arranged: bool
    segment_count: int
    contiguous: bool
    interleaved: bool
    offloads: bool
    copier: Copier | None
    parser: Callable[[PacketBatch, int], None] | None
    def __init__(
        self,
        chunk: Chunk,
        count: int,
        first_number: int,
        interfaces: list[Interface],
        *,
        span_start: int = 0,
        span_stop: int = 0,
        parser: Callable[[PacketBatch, int], None] | None = None,
        groups: int = 0,
        arranged: bool = False,
        row_count: int = -1,
    ) -> None: ...
    def __len__(self) -> int: ...
    def packet(self, row: int) -> NDArray[np.uint8]: ...
    def arrange(self, rows: NDArray[np.uint32]) -> None: ...
    def copy_to_chunk(self) -> tuple[int, int]: ...
    @property
    def byte_count(self) -> int: ...
    @property
    def data(self) -> Any: ...
    @property
    def rows(self) -> NDArray[np.uint32] | None: ...
    @property
    def offset(self) -> NDArray[np.uint32]: ...
    @property
    def captured_length(self) -> NDArray[np.uint32]: ...
    @property
    def wire_length(self) -> NDArray[np.uint32]: ...
    @property
    def timestamp_ns(self) -> NDArray[np.int64]: ...
    @property
    def interface(self) -> NDArray[np.uint16]: ...
    @property
    def record(self) -> NDArray[np.uint8]: ...
    @property
    def offload(self) -> NDArray[np.uint8] | None: ...
    @property
    def flow_hash(self) -> NDArray[np.uint32]: ...
    @property
    def ip_version(self) -> NDArray[np.uint8]: ...
    @property
    def protocol(self) -> NDArray[np.uint8]: ...
    @property
    def flags(self) -> NDArray[np.uint16]: ...
    @property
    def l3_offset(self) -> NDArray[np.uint16]: ...
    @property
    def l4_offset(self) -> NDArray[np.uint16]: ...
    @property
    def payload_offset(self) -> NDArray[np.uint16]: ...
    @property
    def source_port(self) -> NDArray[np.uint16]: ...
    @property
    def target_port(self) -> NDArray[np.uint16]: ...
    @property
    def fragment_offset(self) -> NDArray[np.uint16]: ...
    @property
    def source_address(self) -> NDArray[np.uint8]: ...
    @property
    def target_address(self) -> NDArray[np.uint8]: ...
    @property
    def vlan_count(self) -> NDArray[np.uint8]: ...
    @property
    def vlan(self) -> NDArray[np.uint16]: ...
    @property
    def depth(self) -> NDArray[np.uint8]: ...
    @property
    def inner_ip_version(self) -> NDArray[np.uint8]: ...
    @property
    def inner_protocol(self) -> NDArray[np.uint8]: ...
    @property
    def inner_flags(self) -> NDArray[np.uint16]: ...
    @property
    def inner_l3_offset(self) -> NDArray[np.uint16]: ...
    @property
    def inner_source_port(self) -> NDArray[np.uint16]: ...
    @property
    def inner_target_port(self) -> NDArray[np.uint16]: ...
    @property
    def inner_source_address(self) -> NDArray[np.uint8]: ...
    @property
    def inner_target_address(self) -> NDArray[np.uint8]: ...
    @property
    def tunnel_kind(self) -> NDArray[np.uint8]: ...
    @property
    def tunnel_id(self) -> NDArray[np.uint32]: ...

class Segment:
    number: int
    batch: PacketBatch
    start: int
    stop: int
    lane: int
    byte_count: int
    stream: int
    def __init__(
        self,
        number: int,
        batch: PacketBatch,
        start: int,
        stop: int,
        lane: int = 0,
        byte_count: int = 0,
        stream: int = 0,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def index(self) -> slice | NDArray[np.uint32]: ...

class Result:
    segment: Segment
    dead: bool
    unchanged: bool
    comments: dict[int, list[bytes]]
    reports: list[tuple[int, Any]]
    drops: dict[str, tuple[int, int]]
    reason: str
    provider: str
    hold: Any
    def __init__(self, segment: Segment, *, dead: bool = False, reason: str = "") -> None: ...

class Outgoing:
    batch: PacketBatch
    start: int
    stop: int
    unchanged: bool
    arranged: bool
    count: int
    comments: dict[int, list[bytes]]
    hold: Sequence[Result]
    def __init__(
        self, batch: PacketBatch, start: int, stop: int, *, arranged: bool = True, count: int = -1
    ) -> None: ...
    def packets(self) -> list[tuple[int, bytes]]: ...

def gather_records(segment: Segment) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]: ...
