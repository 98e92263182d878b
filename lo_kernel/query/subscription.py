"""One reader of a live query: updates that wait for it, and those it missed."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lo_kernel.query.executor import Running
from lo_kernel.query.ports import JSON
from lo_kernel.query.updates import Update

if TYPE_CHECKING:
    from lo_kernel.query.shared import Shared

__all__ = ["Subscription"]


class Subscription:
    """What one reader still has to get: an async iterator of :class:`Update`, everything first."""

    def __init__(self, shared: Shared, limit: int, given: Mapping[str, JSON]) -> None:
        self.shared = shared
        self.given = given
        """The parameters, with those that the query doesn't have."""
        self._limit = max(1, limit)
        self._queue: deque[Update] = deque()
        self._missed: dict[str, None] | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None
        self._context = contextvars.copy_context()  # who asked
        self._recorded: frozenset[str] | None = None
        self.on_push: Callable[[], None] | None = None
        """Called when there is something to take."""

    @property
    def running(self) -> Running:
        """The query as it runs."""
        return self.shared.running

    @property
    def closed(self) -> bool:
        """Whether it is told no more."""
        return self._closed

    @property
    def started(self) -> bool:
        """Whether the first answer is there; not while a reducer goes through the past."""
        return self.shared.started

    @property
    def waiting(self) -> int:
        """Updates that wait to be taken."""
        return len(self._queue) + (self._missed is not None)

    async def ready(self) -> None:
        """Wait until there is something to take."""
        while not (self._queue or self._missed is not None or self._closed or self._error is not None):
            self._wake.clear()
            await self._wake.wait()

    async def settled(self) -> None:
        """Wait until all that changed so far is in the answer."""
        await self.shared.settled()

    def anew(self) -> None:
        """Have everything as it is now come next, in the place of what waits."""
        if self.started:
            self._queue.clear()
            self._missed = None
            self.push(self.shared.board.everything())

    def push(self, update: Update) -> None:
        """Put an update into the queue; into one that is full, only what it was about."""
        if self._missed is None and len(self._queue) >= self._limit:
            self._missed = {change.path: None for waiting in self._queue for change in waiting.changes}
            self._queue.clear()
        if self._missed is not None:
            self._missed.update((change.path, None) for change in update.changes)
        else:
            self._queue.append(update)
        self._error = None
        self._wake.set()
        if self.on_push is not None:
            self.on_push()

    def skip(self) -> None:
        """Let go of what waits: whoever is told that there is something asks for the answer as it is."""
        self._queue.clear()
        self._missed = None

    def fail(self, error: BaseException) -> None:
        """End with an error; whoever stays all the same is told when there is an answer."""
        self._error = error
        self._wake.set()
        if self.on_push is not None:
            self.on_push()

    def record(self, learners: frozenset[str]) -> None:
        """Put on record whose data this reader gets, where there is somebody new among them."""
        if self._recorded is None or not learners <= self._recorded:
            self._recorded = learners
            self._context.run(self.shared.executor.record, self.shared.running, learners)

    def close(self) -> None:
        """Be told no more."""
        if not self._closed:
            self._closed = True
            self._wake.set()
            self.shared.remove(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Update:
        await self.ready()
        if self._closed:
            raise StopAsyncIteration
        if self._queue:
            return self._queue.popleft()
        if self._missed is not None:
            missed, self._missed = self._missed, None
            return self.shared.board.newest(missed)
        assert self._error is not None
        raise self._error

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
