"""What disperse/ needs of the Config and of the services' declarations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streamcore.disperse.peer import LEASES_MAX

Reports = list[tuple[int, Any]]  # (index of the service, report)
Drops = dict[str, tuple[int, int]]  # reason -> packets, bytes
Accept = Callable[[Reports, Drops], tuple[Reports, Drops]]  # raises ValueError for what no service can have made


@dataclass(frozen=True, slots=True)
class Terms:
    """Given to the dispatcher once, when a run begins."""

    workers: int
    chains: list[list[Any]]  # each stream's services: specifications as plain data, which the workers load
    changes: list[frozenset[str]]  # what each chain may change: "bytes", "lengths", "drops"
    accepted: list[Accept]  # each stream's: what counts of the reports and drops that come with a result
    deterministic: list[bool]  # of each stream: whether the results of two workers can be compared
    lease_ms: int
    attempts_max: int
    restarts_max: int
    credit: int  # full-sized segments that one worker may hold
    segment_bytes: int
    listen: str = ""
    key: str = ""
    worker_keys: str = ""
    hash_seed: int = 0  # of the flow hash: workers that parse columns use the same one, as they do what follows
    decode_as: Sequence[str] = ()
    flow_key: str = "outer"
    audit: float = 0.0  # the share of results from elsewhere that workers on this machine check
    leases_max: int = LEASES_MAX  # segments of any size that one worker may hold

    @property
    def parsing(self) -> dict[str, Any]:
        """How workers parse columns: a part of their set-up."""
        return {"hash_seed": self.hash_seed, "decode_as": list(self.decode_as), "flow_key": self.flow_key}
