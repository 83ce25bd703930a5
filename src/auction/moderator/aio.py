"""The moderator for asyncio: it decides the commands of many tasks in the order of arrival and commits them together.

One thread decides and commits, so the event loop never waits for the disk. A caller that waits for news holds no
thread: after each commit its query is repeated, behind the new calls.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from auction.model.errors import AuctionError, Conflict, PaymentUnknown, RowsRefused, WrongState
from auction.moderator.awaited import Awaited
from auction.moderator.commands import Moderator
from auction.moderator.payments import ToBeSent
from auction.moderator.records import PaymentRequest
from auction.payment.protocol import Outcome

Answer = TypeVar("Answer")
_GROUP_MAX: Final = 256
_AGAIN_MAX: Final = 32  # waiting queries repeated in one group, so that commands get their turn
_LOOK_EVERY_MS: Final = 25  # how late a deadline may be noticed, if the clock is not the system's
_SENDERS: Final = 8  # processors that are asked at a time
_PAUSE_S: Final = 0.5  # before a processor that did not answer is asked again; twice as long each time
_PAUSE_S_MAX: Final = 60.0


class AsyncModerator(Awaited):
    """Every method of `Moderator`, awaited: `await market.bid(...)`. A call returns when its effect is durable.
    Deadlines take effect by themselves.

    Use it as `async with AsyncModerator(moderator) as market:`; nothing else may call the moderator meanwhile."""

    def __init__(self, moderator: Moderator) -> None:
        self.moderator = moderator
        self.waiting = 0  # the number of callers that wait for news
        self._asked: deque[_Asked] = deque()
        self._again: deque[_Asked] = deque()  # queries of callers that wait for news
        self._some = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_open = False  # whether new calls are accepted
        self._is_ending = False
        self._sending: set[str] = set()  # requests that a processor is being asked
        self._retry: dict[str, tuple[float, float]] = {}  # request -> (when it is sent again, the pause before)
        self._is_over = False  # whether waiting has ended for all
        self._news = asyncio.Event()

    async def __aenter__(self) -> AsyncModerator:
        self._is_open, self._is_over, self._is_ending = True, False, False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._sending = set()
        self._retry = {}
        self._senders = ThreadPoolExecutor(_SENDERS, thread_name_prefix="auction-payments")
        self.moderator.sends_outside = True
        self._thread = threading.Thread(target=self._serve, name="auction-moderator", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.stop_waiting()
        # Processors that were asked answer first; what they are not asked any more stays pending in the journal.
        self._is_ending = True
        await asyncio.to_thread(self._senders.shutdown)
        with self._some:
            self._is_open = False
            self._some.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self.moderator.sends_outside = False

    def stop_waiting(self) -> None:
        """Ends all waiting for news: callers get the answer as it is, now and from now on."""
        self._is_over = True
        self._tell()

    async def carry_out(self, call: Callable[[], Answer]) -> Answer:
        """Runs `call` on the moderator's thread, in its turn. Use it for anything longer than one method."""
        return await self._put(self._asked, call)

    async def wait_for(self, call: Callable[[], Answer], is_news: Callable[[Answer], bool], wait_ms: int) -> Answer:
        """Returns the answer once it is news, or as it is after `wait_ms`. Await it in the loop of `async with`."""
        deadline = self._loop.time() + wait_ms / 1000
        asked = self._asked
        self.waiting += 1
        try:
            while True:
                news = self._news  # taken before the call, so that no change between answer and wait is missed
                answer = await self._put(asked, call)
                left = deadline - self._loop.time()
                if left <= 0 or self._is_over or is_news(answer):
                    return answer
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), left)
                if self._is_over:
                    return answer
                asked = self._again
        finally:
            self.waiting -= 1

    async def _put(self, queue: deque[_Asked], call: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        with self._some:
            if not self._is_open:
                raise WrongState("an AsyncModerator is used within `async with`")
            queue.append(_Asked(call, loop, answer))
            self._some.notify()
        return await answer

    def _serve(self) -> None:
        """The moderator's thread: takes the queued calls, runs them in one group, commits once, then answers all. When
        idle, it runs what is due."""
        seen = -1
        while True:
            with self._some:
                if not self._asked and not self._again:
                    if not self._is_open:
                        return
                    self._some.wait(self._idle_s())
                taken = [self._asked.popleft() for _ in range(min(len(self._asked), _GROUP_MAX))]
                taken += [self._again.popleft() for _ in range(min(len(self._again), _AGAIN_MAX))]
            if taken:
                self._carry_out(taken)
                self._send_captures()
            else:
                with suppress(AuctionError):  # the database is away: the next tick tries again
                    self.moderator.tick()
                self._send_captures()
            sequence = self.moderator.state.sequence
            if sequence != seen:
                seen = sequence
                self._loop.call_soon_threadsafe(self._tell)

    def _idle_s(self) -> float | None:
        """How long the thread may sleep. A caller that waits may be waiting for what another moderator writes."""
        state = self.moderator.state
        return _LOOK_EVERY_MS / 1000 if state.due or self.waiting or state.pending_payments else None

    def _tell(self) -> None:
        """Wakes all waiting callers. Later callers wait for the next change."""
        told, self._news = self._news, asyncio.Event()
        told.set()

    def _carry_out(self, taken: list[_Asked]) -> None:
        try:
            with self.moderator.group():
                for one in taken:
                    one.decide()
        except (Conflict, RowsRefused):
            for one in taken:
                one.decide()  # each alone: one caller's command, or another moderator, caused the failure
        except Exception as reason:
            for one in taken:
                one.failure, one.request = reason, None  # none of them is durable
        for one in taken:
            if one.request is None:
                one.answer()
            else:
                self._send(one.request, one)

    def _send_captures(self) -> None:
        """Cards that are due are captured and released beside the moderator's thread, and asked for again later where
        no answer comes."""
        now_s = time.monotonic()
        for request in self.moderator._unsent():
            if self._retry.get(request.id, (0.0, 0.0))[0] <= now_s:
                self._send(request, None)

    def _send(self, request: PaymentRequest, asked: _Asked | None) -> None:
        """Asks the processor on a thread of its own. Its answer is journalled before the call that wanted it (`asked`)
        is repeated."""
        if self._is_ending or (asked is None and request.id in self._sending):
            if asked is not None:
                asked.failure = PaymentUnknown(f"{request.method} was not asked: the market is ending; ask again")
                asked.answer()
            return
        self._sending.add(request.id)
        with suppress(RuntimeError):  # it has ended since; the request stays pending, and its caller gets no answer
            self._senders.submit(self._ask_processor, request, asked)

    def _ask_processor(self, request: PaymentRequest, asked: _Asked | None) -> None:
        try:
            outcome = self.moderator._send(request)
            self._retry.pop(request.id, None)
        except Exception as reason:  # whatever the processor's own code raises
            pause_s = min(_PAUSE_S_MAX, 2 * self._retry.get(request.id, (0.0, _PAUSE_S / 2))[1])
            self._retry[request.id] = (time.monotonic() + pause_s, pause_s)
            self._sending.discard(request.id)
            if asked is not None:
                asked.failure, asked.request = reason, None
                asked.answer()
            return
        again = asked or _Asked(lambda: None, None, None)
        again.first = lambda: self._answered(request, outcome)
        with self._some:
            self._asked.append(again)
            self._some.notify()

    def _answered(self, request: PaymentRequest, outcome: Outcome) -> None:
        self._sending.discard(request.id)
        self.moderator._take_answer(request, outcome)


class _Asked:
    """A command and the task that waits for it (none: nobody does). `first` is done before it is called; `request` is
    what a processor must be asked before it can be answered."""

    __slots__ = ("_call", "_future", "_loop", "_result", "failure", "first", "request")

    def __init__(
        self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop | None, future: asyncio.Future[Any] | None
    ) -> None:
        self._call = call
        self._loop = loop
        self._future = future
        self._result: Any = None
        self.failure: BaseException | None = None
        self.first: Callable[[], None] | None = None
        self.request: PaymentRequest | None = None

    def decide(self) -> None:
        self.failure = self.request = None
        if self.first is None and self._future is not None and self._future.cancelled():
            return  # its caller has gone, and it was not decided
        try:
            if self.first is not None:
                self.first()
            self._result = self._call()
        except ToBeSent as wanted:
            self.request = wanted.request
        except Exception as reason:  # any failure is the caller's: the moderator goes on for the others
            self.failure = reason

    def answer(self) -> None:
        if self._loop is None:
            return
        with suppress(RuntimeError):  # the caller's loop is closed
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._future is None or self._future.cancelled():
            return
        if self.failure is not None:
            self._future.set_exception(self.failure)
        else:
            self._future.set_result(self._result)
