"""Who asks: the request that a kernel works on, or the client that a page belongs to.

A context variable says it. Tasks inherit it by themselves; threads don't, so in a kernel they are given it
when they are started, and what a thread pool is given to do carries that of whoever gave it. Nothing is
guessed: where the variable is not set, a reading is on record as ``unattributed``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

__all__ = ["ASKING", "Asking", "inherit_in_threads"]


class Asking(NamedTuple):
    """Who asks: ``request`` is the id of a kernel request, or else ``client`` and ``path`` say which page."""

    request: str = ""
    client: str = ""
    path: str = ""
    connection: str = ""


ASKING: Final[ContextVar[Asking | None]] = ContextVar("lo_asking", default=None)


def inherit_in_threads() -> None:
    """Have threads and thread pools of this process hand on who asks; a second call does nothing.

    Python hands context variables on to tasks only, and threads outlive the cell that started them.
    """
    start = threading.Thread.start
    submit: Any = ThreadPoolExecutor.submit
    if getattr(start, "__lo_inherits__", False):
        return

    @functools.wraps(start)
    def started(self: threading.Thread) -> None:
        asking = ASKING.get()
        if asking is not None:
            run = self.run

            def run_for_it() -> None:
                ASKING.set(asking)
                run()

            self.run = run_for_it  # type: ignore[method-assign]
        start(self)

    @functools.wraps(submit)
    def submitted(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        future: Future[Any] = submit(self, _work, ASKING.get(), fn, args, kwargs)
        return future

    started.__lo_inherits__ = True  # type: ignore[attr-defined]
    threading.Thread.start = started  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submitted  # type: ignore[assignment,method-assign]


def _work(asking: Asking | None, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    before = ASKING.set(asking)
    try:
        return fn(*args, **kwargs)
    finally:
        ASKING.reset(before)
