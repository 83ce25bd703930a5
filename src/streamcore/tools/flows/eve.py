"""Flows as Suricata's EVE records of event_type flow, with the fields that Suricata's manual lists.

https://docs.suricata.io/en/latest/output/eve/eve-json-format.html. EVE has flows of IP only.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.parse.flow_rows import ENDED, STATES
from streamcore.tools.flows._text import Plan
from streamcore.tools.flows.columns import Fields
from streamcore.tools.flows.text import end, piece

if TYPE_CHECKING:
    from streamcore.tools.flows._text import PlanPiece

TCP = 6
WITH_PORTS = (TCP, 17, 33, 132, 136)
TRANSPORT = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 47: "GRE", 50: "ESP", 51: "AH", 58: "IPv6-ICMP", 132: "SCTP"}
# State -> (flow.state, tcp.state): what comes nearest.
FLOW_STATES = {
    "S0": ("new", "syn_sent"), "S1": ("established", "established"), "SF": ("closed", "closed"),
    "REJ": ("closed", "closed"), "S2": ("established", "fin_wait1"), "S3": ("established", "close_wait"),
    "RSTO": ("closed", "closed"), "RSTR": ("closed", "closed"), "RSTOS0": ("closed", "closed"),
    "RSTRH": ("closed", "closed"), "SH": ("new", "fin_wait1"), "SHR": ("established", "close_wait"),
    "OTH": ("established", "none"),
}  # fmt: skip
REASONS = {"": "shutdown", "evicted": "forced", "reused": "tcp_reuse"}  # else: timeout


def _names(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts] + [b""] * (256 - len(texts))


def plan(first_packets: int) -> Plan:
    fields = Fields(first_packets)
    states = [FLOW_STATES.get(state, ("new", "none")) for state in STATES]
    transport = _names([TRANSPORT.get(number, f"{number:03d}") for number in range(256)])
    reasons = _names([REASONS.get(ENDED[number], "timeout") for number in sorted(ENDED)])

    def number(literal: str, field: str, only: int = -1) -> PlanPiece:
        return piece(fields, literal, "unsigned", field, only=only)

    return Plan([
        piece(fields, '{"timestamp":"', "time", "last_ns"),
        number('","flow_id":', "id"),
        end(',"event_type":"flow"'),
        piece(fields, "", "eve_vlans", "vlan"),
        piece(fields, ',"src_ip":"', "address", "source_address", "ip_version"),
        end('"'),
        *(number(',"src_port":', "source_port", protocol) for protocol in WITH_PORTS),
        piece(fields, ',"dest_ip":"', "address", "target_address", "ip_version"),
        end('"'),
        *(number(',"dest_port":', "target_port", protocol) for protocol in WITH_PORTS),
        number(',"ip_v":', "ip_version"),
        piece(fields, ',"proto":"', "name", "protocol", names=transport),
        end('"'),
        *(number(f',"icmp_{what}":', f"icmp_{what}", protocol) for protocol in (1, 58) for what in ("type", "code")),
        piece(fields, ',"community_id":"', "community_id", "id"),
        number('","flow":{"pkts_toserver":', "packets"),
        number(',"pkts_toclient":', "packets_back"),
        number(',"bytes_toserver":', "bytes"),
        number(',"bytes_toclient":', "bytes_back"),
        piece(fields, ',"start":"', "time", "first_ns"),
        piece(fields, '","end":"', "time", "last_ns"),
        piece(fields, '","age":', "whole_seconds", "first_ns"),
        piece(fields, ',"state":"', "name", "state", names=_names([flow for flow, _ in states])),
        piece(fields, '","reason":"', "name", "ended", names=reasons),
        end('","alerted":false}'),
        piece(fields, ',"tcp":{"tcp_flags":"', "hex", "tcp_flags", "tcp_flags_back", only=TCP),
        piece(fields, '","tcp_flags_ts":"', "hex", "tcp_flags", only=TCP),
        piece(fields, '","tcp_flags_tc":"', "hex", "tcp_flags_back", only=TCP),
        end('"', TCP),
        piece(fields, "", "eve_flags", "tcp_flags", "tcp_flags_back", only=TCP),
        piece(fields, ',"state":"', "name", "state", names=_names([tcp for _, tcp in states]), only=TCP),
        end('"}', TCP),
        end("}\n"),
    ])  # fmt: skip


class EveWriter:
    def __init__(self, file: IO[Any], first_packets: int) -> None:
        self._file, self._plan, self.left_out = file, plan(first_packets), 0

    def write(self, rows: NDArray[np.void]) -> None:
        of_ip = rows[rows["ip_version"] != 0]
        self.left_out += len(rows) - len(of_ip)
        self._file.write(self._plan.text(of_ip))

    def close(self) -> None:
        pass
