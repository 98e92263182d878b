"""What waits: events behind one that is in work, or whose state isn't there yet, and the tasks of both."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from lo_kernel.engine.run.live_state import Item, LiveState

__all__ = ["PENDING", "ROOM", "Waiting"]

PENDING = 5000  # events that may wait in memory for one reducer; then it reads them from the archive again
ROOM = 1000  # events that may wait while a reducer goes through the archive


class Waiting:
    """The lists of a reducer's states, taken together."""

    def __init__(self) -> None:
        self.pending: set[int] = set()  # numbers of the events that are in work, or wait
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._room: asyncio.Event | None = None

    @property
    def too_many(self) -> bool:
        """Whether more wait than memory should hold."""
        return len(self.pending) > PENDING

    def put(self, entry: LiveState, item: Item) -> bool:
        """Put an event at the end of a state's list; whether it is the first, and the list wants a task."""
        if type(item[2]) is msgspec.Raw:  # a part of something larger, which shouldn't wait with it
            item = (item[0], item[1], bytes(item[2]), item[3])
        self.pending.add(item[0])
        if entry.waiting is None:
            entry.waiting = deque([item])
            return True
        entry.waiting.append(item)
        return False

    def put_back(self, entry: LiveState, items: Sequence[Item]) -> bool:
        """:meth:`put` events before all that waits."""
        self.pending.update(item[0] for item in items)
        if entry.waiting is None:
            entry.waiting = deque(items)
            return True
        entry.waiting.extendleft(reversed(items))
        return False

    def done(self, entry: LiveState, item: Item) -> None:
        """Take an event off the head of a state's list, where it is there still."""
        if entry.waiting and entry.waiting[0] is item:
            entry.waiting.popleft()
            self.pending.discard(item[0])

    def end(self, entry: LiveState) -> None:
        """Nothing waits for a state any more: its events are folded at once again."""
        entry.waiting = None
        if self._room is not None and len(self.pending) < ROOM // 2:
            self._room.set()

    def drop(self, entries: Iterable[LiveState]) -> None:
        """Forget all but what is in work."""
        for entry in entries:
            waiting = entry.waiting
            while waiting is not None and len(waiting) > 1:
                self.pending.discard(waiting.pop()[0])

    async def room(self, few: int = ROOM) -> None:
        """Wait until few enough events wait."""
        while len(self.pending) > few:
            self._room = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), 0.05)
        self._room = None

    # -- tasks ---------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task that :meth:`stop` ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """End what is in work; it counts as not folded."""
        self.stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.3)
