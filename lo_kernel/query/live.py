"""Queries that stay up to date: what changed is pushed to whoever asked.

A folded event says which keys changed; only queries that read one of them wake. All who ask the same query
with the same parameters share one computation and one encoded update. The first change goes out at once; what
comes within the next 50 ms goes out together.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.dag import Dag
from lo_kernel.query.executor import Executor, Running
from lo_kernel.query.naming import Naming
from lo_kernel.query.ports import JSON, Changes
from lo_kernel.query.rows import Rows
from lo_kernel.query.steps import WHOLE, Change, Dirt, may_pass
from lo_kernel.query.updates import Board, Update
from lo_kernel.query.values import error_value

__all__ = ["LiveQueries", "LiveSource", "Subscription"]

FRAME_SECONDS: Final = 0.05
"""Least time between two updates of the same query: 20 a second."""

QUEUE_UPDATES: Final = 32
"""Updates that wait for a slow reader; beyond, it gets the newest state of what changed instead."""

_RETRY_SECONDS: Final = 1.0

OnError = Callable[[str, BaseException], None]


class LiveQueries:
    """The queries that somebody is looking at."""

    def __init__(self, executor: Executor, changes: Changes, on_error: OnError | None = None) -> None:
        self.executor = executor
        self.on_error = on_error
        self._shared: dict[bytes, _Shared] = {}
        self._unsubscribe = [
            changes.subscribe(self._on_keys),
            executor.functions.subscribe(self._on_functions),
            executor.catalog.subscribe(self._on_catalog),
        ]

    def __len__(self) -> int:
        return len(self._shared)

    @property
    def readers(self) -> int:
        """How many are looking."""
        return sum(len(shared.readers) for shared in self._shared.values())

    def subscribe(
        self,
        query: Any,
        exports: Sequence[str] | None = None,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Naming = False,
        strict: bool = False,
        stamps: Mapping[str, Mapping[str, JSON]] | None = None,
        queue: int = QUEUE_UPDATES,
    ) -> Subscription:
        """Ask a query and go on being told what changes; only on the app's loop.

        Raises :class:`QueryError` at once for a query that can't run. ``queue`` is how many updates wait
        for a reader who is slow. ``stamps`` are fields that every row of an export gets.
        """
        running = self.executor.prepare(query, exports, parameters, names=names, strict=strict)
        key = _key(query, running, names, stamps)
        shared = self._shared.get(key)
        if shared is None:
            shared = _Shared(self, key, query, running, names, stamps)
            self._shared[key] = shared
        subscription = Subscription(shared, queue)
        shared.add(subscription)
        return subscription

    async def watch(
        self,
        query: Any,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        queue: int = 1,
    ) -> AsyncIterator[Rows]:
        """All rows, then, each time something changes, the rows that changed.

        A reader that is slow gets the newest state of each row, once. An answer that is an error as a whole
        is :class:`Rows` with ``.error``; when there is one again, all of it comes.
        """
        self.executor.prepare_one(query, parameters)
        async with self.subscribe(query, None, parameters, strict=True, queue=queue) as subscription:
            async for update in subscription:
                if not update.mark:
                    yield update.rows(names, subscription.running.exports)

    def source(
        self,
        query: Any,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Mapping[str, str] | None = None,
    ) -> LiveSource:
        """A query as something that can be asked again and again, and says when to; for charts.

        Raises :class:`QueryError` at once for a query that can't run.
        """
        self.executor.prepare_one(query, parameters)
        return LiveSource(self, query, parameters, names)

    def key(
        self, query: Any, parameters: Mapping[str, JSON] | None = None, exports: Sequence[str] | None = None
    ) -> bytes:
        """What is the same for all who can share one computation."""
        running = self.executor.prepare(query, exports, parameters)
        return _key(query, running, False, None)

    def reducers_changed(self, *_: object) -> None:
        """Say that a reducer was replaced, so that queries look at it anew."""
        for shared in list(self._shared.values()):
            shared.touch(reducers=True)

    def close(self) -> None:
        """End all subscriptions."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for shared in list(self._shared.values()):
            shared.close()
        self._shared.clear()

    def _on_keys(self, keys: frozenset[str]) -> None:
        for shared in self._shared.values():
            found = shared.running.concerns(keys)
            if found:
                shared.touch(keys=found)

    def _on_functions(self, names: frozenset[str]) -> None:
        for shared in self._shared.values():
            found = shared.running.calls(names)
            if found:
                shared.touch(functions=found)

    def _on_catalog(self, name: str) -> None:
        for shared in self._shared.values():
            if isinstance(shared.query, str) and shared.running.dag.concerns(name):
                shared.touch(reducers=True)


class Subscription:
    """What one reader still has to get: an async iterator of :class:`Update`, everything first."""

    def __init__(self, shared: _Shared, limit: int) -> None:
        self._shared = shared
        self._limit = max(1, limit)
        self._queue: deque[Update] = deque()
        self._missed: dict[str, None] | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None
        self._context = contextvars.copy_context()  # who asked
        self._recorded: frozenset[str] | None = None
        self.on_push: Callable[[], None] | None = None
        """Called when there is something to take."""

    @property
    def running(self) -> Running:
        """The query as it runs."""
        return self._shared.running

    @property
    def started(self) -> bool:
        """Whether the first answer is there; not while a reducer goes through the past."""
        return self._shared.started

    @property
    def waiting(self) -> int:
        """Updates that wait to be taken."""
        return len(self._queue) + (self._missed is not None)

    async def ready(self) -> None:
        """Wait until there is something to take."""
        while not (self._queue or self._missed is not None or self._closed or self._error is not None):
            self._wake.clear()
            await self._wake.wait()

    async def settled(self) -> None:
        """Wait until all that changed so far is in the answer."""
        await self._shared.settled()

    def anew(self) -> None:
        """Have everything as it is now come next, in the place of what waits."""
        if self.started:
            self._queue.clear()
            self._missed = None
            self.push(self._shared.board.everything())

    def push(self, update: Update) -> None:
        """Put an update into the queue; into one that is full, only what it was about."""
        if self._missed is None and len(self._queue) >= self._limit:
            self._missed = {change.path: None for waiting in self._queue for change in waiting.changes}
            self._queue.clear()
        if self._missed is not None:
            self._missed.update((change.path, None) for change in update.changes)
        else:
            self._queue.append(update)
        self._wake.set()
        if self.on_push is not None:
            self.on_push()

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        self._error = error
        self._wake.set()

    def record(self, learners: frozenset[str]) -> None:
        """Put on record whose data this reader gets, where there is somebody new among them."""
        if self._recorded is None or not learners <= self._recorded:
            self._recorded = learners
            self._context.run(self._shared.live.executor.record, self._shared.running, learners)

    def close(self) -> None:
        """Be told no more."""
        if not self._closed:
            self._closed = True
            self._wake.set()
            self._shared.remove(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Update:
        await self.ready()
        if self._closed:
            raise StopAsyncIteration
        if self._queue:
            return self._queue.popleft()
        if self._missed is not None:
            missed, self._missed = self._missed, None
            return self._shared.board.newest(missed)
        assert self._error is not None
        raise self._error

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class LiveSource:
    """The rows of a query as they are now, and a call when they may have changed."""

    def __init__(
        self,
        live: LiveQueries,
        query: Any,
        parameters: Mapping[str, JSON] | None,
        names: Mapping[str, str] | None,
    ) -> None:
        self._live = live
        self._query = query
        self._parameters = parameters
        self._names = names

    async def rows(self) -> Rows:
        """All rows as they are now. While somebody is subscribed, they need no new computation."""
        key = self._live.key(self._query, self._parameters)
        shared = self._live._shared.get(key)
        if shared is not None and shared.started:
            await shared.settled()
            self._live.executor.record(shared.running, shared.running.learners())
            return shared.board.snapshot().rows(self._names)
        return await self._live.executor.rows(self._query, self._parameters, names=self._names, newest=False)

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` on the app's loop after each change; gives what ends it."""
        subscription = self._live.subscribe(self._query, None, self._parameters, strict=True, queue=1)
        subscription.on_push = callback
        return subscription.close


class _Shared:
    """One query with its parameters, for all who look at it."""

    def __init__(
        self,
        live: LiveQueries,
        key: bytes,
        query: Any,
        running: Running,
        names: Naming,
        stamps: Mapping[str, Mapping[str, JSON]] | None,
    ) -> None:
        self.live = live
        self.key = key
        self.query = query
        self.running = running
        self.names = names
        self.board = Board(stamps)
        self.readers: dict[Subscription, None] = {}
        self.started = False
        self._keys: set[str] = set()
        self._functions: set[str] = set()
        self._reducers = False
        self._whole = False
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(self._start())

    def add(self, reader: Subscription) -> None:
        self.readers[reader] = None
        if self.started:
            reader.record(frozenset(self.running.learners()))
        if self.started or self.board.failed:
            reader.push(self.board.everything())

    def remove(self, reader: Subscription) -> None:
        self.readers.pop(reader, None)
        if not self.readers:
            self.close()
            if self.live._shared.get(self.key) is self:
                del self.live._shared[self.key]

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
        for reader in list(self.readers):
            self.readers.pop(reader)
            reader.close()
        self.running.close()

    def touch(
        self,
        *,
        keys: frozenset[str] = frozenset(),
        functions: frozenset[str] = frozenset(),
        reducers: bool = False,
    ) -> None:
        """Note what changed, and see to it that readers are told."""
        self._keys |= keys
        self._functions |= functions
        self._reducers |= reducers
        self._schedule()

    async def settled(self) -> None:
        """Wait until what changed so far is in the answer."""
        for _ in range(2):  # one that runs now began before what changed last
            if self._timer is not None:  # somebody asks: it need not wait for its turn
                self._timer.cancel()
                self._begin()
            if self._task is None:
                return
            await asyncio.wait([self._task])

    @property
    def _dirty(self) -> bool:
        return bool(self._keys or self._functions or self._reducers or self._whole)

    def _schedule(self) -> None:
        if self._task is not None or self._timer is not None or not self.readers:
            return
        if not self._dirty:
            return
        loop = asyncio.get_running_loop()
        delay = self._next - loop.time()
        if delay > 0:
            self._timer = loop.call_later(delay, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def _start(self) -> None:
        try:
            await self.live.executor.wait(self.running)
            await self.live.executor.start(self.running, record=False)
            for export in self.running.exports:
                self.board.take(export, self.running.answer(export), WHOLE)
            self.board.mark(self.running.behind())
            self._first()
            self._try_again_later()
        except Exception as error:
            if may_pass(error):
                self._failed(error)
            else:
                for reader in list(self.readers):
                    reader.fail(error)
        finally:
            self._done(asyncio.get_running_loop().time())

    def _first(self) -> None:
        """Give everything to all who have waited for the first answer."""
        self.started = True
        self._record()
        self._tell(self.board.update(()) if self.board.failed else self.board.snapshot())

    async def _refresh(self) -> None:
        since = asyncio.get_running_loop().time()
        dirt = Dirt(frozenset(self._keys), frozenset(self._functions), self._reducers)
        whole, self._whole = self._whole, False
        self._keys, self._functions, self._reducers = set(), set(), False
        try:
            changes = await self._changes(dirt, whole)
            self._try_again_later()
            sent = [
                change
                for export, rows in changes.items()
                for change in self.board.take(export, self.running.answer(export), rows)
            ]
            marked = self.board.mark(self.running.behind())
            if not self.started:
                self._first()
                return
            if sent or marked or self.board.failed:
                self._tell(self.board.update(sent))
            if dirt.functions or dirt.reducers or whole:
                self._record()
        except Exception as error:
            self._failed(error)
        finally:
            self._done(since)

    async def _changes(self, dirt: Dirt, whole: bool) -> Mapping[str, Change]:
        if dirt.reducers and isinstance(self.query, str):
            name, dag = self._named(self.query)
            if dag.json != self.running.dag.json:
                before = self.running
                self.running = self.live.executor.prepare(
                    name, list(before.exports), before.env.parameters, names=self.names
                )
                before.close()
                whole = True
        if whole:
            await self.live.executor.wait(self.running)
            await self.running.run()
            return dict.fromkeys(self.running.exports, WHOLE)
        return await self.running.refresh(dirt)

    def _named(self, query: str) -> tuple[str, Dag]:
        """The DAG as it is now: the one that was found; where that is gone, what the name means now."""
        catalog, known = self.live.executor.catalog, self.running.dag.name
        if known in catalog and all(name in catalog.get(known).exports for name in self.running.exports):
            return known, catalog.get(known)
        dag, _ = catalog.resolve(query)
        return dag.name, dag

    def _tell(self, update: Update) -> None:
        for reader in list(self.readers):
            reader.push(update)

    def _try_again_later(self) -> None:
        """Where a step could not read states, its error is the answer for now."""
        if any(step.unread for step in self.running.steps):
            self._whole = True
            self._next = asyncio.get_running_loop().time() + _RETRY_SECONDS

    def _failed(self, error: Exception) -> None:
        """What could not be read is read again as a whole, in a while; readers are told meanwhile."""
        what = f"query {self.running.dag.name}: {', '.join(self.running.exports)}"
        if self.live.on_error is not None and not isinstance(error, QueryError):
            self.live.on_error(what, error)
        text = str(error) if isinstance(error, LOError) else f"{type(error).__name__}: {error}"
        told = self.board.fail(self.running.exports, error_value(text, "query"))
        if told is not None:
            self._tell(told)
        self._whole = True
        self._next = asyncio.get_running_loop().time() + _RETRY_SECONDS

    def _done(self, since: float) -> None:
        now = asyncio.get_running_loop().time()
        # A query that takes long runs less often, so that it can't take more than half of the loop.
        self._next = max(self._next, since + FRAME_SECONDS, now + (now - since))
        self._task = None
        self._schedule()

    def _record(self) -> None:
        """Put on record whose data goes out, and to whom."""
        learners = frozenset(self.running.learners())
        for reader in list(self.readers):
            reader.record(learners)


def _key(query: Any, running: Running, names: Naming, stamps: Any) -> bytes:
    """The same for all who can share one computation."""
    what = running.dag.name if isinstance(query, str) else running.dag.to_json()
    known = {p.name for export in running.exports for p in running.dag.exports[export].parameters}
    given = {name: value for name, value in running.env.parameters.items() if name in known}
    try:
        return msgspec.json.encode(
            [what, list(running.exports), given, names, stamps or {}], order="deterministic"
        )
    except (TypeError, ValueError) as error:
        raise QueryError(f"query: expected parameters that are JSON: {error}") from None
