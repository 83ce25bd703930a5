"""The parse stage: fills header columns of a batch, and keeps the fragments' flows from batch to batch."""

from __future__ import annotations

import secrets

from streamcore.core.packets import PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.parse._columns import ColumnParser

FLOW_KEYS = {"outer": 0, "inner": 1, "both": 2}  # BY_* of _key.pxd


class Parser:
    """Parser(...)(batch, groups) fills the columns of `groups` (bits of COLUMN_GROUPS) for all packets.

    seed: of the flow hash; None: at random. fragments_max: datagrams whose first fragment is remembered. stateless:
    remember none, for batches that do not come in order; then the later fragments of a datagram count as orphans.
    ports: which tunnels over UDP are tried. flow_key: what flow_hash is of: "outer", the outermost header; in a tunnel
    "inner", the innermost header and the tunnel's kind and id; "both", these and the addresses outside.
    """

    def __init__(
        self,
        seed: int | None = None,
        fragments_max: int = 1 << 16,
        *,
        stateless: bool = False,
        ports: UdpPorts = STANDARD_PORTS,
        flow_key: str = "outer",
    ) -> None:
        seed = secrets.randbits(64) if seed is None else seed % (1 << 64)
        self._columns = ColumnParser(seed, 0 if stateless else fragments_max, ports, FLOW_KEYS[flow_key])

    def __call__(self, batch: PacketBatch, groups: int) -> None:
        self._columns.parse(batch, groups)

    def counts(self) -> dict[str, int]:
        """Packets met so far, under the names of `counters`."""
        columns = self._columns
        return {
            "parse.malformed": columns.malformed,
            "parse.truncated": columns.truncated,
            "parse.orphan_fragments": columns.orphans,
            "parse.link_unknown": columns.link_unknown,
        }
