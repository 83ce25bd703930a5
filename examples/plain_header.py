#!/usr/bin/env python3
"""Copies a little-endian pcapng file without what its headers say of the recording machine: processor and kernel.

Packets, names of interfaces, resolution of time and statistics stay as they are. usage: plain_header.py IN OUT
"""

import struct
import sys

SECTION_HEADER, INTERFACE = 0x0A0D0D0A, 1
# (block, option) -> what stands there instead; None leaves the option out. In draft-ietf-opsawg-pcapng these are
# shb_hardware, shb_os and if_os.
REPLACED: dict[tuple[int, int], bytes | None] = {
    (SECTION_HEADER, 2): None,
    (SECTION_HEADER, 3): b"Linux",
    (INTERFACE, 12): b"Linux",
}
FIXED_BYTES = {SECTION_HEADER: 16, INTERFACE: 8}


def plain(block_type: int, body: bytes) -> bytes:
    """The body of a block, its options rewritten; other blocks come back as they are."""
    if block_type not in FIXED_BYTES:
        return body
    at = FIXED_BYTES[block_type]
    out = bytearray(body[:at])
    while at + 4 <= len(body):
        code, length = struct.unpack_from("<HH", body, at)
        value: bytes | None = body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
        value = REPLACED.get((block_type, code), value)
        if value is not None:
            out += struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
    return bytes(out)


def main(source: str, target: str) -> None:
    with open(source, "rb") as file:
        data = file.read()
    if struct.unpack_from("<I", data, 8) != (0x1A2B3C4D,):
        raise SystemExit(f"{source}: not a little-endian pcapng file")
    at = 0
    with open(target, "wb") as file:
        while at < len(data):
            block_type, length = struct.unpack_from("<II", data, at)
            body = plain(block_type, data[at + 8 : at + length - 4])
            total = struct.pack("<I", len(body) + 12)
            file.write(struct.pack("<I", block_type) + total + body + total)
            at += length


if __name__ == "__main__":
    main(*sys.argv[1:])
