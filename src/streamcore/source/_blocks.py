"""Parses pcap file headers, and the pcapng blocks of sections and interfaces. _records.pyx finds the packets.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from streamcore.core.capture_form import CaptureForm, Interface

PCAP_HEADER_BYTES = 24
SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
INTERFACE_BLOCK = 1
PCAP_MAGICS = {  # the first four bytes, little-endian: (digits of a second, other byte order, 24-byte record headers)
    0xA1B2C3D4: (6, False, False),
    0xD4C3B2A1: (6, True, False),
    0xA1B23C4D: (9, False, False),
    0x4D3CB2A1: (9, True, False),
    0xA1B2CD34: (6, False, True),
    0x34CDB2A1: (6, True, True),
}

OPTION_END, OPTION_NAME, OPTION_TSRESOL, OPTION_TSOFFSET, OPTION_FCSLEN = 0, 2, 9, 14, 13
# Options whose values are numbers, by width: they are byte-swapped if the section is big-endian.
INTERFACE_NUMBERS = {8: 8, 10: 4, 14: 8, 16: 8, 17: 8}
CUSTOM_OPTIONS = (2988, 2989, 19372, 19373)  # begin with a 32-bit enterprise number

CAPTURED_MAX = 262_144  # libpcap's and wireshark's limit for a packet
CAPTURED_MAX_BY_LINK = {231: 128 << 20, 249: 128 << 20, 279: 8 << 20}  # D-Bus, USBPcap, EBHSCR


class BadBlock(Exception):
    """A header is invalid; str() gives the reason."""


class PcapHeader(NamedTuple):
    """The fields of a pcap file header."""

    form: CaptureForm
    interface: Interface
    kuznetzov: bool


def pcap_header(head: bytes) -> PcapHeader:
    """Reads the 24 bytes of a pcap file header whose magic is known. Raises BadBlock.

    Any version is read as 2.4. (Versions before 2.3, from the early nineties, had the two lengths of a record swapped.)
    """
    resolution, swapped, kuznetzov = PCAP_MAGICS[int.from_bytes(head[:4], "little")]
    if len(head) < PCAP_HEADER_BYTES:
        raise BadBlock(f"a pcap file that ends within its header, after {len(head)} bytes")
    order = ">" if swapped else "<"
    snap_length, network = struct.unpack(order + "II", head[16:])
    fcs_length = (network >> 28) * 2 if network & 0x0400_0000 else -1
    interface = Interface(network & 0xFFFF, snap_length, resolution, 0, fcs_length)
    return PcapHeader(CaptureForm("pcap", resolution, swapped), interface, kuznetzov)


def captured_max(link_type: int) -> int:
    """The largest captured length that is accepted unless the header says more; a longer record counts as damage."""
    return CAPTURED_MAX_BY_LINK.get(link_type, CAPTURED_MAX)


def section_form(block: bytes) -> CaptureForm:
    """Reads a whole section header block of any version. Raises BadBlock."""
    if len(block) < 28:
        raise BadBlock(f"a section header block of {len(block)} bytes")
    order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(block[8:12])
    if order is None:
        raise BadBlock("a section header block without a byte-order magic")
    size = struct.unpack(order + "I", block[4:8])[0]
    if size != len(block) or struct.unpack(order + "I", block[-4:])[0] != size:
        raise BadBlock(f"a section header block whose two lengths differ, {size} and another")
    return CaptureForm("pcapng", 9, order == ">", _options(block[24:-4], order, {}))


def interface_of(block: bytes, swapped: bool) -> Interface:
    """Reads a whole interface description block. Raises BadBlock."""
    order = ">" if swapped else "<"
    if len(block) < 20 or struct.unpack(order + "I", block[-4:])[0] != len(block):
        raise BadBlock("an interface description block whose lengths differ")
    link_type, snap_length = struct.unpack(order + "HxxI", block[8:16])
    options = _options(block[16:-4], order, INTERFACE_NUMBERS)
    first = dict(reversed(options))  # the first one of each code counts
    resolution = first.get(OPTION_TSRESOL, b"")[:1] or b"\x06"
    offset = first.get(OPTION_TSOFFSET, b"")
    fcs = first.get(OPTION_FCSLEN, b"")
    name = first.get(OPTION_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    return Interface(
        link_type,
        snap_length,
        resolution[0],
        int.from_bytes(offset, "little", signed=True) if len(offset) == 8 else 0,
        fcs[0] if len(fcs) == 1 else -1,
        name,
        options,
    )


def _options(data: bytes, order: str, numbers: dict[int, int]) -> tuple[tuple[int, bytes], ...]:
    """The options up to the end or to the first that does not fit, with little-endian values."""
    options = []
    at = 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from(order + "HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if code == OPTION_END or len(value) < size:
            break
        if order == ">":
            if numbers.get(code) == size:
                value = value[::-1]
            elif code in CUSTOM_OPTIONS and size >= 4:
                value = value[3::-1] + value[4:]
        options.append((code, value))
        at += 4 + (size + 3) // 4 * 4
    return tuple(options)
