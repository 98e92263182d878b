"""Jobs: work that goes on in the background, shown with its progress, awaitable, cancellable.

A verb of ``lo`` checks its arguments, starts, and gives a :class:`Job`. Nobody has to await it; what it
fails with is then in ``lo.errors``, until somebody does: who awaits a job has its error there.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.engine.errorlog import ErrorEntry, ErrorLog

__all__ = ["Job"]

T = TypeVar("T")

_AS_IN: Final = "rows = await lo.query(...)"


class Job(Generic[T]):
    """A piece of work that has been started on the app's loop.

    ``await job`` gives its result, from any loop; ``job.cancel()`` ends it; ``done`` of ``total`` steps are
    behind it (``total`` 0: nobody knows how many there are). ``errors`` hear what it failed with while nobody
    awaits it.

    >>> async def work() -> int:
    ...     return 42
    >>> async def cell() -> int:
    ...     return await Job("counting", work(), LoopBridge(asyncio.get_running_loop()))
    >>> asyncio.run(cell())
    42
    """

    def __init__(
        self,
        name: str,
        work: Coroutine[Any, Any, T],
        bridge: LoopBridge,
        *,
        errors: ErrorLog | None = None,
        on_show: Callable[[Job[T]], None] | None = None,
        on_cancel: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.done = 0
        self.total = 0
        self.note = ""
        self.started = time.monotonic()
        self.ended: float | None = None
        self.replaced = False  # another one does the same: who awaits this one waits for that
        self.awaited = False  # whoever waits for it hears of its failure there
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._bridge = bridge
        self._errors = errors
        self._entry: ErrorEntry | None = None
        self._on_show = on_show
        self._on_cancel = on_cancel
        self._task: asyncio.Task[T] | None = None
        self._listeners: list[Callable[[], None]] = []
        if bridge.on_loop:
            self._start(work)
        else:
            bridge.call_soon(self._start, work)

    def _start(self, work: Coroutine[Any, Any, T]) -> None:
        if self._future.cancelled():
            work.close()
            if self._on_cancel is not None:
                self._on_cancel()
            return
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finish)
        self._future.add_done_callback(self._maybe_cancel)

    def _finish(self, task: asyncio.Task[T]) -> None:
        self.ended = self.ended or time.monotonic()
        if task.cancelled():
            self._future.cancel()
            if self._on_cancel is not None:
                self._on_cancel()
        elif (error := task.exception()) is not None:
            if not self.awaited:
                self._note(error)
            if not self._future.cancelled():
                self._future.set_exception(error)
        elif not self._future.cancelled():
            self._future.set_result(task.result())
        self._tell()

    def _note(self, error: BaseException) -> None:
        errors, kind = self._errors, type(error).__name__
        # a reducer has said so itself
        if errors is not None and all(entry.kind != kind for entry in errors.of(self.name)):
            self._entry = errors.add(self.name, error)

    def _hear(self) -> None:
        """Somebody waits for it, and hears of its failure."""
        self.awaited = True
        entry, self._entry = self._entry, None
        if self._errors is not None and entry is not None and entry.count == 1:
            self._errors.drop(entry)

    def unheard(self) -> None:
        """Say that who waited for it has gone, as a cell that was stopped: ``errors`` are to be told."""
        if not self.finished:
            self.awaited = False

    def _maybe_cancel(self, future: concurrent.futures.Future[T]) -> None:
        if future.cancelled() and self._task is not None and not self._task.done():
            self._bridge.call_soon(self._task.cancel)

    # -- for whoever does the work -------------------------------------------------------------

    def progress(self, done: int, total: int = 0, note: str = "") -> None:
        """Say how far it is."""
        self.done, self.total, self.note = done, total, note or self.note
        self._tell()

    def replace(self) -> None:
        """Say that another one has taken its place: its own work is over, and it ends when that one does."""
        self.replaced, self.ended = True, time.monotonic()
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on the app's loop when there is progress, or the end; gives what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # -- for whoever asked for it --------------------------------------------------------------

    def cancel(self) -> bool:
        """End it; ``False`` where it has ended already."""
        return not self._future.done() and self._future.cancel()  # a future says True of a second time, too

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()

    @property
    def seconds(self) -> float:
        """How long it has been at it, or took."""
        return (self.ended if self.ended is not None else time.monotonic()) - self.started

    @property
    def status(self) -> str:
        """``running``, ``done``, ``cancelled``, ``failed``, or ``replaced``: another one took its place."""
        if not self._future.done():
            return "replaced" if self.replaced else "running"
        if self._future.cancelled():
            return "cancelled"
        if self._future.exception() is not None:
            return "failed"
        return "replaced" if self.replaced else "done"

    @property
    def error(self) -> BaseException | None:
        """What it failed with."""
        failed = self._future.done() and not self._future.cancelled()
        return self._future.exception() if failed else None

    def result(self, timeout: float | None = None) -> T:
        """Its result, for a thread that waits for it (at most ``timeout`` seconds); a cell awaits the job.

        On the app's own thread this raises :class:`~lo_kernel.errors.LOError` at once where the work is still
        going on: it could never end.
        """
        if not self._future.done() and self._bridge.on_loop:
            raise LOError(
                "the job runs on this very loop, where job.result() would wait forever: write 'await job' "
                "instead"
            )
        self._hear()
        try:
            return self._future.result(timeout)
        finally:
            self.unheard()

    def __await__(self) -> Generator[Any, None, T]:
        self._hear()
        return asyncio.wrap_future(self._future).__await__()

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(f"a job has no items, its result may: write (await ...)[{key!r}], as in {_AS_IN}")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"a job has no items, its result may: write for ... in await ..., or {_AS_IN}")

    def __contains__(self, item: object) -> bool:
        raise TypeError(f"a job has no items, its result may: write ... in await ..., or {_AS_IN}")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            hint = (
                "" if name.startswith("_") else f"; its result may: write (await ...).{name}, as in {_AS_IN}"
            )
            raise AttributeError(f"a job has no attribute {name!r}{hint}", name=name, obj=self)

    def _ipython_display_(self) -> None:
        if self._on_show is not None:
            self._on_show(self)
        else:
            print(repr(self))

    def __repr__(self) -> str:
        from lo_kernel.notebook.cards import job_text

        return f"<{job_text(self)}>"
