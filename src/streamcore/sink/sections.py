"""What a pcapng input says besides its packets, on its way into the output: its sections, interfaces and other blocks.

writer.py asks which blocks stand before a packet, and writes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamcore.core.capture_form import Block, Blocks, CaptureForm, Interface
from streamcore.sink import _headers

NEVER = 1 << 62  # a number that no packet has
STATISTICS_BLOCK = 5
NOT_COPIED = (0x40000BAD).to_bytes(4, "little")  # the type of custom blocks that forbid copying


class Sections:
    """The blocks of the first stream that have not been written yet, and the section that the output is in.

    pending: the source appends to it, from another thread. whole: sections stand in the output as they do in the input;
    otherwise all packets are of one section, and only blocks that are neither sections nor interfaces are written.
    bare: nothing is written but what reading the packets takes. changed: services may change packets, so custom blocks
    that forbid copying (pcapng, section 4.9) are left out.
    """

    def __init__(self, pending: Blocks, whole: bool, bare: bool, changed: bool = False) -> None:
        self.whole = whole
        self.removed = 0  # options, and blocks, that were left out
        self.taken = 0  # blocks
        self._pending = pending
        self._bare, self._changed = bare, changed
        self._begun = False  # a section was taken
        self._header = b""
        self._interfaces: list[bytes] = []

    @property
    def next_number(self) -> int:
        """The number of the packet before which the next block stands; NEVER if no block is known."""
        return self._pending.first().number if self._pending else NEVER

    @property
    def preamble(self) -> bytes:
        """The section's header and its interfaces so far, for a file that begins within it."""
        return self._header + b"".join(self._interfaces)

    def due(self, number: int) -> Iterator[bytes]:
        """Takes the blocks that stand before this packet, as they are to be written."""
        while self.next_number <= number:
            self.taken += 1
            yield self._encoded(self._pending.take())

    def skip(self, count: int) -> None:
        """Takes blocks that an earlier run has written."""
        for _ in range(min(count, len(self._pending))):
            self.taken += 1
            self._encoded(self._pending.take())

    def lose(self) -> None:
        """Takes all blocks that are known, for a format that has no place for them."""
        while self._pending:
            content = self._pending.take().content
            if isinstance(content, CaptureForm):
                self.removed += len(content.options) + self._begun  # a further section is a block left out
                self._begun = True
            elif isinstance(content, Interface):
                self.removed += sum(code not in _headers.READING for code, _ in content.options)
            else:
                self.removed += 1

    def _encoded(self, block: Block) -> bytes:
        content = block.content
        if isinstance(content, CaptureForm):
            first, self._begun = not self._begun, True
            self._header, self._interfaces = (
                _headers.section_block(content._replace(bare=self._bare), as_it_is=True),
                [],
            )
            lost = self._bare if self.whole else not first  # the writer counts what it leaves out of the first one
            self.removed += len(content.options) if lost else 0
            self.removed += not self.whole and not first
            return self._header if self.whole else b""
        if isinstance(content, Interface):
            encoded = _headers.interface_block(content, self._bare)
            if not self.whole:
                return b""  # the writer describes the stream's interfaces
            self._interfaces.append(encoded)
            self.removed += sum(code not in _headers.READING for code, _ in content.options) if self._bare else 0
            return encoded
        if content is None or self._bare or (self._changed and content[:4] == NOT_COPIED):
            self.removed += 1
            return b""
        return content if self.whole else _of_stream(content, block.base)


def _of_stream(block: bytes, base: int) -> bytes:
    """A block of a section, with the stream's number of the interface that it is about."""
    if int.from_bytes(block[:4], "little") != STATISTICS_BLOCK or len(block) < 16:
        return block
    number = int.from_bytes(block[8:12], "little") + base
    return block[:8] + number.to_bytes(4, "little") + block[12:]
