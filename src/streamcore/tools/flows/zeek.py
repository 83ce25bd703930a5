"""Flows as Zeek's conn.log, tab-separated, with the fields that Zeek's manual lists, and community_id.

https://docs.zeek.org/en/master/logs/conn.html. What this program does not know is unset: service, local_orig,
local_resp, tunnel_parents. conn.log has flows of IP only.
"""

from __future__ import annotations

import time
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.tools.flows._text import Plan
from streamcore.tools.flows.columns import NAMES, Fields
from streamcore.tools.flows.text import end, piece

TRANSPORT = {1: b"icmp", 58: b"icmp", 6: b"tcp", 17: b"udp"}
# (name, Zeek's type, kind of _text.pyx or the text itself, field, other field)
FIELDS = (
    ("ts", "time", "seconds", "first_ns", ""),
    ("uid", "string", "unsigned", "id", ""),
    ("id.orig_h", "addr", "address", "source_address", "ip_version"),
    ("id.orig_p", "port", "port", "source_port", "icmp_type"),
    ("id.resp_h", "addr", "address", "target_address", "ip_version"),
    ("id.resp_p", "port", "port", "target_port", "icmp_code"),
    ("proto", "enum", "name", "protocol", ""),
    ("service", "string", "-", "", ""),
    ("duration", "interval", "duration", "first_ns", ""),
    ("orig_bytes", "count", "unsigned", "payload_bytes", ""),
    ("resp_bytes", "count", "unsigned", "payload_bytes_back", ""),
    ("conn_state", "string", "name", "state", ""),
    ("local_orig", "bool", "-", "", ""),
    ("local_resp", "bool", "-", "", ""),
    ("missed_bytes", "count", "0", "", ""),
    ("history", "string", "letters", "history", ""),
    ("orig_pkts", "count", "unsigned", "packets", ""),
    ("orig_ip_bytes", "count", "unsigned", "ip_bytes", ""),
    ("resp_pkts", "count", "unsigned", "packets_back", ""),
    ("resp_ip_bytes", "count", "unsigned", "ip_bytes_back", ""),
    ("tunnel_parents", "set[string]", "-", "", ""),
    ("ip_proto", "count", "unsigned", "protocol", ""),
    ("community_id", "string", "community_id", "id", ""),
)
NAMES_HERE = {
    "protocol": [TRANSPORT.get(number, b"unknown_transport") for number in range(256)],
    "state": NAMES["state"],
}
CLOCK = "%Y-%m-%d-%H-%M-%S"


def plan(first_packets: int) -> Plan:
    fields, pieces, before = Fields(first_packets), [], ""
    for name, _, kind, field, other in FIELDS:
        literal = before + ("C" if name == "uid" else "")
        if field:
            names = NAMES_HERE[field] if kind == "name" else None
            pieces.append(piece(fields, literal, kind, field, other, empty="-", names=names))
        else:
            pieces.append(end(literal + kind))
        before = "\t"
    return Plan([*pieces, end("\n")])


class ZeekWriter:
    def __init__(self, file: IO[Any], first_packets: int) -> None:
        self._file, self._plan, self.left_out = file, plan(first_packets), 0
        lines = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn"]
        lines += [f"#open\t{time.strftime(CLOCK)}"]
        lines += [
            "\t".join(["#fields", *(row[0] for row in FIELDS)]),
            "\t".join(["#types", *(row[1] for row in FIELDS)]),
        ]
        file.write("".join(f"{line}\n" for line in lines).encode())

    def write(self, rows: NDArray[np.void]) -> None:
        of_ip = rows[rows["ip_version"] != 0]
        self.left_out += len(rows) - len(of_ip)
        self._file.write(self._plan.text(of_ip))

    def close(self) -> None:
        self._file.write(f"#close\t{time.strftime(CLOCK)}\n".encode())
