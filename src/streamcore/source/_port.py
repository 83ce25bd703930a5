"""A port: one packet socket with its ring. From the start it receives no packet twice and none that the filter
excludes. Where its ring peeks, a second socket without a ring is its bell: it is readable once a packet has come. The
kernel reports a ring only when a block is full or its time is up.

Options and structures: packet(7), linux/if_packet.h. live.py reads the packets.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from streamcore.core.errors import RightsError, SourceError
from streamcore.source._ring import CAN_PEEK, LINK_COOKED, SPACE_BYTES_MAX, Ring, RingSpace
from streamcore.source._socket_filter import REJECT_ALL, Instruction, pack

ANY = "any"
ALL_PROTOCOLS = 3  # ETH_P_ALL
SOL_PACKET = 263
ADD_MEMBERSHIP, RX_RING, STATISTICS, VERSION, VIRTIO, FANOUT, IGNORE_OUTGOING = 1, 5, 6, 10, 15, 18, 23
TPACKET_V3, PROMISCUOUS, FANOUT_HASH, FANOUT_UNIQUE = 2, 1, 0, 0x2000
ATTACH_FILTER = 26
GET_HARDWARE_ADDRESS = 0x8927  # SIOCGIFHWADDR

LINK_ETHERNET, LINK_RAW = 1, 101
LINKS = {1: LINK_ETHERNET, 772: LINK_ETHERNET, 519: LINK_RAW, 0xFFFE: LINK_RAW}  # ARPHRD_… -> LINKTYPE_…

BLOCK_BYTES, SMALL_BLOCK_BYTES = 1 << 20, 1 << 17  # a small one still fits a merged packet of 64 KiB
SMALL_BELOW_MS = 20  # with so short a latency less is under way
# How long the kernel may fill a block. So slow traffic fills a ring in this time for each of its blocks: as few as
# possible, but all that a ring that does not peek receives waits for it.
PEEKED_MS, RETIRE_MS_MAX = 500, 50
BELL_BYTES = 1  # of its queue: the kernel makes that its least, which holds some three packets
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


class Shape(NamedTuple):
    """A ring: bytes of a block, number of blocks, how long the kernel may fill one, and whether the ring peeks."""

    block_bytes: int
    blocks: int
    retire_ms: int
    peeks: bool


def shape(buffer_bytes: int, latency_ms: int, link_type: int) -> Shape:
    """The shape of a ring of about that size whose packets may wait so long."""
    peeks = CAN_PEEK and link_type != LINK_COOKED
    retire_ms = PEEKED_MS if peeks else max(1, min(latency_ms // 2, RETIRE_MS_MAX))
    block_bytes = BLOCK_BYTES if peeks and latency_ms >= SMALL_BELOW_MS else SMALL_BLOCK_BYTES
    return Shape(block_bytes, max(BLOCKS_MIN, buffer_bytes // block_bytes), retire_ms, peeks)


def space_for(shapes: Sequence[Shape], buffer_kib: int) -> RingSpace:
    """Reserves addresses for rings of these shapes. Raises SourceError."""
    size = sum(each.block_bytes * each.blocks for each in shapes)
    if size > SPACE_BYTES_MAX:
        raise SourceError(
            f"{len(shapes)} rings of {buffer_kib} KiB exceed the limit of 4 GiB: lower rings or buffer_kib"
        )
    return RingSpace(size)


class Port:
    """One packet socket and its ring. It rejects every packet until `listen`.

    space: where to map its ring; name: the interface; number: its value in the column `interface`; has_bell: whether to
    open a bell if its ring peeks (one is enough for several rings of an interface); cuts: room is left to cut
    super-packets into segments. Raises SourceError, RightsError.
    """

    def __init__(
        self, space: RingSpace, name: str, number: int, link_type: int, shape: Shape, *, snap_length: int,
        promiscuous: bool, outgoing: bool, has_bell: bool = True, cuts: bool = False,
    ) -> None:  # fmt: skip
        cooked = link_type == LINK_COOKED
        self.shape = shape
        self.bell: socket.socket | None = None
        self.name = name
        self.number = number
        self._promiscuous = promiscuous
        try:
            # Protocol 0: receive nothing before it is bound.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if cooked else socket.SOCK_RAW, 0)
            if shape.peeks and has_bell:
                self.bell = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise RightsError(f"cannot capture on {name}: this needs CAP_NET_RAW") from None
        try:
            option = self.socket.setsockopt
            option(SOL_PACKET, VERSION, TPACKET_V3)
            if not outgoing:
                for each in self._sockets:
                    each.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
            if not cooked:  # a cooked packet has no room for it
                option(SOL_PACKET, VIRTIO, 1)
            self.filter(REJECT_ALL)
            block_bytes, blocks, retire_ms, peeks = shape
            frames = block_bytes // FRAME_BYTES * blocks
            option(SOL_PACKET, RX_RING, struct.pack("7I", block_bytes, blocks, FRAME_BYTES, frames, retire_ms, 0, 0))
            bell = -1
            if self.bell is not None:
                bell = self.bell.fileno()
                self.bell.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BELL_BYTES)
            self.ring = Ring(
                space, self.socket.fileno(), block_bytes, blocks, number, cooked, snap_length, peeks, bell,
                virtio=not cooked, cuts=cuts,
            )  # fmt: skip
            self.index = 0 if name == ANY else socket.if_nametoindex(name)
            self._join()
        except (OSError, MemoryError) as error:
            self.close()
            raise SourceError(f"cannot capture on {name}: {_words(error)}") from None

    def filter(self, program: Sequence[Instruction]) -> None:
        """Lets in only packets that the program accepts. Raises OSError."""
        packed = ctypes.create_string_buffer(pack(program))
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(packed)))

    @property
    def _sockets(self) -> list[socket.socket]:
        """The bell first, because it is bound first: the kernel gives a packet to its newest socket first."""
        return [self.socket] if self.bell is None else [self.bell, self.socket]

    def _join(self) -> None:
        """Starts receiving. Python's own bind cannot pass index 0, which means any interface. Raises OSError."""
        if self._promiscuous and self.index:
            self.socket.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8x", self.index, PROMISCUOUS, 0))
        address = struct.pack("HHiHBB8x", socket.AF_PACKET, socket.htons(ALL_PROTOCOLS), self.index, 0, 0, 0)
        for each in self._sockets:
            if ctypes.CDLL(None, use_errno=True).bind(each.fileno(), address, len(address)) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def statistics(self) -> Statistics:
        return Statistics(*struct.unpack("3I", self.socket.getsockopt(SOL_PACKET, STATISTICS, 12)))

    def went_down(self) -> bool:
        """Whether the interface went down since the last call. Raises OSError for other faults."""
        if self.bell is not None:
            self.bell.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # the same, and it is told once
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number not in (0, errno.ENETDOWN, errno.ENODEV):
            raise OSError(number, os.strerror(number))
        return number != 0

    def has(self, descriptor: int) -> bool:
        """Whether the descriptor is of its sockets."""
        return any(each.fileno() == descriptor for each in self._sockets)

    def silence(self, descriptor: int) -> None:
        """Empties the bell's queue, if that is the descriptor: call it before the ring is looked at."""
        if self.bell is not None and self.bell.fileno() == descriptor:
            with contextlib.suppress(OSError):
                while self.bell.recv(1, socket.MSG_DONTWAIT | socket.MSG_TRUNC) is not None:
                    pass

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
        for each in self._sockets:
            each.close()


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
