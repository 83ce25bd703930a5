"""What describes a capture besides its packets: its format and its interfaces."""

from __future__ import annotations

from typing import NamedTuple


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
    file: tuple[int, int] | None = None  # (device, inode) of a regular file, which must not be the output
    bare: bool = (
        False  # of pcapng: write only the options needed to read the packets; no comments, names, addresses, hashes
    )
