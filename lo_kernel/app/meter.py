"""How the app is doing: events per second, lag of the loop, memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Meter", "memory"]

SAMPLE_SECONDS: Final = 0.5
_SAMPLES: Final = 20
"""Samples that are kept: ten seconds of them."""


class Meter:
    """Looks twice a second at a count that only grows, and at how late it was called for that."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._lags: deque[float] = deque(maxlen=_SAMPLES)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> float:
        """Counted per second, over the last ten seconds at most."""
        if not self._samples:
            return 0.0
        since, before = self._samples[0]
        passed = time.monotonic() - since
        return (self._count() - before) / passed if passed > 0 else 0.0

    @property
    def lag(self) -> float:
        """Seconds by which the loop was late at worst, in the last ten."""
        return max(self._lags, default=0.0)

    def start(self) -> None:
        """Begin to look; on the app's loop."""
        self._look(asyncio.get_running_loop(), None)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        if due is not None:
            self._lags.append(max(0.0, loop.time() - due))
        self._samples.append((time.monotonic(), self._count()))
        following = loop.time() + SAMPLE_SECONDS
        self._timer = loop.call_at(following, self._look, loop, following)


def memory() -> int:
    """Bytes of memory that this process has in use; 0 where the system doesn't say.

    >>> memory() > 1_000_000
    True
    """
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - in a burst of output some 20 times a second
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with ipykernel
    except ImportError:
        return 0
    return int(psutil.Process().memory_info().rss)
