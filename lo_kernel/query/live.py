"""Queries that stay up to date: what changed is pushed to whoever asked.

A folded event says which keys changed; only queries that read one of them wake. All who ask the same query
with the same parameters share one computation and one encoded update. The first change goes out at once; what
comes within the next 50 ms goes out together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lo_kernel.errors import QueryError
from lo_kernel.query.executor import Executor, Running
from lo_kernel.query.naming import Naming
from lo_kernel.query.ports import JSON, Changes
from lo_kernel.query.rows import Rows, flat_rows
from lo_kernel.query.shared import OnError, Shared
from lo_kernel.query.subscription import Subscription
from lo_kernel.query.values import own

__all__ = ["LiveQueries", "LiveSource"]

QUEUE_UPDATES: Final = 32
"""Updates that wait for a slow reader; beyond, it gets the newest state of what changed instead."""


class LiveQueries:
    """The queries that somebody is looking at."""

    def __init__(self, executor: Executor, changes: Changes, on_error: OnError | None = None) -> None:
        self.executor = executor
        self.on_error = on_error
        self._shared: dict[bytes, Shared] = {}
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
            shared = Shared(
                self.executor,
                query,
                running,
                names,
                stamps,
                on_error=self.on_error,
                on_end=self._ended,
                on_move=self._moved,
            )
            self._shared[key] = shared
        else:
            running.close()
        subscription = Subscription(shared, queue, running.env.parameters)
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
        self.executor.prepare_one(query, parameters).close()
        async with self.subscribe(query, None, parameters, strict=True, queue=queue) as subscription:
            async for update in subscription:
                if not update.mark:
                    rows = update.rows(names, subscription.running.exports)
                    rows[:] = own(list(rows))  # others have the same answer
                    yield rows

    def source(
        self,
        query: Any,
        parameters: Mapping[str, JSON] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        naming: Naming = False,
    ) -> LiveSource:
        """A query as something that can be asked again and again, and says when to; for charts.

        ``naming`` is which names the answer holds, ``names`` adds a column of them. Raises
        :class:`QueryError` at once for a query that can't run.
        """
        self.executor.prepare_one(query, parameters).close()
        return LiveSource(self, query, parameters, names, naming)

    def find(
        self, query: Any, parameters: Mapping[str, JSON] | None = None, *, names: Naming = False
    ) -> Shared | None:
        """The computation of a query that somebody is looking at; ``None`` where nobody is."""
        running = self.executor.prepare(query, None, parameters, strict=True)  # as those who look prepared it
        try:
            return self._shared.get(_key(query, running, names, None))
        finally:
            running.close()

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

    def _ended(self, shared: Shared) -> None:
        for key in [key for key, each in self._shared.items() if each is shared]:
            del self._shared[key]

    def _moved(self, shared: Shared) -> None:
        """It answers by another DAG now: who asks for that one it began with is to have that one."""
        self._ended(shared)
        self._shared[str(id(shared)).encode()] = shared

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
            if shared.running.dag.concerns(name):
                shared.touch(reducers=True)


class LiveSource:
    """The rows of a query as they are now, and a call when they may have changed."""

    def __init__(
        self,
        live: LiveQueries,
        query: Any,
        parameters: Mapping[str, JSON] | None = None,
        names: Mapping[str, str] | None = None,
        naming: Naming = False,
    ) -> None:
        self._live = live
        self._query = query
        self._parameters = parameters
        self._names = names
        self._naming = naming
        self._subscription: Subscription | None = None

    async def rows(self) -> Rows:
        """All rows as they are now. While somebody is subscribed, they need no new computation.

        Raises what the answer failed with as a whole, such as a store that is away.
        """
        shared = self._shared()
        if shared is not None:
            await shared.settled()
            if shared.answers:
                return self._of(shared)
        return await self._apart()

    async def now(self) -> Rows:
        """The same for whoever can't wait for what is under way: rather another computation.

        It is there within one step where the reducers answer and states are read without waiting.
        """
        shared = self._shared()
        return self._of(shared) if shared is not None and shared.at_rest else await self._apart()

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` on the app's loop after each change; gives what ends it."""
        subscription = self._live.subscribe(
            self._query, None, self._parameters, names=self._naming, strict=True, queue=1
        )

        def told() -> None:
            subscription.skip()  # the rows are asked for
            callback()

        subscription.on_push = told
        self._subscription = subscription
        return subscription.close

    def _shared(self) -> Shared | None:
        own = self._subscription
        if own is not None and not own.closed:
            return own.shared
        return self._live.find(self._query, self._parameters, names=self._naming)

    def _of(self, shared: Shared) -> Rows:
        running, own = shared.running, self._subscription
        if own is None or own.closed:  # what a subscription gets is put on record by itself
            self._live.executor.record(running, running.learners())
        (export,) = running.exports
        return flat_rows(running.answer(export), self._names, running.behind())

    async def _apart(self) -> Rows:
        executor = self._live.executor
        running = self._prepared()
        try:
            if await executor.wait(running):
                running.close()
                running = self._prepared()
            await executor.start(running)
            (export,) = running.exports
            return flat_rows(running.answer(export), self._names, running.behind())
        finally:
            running.close()

    def _prepared(self) -> Running:
        return self._live.executor.prepare(
            self._query, None, self._parameters, names=self._naming, strict=True
        )


def _key(query: Any, running: Running, names: Naming, stamps: Any) -> bytes:
    """The same for all who can share one computation."""
    what = running.dag.name if isinstance(query, str) else running.dag.to_json()
    known = running.parameters
    given = {name: value for name, value in running.env.parameters.items() if name in known}
    try:
        return msgspec.json.encode(
            [what, list(running.exports), given, names, stamps or {}], order="deterministic"
        )
    except (TypeError, ValueError) as error:
        raise QueryError(f"query: expected parameters that are JSON: {error}") from None
