"""The target of IPFIX: what our writer makes of any flows is read back equal by the tests' slow reader, and what is
mutated is read or refused.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from streamcore.core.packets import COLUMN_GROUPS
from streamcore.headers import TUNNELS
from streamcore.parse.flow_rows import ENDED, FLOW_DTYPE
from tests.streamcore.fuzz.guarded import Guarded
from tests.streamcore.fuzz.inputs import INPUT_BYTES_MAX, mutated, some_of_a_link
from tests.streamcore.tools.ipfix_reader import BadIpfix, ipfix_records, record_of

PACKETS, FLOWS_MAX, MUTATIONS = 32, 40, 32  # of a batch


class Place(list[bytes]):
    """What a writer sends, one message in each."""

    is_datagrams = True

    def write(self, raw: Any) -> None:
        self.append(bytes(raw))


def random_rows(rng: random.Random) -> Any:
    """Flows of random bytes, but versions, tunnels and ends that there are, and times since 1970."""
    rows = np.frombuffer(rng.randbytes(rng.randrange(FLOWS_MAX) * FLOW_DTYPE.itemsize), FLOW_DTYPE).copy()
    rows["id"] = np.arange(len(rows)) + rng.randrange(1 << 62)
    for name, values in (("ip_version", (0, 4, 6)), ("tunnel_kind", tuple(TUNNELS)), ("ended", tuple(ENDED))):
        rows[name] = [rng.choice(values) for _ in rows]
    rows["tunnel_kind"][rows["ip_version"] == 0] = 0  # tunnels with an id in IPFIX lie in IP
    rows["protocol"] = [rng.choice((1, 6, 17, 58, rng.randrange(256))) for _ in rows]
    for name in ("first_ns", "last_ns"):
        rows[name] &= 2**63 - 1
    return rows


def flow_messages() -> Callable[[random.Random, int], int]:
    """Flows of mutated packets, and of random bytes, to a file and in datagrams; then what was written, mutated."""
    from streamcore.parse._flows import FlowTable
    from streamcore.parse.parser import Parser
    from streamcore.tools.flows.ipfix import DATAGRAM_MAX, IpfixWriter

    memory = Guarded(PACKETS, INPUT_BYTES_MAX)
    parser = Parser(seed=1, fragments_max=64)

    def read_back(rows: Any) -> bytes:
        file, place = io.BytesIO(), Place()
        for target in (file, place):
            IpfixWriter(target, 0).write(rows)  # type: ignore[arg-type]
        assert max(map(len, place)) <= DATAGRAM_MAX
        expected = {int(row["id"]): record_of(row) for row in rows}
        for written in (file.getvalue(), b"".join(place)):
            records, _ = ipfix_records(written)
            assert len(records) == len(rows)
            assert {int.from_bytes(record[0, 148], "big"): record for record in records} == expected
        return file.getvalue()

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, PACKETS)
        batch = memory.batch(inputs, link)
        parser(batch, sum(COLUMN_GROUPS.values()))
        table = FlowTable(64, 2, 1, by=number % 3)
        table.add(batch)
        seeds = [read_back(rows) for rows in (table.export(), random_rows(rng))]
        for _ in range(MUTATIONS):
            data = mutated(rng, rng.choice(seeds))
            try:
                records, lengths = ipfix_records(data)
            except BadIpfix:
                continue
            assert sum(lengths) == len(data)
            assert sum(map(len, records)) <= len(data), "an element takes a byte at least, and so has time a bound"
        return 2 + MUTATIONS

    return one_batch
