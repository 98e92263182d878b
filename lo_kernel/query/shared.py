"""One live query, computed once for all who look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.dag import Dag
from lo_kernel.query.executor import Executor, Running
from lo_kernel.query.naming import Naming
from lo_kernel.query.ports import JSON
from lo_kernel.query.steps import WHOLE, Change, Dirt, may_pass
from lo_kernel.query.subscription import Subscription
from lo_kernel.query.updates import Board, Update
from lo_kernel.query.values import error_value

__all__ = ["FRAME_SECONDS", "OnError", "Shared"]

FRAME_SECONDS: Final = 0.05
"""Least time between two updates of the same query: 20 a second."""

_RETRY_SECONDS: Final = 1.0

OnError = Callable[[str, BaseException], None]


class Shared:
    """One query with its parameters, for all who look at it."""

    def __init__(
        self,
        executor: Executor,
        query: Any,
        running: Running,
        names: Naming,
        stamps: Mapping[str, Mapping[str, JSON]] | None,
        *,
        on_error: OnError | None,
        on_end: Callable[[Shared], None],
        on_move: Callable[[Shared], None],
    ) -> None:
        self.executor = executor
        self.on_error = on_error
        self.on_end = on_end
        self.on_move = on_move
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
        self._gave_up = False  # no first answer, and trying again by itself would not help
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(self._start())

    def add(self, reader: Subscription) -> None:
        """Tell one more; what is there already at once."""
        self.readers[reader] = None
        if self.started:
            reader.record(frozenset(self.running.learners()))
        if self.started or self.board.failed:
            reader.push(self.board.everything())
        elif self._gave_up and self._task is None and self._timer is None:
            self._begin()

    def remove(self, reader: Subscription) -> None:
        """Tell one no more; with the last, the computation ends."""
        self.readers.pop(reader, None)
        if not self.readers:
            self.close()
            self.on_end(self)

    def close(self) -> None:
        """End the computation, and with it all who are told."""
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

    @property
    def answers(self) -> bool:
        """Whether there is an answer, which somebody looks at and isn't told to be an error as a whole."""
        return self.started and bool(self.readers) and not self.board.failed

    @property
    def at_rest(self) -> bool:
        """Whether the answer has all that changed so far."""
        return self.answers and self._task is None and self._timer is None and not self._dirty

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
        work = self._start() if self._gave_up else self._refresh()
        self._task = asyncio.get_running_loop().create_task(work)

    async def _start(self) -> None:
        self._keys, self._functions, self._reducers = set(), set(), False
        again, self._gave_up = self._gave_up, False
        try:
            if again:
                self._follow()
            await self.executor.wait(self.running)
            await self.executor.start(self.running, record=False)
            for export in self.running.exports:
                self.board.take(export, self.running.answer(export), WHOLE)
            self.board.mark(self.running.behind())
            self._first()
            self._try_again_later()
        except Exception as error:
            if may_pass(error):
                self._failed(error)
            else:
                self._gave_up = True
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
        known = self.running.read_so_far
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
            if dirt.functions or dirt.reducers or whole or self.running.read_so_far != known:
                self._record()
            if sent or marked or self.board.failed:
                self._tell(self.board.update(sent))
        except Exception as error:
            self._failed(error)
        finally:
            self._done(since)

    async def _changes(self, dirt: Dirt, whole: bool) -> Mapping[str, Change]:
        if (dirt.reducers or whole) and self._follow():
            whole = True
        if whole:
            await self.executor.wait(self.running)
            await self.running.run()
            return dict.fromkeys(self.running.exports, WHOLE)
        return await self.running.refresh(dirt)

    def _follow(self) -> bool:
        """Lay the query out anew where its DAG was replaced, or one that it has nodes of; whether it was."""
        before = self.running
        query, dag = self._as_it_is()
        if dag.json == before.dag.json and dag.nodes == before.dag.nodes:
            return False
        self.running = self.executor.prepare(
            query, list(before.exports), before.env.parameters, names=self.names
        )
        if dag.name != before.dag.name:
            self.on_move(self)
        self._part(self.running.parameters - before.parameters)
        before.close()
        return True

    def _part(self, new: set[str]) -> None:
        """End what is told to those who gave parameters that make another answer from now on."""
        ours = self.running.env.parameters
        for reader in list(self.readers):
            other = [name for name in sorted(new) if reader.given.get(name) != ours.get(name)]
            if other:
                self.readers.pop(reader)
                named = ", ".join(map(repr, other))
                reader.fail(
                    QueryError(f"the query was replaced by one with the parameter {named}: ask again")
                )

    def _as_it_is(self) -> tuple[str | Dag, Dag]:
        """The DAG as it is now: the one that was found; where that is gone, what the name means now."""
        catalog, query, known = self.executor.catalog, self.query, self.running.dag.name
        if not isinstance(query, str):
            dag, _ = catalog.resolve(self.running.dag.json, [])
            return dag, dag
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
        if self.on_error is not None and not isinstance(error, QueryError):
            self.on_error(what, error)
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
