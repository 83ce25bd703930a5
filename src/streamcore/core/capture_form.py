"""What describes a capture besides its packets: its format and its interfaces."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeAlias


class Interface(NamedTuple):
    """One capture interface of the first stream, as its pcapng interface block or its pcap file header describes it."""

    link_type: int
    snap_length: int = 0  # bytes, 0: no limit
    resolution: int = 6  # as pcapng's if_tsresol: a power of ten, or of two with bit 7 set
    offset_s: int = 0  # seconds to add to every timestamp
    fcs_length: int = -1  # bytes of frame check sequence in each packet, -1: unknown
    name: str = ""
    options: tuple[tuple[int, bytes], ...] = ()  # all options of the block, values as in the file, little-endian


class CaptureForm(NamedTuple):
    """The format of the first stream, which is also the default format of the second."""

    family: str  # "pcap" or "pcapng"
    resolution: int = 6  # of pcap: decimal digits of a second, 6 or 9
    swapped: bool = False  # big-endian; of pcapng: its first section
    options: tuple[tuple[int, bytes], ...] = ()  # of pcapng's first section block, values little-endian
    files: tuple[tuple[int, int], ...] = ()  # (device, inode) of regular files, which must not be the output
    one_section: bool = False  # of pcapng: packets of several sections may follow each other, so the output has one
    bare: bool = (
        False  # of pcapng: write only the options needed to read the packets; no comments, names, addresses, hashes
    )
    changed: bool = False  # packets may have been changed or dropped: custom blocks that forbid copying are left out


# Of a Block: a section's header, an interface, any other block (whole, little-endian), or None for one that cannot be
# written in this byte order.
Content: TypeAlias = CaptureForm | Interface | bytes | None


class Block(NamedTuple):
    """A pcapng block without a packet, on its way from the first stream into the second."""

    number: int  # of packets that stand before it in the stream
    content: Content
    base: int = 0  # the number in the stream of its section's first interface


class Blocks:
    """A queue of Blocks: the source's thread puts them in, the sink's takes them out. It is bounded: of what waits
    beyond WAITING_BYTES_MAX only sections and interfaces are kept, the contents of others become None.
    """

    WAITING_BYTES_MAX = 64 << 20

    def __init__(self) -> None:
        self._queue: deque[Block] = deque()
        self._put_bytes = self._taken_bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, block: Block) -> None:
        content = block.content
        if isinstance(content, bytes):
            if self._put_bytes - self._taken_bytes + len(content) > self.WAITING_BYTES_MAX:
                block = block._replace(content=None)
            else:
                self._put_bytes += len(content)
        self._queue.append(block)

    def first(self) -> Block:
        return self._queue[0]

    def take(self) -> Block:
        block = self._queue.popleft()
        content = block.content
        if isinstance(content, bytes):
            self._taken_bytes += len(content)
        return block
