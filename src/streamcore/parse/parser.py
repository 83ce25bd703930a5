"""The parse stage: fills header columns of a batch, and keeps the fragments' flows from batch to batch."""

from __future__ import annotations

import secrets

from streamcore.core.packets import PacketBatch
from streamcore.parse._columns import ColumnParser


class Parser:
    """Parser(...)(batch, groups) fills the columns of `groups` (bits of COLUMN_GROUPS) for all packets.

    seed: of the flow hash; None: at random. fragments_max: datagrams whose first fragment is remembered. stateless:
    remember none, for batches that do not come in order; then the later fragments of a datagram count as orphans.
    """

    def __init__(self, seed: int | None = None, fragments_max: int = 1 << 16, *, stateless: bool = False) -> None:
        seed = secrets.randbits(64) if seed is None else seed % (1 << 64)
        self._columns = ColumnParser(seed, 0 if stateless else fragments_max)

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
