"""Waiting for a condition, never for a while.

A test that sleeps is slow where the machine is quick, and wrong where it is slow. These ask again and again,
and fail with what was waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_INTERVAL = 0.01
_MISSING: Any = object()


def until(predicate: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
    """Ask ``predicate`` until its answer is true, and give that answer.

    ``timeout`` is in seconds; after it, an `AssertionError` says ``what`` was waited for (the predicate's
    source where nothing is given) and what the last answer was.

    >>> until(lambda: [1, 2], timeout=1)
    [1, 2]
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(_complaint(predicate, what, timeout, answer))
        time.sleep(_INTERVAL)


async def auntil(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], *, timeout: float = 10.0, what: str = ""
) -> T:
    """Like `until`, on a loop; ``predicate`` may be a coroutine function, and is cut off where it hangs."""
    last: Any = _MISSING

    async def ask() -> T:
        nonlocal last
        while True:
            answer: Any = predicate()
            last = await answer if inspect.isawaitable(answer) else answer
            if last:
                result: T = last
                return result
            await asyncio.sleep(_INTERVAL)

    try:
        return await asyncio.wait_for(ask(), timeout)
    except TimeoutError:
        raise AssertionError(_complaint(predicate, what, timeout, last)) from None


def _complaint(predicate: Callable[[], Any], what: str, timeout: float, last: Any) -> str:
    if not what:
        try:
            what = inspect.getsource(predicate).strip()
        except (OSError, TypeError):
            what = getattr(predicate, "__qualname__", repr(predicate))
    answered = "it never answered" if last is _MISSING else f"its last answer was {last!r}"
    return f"waited {timeout:g} s in vain for: {what} ({answered})"
