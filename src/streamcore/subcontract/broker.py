"""The broker: answers the dispatcher's questions (routes.py), and calls the allocator on its own thread.

Streams with the same need share a contract: one agreement at a time, with its meter and its rates. The methods that the
dispatcher's thread calls do no input or output.
"""

from __future__ import annotations

import functools
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamcore.core.packets import Segment
from streamcore.core.routes import IN_HOUSE, Route
from streamcore.subcontract.allocator import Allocator, Placement, Report
from streamcore.subcontract.contract import Contract, Served, Wanted
from streamcore.subcontract.meter import Meter

NEWCOMER_TIMES = 4  # how much more often a newcomer is audited
RENEW_AT = 0.7  # the fraction of a block after which the next one is requested
ANSWER_S = 30.0  # how long the end of a run waits for the market
TICK_S = 0.05
LOOK_MS = 500  # between checks whether a runner-up has taken over
DRAW = secrets.SystemRandom()


class Broker:
    """See the file's head. Implements routes.Routes."""

    def __init__(
        self, streams: Sequence[Wanted], allocator: Allocator, lease_ms: int, draw: Callable[[], float] = DRAW.random
    ) -> None:
        self._allocator = allocator
        self._draw = draw
        groups: dict[tuple[Any, ...], list[Wanted]] = {}
        for each in streams:
            groups.setdefault((each.service, repr(each.chain), each.terms.need, each.in_house), []).append(each)
        self._contracts = [Contract(group, lease_ms) for group in groups.values()]
        self._of = {each.number: contract for contract in self._contracts for each in contract.streams}
        self.limited = frozenset(number for number, each in self._of.items() if each.bucket or each.buckets)
        self.followed = self.limited | {number for number, each in self._of.items() if each.dormant}
        self._providers: dict[str, list[Contract]] = {}  # every key ever placed
        self._suspended: set[str] = set()
        self._lock = threading.RLock()
        self._tasks: list[Callable[[], None]] = []
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="streamcore-broker", daemon=True)
        self.wake: Callable[[], None] = lambda: None  # set by the dispatcher, which waits for changes
        self.served: list[Served] = []
        self.errors: list[str] = []

    # For the thread that starts and ends the run.

    def start(self) -> None:
        """Finds providers for the streams that need one from the start, before the first packet is read."""
        for contract in self._contracts:
            if not contract.dormant:
                self._place(contract)
        self._thread.start()

    def close(self) -> None:
        """Reports the deliveries, and waits for the market's answers."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(ANSWER_S)
        self._ask(self._allocator.close)

    def account(self) -> list[dict[str, Any]]:
        """The subcontracts, as plain data."""
        return [
            {name: getattr(each, name) for name in Served.__slots__ if name != "outcome"} | each.outcome
            for each in self.served
        ]

    # For the dispatcher.

    def of(self, stream: int) -> Route:
        contract = self._of.get(stream)
        return IN_HOUSE if contract is None else contract.route

    def streams_of(self, key: str) -> frozenset[int]:
        with self._lock:
            if key in self._suspended:
                return frozenset()
            return frozenset(each.number for contract in self._providers.get(key, ()) for each in contract.streams)

    def is_provider(self, key: str) -> bool:
        return key in self._providers

    def lease_ms(self, key: str) -> int:
        return max(contract.lease_ms for contract in self._providers[key])

    def join_s(self, key: str) -> float:
        return max(contract.terms.join_ms for contract in self._providers[key]) / 1000

    def pause_s(self, stream: int) -> float:
        contract, now_s = self._of[stream], time.monotonic()
        buckets = [each for each in (contract.bucket, contract.buckets.get(stream)) if each is not None]
        return max((each.pause_s(now_s) for each in buckets), default=0.0)

    def is_possible_in_house(self, stream: int) -> bool:
        return self._of[stream].streams[0].in_house

    def came(self, byte_counts: Mapping[int, int]) -> None:
        now_ms = self._allocator.now_ms()
        for stream, byte_count in byte_counts.items():
            contract = self._of.get(stream)
            if contract is not None and (meter := contract.meter) is not None and not contract.dormant:
                meter.asked(byte_count, now_ms)

    def sent(self, stream: int, byte_count: int) -> None:
        contract, now_s = self._of[stream], time.monotonic()
        if contract.meter is not None and contract.dormant:  # local workers do the others
            contract.meter.asked(byte_count, self._allocator.now_ms())
        for bucket in (contract.bucket, contract.buckets.get(stream)):
            if bucket is not None:
                bucket.take(8 * byte_count, now_s)

    def done(self, key: str, segment: Segment, seconds: float) -> bool:
        contract = self._of[segment.stream]
        meter, placement = contract.meter, contract.placement
        if meter is None or placement is None or placement.public_key != key:
            return False  # its block is over
        meter.got(segment.byte_count, int(seconds * 1000), self._allocator.now_ms())
        if not contract.auditable or not contract.terms.audit:
            return False
        share = contract.terms.audit * (NEWCOMER_TIMES if placement.newcomer else 1)
        return self._draw() < share

    def audited(self, stream: int, key: str, same: bool) -> None:
        contract = self._of[stream]
        if contract.meter is not None and contract.placement is not None and contract.placement.public_key == key:
            contract.meter.audit(same)

    def failed(self, key: str, reason: str) -> None:
        with self._changed:
            if key in self._suspended:
                return
            self._suspended.add(key)
            for contract in self._providers.get(key, ()):
                self._give_up(contract, key, reason)

    def _give_up(self, contract: Contract, key: str, reason: str) -> None:
        """The provider failed: asks the market for a provider that takes over the rest of the block."""
        if contract.following is not None and contract.following.public_key == key:
            contract.following = None
        placement, meter = contract.placement, contract.meter
        if placement is None or meter is None or placement.public_key != key:
            return
        meter.failures.append(reason)
        report = meter.report(min(self._allocator.now_ms(), placement.ends_ms))
        self._note(contract, placement, report)
        contract.hold(None, pending=True)
        self._later(lambda: self._replace(contract, placement, reason, report))

    def waited(self, stream: int, seconds: float) -> None:
        contract = self._of.get(stream)
        if contract is None or not contract.dormant or seconds < contract.terms.overload_ms / 1000:
            return
        if contract.placement is None and not contract.pending:
            contract.hold(None, pending=True)
            self._later(lambda: self._place(contract))

    # Requests to the market.

    def _place(self, contract: Contract) -> None:
        """Requests an agreement that begins now."""
        starts_ms = self._allocator.now_ms()
        placement = self._ask(lambda: self._allocator.place(contract.need(starts_ms)))
        with self._lock:
            self._take(contract, placement)
        self.wake()

    def _replace(self, contract: Contract, placement: Placement, reason: str, report: Report) -> None:
        taken = self._ask(lambda: self._allocator.replace(placement, reason, report))
        if taken is None:  # a runner-up may take over later
            contract.left.append(placement)
            with self._lock:
                if contract.placement is None:
                    self._take(contract, None)
            self.wake()
        else:
            self._taken_over(contract, placement, taken)

    def _taken_over(self, contract: Contract, former: Placement, taken: Placement | None) -> None:
        """Handles the rest of `former`: a provider took over, or none did and its agreement ends with what was
        delivered."""
        if taken is None or taken.agreement != former.agreement:
            self._end_agreement(contract, former, None)
        if taken is not None:
            with self._lock:
                if contract.placement is None:
                    self._take(contract, taken)
                else:  # its streams have another provider already
                    self._end_agreement(contract, taken, None)
        self.wake()

    def _take(self, contract: Contract, placement: Placement | None) -> None:
        """Makes this placement the current one; None: no provider runs the stream."""
        if placement is not None and placement.public_key in self._suspended:
            refused = placement
            self._later(lambda: self._end_agreement(contract, refused, None))
            placement = None
        contract.renewed = False
        if placement is None:
            contract.hold(None)
            return
        self._admit(contract, placement)
        interval_ms = max(10, min(1000, contract.terms.block_ms // 10))
        starts_ms = max(placement.starts_ms, self._allocator.now_ms())
        contract.hold(placement, Meter(starts_ms, interval_ms, contract.lease_ms))

    def _admit(self, contract: Contract, placement: Placement) -> None:
        for key in (placement.public_key, *(runner.public_key for runner in placement.runners_up)):
            known = self._providers.setdefault(key, [])
            if contract not in known:
                known.append(contract)

    def _end_block(self, contract: Contract, following: Placement | None) -> None:
        """The block is over: reports it, and goes on with the following one."""
        placement, meter = contract.placement, contract.meter
        assert placement is not None
        assert meter is not None
        report = meter.report(min(self._allocator.now_ms(), placement.ends_ms))
        self._note(contract, placement, report)
        self._take(contract, following)
        contract.following = None
        self._later(lambda: self._end_agreement(contract, placement, report))

    def _end_agreement(self, contract: Contract, placement: Placement, report: Report | None) -> None:
        """Ends an agreement. report: None if it was reported already, or if nothing was delivered: such an agreement is
        in the account as well, because leaving it costs money."""
        outcome = self._ask(lambda: self._allocator.report(placement, report or Report(())))
        rows = [each for each in self.served if each.agreement == placement.agreement]
        for each in rows or [self._note(contract, placement, Report(()))]:
            each.outcome = outcome or {}

    def _note(self, contract: Contract, placement: Placement, report: Report) -> Served:
        meter = contract.meter if contract.placement is placement else None
        self.served.append(
            Served(
                placement.agreement,
                placement.provider,
                [each.name for each in contract.streams],
                placement.price,
                report.segments,
                meter.bytes if meter is not None else 0,
                report.audited,
                report.audits_failed,
                report.latency_ms,
                list(report.failures),
            )
        )
        return self.served[-1]

    # The broker's thread.

    def _later(self, task: Callable[[], None]) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The market's answer; None if it fails, because a failing market must not lose packets."""
        try:
            return question()
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._tasks and self._closing:
                    for contract in self._contracts:  # also one that took over during closing
                        if contract.following is not None:  # a block that is no longer needed
                            self._later(functools.partial(self._end_agreement, contract, contract.following, None))
                            contract.following = None
                        if contract.placement is not None:
                            self._end_block(contract, None)
                        if contract.left:
                            self._later(functools.partial(self._look_at_rests, contract, True))
                    if not self._tasks:
                        return
                if not self._tasks:
                    self._changed.wait(TICK_S)
                tasks, self._tasks = self._tasks, []
            for task in tasks:
                task()
            if not self._closing:
                for contract in self._contracts:
                    self._keep(contract)

    def _look_at_rests(self, contract: Contract, is_over: bool = False) -> None:
        """Checks whether a runner-up has taken over from a failed provider, until its block or the run is over."""
        now_ms = self._allocator.now_ms()
        if not contract.left or (now_ms < contract.next_look_ms and not is_over):
            return
        contract.next_look_ms = now_ms + LOOK_MS
        for former in list(contract.left):
            taken = self._ask(functools.partial(self._allocator.taken_over, former, is_over))
            if taken is None and now_ms < former.ends_ms and not is_over:
                continue
            contract.left.remove(former)
            if taken is not None and is_over:
                self._end_agreement(contract, taken, None)
                taken = None
            self._taken_over(contract, former, taken)

    def _keep(self, contract: Contract) -> None:
        """Renews in time, and changes over when the block ends."""
        self._look_at_rests(contract)
        placement, now_ms = contract.placement, self._allocator.now_ms()
        if placement is None:
            return
        length_ms = placement.ends_ms - placement.starts_ms
        if not contract.renewed and now_ms >= placement.starts_ms + RENEW_AT * length_ms:
            contract.renewed = True
            ends_ms = placement.ends_ms + contract.terms.block_ms
            following = self._ask(lambda: self._allocator.renew(placement, placement.ends_ms, ends_ms))
            with self._lock:
                if following is not None:
                    contract.following = following
                    self._admit(contract, following)
        with self._lock:
            if contract.placement is placement and now_ms >= placement.ends_ms:
                self._end_block(contract, contract.following)
                self.wake()
