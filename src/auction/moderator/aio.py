"""The same moderator for asyncio: commands of many tasks are decided in the order they come and committed together.

No rule stands here. One thread decides and commits, so that the event loop never waits for the disk. Who waits for news
holds no thread: it is asked for again when something was committed, after those who have something to say.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from auction.model.errors import AuctionError, Conflict, RowsRefused, WrongState
from auction.moderator.awaited import Awaited
from auction.moderator.commands import Moderator

Answer = TypeVar("Answer")
_GROUP_MAX: Final = 256
_AGAIN_MAX: Final = 32  # waiting callers that are answered again within one group: the others' commands come between
_LOOK_EVERY_MS: Final = 25  # how late what time brings may come about, where the clock is not the system's


class AsyncModerator(Awaited):
    """Every method of `Moderator`, awaited: `await market.bid(...)`. An answer comes when it is durable. What time
    brings comes about by itself.

    Use it as `async with AsyncModerator(moderator) as market:`; nothing else may call the moderator meanwhile."""

    def __init__(self, moderator: Moderator) -> None:
        self.moderator = moderator
        self.waiting = 0  # callers that wait for news
        self._asked: deque[_Asked] = deque()
        self._again: deque[_Asked] = deque()  # what those ask who wait for news
        self._some = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_open = False  # whether anything is still taken in
        self._is_over = False  # whether nobody waits any more
        self._news = asyncio.Event()

    async def __aenter__(self) -> AsyncModerator:
        self._is_open, self._is_over = True, False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="auction-moderator", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.stop_waiting()
        with self._some:
            self._is_open = False
            self._some.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def stop_waiting(self) -> None:
        """Lets everyone who waits for news have the answer as it is, and whoever asks from now on."""
        self._is_over = True
        self._tell()

    async def carry_out(self, call: Callable[[], Answer]) -> Answer:
        """Runs what asks the moderator, in its turn and within its group; for what is more than one method."""
        return await self._put(self._asked, call)

    async def wait_for(self, call: Callable[[], Answer], is_news: Callable[[Answer], bool], wait_ms: int) -> Answer:
        """The answer as soon as it is news, or as it is after `wait_ms`. To be awaited in the loop of `async with`."""
        deadline = self._loop.time() + wait_ms / 1000
        asked = self._asked
        self.waiting += 1
        try:
            while True:
                news = self._news  # taken before asking, so that nothing between the answer and the wait is missed
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
        """Takes what is asked, decides it in one group, commits once, then answers all; and lets come about what is
        due when nobody asks."""
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
            else:
                with suppress(AuctionError):  # the database is away: the next time tries again
                    self.moderator.tick()
            sequence = self.moderator.state.sequence
            if sequence != seen:
                seen = sequence
                self._loop.call_soon_threadsafe(self._tell)

    def _idle_s(self) -> float | None:
        """How long nothing needs to be looked at. Who waits may wait for what another moderator writes."""
        due = self.moderator.state.due
        return _LOOK_EVERY_MS / 1000 if due or self.waiting else None

    def _tell(self) -> None:
        """Wakes everyone who waits; who comes after waits for the next."""
        told, self._news = self._news, asyncio.Event()
        told.set()

    def _carry_out(self, taken: list[_Asked]) -> None:
        try:
            with self.moderator.group():
                for one in taken:
                    one.decide()
        except (Conflict, RowsRefused):
            for one in taken:
                one.decide()  # each on its own: what was at fault is one caller's, or was another moderator's
        except Exception as reason:
            for one in taken:
                one.failure = reason  # none of them is durable, whatever was decided
        for one in taken:
            one.answer()


class _Asked:
    """A command and the task that waits for it."""

    __slots__ = ("_call", "_future", "_loop", "_result", "failure")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self._call = call
        self._loop = loop
        self._future = future
        self._result: Any = None
        self.failure: BaseException | None = None

    def decide(self) -> None:
        self.failure = None
        if self._future.cancelled():
            return  # nobody waits for it any more, and nothing of it was decided
        try:
            self._result = self._call()
        except Exception as reason:  # whatever it is, it is the caller's: the moderator goes on for the others
            self.failure = reason

    def answer(self) -> None:
        with suppress(RuntimeError):  # the caller's loop is closed: nobody is there to be told
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._future.cancelled():
            return
        if self.failure is not None:
            self._future.set_exception(self.failure)
        else:
            self._future.set_result(self._result)
