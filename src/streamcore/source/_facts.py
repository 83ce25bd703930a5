"""What a pcapng file says of a live capture: the system, its interfaces, and what the kernel received and dropped.

Options and blocks: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import os
import struct

from streamcore.core.capture_form import Interface
from streamcore.core.config import Config

HARDWARE, SYSTEM, APPLICATION = 2, 3, 4  # options of a section
NAME, RESOLUTION, FILTER, INTERFACE_SYSTEM = 2, 9, 11, 12  # of an interface
STARTS, ENDS, RECEIVED, DROPPED, ACCEPTED = 2, 3, 4, 5, 6  # of its statistics
NANOSECONDS = 9  # digits of a second
BPF_EXPRESSION = b"\0"  # the filter is given as text


def section_options() -> tuple[tuple[int, bytes], ...]:
    system = os.uname()
    return (
        (HARDWARE, system.machine.encode()),
        (SYSTEM, f"{system.sysname} {system.release}".encode()),
        (APPLICATION, b"streamcore"),
    )


def described(link_type: int, config: Config, name: str) -> Interface:
    """A live interface, with the run's expression."""
    system = os.uname()
    options = [(NAME, os.fsencode(name)), (RESOLUTION, bytes([NANOSECONDS]))]
    if config.filter:
        options.append((FILTER, BPF_EXPRESSION + config.filter.encode("ascii", "replace")))
    options.append((INTERFACE_SYSTEM, f"{system.sysname} {system.release}".encode()))
    return Interface(link_type, config.snap_length, NANOSECONDS, name=name, options=tuple(options))


def statistics_block(number: int, begin_ns: int, end_ns: int, received: int, dropped: int) -> bytes:
    """An interface statistics block. received: packets that the kernel's filter let through, dropped ones included."""
    options = b""
    for code, at_ns in ((STARTS, begin_ns), (ENDS, end_ns)):
        options += struct.pack("<HHII", code, 8, at_ns >> 32, at_ns & 0xFFFFFFFF)
    for code, count in ((RECEIVED, received), (DROPPED, dropped), (ACCEPTED, received)):
        options += struct.pack("<HHQ", code, 8, count)
    body = struct.pack("<III", number, end_ns >> 32, end_ns & 0xFFFFFFFF) + options + bytes(4)
    size = len(body) + 12
    return struct.pack("<II", 5, size) + body + struct.pack("<I", size)
