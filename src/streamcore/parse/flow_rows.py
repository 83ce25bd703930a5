"""The rows in which the flow table hands out flows: their dtype, and the names of their numbers.

_flow_rows.pxd has the same row for native code; what the columns mean stands in docs/columns.md.
"""

from __future__ import annotations

import numpy as np

FLOW_DTYPE: np.dtype[np.void] = np.dtype(
    [
        ("id", "u8"), ("first_ns", "i8"), ("last_ns", "i8"),
        ("packets", "u8"), ("bytes", "u8"), ("ip_bytes", "u8"), ("payload_bytes", "u8"),
        ("packets_back", "u8"), ("bytes_back", "u8"), ("ip_bytes_back", "u8"), ("payload_bytes_back", "u8"),
        ("ip_version", "u1"), ("protocol", "u1"), ("ended", "u1"), ("state", "u1"), ("history", "S16"),
        ("tcp_flags", "u1"), ("tcp_flags_back", "u1"), ("tos", "u1"), ("tos_back", "u1"),
        ("ttl_min", "u1"), ("ttl_max", "u1"), ("ttl_min_back", "u1"), ("ttl_max_back", "u1"),
        ("icmp_type", "u1"), ("icmp_code", "u1"), ("icmp_type_back", "u1"), ("icmp_code_back", "u1"),
        ("has_macs", "u1"), ("source_mac", "u1", 6), ("target_mac", "u1", 6),
        ("vlan_count", "u1"), ("vlan", "u2", 4), ("ether_type", "u2"),
        ("source_address", "u1", 16), ("target_address", "u1", 16), ("source_port", "u2"), ("target_port", "u2"),
        ("tunnel_kind", "u1"), ("tunnel_id", "u4"), ("inner_ip_version", "u1"), ("inner_protocol", "u1"),
        ("inner_source_address", "u1", 16), ("inner_target_address", "u1", 16),
        ("inner_source_port", "u2"), ("inner_target_port", "u2"),
    ]
)  # fmt: skip
ENDED = {0: "", 1: "idle", 2: "evicted", 3: "active", 4: "closed", 5: "reused"}
STATES = ("", "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH")


def flow_dtype(first_packets: int) -> np.dtype[np.void]:
    """The dtype of rows with so many first packets: FLOW_DTYPE, and if there are any, first_count, first_lengths (bytes
    on the wire, negative towards the source) and first_gaps_ns (since the flow's latest packet before)."""
    if not first_packets:
        return FLOW_DTYPE
    more = [("first_count", "u4"), ("first_lengths", "i4", first_packets), ("first_gaps_ns", "i8", first_packets)]
    return np.dtype([*FLOW_DTYPE.descr, *more])
