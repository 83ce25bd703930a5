"""The same moderator for asyncio: commands of many tasks are decided in the order they come and committed together.

No rule stands here. One thread decides and commits, so that the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from auction.model.errors import Conflict, RowsRefused
from auction.moderator.awaited import Awaited
from auction.moderator.commands import Moderator

Answer = TypeVar("Answer")
_GROUP_MAX = 256


class AsyncModerator(Awaited):
    """Every method of `Moderator`, awaited: `await market.bid(...)`. An answer comes when it is durable.

    Use it as `async with AsyncModerator(moderator) as market:`; nothing else may call the moderator meanwhile."""

    def __init__(self, moderator: Moderator) -> None:
        self.moderator = moderator
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> AsyncModerator:
        self._thread = threading.Thread(target=self._serve, name="auction-moderator", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._asked.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def carry_out(self, call: Callable[[], Answer]) -> Answer:
        """Runs what asks the moderator, in its turn and within its group; for what is more than one method."""
        if self._thread is None:
            raise RuntimeError("an AsyncModerator is used within `async with`")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._asked.put(_Asked(call, loop, answer))
        return await answer

    def _serve(self) -> None:
        """Takes what is waiting, decides it in one group, commits once, then answers all."""
        is_open = True
        while is_open:
            first = self._asked.get()
            if first is None:
                return
            taken = [first]
            while len(taken) < _GROUP_MAX and not self._asked.empty():
                one = self._asked.get()
                if one is None:
                    is_open = False
                    break
                taken.append(one)
            self._carry_out(taken)

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
        try:
            self._result = self._call()
        except Exception as reason:  # whatever it is, it is the caller's: the moderator goes on for the others
            self.failure = reason

    def answer(self) -> None:
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self._future.cancelled():
            return
        if self.failure is not None:
            self._future.set_exception(self.failure)
        else:
            self._future.set_result(self._result)
