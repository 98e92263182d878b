"""The replays that go on now: whose files they read, and who was erased since they began."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Replays"]


class Replays:
    """What the replays of one workspace have to know of each other.

    >>> replays = Replays()
    >>> with replays.going() as erased:
    ...     replays.leave_out("tc-testcase-u0")
    ...     erased
    {'tc-testcase-u0'}
    """

    def __init__(self) -> None:
        self.preparing = asyncio.Lock()  # one looks at its files: the next one finds them known
        self.digests: set[str] = set()  # of the contents that are going in
        self._erased: list[set[str]] = []

    @contextmanager
    def going(self) -> Iterator[set[str]]:
        """While it lasts, a replay goes on; gives the learners (safe ids) who were erased since it began."""
        erased: set[str] = set()
        self._erased.append(erased)
        try:
            yield erased
        finally:
            self._erased = [each for each in self._erased if each is not erased]

    def leave_out(self, student: str) -> None:
        """Have no replay that goes on bring events of a learner who is being erased."""
        for erased in self._erased:
            erased.add(student)
