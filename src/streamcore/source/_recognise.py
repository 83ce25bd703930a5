"""Recognises a file by its first bytes: a compressed file, a capture, or something else, which it refuses clearly."""

from __future__ import annotations

from streamcore.core.errors import SourceError
from streamcore.source._blocks import PCAP_MAGICS, SECTION_MAGIC
from streamcore.source._compressed import CompressedStream, Frames, Gzip
from streamcore.source._streams import PlainStream, RawInput, Stream

PEEK_BYTES = 16

REFUSED_COMPRESSION = {
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"LZIP": ("lzip", "lzip -dc"),
    b"\x1f\x9d": ("compress", "gzip -dc"),
    b"\x1f\xa0": ("compress", "gzip -dc"),
    b"\x02\x21\x4c\x18": ("an old form of lz4", "lz4 -dc"),
    b"PK\x03\x04": ("zip", "unzip -p"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x -so"),
    b"\xff\x06\x00\x00sNaPpY": ("snappy", "snzip -dc"),
}
OTHER_CAPTURES = {
    b"snoop\0\0\0": "a snoop capture",
    b"RTSS": "a Network Monitor capture",
    b"GMBU": "a Network Monitor capture",
    b"XCP\0": "a NetXRay capture",
    b"TRSNIFF data": "a Sniffer capture",
    b"\x1c\x00\x01\xac": "an IXIA lcap capture",
    b"\xac\x01\x00\x1c": "an IXIA lcap capture",
    b"\x7fELF": "a program",
}


def open_stream(raw: RawInput, name: str) -> Stream:
    """The stream of bytes, decompressed if necessary. Raises SourceError, OSError."""
    head = raw.peek(PEEK_BYTES)
    if not head:
        raise SourceError(f"{name} is empty, not a capture")
    for magic, (what, command) in REFUSED_COMPRESSION.items():
        if head.startswith(magic):
            raise SourceError(
                f"{name} is compressed with {what}, which streamcore cannot read: pipe '{command} FILE' into '-r -'"
            )
    if head[:2] == b"\x1f\x8b":
        return CompressedStream(raw, Gzip())
    if head[:4] == b"\x28\xb5\x2f\xfd" or (0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"):
        return CompressedStream(raw, Frames("zstd"))
    if head[:4] == b"\x04\x22\x4d\x18":
        return CompressedStream(raw, Frames("lz4"))
    return PlainStream(raw)


def check_magic(head: bytes, stream: Stream, name: str) -> None:
    """Raises SourceError with a description of the input, unless head begins a pcap or pcapng capture."""
    if head[:4] == SECTION_MAGIC or (len(head) >= 4 and int.from_bytes(head[:4], "little") in PCAP_MAGICS):
        return
    within = f" (inside its {stream.name})" if isinstance(stream, CompressedStream) else ""
    if stream.damage and not head:
        raise SourceError(f"{name} cannot be read: {stream.damage}")
    if not head:
        raise SourceError(f"{name} is empty{within}, not a capture")
    raise SourceError(f"{name} is not a pcap or pcapng capture{within}: it {_looks_like(head)}")


def _looks_like(head: bytes) -> str:
    for magic, what in OTHER_CAPTURES.items():
        if head.startswith(magic):
            return f"is {what}"
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return "looks like text"
    return f"begins with the bytes {head[:4].hex(' ')}"
