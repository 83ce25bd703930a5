"""Flows as IPFIX messages (RFC 7011): to a file (RFC 5655) or a collector. Each record has both directions (RFC 5103).

TEMPLATES says which elements a record has; a plan of _text.pyx makes the records of a whole array at once.
"""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamcore.core.errors import SinkError
from streamcore.headers import TUNNELS
from streamcore.parse.flow_rows import ENDED
from streamcore.tools.flows._text import Plan
from streamcore.tools.flows.columns import Fields
from streamcore.tools.flows.text import end, piece

if TYPE_CHECKING:
    from streamcore.tools.flows._text import PlanPiece

VERSION, TEMPLATE_SET, FIRST_TEMPLATE = 10, 2, 256
REVERSE = 29_305  # the enterprise number of elements of the reverse direction (RFC 5103, 6)
MESSAGE_MAX = 65_535
DATAGRAM_MAX = 1_400  # of a message over UDP (RFC 7011, 10.3.3: within the path's MTU)
TEMPLATES_EVERY = 64  # messages over UDP, after which the templates are sent again (RFC 7011, 10.3.6)
OBSERVATION_DOMAIN = 1
# flowEndReason (IANA): 1 idle timeout, 2 active timeout, 3 end of flow detected, 4 forced end, 5 lack of resources.
REASON = {"idle": 1, "active": 2, "closed": 3, "reused": 3, "evicted": 5}
REASONS = [bytes([REASON.get(ENDED.get(number, ""), 4)]) for number in range(256)]


class Element(NamedTuple):
    """An information element of IANA's registry and the field of a row that it holds: a number of `size` bytes, or what
    `kind` of _text.pyx makes of it; "reason", "initiator" and "vni" stand for what `_piece` says."""

    number: int
    size: int
    field: str
    kind: str = "big"
    enterprise: int = 0


def _reverse(number: int, size: int, field: str) -> Element:
    return Element(number, size, field, enterprise=REVERSE)


COUNTERS = (
    Element(148, 8, "id"),  # flowId
    Element(152, 8, "first_ns", "milliseconds"),  # flowStartMilliseconds
    Element(153, 8, "last_ns", "milliseconds"),  # flowEndMilliseconds
    Element(156, 8, "first_ns", "ntp"),  # flowStartNanoseconds
    Element(157, 8, "last_ns", "ntp"),  # flowEndNanoseconds
    Element(2, 8, "packets"),  # packetDeltaCount
    _reverse(2, 8, "packets_back"),
    Element(352, 8, "bytes"),  # layer2OctetDeltaCount
    _reverse(352, 8, "bytes_back"),
    Element(136, 1, "ended", "reason"),  # flowEndReason
    Element(239, 1, "", "initiator"),  # biflowDirection
    Element(56, 6, "source_mac", "bytes"),
    Element(80, 6, "target_mac", "bytes"),  # destinationMacAddress
    Element(58, 2, "vlan"),  # vlanId: the outermost one
)
OF_IP = (
    Element(1, 8, "ip_bytes"),  # octetDeltaCount
    _reverse(1, 8, "ip_bytes_back"),
    Element(7, 2, "source_port"),
    Element(11, 2, "target_port"),
    Element(4, 1, "protocol"),
    Element(6, 1, "tcp_flags"),  # tcpControlBits, in one byte (RFC 7125)
    _reverse(6, 1, "tcp_flags_back"),
    Element(5, 1, "tos"),
    _reverse(5, 1, "tos_back"),
    Element(52, 1, "ttl_min"),
    Element(53, 1, "ttl_max"),
    _reverse(52, 1, "ttl_min_back"),
    _reverse(53, 1, "ttl_max_back"),
)
OF_VERSION = {
    4: (Element(8, 4, "source_address", "bytes"), Element(12, 4, "target_address", "bytes"), *OF_IP,
        Element(32, 2, "icmp_type", "icmp_pair"), *COUNTERS),
    6: (Element(27, 16, "source_address", "bytes"), Element(28, 16, "target_address", "bytes"), *OF_IP,
        Element(139, 2, "icmp_type", "icmp_pair"), *COUNTERS),
    0: (Element(256, 2, "ether_type"), *COUNTERS),
}  # fmt: skip
# Tunnels whose id has an element. The addresses in a tunnel have none of their own.
OF_TUNNEL = {
    "vxlan": Element(351, 8, "tunnel_id", "vni"),  # layer2SegmentId
    "gtp": Element(507, 4, "tunnel_id"),  # gtpuTEid
}
TUNNEL_NUMBERS = {name: number for number, name in TUNNELS.items()}
# (IP version, tunnel or "") of flows -> the elements of their records; the template's number follows from the place.
TEMPLATES = {(version, ""): elements for version, elements in OF_VERSION.items()} | {
    (version, tunnel): (*OF_VERSION[version], element) for tunnel, element in OF_TUNNEL.items() for version in (4, 6)
}


def _piece(fields: Fields, element: Element) -> PlanPiece:
    """What writes an element."""
    if element.kind == "reason":
        return piece(fields, "", "name", element.field, names=REASONS)
    if element.kind == "initiator":
        return end("\x01")  # the source is the initiator
    if element.kind == "vni":
        return piece(fields, "\x01\0\0\0", "big", element.field)  # 1: of VXLAN
    literal, kind, offset, other, width, empty, names, only = piece(fields, "", element.kind, element.field)
    if kind == "bytes":  # the last ones of an address
        offset, width = offset + fields.size(element.field) - element.size, element.size
    return literal, kind, offset, other, width, empty, names, only


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
        fields = Fields(first_packets)
        self._plans = {
            which: Plan([_piece(fields, element) for element in elements]) for which, elements in TEMPLATES.items()
        }
        self._time_s = 0
        self._message(self._templates, 0)

    def write(self, rows: NDArray[np.void]) -> None:
        if not len(rows):
            return
        if int(rows["first_ns"].min()) < 0:
            raise SinkError("IPFIX has no times before 1970: choose another format")
        self._time_s = int(rows["last_ns"].max()) // 10**9 & 0xFFFFFFFF
        in_tunnels = rows["tunnel_kind"].any()
        for number, (version, tunnel) in enumerate(TEMPLATES, FIRST_TEMPLATE):
            if tunnel and not in_tunnels:
                continue
            chosen = rows[_of_tunnel(rows, tunnel)] if in_tunnels else rows
            raw = self._plans[version, tunnel].text(chosen, version)
            size = sum(element.size for element in TEMPLATES[version, tunnel])
            most = self._room // size * size
            for start in range(0, len(raw), most):
                part = raw[start : start + most]
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


def _of_tunnel(rows: NDArray[np.void], tunnel: str) -> Any:
    """Which rows are of this tunnel; "": of none that has an element."""
    kinds: NDArray[np.uint8] = rows["tunnel_kind"]
    if tunnel:
        return kinds == TUNNEL_NUMBERS[tunnel]
    return ~np.isin(kinds, [TUNNEL_NUMBERS[name] for name in OF_TUNNEL])
