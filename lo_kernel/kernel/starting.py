"""A start-up that can be given up: by an interrupt, and when it takes too long.

Where the app's start-up awaits, it is cancelled. Where it holds the loop (``time.sleep`` in a factory, a
module that waits while it is imported), it is broken off by an exception that the handler of SIGINT raises.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["GivenUp", "Starting"]

_GRACE = 0.5  # s after the limit: until then, what awaits has given up by itself


class GivenUp(BaseException):
    """Raised in a start-up that holds the loop; no `Exception`, which the app would take for its own."""


class Starting:
    """While this context holds, an interrupt gives ``task`` up, and so does ``limit``, in seconds (0: none).

    ``reason`` says afterwards whether that was so, and why.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], limit: float) -> None:
        self.reason = ""
        self._loop = loop
        self._task = task
        self._limit = limit
        self._late = False
        self._before: Any = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Starting:
        if threading.current_thread() is not threading.main_thread():
            return self  # where no handler can be installed
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        if self._limit and hasattr(signal, "pthread_kill"):
            self._timer = threading.Timer(self._limit + _GRACE, self._too_late)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def give_up(self, reason: str) -> None:
        """Give it up at its next await."""
        self.reason = self.reason or reason
        self._loop.call_soon_threadsafe(self._task.cancel)

    def _too_late(self) -> None:
        self._late = True
        main = threading.main_thread().ident
        if main is not None and not self._task.done():
            signal.pthread_kill(main, signal.SIGINT)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before) and not self._late:
            self._before(number, frame)  # at a terminal Ctrl-C ends the kernel, and not only the app
            return
        reason = f"it took more than {self._limit:g} s" if self._late else "it was interrupted"
        if self._task.done():
            return
        if asyncio.current_task(self._loop) is None:  # it awaits
            self.give_up(reason)
        else:
            self.reason = reason
            raise GivenUp(reason)
