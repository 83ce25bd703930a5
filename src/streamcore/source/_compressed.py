"""gzip, zstd and lz4 around a capture: members and frames, one after another, decompressed block by block.

Each step produces a bounded amount (1 MiB of gzip; one block of zstd or lz4), so a small file that decompresses to a
huge one takes no more memory than any other. Formats: RFC 1952, RFC 8878, lz4's Frame format 1.6.
"""

from __future__ import annotations

import time
import zlib
from typing import Any, Protocol

from streamcore.core.packets import Chunk
from streamcore.source._streams import RawInput

INPUT_BYTES = 64 * 1024
OUTPUT_BYTES = 1 << 20  # the most from one step of gzip
BLOCK_BYTES_MAX = 4 << 20  # of lz4; zstd's blocks have 21 bits for their size

ZSTD_MAGIC = 0xFD2FB528
LZ4_MAGIC = 0x184D2204
SKIPPABLE_MAGIC = 0x184D2A50  # the last four bits are free


class Damaged(Exception):
    """The compressed bytes cannot be decompressed any further."""


class Codec(Protocol):
    """Takes compressed bytes and returns decompressed ones."""

    name: str

    @property
    def complete(self) -> bool:
        """Whether the input may end here: no member or frame is open."""

    def put(self, data: bytes) -> None:
        """Adds input. Call it only after `take` returned nothing."""

    def take(self) -> bytes:
        """Returns some output; b"" if it needs input. Raises Damaged."""


class Gzip:
    """gzip members, padded with zeros or not."""

    name = "gzip"

    def __init__(self) -> None:
        self.complete = True
        self._input = b""
        self._more = False  # OUTPUT_BYTES limited the last step
        self._member = zlib.decompressobj(31)

    def put(self, data: bytes) -> None:
        self._input += data

    def take(self) -> bytes:
        while self._input or self._more:
            if self.complete:
                self._input = self._input.lstrip(b"\0")
                if len(self._input) < 2:
                    return b""
                if not self._input.startswith(b"\x1f\x8b"):
                    raise Damaged("other data follows the gzip data")
                self._member = zlib.decompressobj(31)
                self.complete = False
            output = self._step()
            if output:
                return output
        return b""

    def _step(self) -> bytes:
        member, data = self._member, self._input
        before = member.copy()
        try:
            output = member.decompress(data, OUTPUT_BYTES)
        except zlib.error as error:
            output = self._up_to_the_damage(before, data)
            if output:
                return output
            raise Damaged(f"the gzip data is damaged ({error})") from None
        self._more = len(output) == OUTPUT_BYTES
        self._input = member.unconsumed_tail
        if member.eof:
            self.complete, self._more, self._input = True, False, member.unused_data
        return output

    def _up_to_the_damage(self, member: zlib._Decompress, data: bytes) -> bytes:
        """The output of a failed step up to the damage. The next step then fails at once."""
        output = bytearray()
        at = 0
        try:
            while at < len(data) and len(output) < OUTPUT_BYTES:
                output += member.decompress(data[at : at + 1])
                at += 1
        except zlib.error:
            pass
        self._member, self._input = member, data[at:]
        return bytes(output)


class Frames:
    """Frames of zstd or lz4, including skippable frames, which both have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._input = bytearray()
        self._skip = 0
        self._decoder: Any = None
        self._lz4 = False
        self._block_tail = 0  # bytes of checksum after each block
        self._frame_tail = 0  # and after the last one
        self._last = False  # the last block was seen

    @property
    def complete(self) -> bool:
        return self._decoder is None and not self._input and not self._skip

    def put(self, data: bytes) -> None:
        self._input += data

    def take(self) -> bytes:
        while True:
            if self._skip:
                skipped = min(self._skip, len(self._input))
                del self._input[:skipped]
                self._skip -= skipped
            size = self._piece_size()
            if size == 0 or len(self._input) < size:
                return b""
            piece = bytes(self._input[:size])
            del self._input[:size]
            output = self._decode(piece)
            if output:
                return output

    def _piece_size(self) -> int:
        """The size of the next header, block or checksum in bytes; 0: not known yet."""
        if self._decoder is None:
            return self._header_size()
        if self._last:
            return self._frame_tail
        data = self._input
        if self._lz4:
            if len(data) < 4:
                return 0
            size = int.from_bytes(data[:4], "little") & 0x7FFFFFFF
            if size > BLOCK_BYTES_MAX:
                raise Damaged("the lz4 data is damaged (a block is too large)")
            return 4 + (size + self._block_tail if size else self._frame_tail)
        if len(data) < 3:
            return 0
        header = int.from_bytes(data[:3], "little")
        size = 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # type 1 repeats one byte
        self._last = bool(header & 1) and len(data) >= size
        return size

    def _header_size(self) -> int:
        data = self._input
        if len(data) < 8:
            return 0
        magic = int.from_bytes(data[:4], "little")
        if magic & 0xFFFFFFF0 == SKIPPABLE_MAGIC:
            self._skip = int.from_bytes(data[4:8], "little")
            return 8
        if magic == LZ4_MAGIC:
            flags = data[4]
            self._block_tail, self._frame_tail = 4 * (flags >> 4 & 1), 4 * (flags >> 2 & 1)
            return 7 + 8 * (flags >> 3 & 1) + 4 * (flags & 1)
        if magic != ZSTD_MAGIC:
            raise Damaged(f"other data follows the {self.name} data")
        descriptor = data[4]
        single = descriptor >> 5 & 1
        content_size = (single, 2, 4, 8)[descriptor >> 6]
        self._frame_tail = 4 * (descriptor >> 2 & 1)
        return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size

    def _decode(self, piece: bytes) -> bytes:
        if self._decoder is None:
            if int.from_bytes(piece[:4], "little") & 0xFFFFFFF0 == SKIPPABLE_MAGIC:
                return b""
            self._open(piece)
        try:
            output: bytes = self._decoder.decompress(piece)
            ended = self._decoder.eof
        except Exception as error:  # zstandard.ZstdError, RuntimeError of lz4
            raise Damaged(f"the {self.name} data is damaged ({error})") from None
        if ended:
            self._decoder, self._last = None, False
        return output

    def _open(self, piece: bytes) -> None:
        self._lz4 = int.from_bytes(piece[:4], "little") == LZ4_MAGIC
        if self._lz4:
            import lz4.frame

            self._decoder = lz4.frame.LZ4FrameDecompressor()
        else:
            import zstandard

            self._decoder = zstandard.ZstdDecompressor().decompressobj()


class CompressedStream:
    """The decompressed bytes of a file or pipe."""

    def __init__(self, raw: RawInput, codec: Codec) -> None:
        self.damage: str | None = None
        self.name = codec.name
        self._raw = raw
        self._codec = codec
        self._output = memoryview(b"")  # decompressed and not yet taken
        self._ended = False

    def head(self, size: int) -> bytes:
        head = b""
        while len(head) < size:
            piece = self._some(size - len(head), None)
            if not piece:
                break
            head += piece
        return head

    def fill(self, chunk: Chunk, start: int, stop: int, wait_s: float) -> tuple[int, bool]:
        view = chunk.data.data
        at, deadline = start, 0.0
        while at < stop:
            left_s = None if at == start else max(0.0, deadline - time.monotonic())
            piece = self._some(stop - at, left_s)
            if piece is None:
                break
            if not piece:
                return at - start, True
            if at == start:
                deadline = time.monotonic() + wait_s
            view[at : at + len(piece)] = piece
            at += len(piece)
        return at - start, False

    def _some(self, size: int, timeout_s: float | None) -> memoryview | None:
        """Up to `size` bytes; empty at the end; None if nothing came within timeout_s."""
        while not self._output and not self._ended:
            try:
                self._output = memoryview(self._codec.take())
            except Damaged as error:
                self.damage, self._ended = str(error), True
                break
            if self._output:
                break
            data = self._raw.read(INPUT_BYTES, timeout_s)
            if data is None:
                return None
            if not data:
                self._ended = True
                if not self._codec.complete:
                    self.damage = f"the {self.name} data ends early"
            else:
                self._codec.put(data)
        piece, self._output = self._output[:size], self._output[size:]
        return piece
