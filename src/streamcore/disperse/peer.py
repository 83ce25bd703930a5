"""A peer: one worker as the machine sees it, with its state, its credit and its leases. link.py has how it is reached.

A peer works on its leases in the order in which it got them, so only the first one's clock runs: a lease has
`lease_ms` from the moment at which it becomes the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from streamcore.core.packets import Segment
from streamcore.disperse.pending import Identity, Pending
from streamcore.disperse.states import PEER, SEGMENT

LEASES_MAX = 32  # per peer, whatever the segments' sizes,
QUICK_LEASES_MAX = 256  # unless it is on this machine and does them in no time:
QUICK_NS = 4_000_000  # it then holds more, but not more than this time's work
MESSAGE_BYTES_MAX = 1 << 20  # small segments share a message to a remote worker up to this size
START_S = 30.0  # a worker that is not ready after this time counts as hung


@dataclass(slots=True)
class Tally:
    """The work of one slot, over all incarnations."""

    segments: int = 0
    packets: int = 0
    bytes: int = 0
    busy_ns: int = 0
    failed: int = 0

    def add(self, segment: Segment, busy_ns: int) -> None:
        self.segments += 1
        self.packets += len(segment)
        self.bytes += segment.byte_count
        self.busy_ns += busy_ns


@dataclass(slots=True, eq=False)
class Peer:
    """One incarnation of a worker in a slot."""

    slot: int
    credit_bytes: int  # captured bytes that it may hold at one time
    tally: Tally
    clock_from_s: float  # when the present first lease became the first, or when the peer was started
    lease_s: float  # how long it may take for its first lease
    leases_max: int = LEASES_MAX  # as it is now
    adapts: bool = False  # whether it may hold more of quick segments
    busy_ns: int = 0  # what a segment has taken it lately
    elsewhere: bool = False  # a remote worker: segments travel inline
    key: str = ""  # of a remote worker: its CURVE public key
    streams: frozenset[int] | None = None  # of a provider: those that it serves; None: one of the run's own workers
    state: str = "starting"  # states.PEER
    leases: dict[int, Pending] = field(default_factory=dict)  # by segment number, in the order of sending
    bytes_out: int = 0
    results: int = 0  # of this incarnation
    failures: int = 0  # of a provider: segments that it could not process
    begun: tuple[int, int] | None = None  # of a local worker: segment and attempt that it has begun last
    link: Any = None  # the loop's: how it is reached

    @property
    def identity(self) -> Identity:
        """Who it is, whichever process: a key, or a slot on this machine."""
        return self.key or self.slot

    @property
    def has_said_hello(self) -> bool:
        return self.state != "starting" and self.state != "gone"

    def move(self, event: str) -> None:
        self.state = PEER[self.state, event]

    def has_credit(self, byte_count: int) -> bool:
        """Whether it may get a segment of this size. A peer without leases may get any segment; otherwise its segments
        and bytes are bounded."""
        return self.state == "ready" and (
            not self.leases or (len(self.leases) < self.leases_max and self.bytes_out + byte_count <= self.credit_bytes)
        )

    def lease(self, message: list[Pending], now_s: float) -> None:
        """Notes that it gets these segments."""
        leases = self.leases
        if not leases:
            self.clock_from_s = now_s
        for pending in message:
            pending.state = SEGMENT[pending.state, "sent"]
            pending.sent_s = now_s
            leases[pending.number] = pending
            self.bytes_out += pending.byte_count

    def end_lease(self, pending: Pending, now_s: float) -> None:
        """Notes that it has answered."""
        number = pending.number
        if number == next(iter(self.leases)):  # otherwise it came out of turn, and the first lease's clock goes on
            self.clock_from_s = now_s
        del self.leases[number]
        self.bytes_out -= pending.byte_count
        self.results += 1

    def adapt(self, busy_ns: int, count: int) -> None:
        """After a message of `count` results that took busy_ns: of quick segments it holds more, so that more share a
        message. 64 packets cost 24 us there and back with 16 in a message, 12 us with 64 (bench/bench_disperse.py).
        """
        if self.adapts:
            self.busy_ns = (self.busy_ns + busy_ns // count) // 2
            self.leases_max = max(LEASES_MAX, min(QUICK_LEASES_MAX, QUICK_NS // (self.busy_ns + 1)))

    @property
    def is_quick(self) -> bool:
        return self.leases_max > LEASES_MAX

    def unlease(self, message: list[Pending]) -> None:
        """Notes that it has not got these segments after all."""
        for pending in message:
            del self.leases[pending.number]
            self.bytes_out -= pending.byte_count

    def take_leases(self) -> list[Pending]:
        """What it had, which others get now."""
        taken = list(self.leases.values())
        self.leases, self.bytes_out = {}, 0
        return taken

    def suspect(self) -> Pending | None:
        """The leased segment that may be why this peer died or hangs: of a local worker the one that it has begun last,
        which need not be the first, as results may not have left its process; None if that is back.
        """
        if self.elsewhere:
            return next(iter(self.leases.values()), None)
        number, attempt = self.begun or (-1, 0)
        pending = self.leases.get(number)
        return pending if pending is not None and pending.attempt == attempt else None

    @property
    def deadline_s(self) -> float:
        """When this peer counts as hung: lease_s after its first lease became the first, or START_S after its start."""
        if self.state == "starting":
            return self.clock_from_s + START_S
        return self.clock_from_s + self.lease_s if self.leases else math.inf

    @property
    def late(self) -> str:
        """What is said of a peer whose deadline has passed."""
        if self.state == "starting":
            return f"not ready within {START_S:.0f} s"
        return f"no result within {self.lease_s * 1000:.0f} ms"
