"""Builds pcap file headers, pcapng section and interface blocks, and packet comments.

Everything is little-endian. _encode.pyx writes the packets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.packets import Outgoing

APPLICATION = b"streamcore"
SNAP_LENGTH = 262_144  # bytes; libpcap truncates packets at the header's limit, so a smaller one is never written
SNAP_LENGTH_MAX = 1 << 28  # of a chunk, so of a packet
OPTION_COMMENT, OPTION_USER_APPLICATION, OPTION_NAME, OPTION_TSRESOL, OPTION_FCSLEN, OPTION_TSOFFSET = (
    1,
    4,
    2,
    9,
    13,
    14,
)
READING = (OPTION_TSRESOL, OPTION_FCSLEN, OPTION_TSOFFSET)  # options needed to read an interface's packets
COMMENT_BYTES_MAX = 65_535


def digits_of(precision: str, form: CaptureForm, interfaces: Sequence[Interface]) -> int:
    """The decimal digits of a second in a pcap: 6 if no interface so far has more."""
    if precision:
        return 6 if precision == "us" else 9
    if form.family == "pcap":
        return form.resolution
    return 6 if all(interface.resolution <= 6 for interface in interfaces) else 9


def pcap_header(form: CaptureForm, interface: Interface, digits: int, outgoing: Outgoing | None) -> bytes:
    """The header of a pcap that begins with these packets, of this interface."""
    longest = int(outgoing.batch.captured_length.max()) if outgoing is not None else 0
    longer = interface.snap_length > SNAP_LENGTH
    snap_length = interface.snap_length if form.family == "pcap" or longer else 0
    if longest > max(snap_length, SNAP_LENGTH):  # an interface of a pcapng that says no limit
        snap_length = SNAP_LENGTH_MAX
    return pcap_file_header(digits, interface.link_type, snap_length, interface.fcs_length)


def pcap_file_header(digits: int, link_type: int, snap_length: int, fcs_length: int) -> bytes:
    """Returns 24 bytes. digits of a second: 6 or 9; fcs_length -1: unknown."""
    network = link_type
    if fcs_length >= 0 and fcs_length % 2 == 0 and fcs_length // 2 < 16:
        network |= 0x0400_0000 | (fcs_length // 2) << 28
    magic = 0xA1B2C3D4 if digits == 6 else 0xA1B23C4D
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snap_length or SNAP_LENGTH, network)


def section_block(form: CaptureForm, as_it_is: bool = False) -> bytes:
    """A section header block with the first stream's options. Without any, it names this program, unless as_it_is."""
    options = form.options if not form.bare else ()
    if not options and not (as_it_is and not form.bare):
        options = ((OPTION_USER_APPLICATION, APPLICATION),)
    return _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options(options))


def interface_block(interface: Interface, bare: bool = False) -> bytes:
    """An interface description block with all options of the interface. bare: only those that are needed to read its
    packets, made anew from what was read of them, so that nothing else passes in them.
    """
    if bare:
        options = tuple(option for option in _described(interface) if option[0] in READING)
    else:
        options = interface.options or tuple(_described(interface))
    body = struct.pack("<HHI", interface.link_type, 0, interface.snap_length)
    return _block(1, body + _options(options))


def comment_options(comments: Iterable[bytes]) -> bytes:
    """Comments encoded as options of a packet block, without the end-of-options marker."""
    return b"".join(_option(OPTION_COMMENT, comment[:COMMENT_BYTES_MAX]) for comment in comments)


def _described(interface: Interface) -> Iterable[tuple[int, bytes]]:
    if interface.name:
        yield OPTION_NAME, os.fsencode(interface.name)
    if interface.resolution != 6:
        yield OPTION_TSRESOL, bytes([interface.resolution])
    if interface.fcs_length >= 0:
        yield OPTION_FCSLEN, bytes([interface.fcs_length])
    if interface.offset_s:
        yield OPTION_TSOFFSET, interface.offset_s.to_bytes(8, "little", signed=True)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    encoded = b"".join(_option(code, value) for code, value in options)
    return encoded + bytes(4) if encoded else b""


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size
