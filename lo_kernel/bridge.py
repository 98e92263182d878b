"""The one place where threads are crossed.

The app lives on one event loop: the kernel's own, or one on a thread. Whoever wants something of it
(a cell on the kernel's loop, a thread that a cell started, the command line) goes through a
:class:`LoopBridge` and need not know which it is.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from lo_kernel.errors import LOError

__all__ = ["LoopBridge"]

T = TypeVar("T")
P = ParamSpec("P")


class LoopBridge:
    """A door to the app's loop from any loop or thread.

    >>> async def answer() -> int:
    ...     return 42
    >>> async def cell() -> int:
    ...     return await LoopBridge(asyncio.get_running_loop()).run(answer())
    >>> asyncio.run(cell())
    42
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    @property
    def on_loop(self) -> bool:
        """Whether the caller runs on the app's own loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def start(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Start ``work`` on the app's loop now; the result can be awaited on the caller's loop, or left.

        The caller's context variables hold inside ``work``. Cancelling what is returned cancels it.
        """
        if self.on_loop:
            return self.loop.create_task(work)
        context = contextvars.copy_context()
        future: Any = asyncio.run_coroutine_threadsafe(_within(context, work), self.loop)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _Joined(future)
        return asyncio.wrap_future(future)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the app's loop and give its result, awaited from any loop."""
        if self.on_loop:
            return await work
        return await self.start(work)

    def run_sync(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``work`` on the app's loop and wait for it; only from another thread.

        On the app's own thread this could never end, so it raises :class:`LOError` at once.
        """
        if self.on_loop:
            work.close()
            raise LOError(
                "this call waits for the app's loop, and was made on that loop's own thread, where it "
                "would wait forever: await the async form instead"
            )
        context = contextvars.copy_context()
        return asyncio.run_coroutine_threadsafe(_within(context, work), self.loop).result(timeout)

    async def iterate(self, make: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        """Go through an async iterator that lives on the app's loop, from any loop."""
        items = make()
        try:
            while True:
                try:
                    yield await self.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await self.run(close())

    def call(self, function: Callable[[], T], timeout: float = 10.0) -> T:
        """Call ``function`` on the app's loop, at once, and give what it returns.

        From another thread this waits for the loop to come round, ``timeout`` seconds at most.
        """
        if self.on_loop:
            return function()

        async def call() -> T:
            return function()

        return self.run_sync(call(), timeout)

    def call_soon(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``function`` on the app's loop as soon as it can."""
        self.loop.call_soon_threadsafe(lambda: function(*args, **kwargs))


class _Joined(Awaitable[T]):
    """A started piece of work, for a caller that has no loop yet and may await it on one later."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def __await__(self) -> Any:
        return asyncio.wrap_future(self._future).__await__()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _within(context: contextvars.Context, work: Coroutine[Any, Any, T]) -> T:
    return await asyncio.get_running_loop().create_task(work, context=context)
