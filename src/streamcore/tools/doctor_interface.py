"""Checks a live interface: the right to open it, its driver, its offloads, its rings and its MTU.

It asks the kernel as ethtool does (netdevice(7), linux/ethtool.h), and changes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator

from streamcore.run.privileges import NET_RAW, has

ETHTOOL, GET_MTU, GET_FLAGS = 0x8946, 0x8921, 0x8913  # SIOC…
GET_DRIVER, GET_RINGS = 0x03, 0x10  # ETHTOOL_G…
MERGES = {"tso": 0x1E, "gso": 0x23, "gro": 0x2B}  # ETHTOOL_G…: one word, on or off
CHECKSUMS = {"rx": 0x14, "tx": 0x16}
GET_MORE_FLAGS, LRO = 0x25, 1 << 15
UP, RUNNING = 1, 0x40
ANY = "any"
ETHERNET_BYTES = 14

Told = tuple[str, str, str]  # what, state, words: as doctor.Finding


def findings_on(name: str) -> Iterator[Told]:
    """The findings about one interface. For `any` there is only the right to open it."""
    yield right()
    if name == ANY:
        return
    if name not in (known for _, known in socket.if_nameindex()):  # sysfs may show another namespace's
        yield "interface", "broken", f"there is no {name} here: 'ip link' lists the interfaces"
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        device = Device(name, asking)
        yield from (device.state(), device.driver(), device.merging(), device.checksums(), device.rings(), device.mtu())


def right() -> Told:
    if has(NET_RAW):
        return "capability", "ok", "CAP_NET_RAW"
    command = os.path.abspath(sys.argv[0])
    return (
        "capability",
        "broken",
        f"no CAP_NET_RAW: type sudo {command} run --user NAME …, which is root no longer than needed",
    )


class Device:
    """One interface, and a socket for asking the kernel."""

    def __init__(self, name: str, asking: socket.socket) -> None:
        self.name = name
        self._asking = asking

    def state(self) -> Told:
        flags = struct.unpack_from("H", self._ask(GET_FLAGS), 16)[0]
        if not flags & UP:
            return "interface", "missing", f"{self.name} is down: ip link set {self.name} up"
        if not flags & RUNNING:
            return "interface", "missing", f"{self.name} has no carrier: nothing is connected to it"
        return "interface", "ok", f"{self.name} is up"

    def driver(self) -> Told:
        answer = self._ethtool(GET_DRIVER, 192)
        if answer is None:
            return "driver", "ok", "not named by the kernel"
        driver, version = (answer[at : at + 32].split(b"\0")[0].decode(errors="replace") for at in (0, 32))
        return "driver", "ok", f"{driver} {version}".strip()

    def merging(self) -> Told:
        """Packets that the kernel or the hardware merged are longer than those on the wire, and than the MTU."""
        on = self.merges_on()
        if not on:
            return "offloads", "ok", "packets arrive as they were on the wire"
        words = f"{', '.join(on)} merge packets into longer ones: sent on as segments; --segments wire cuts them"
        return "offloads", "ok", words

    def merges_on(self) -> list[str]:
        """The offloads that merge packets and that are switched on."""
        on = [name for name, command in MERGES.items() if self._word(command)]
        return [*on, "lro"] if (self._word(GET_MORE_FLAGS) or 0) & LRO else on

    def checksums(self) -> Told:
        """Checksums of packets that this machine itself sends; a veth pair passes them on unfinished."""
        if not self._word(CHECKSUMS["tx"]):
            return "checksums", "ok", "packets that this machine sends have them"
        return "checksums", "ok", "left to the hardware by packets that this machine sends: a run completes them"

    def rings(self) -> Told:
        answer = self._ethtool(GET_RINGS, 32)
        if answer is None:
            return "rings", "ok", "the device has none"
        rx_max, _, _, tx_max, rx, _, _, tx = struct.unpack("8I", answer)
        if rx < rx_max:
            words = f"{rx} of {rx_max} packets in, {tx} of {tx_max} out: ethtool -G {self.name} rx {rx_max}"
            return "rings", "advice", words + " for bursts"
        return "rings", "ok", f"{rx} packets in, {tx} out"

    def mtu(self) -> Told:
        mtu = struct.unpack_from("i", self._ask(GET_MTU), 16)[0]
        return (
            "mtu",
            "ok",
            f"{mtu} bytes: frames of up to {mtu + ETHERNET_BYTES} without VLAN tags can be sent",
        )

    def _ask(self, request: int) -> bytes:
        return fcntl.ioctl(self._asking, request, struct.pack("16s24x", self.name.encode()))

    def _ethtool(self, command: int, size: int) -> bytes | None:
        """The driver's answer after the command's number; None if it does not know the command."""
        answer = ctypes.create_string_buffer(struct.pack("I", command), 4 + size)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._asking, ETHTOOL, struct.pack("16sP16x", self.name.encode(), ctypes.addressof(answer)))
            return answer.raw[4:]
        return None

    def _word(self, command: int) -> int | None:
        answer = self._ethtool(command, 4)
        return None if answer is None else int(struct.unpack("I", answer)[0])
