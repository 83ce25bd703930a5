"""Flows as IPFIX messages (RFC 7011): to a file (RFC 5655) or a collector. Each record has both directions (RFC 5103).

A Template of the table TEMPLATES says which columns a record has; numpy makes the records of a whole array at once.
"""

from __future__ import annotations

import struct
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcore.core.errors import SinkError
from streamcore.parse.flow_rows import ENDED

VERSION, TEMPLATE_SET, FIRST_TEMPLATE = 10, 2, 256
REVERSE = 29_305  # the enterprise number of elements of the reverse direction (RFC 5103, 6)
MESSAGE_MAX = 65_535
DATAGRAM_MAX = 1_400  # of a message over UDP (RFC 7011, 10.3.3: within the path's MTU)
TEMPLATES_EVERY = 64  # messages over UDP, after which the templates are sent again (RFC 7011, 10.3.6)
OBSERVATION_DOMAIN = 1
# flowEndReason (IANA): 1 idle timeout, 2 active timeout, 3 end of flow detected, 4 forced end, 5 lack of resources.
REASONS = np.array([{"idle": 1, "active": 2, "closed": 3, "reused": 3, "evicted": 5}.get(ENDED[n], 4) for n in ENDED])


class Element(NamedTuple):
    """An information element of IANA's registry, and the field of a row that it holds."""

    number: int
    kind: str  # numpy's: ">u8"; "4", "6", "16": so many bytes, the last ones of an address or the whole field
    field: str
    enterprise: int = 0

    @property
    def size(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def dtype(self) -> str:
        return self.kind if self.kind[0] == ">" else f"V{self.kind}"


COUNTERS = (
    Element(148, ">u8", "id"),  # flowId
    Element(152, ">u8", "first_ns"),  # flowStartMilliseconds
    Element(153, ">u8", "last_ns"),  # flowEndMilliseconds
    Element(2, ">u8", "packets"),  # packetDeltaCount
    Element(2, ">u8", "packets_back", REVERSE),
    Element(352, ">u8", "bytes"),  # layer2OctetDeltaCount
    Element(352, ">u8", "bytes_back", REVERSE),
    Element(136, ">u1", "ended"),  # flowEndReason
    Element(239, ">u1", "biflow_direction"),
    Element(56, "6", "source_mac"),
    Element(80, "6", "target_mac"),  # destinationMacAddress
    Element(58, ">u2", "vlan"),  # vlanId: the outermost one
)
OF_IP = (
    Element(1, ">u8", "ip_bytes"),  # octetDeltaCount
    Element(1, ">u8", "ip_bytes_back", REVERSE),
    Element(7, ">u2", "source_port"),
    Element(11, ">u2", "target_port"),
    Element(4, ">u1", "protocol"),
    Element(6, ">u1", "tcp_flags"),  # tcpControlBits, in one byte (RFC 7125)
    Element(6, ">u1", "tcp_flags_back", REVERSE),
    Element(5, ">u1", "tos"),
    Element(5, ">u1", "tos_back", REVERSE),
    Element(52, ">u1", "ttl_min"),
    Element(53, ">u1", "ttl_max"),
    Element(52, ">u1", "ttl_min_back", REVERSE),
    Element(53, ">u1", "ttl_max_back", REVERSE),
)
# IP version of the flows -> the elements of their records; the template's number follows from the place.
TEMPLATES: dict[int, tuple[Element, ...]] = {
    4: (Element(8, "4", "source_address"), Element(12, "4", "target_address"), *OF_IP,
        Element(32, ">u2", "icmp"), *COUNTERS),
    6: (Element(27, "16", "source_address"), Element(28, "16", "target_address"), *OF_IP,
        Element(139, ">u2", "icmp"), *COUNTERS),
    0: (Element(256, ">u2", "ether_type"), *COUNTERS),
}  # fmt: skip


def template_set() -> bytes:
    """The set with all templates."""
    records = b""
    for number, elements in enumerate(TEMPLATES.values(), FIRST_TEMPLATE):
        records += struct.pack(">HH", number, len(elements))
        for element in elements:
            if element.enterprise:
                records += struct.pack(">HHI", element.number | 0x8000, element.size, element.enterprise)
            else:
                records += struct.pack(">HH", element.number, element.size)
    return struct.pack(">HH", TEMPLATE_SET, 4 + len(records)) + records


class IpfixWriter:
    """Writes messages to a file or a place: what has `is_datagrams` gets messages of at most DATAGRAM_MAX bytes, one in
    each write."""

    def __init__(self, file: IO[Any], first_packets: int) -> None:
        self._file = file
        self._datagrams = getattr(file, "is_datagrams", False)
        self._room = (DATAGRAM_MAX if self._datagrams else MESSAGE_MAX) - 16 - 4
        self._sequence = self._messages = 0
        self._templates = template_set()
        self._time_s = 0
        self._message(self._templates, 0)

    def write(self, rows: NDArray[np.void]) -> None:
        if not len(rows):
            return
        if int(rows["first_ns"].min()) < 0:
            raise SinkError("IPFIX has no times before 1970: choose another format")
        self._time_s = int(rows["last_ns"].max()) // 10**9 & 0xFFFFFFFF
        for number, version in enumerate(TEMPLATES, FIRST_TEMPLATE):
            chosen = rows[rows["ip_version"] == version]
            raw = _records(chosen, TEMPLATES[version])
            size = sum(element.size for element in TEMPLATES[version])
            most = self._room // size
            for start in range(0, len(chosen), most):
                part = raw[start * size : (start + most) * size]
                self._message(struct.pack(">HH", number, 4 + len(part)) + part, len(part) // size)

    def _message(self, sets: bytes, records: int) -> None:
        """One message. Over UDP the templates are sent again every now and then, in a message of their own."""
        if self._datagrams and records and self._messages % TEMPLATES_EVERY == 0:
            self._send(self._templates)
        self._send(sets)
        self._sequence = (self._sequence + records) & 0xFFFFFFFF

    def _send(self, sets: bytes) -> None:
        head = struct.pack(">HHIII", VERSION, 16 + len(sets), self._time_s, self._sequence, OBSERVATION_DOMAIN)
        self._file.write(head + sets)
        self._messages += 1

    def close(self) -> None:
        pass


def _records(rows: NDArray[np.void], elements: tuple[Element, ...]) -> bytes:
    """The records of rows, one after the other."""
    table = np.zeros(len(rows), [(str(place), element.dtype) for place, element in enumerate(elements)])
    for place, element in enumerate(elements):
        into = table[str(place)]
        if element.kind[0] != ">":
            into[:] = np.ascontiguousarray(rows[element.field][:, -element.size :]).view(element.dtype)[:, 0]
        else:
            into[:] = _values(rows, element.field)
    return table.tobytes()


def _values(rows: NDArray[np.void], field: str) -> Any:
    if field in ("first_ns", "last_ns"):
        return rows[field] // 1_000_000
    if field == "ended":
        return REASONS[rows[field]]
    if field == "biflow_direction":
        return 1  # the source is the initiator
    if field == "vlan":
        return rows["vlan"][:, 0] & 0xFFF
    if field == "icmp":
        is_icmp = (rows["protocol"] == 1) | (rows["protocol"] == 58)
        return is_icmp * (rows["icmp_type"].astype(np.uint16) * 256 + rows["icmp_code"])
    return rows[field]
