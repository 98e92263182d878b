"""How long a cell kept the kernel's loop from turning."""

from __future__ import annotations

import asyncio
import time

__all__ = ["LoopWatch"]

_TICK = 0.25  # s between two looks; they happen only while a cell runs


class LoopWatch:
    """A context in which the loop ticks; ``held`` is the longest time in seconds that it did not.

    >>> async def cell(busy: bool) -> bool:
    ...     with LoopWatch(asyncio.get_running_loop()) as watch:
    ...         if busy:
    ...             time.sleep(0.5)
    ...         else:
    ...             await asyncio.sleep(0.5)
    ...     return watch.held > 0.45
    >>> asyncio.run(cell(busy=True)), asyncio.run(cell(busy=False))
    (True, False)
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.held = 0.0
        self._loop = loop

    def __enter__(self) -> LoopWatch:
        self._last = time.monotonic()
        self._handle = self._loop.call_later(_TICK, self._tick)
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle.cancel()
        self._look()

    def _tick(self) -> None:
        self._look()
        self._handle = self._loop.call_later(_TICK, self._tick)

    def _look(self) -> None:
        now = time.monotonic()
        self.held = max(self.held, now - self._last)
        self._last = now
