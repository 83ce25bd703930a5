"""A port: one packet socket with its ring. From the start it receives no packet twice and none that the filter
excludes.

Options and structures: packet(7), linux/if_packet.h. live.py reads the packets.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from streamcore.core.errors import RightsError, SourceError
from streamcore.source._ring import LINK_COOKED, SPACE_BYTES_MAX, Ring, RingSpace
from streamcore.source._socket_filter import REJECT_ALL, Instruction, pack

ANY = "any"
ALL_PROTOCOLS = 3  # ETH_P_ALL
SOL_PACKET = 263
ADD_MEMBERSHIP, RX_RING, STATISTICS, VERSION, FANOUT, IGNORE_OUTGOING = 1, 5, 6, 10, 18, 23
TPACKET_V3, PROMISCUOUS, FANOUT_HASH, FANOUT_UNIQUE = 2, 1, 0, 0x2000
ATTACH_FILTER = 26
GET_HARDWARE_ADDRESS = 0x8927  # SIOCGIFHWADDR

LINK_ETHERNET, LINK_RAW = 1, 101
LINKS = {1: LINK_ETHERNET, 772: LINK_ETHERNET, 519: LINK_RAW, 0xFFFE: LINK_RAW}  # ARPHRD_… -> LINKTYPE_…

BLOCK_BYTES, SMALL_BLOCK_BYTES = 1 << 20, 1 << 17  # a small one still fits a merged packet of 64 KiB
SMALL_BELOW_MS = 10  # with so short a time blocks are mostly empty, so more are needed
FRAME_BYTES = 2048  # unused with version 3, but the kernel checks it
BLOCKS_MIN = 4
NAME_BYTES_MAX = 15  # of an interface: IFNAMSIZ less the zero


class Statistics(NamedTuple):
    """The kernel's counts since the last call: packets for this socket, packets dropped for lack of room, and how often
    there was no room.
    """

    received: int
    dropped: int
    freezes: int


def interface_name(name: str) -> bytes:
    """The name as the kernel takes it. Raises OSError if it is too long for an interface."""
    encoded = os.fsencode(name)
    if len(encoded) > NAME_BYTES_MAX:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return encoded


def link_type_of(name: str) -> int:
    """The LINKTYPE_ value with which this source delivers an interface's packets. Raises SourceError if there is no
    such interface."""
    if name == ANY:
        return LINK_COOKED
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, GET_HARDWARE_ADDRESS, struct.pack("16s16x", interface_name(name)))
        except OSError as error:
            raise SourceError(f"cannot capture on {name}: {_words(error)}") from None
    return LINKS.get(struct.unpack_from("H", answer, 16)[0], LINK_COOKED)


def shape(buffer_bytes: int, retire_ms: int) -> tuple[int, int]:
    """(bytes of a block, number of blocks) of a ring of about that size."""
    block_bytes = SMALL_BLOCK_BYTES if retire_ms < SMALL_BELOW_MS else BLOCK_BYTES
    return block_bytes, max(BLOCKS_MIN, buffer_bytes // block_bytes)


def space_for(rings: int, buffer_bytes: int, retire_ms: int) -> RingSpace:
    """Reserves addresses for so many rings of that size. Raises SourceError."""
    block_bytes, blocks = shape(buffer_bytes, retire_ms)
    size = rings * block_bytes * blocks
    if size > SPACE_BYTES_MAX:
        raise SourceError(
            f"{rings} rings of {buffer_bytes >> 10} KiB exceed the limit of 4 GiB: lower rings or buffer_kib"
        )
    return RingSpace(size)


class Port:
    """One packet socket and its ring. It rejects every packet until `listen`.

    space: where to map its ring; name: the interface; number: its value in the column `interface`; retire_ms: how long
    a block waits to be filled. Raises SourceError, RightsError.
    """

    def __init__(
        self, space: RingSpace, name: str, number: int, link_type: int, *, snap_length: int, buffer_bytes: int,
        retire_ms: int, promiscuous: bool, outgoing: bool,
    ) -> None:  # fmt: skip
        cooked = link_type == LINK_COOKED
        block_bytes, blocks = shape(buffer_bytes, retire_ms)
        self.name = name
        self.number = number
        self._promiscuous = promiscuous
        try:
            # Protocol 0: receive nothing before it is bound.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if cooked else socket.SOCK_RAW, 0)
        except PermissionError:
            raise RightsError(f"cannot capture on {name}: this needs CAP_NET_RAW") from None
        try:
            option = self.socket.setsockopt
            option(SOL_PACKET, VERSION, TPACKET_V3)
            if not outgoing:
                option(SOL_PACKET, IGNORE_OUTGOING, 1)
            self.filter(REJECT_ALL)
            frames = block_bytes // FRAME_BYTES * blocks
            option(SOL_PACKET, RX_RING, struct.pack("7I", block_bytes, blocks, FRAME_BYTES, frames, retire_ms, 0, 0))
            self.ring = Ring(space, self.socket.fileno(), block_bytes, blocks, number, cooked, snap_length)
            self.index = 0 if name == ANY else socket.if_nametoindex(name)
            self._join()
        except (OSError, MemoryError) as error:
            self.close()
            raise SourceError(f"cannot capture on {name}: {_words(error)}") from None

    def filter(self, program: Sequence[Instruction]) -> None:
        """Lets in only packets that the program accepts. Raises OSError."""
        packed = ctypes.create_string_buffer(pack(program))
        self.socket.setsockopt(
            socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(packed))
        )

    def _join(self) -> None:
        """Starts receiving. Python's own bind cannot pass index 0, which means any interface. Raises OSError."""
        if self._promiscuous and self.index:
            self.socket.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8x", self.index, PROMISCUOUS, 0))
        address = struct.pack("HHiHBB8x", socket.AF_PACKET, socket.htons(ALL_PROTOCOLS), self.index, 0, 0, 0)
        if ctypes.CDLL(None, use_errno=True).bind(self.socket.fileno(), address, len(address)) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def statistics(self) -> Statistics:
        return Statistics(*struct.unpack("3I", self.socket.getsockopt(SOL_PACKET, STATISTICS, 12)))

    def went_down(self) -> bool:
        """Whether the interface went down since the last call. Raises OSError for other faults."""
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number not in (0, errno.ENETDOWN, errno.ENODEV):
            raise OSError(number, os.strerror(number))
        return number != 0

    def follow(self) -> None:
        """Receives from the interface that has the name now, if the old one was removed. That needs no rights.

        It is not possible for one of several rings: the kernel does not let a socket leave its group.
        """
        if not self.index:
            return
        try:
            if (index := socket.if_nametoindex(self.name)) != self.index:
                self.index = index
                self._join()
        except OSError:
            self.index = -1  # there is none, or it is gone again: the next one is new

    def close(self) -> None:
        self.socket.close()


def share(ports: Sequence[Port]) -> None:
    """Spreads the packets of one interface over several ports by flow, both directions to the same port. Raises
    SourceError."""
    try:
        group = struct.pack("I", (FANOUT_HASH | FANOUT_UNIQUE) << 16)
        for port in ports:
            port.socket.setsockopt(SOL_PACKET, FANOUT, group)
            number = port.socket.getsockopt(SOL_PACKET, FANOUT) & 0xFFFF
            group = struct.pack("I", FANOUT_HASH << 16 | number)
    except OSError as error:
        raise SourceError(f"cannot share the packets of {ports[0].name} between rings: {_words(error)}") from None


def _words(error: OSError | MemoryError) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENODEV:
        return "there is no such interface (see 'ip link')"
    return os.strerror(number).lower() if number else str(error)
