"""The columns of a flow, as people and programs see them: JSON lines, CSV and Parquet have all of them, in this order.

docs/columns.md says what each means. Others' formats have their own lists (ipfix.py, zeek.py, eve.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamcore.headers import TUNNELS
from streamcore.parse.flow_rows import ENDED, STATES, flow_dtype


class Column(NamedTuple):
    """A column: how _text.pyx makes its text (`kind`, of the field `field` of a row), and whether it is text."""

    name: str
    kind: str = "unsigned"
    field: str = ""
    other: str = ""

    @property
    def is_text(self) -> bool:
        return self.kind in ("address", "mac", "vlans", "name", "letters", "community_id")

    @property
    def is_list(self) -> bool:
        return self.kind in ("lengths", "gaps")

    @property
    def may_lack(self) -> bool:
        return self.kind == "icmp"

    @property
    def source(self) -> str:
        """The field of a row in which the column's value stands."""
        return self.field or self.name


NAMES: dict[str, list[bytes]] = {
    "ended": [ENDED.get(number, "").encode() for number in range(256)],
    "state": [(STATES[number] if number < len(STATES) else "").encode() for number in range(256)],
    "tunnel_kind": [TUNNELS.get(number, "").encode() for number in range(256)],
}
COLUMNS = (
    Column("id"),
    Column("ip_version"),
    Column("source_address", "address", other="ip_version"),
    Column("source_port"),
    Column("target_address", "address", other="ip_version"),
    Column("target_port"),
    Column("protocol"),
    Column("vlan", "vlans"),
    Column("ether_type"),
    Column("packets"),
    Column("packets_back"),
    Column("bytes"),
    Column("bytes_back"),
    Column("ip_bytes"),
    Column("ip_bytes_back"),
    Column("payload_bytes"),
    Column("payload_bytes_back"),
    Column("first_ns", "signed"),
    Column("last_ns", "signed"),
    Column("tcp_flags"),
    Column("tcp_flags_back"),
    Column("state", "name"),
    Column("history", "letters"),
    Column("ended", "name"),
    Column("tos"),
    Column("tos_back"),
    Column("ttl_min"),
    Column("ttl_max"),
    Column("ttl_min_back"),
    Column("ttl_max_back"),
    Column("icmp_type", "icmp"),
    Column("icmp_code", "icmp"),
    Column("source_mac", "mac"),
    Column("target_mac", "mac"),
    Column("community_id", "community_id", "id"),
    Column("tunnel_kind", "name"),
    Column("tunnel_id"),
    Column("inner_source_address", "address", other="inner_ip_version"),
    Column("inner_source_port"),
    Column("inner_target_address", "address", other="inner_ip_version"),
    Column("inner_target_port"),
    Column("inner_protocol"),
)
FIRST_COLUMNS = (Column("first_lengths", "lengths"), Column("first_gaps_ns", "gaps"))


def columns_of(first_packets: int) -> tuple[Column, ...]:
    return COLUMNS + (FIRST_COLUMNS if first_packets else ())


class Fields:
    """Where the fields of a row stand, for plans."""

    def __init__(self, first_packets: int) -> None:
        self.first_packets = first_packets
        self._fields: Mapping[str, Any] = flow_dtype(first_packets).fields or {}

    def place(self, name: str) -> tuple[int, int]:
        """(offset, bytes of one number) of a field."""
        kind, offset = self._fields[name][:2]
        return offset, kind.base.itemsize

    def size(self, name: str) -> int:
        return int(self._fields[name][0].itemsize)

    def offset(self, name: str) -> int:
        return self.place(name)[0]
