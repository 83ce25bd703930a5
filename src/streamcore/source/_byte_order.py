"""Turns big-endian pcapng blocks without packets into little-endian ones.

Format: draft-ietf-opsawg-pcapng. Blocks whose layout is not known cannot be turned.
"""

from __future__ import annotations

import struct

NAMES, STATISTICS, JOURNAL, SECRETS = 4, 5, 9, 10
CUSTOM = (0x0BAD, 0x40000BAD)
CUSTOM_OPTIONS = (2988, 2989, 19372, 19373)  # begin with a 32-bit enterprise number
STATISTICS_TIMES, STATISTICS_COUNTS = (2, 3), (4, 5, 6, 7, 8)  # options of two 32-bit numbers, and of one of 64 bits


def little_endian(block: bytes) -> bytes | None:
    """The same block in little-endian; None if its layout is not known or it contradicts itself."""
    kind, size = struct.unpack(">II", block[:8])
    body = block[8:-4]
    try:
        turned = _body(kind, body)
    except struct.error:
        return None
    if turned is None or len(turned) != len(body):
        return None
    return struct.pack("<II", kind, size) + turned + struct.pack("<I", size)


def _body(kind: int, body: bytes) -> bytes | None:
    if kind == JOURNAL:
        return body
    if kind in CUSTOM:
        return body[3::-1] + body[4:]
    if kind == STATISTICS:
        return _words(body[:12]) + _options(body[12:], statistics=True)
    if kind == SECRETS:
        end = 8 + _padded(struct.unpack_from(">I", body, 4)[0])
        return _words(body[:8]) + body[8:end] + _options(body[end:])
    if kind == NAMES:
        return _names(body)
    return None


def _names(body: bytes) -> bytes:
    """Records of a type, a length and a value, up to one of type 0; then options."""
    turned, at = b"", 0
    while at + 4 <= len(body):
        kind, size = struct.unpack_from(">HH", body, at)
        end = at + 4 + _padded(size)
        turned += struct.pack("<HH", kind, size) + body[at + 4 : end]
        at = end
        if kind == 0:
            break
    return turned + _options(body[at:])


def _options(data: bytes, statistics: bool = False) -> bytes:
    turned, at = b"", 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from(">HH", data, at)
        value, padding = data[at + 4 : at + 4 + size], data[at + 4 + size : at + 4 + _padded(size)]
        if statistics and code in STATISTICS_TIMES and size == 8:
            value = _words(value)
        elif statistics and code in STATISTICS_COUNTS and size == 8:
            value = value[::-1]
        elif code in CUSTOM_OPTIONS and size >= 4:
            value = value[3::-1] + value[4:]
        turned += struct.pack("<HH", code, size) + value + padding
        at += 4 + _padded(size)
        if code == 0:
            return turned + data[at:]
    return turned + data[at:]


def _words(data: bytes) -> bytes:
    return b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))


def _padded(size: int) -> int:
    return (size + 3) // 4 * 4
