"""Work in slices: what runs in the background on the app's loop, and leaves it to whoever has to answer.

An answer takes several steps of the loop (what came is read, a task is woken, it writes). With one slice of
work between any two of them it would wait for as many slices. So after each slice others go on until they
have nothing left to do, and while they had something, slices are shorter.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

__all__ = ["Turns", "give_way"]

_QUIET: Final = 0.00005  # seconds: an empty step of the loop takes a third of it
_STEPS: Final = 10  # of others at a time, at most: whoever never pauses can't stop the work
_LONG: Final = 0.0015  # seconds of work at a time
_SHORT: Final = 0.0006  # while others have something to do


async def give_way() -> bool:
    """Let others go on until they have nothing to do; whether they had anything."""
    for step in range(_STEPS):
        began = perf_counter()
        await asyncio.sleep(0)
        # the first step ends before what came by a socket is looked at: that is done in the second
        if perf_counter() - began < _QUIET and step:
            return step > 1
    return True


class Turns:
    """When it is the others' turn.

    >>> import asyncio
    >>> async def work():
    ...     turns = Turns()
    ...     for _ in range(3):
    ...         if turns.over:
    ...             await turns.give()
    >>> asyncio.run(work())
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + _SHORT

    @property
    def over(self) -> bool:
        """Whether the loop was held for long enough."""
        return perf_counter() > self._until

    async def give(self) -> None:
        """Let others have their turn, and begin another slice."""
        busy = await give_way()
        self._until = perf_counter() + (_SHORT if busy else _LONG)
