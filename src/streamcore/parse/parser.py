"""The parse stage: fills a batch's header columns, and remembers the flows of fragments across batches."""

from __future__ import annotations

import secrets

from streamcore.core.packets import PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.parse._columns import ColumnParser

FLOW_KEYS = {"outer": 0, "inner": 1, "both": 2}  # BY_* of _key.pxd


class Parser:
    """Parser(...)(batch, groups) fills the columns of `groups` (bits of COLUMN_GROUPS) for all packets.

    seed: of the flow hash; None: random. fragments_max: how many datagrams' first fragments are remembered. stateless:
    remember none, for batches that come out of order; later fragments then count as orphans. ports: which tunnels over
    UDP are tried. flow_key: which headers flow_hash depends on: "outer", the outermost one; "inner", in a tunnel the
    innermost one with the tunnel's kind and id; "both", these and the outer addresses.
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
        """Packets met so far, named as in `counters`."""
        columns = self._columns
        return {
            "parse.malformed": columns.malformed,
            "parse.truncated": columns.truncated,
            "parse.orphan_fragments": columns.orphans,
            "parse.link_unknown": columns.link_unknown,
        }
