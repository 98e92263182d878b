"""The way of an event: archive, then all reducers of its context, then, in batches, the store.

An event is routed in the same step in which it gets its number, so between two steps of the loop every
numbered event is with the runs that were registered then. A commit takes what changed: the archive is
written, states are turned to text, the archive is synced, acknowledgements go out, and then states and
positions go to the store in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Event, Sender
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.run import Run, Snapshot
from lo_kernel.engine.store import Commit, ReducerRow, Store
from lo_kernel.errors import ArchiveError, LOError

__all__ = ["Pipeline"]

COMMIT_EVERY = 0.02  # seconds from the first event of a batch to its commit
_ROOM = 20_000  # events that may wait for the disk before sources are held back


class Pipeline:
    """Takes events in, folds them, commits; knows nothing of where they come from.

    ``time`` of an event is the server's, in seconds since 1970 (UTC).
    """

    def __init__(self, archive: Archive, store: Store, errors: ErrorLog, learners: Learners) -> None:
        self.archive = archive
        self.store = store
        self.errors = errors
        self.learners = learners
        self.routed = 0  # number of the newest event that went to its runs
        self.synced = 0  # number of the newest event that is on disk
        self.accepted = 0  # events taken in since the start
        self.unrouted: dict[str, int] = {}  # events by context that no reducer has
        self.store_up = True
        self.on_synced: list[Callable[[int], None]] = []
        self._routes: dict[str, tuple[Run, ...]] = {}
        self._runs: dict[Run, Callable[[int, dict[str, int]], ReducerRow]] = {}
        self._in_work: dict[int, int] = {}  # by event number: how many runs have still to fold it
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._committing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None
        self._changed: set[str] = set()
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    # -- in ------------------------------------------------------------------------------------

    async def accept(
        self, sender: Sender, body: dict[str, Any], raw: bytes, time: float, ordinal: int | None = None
    ) -> int:
        """Archive an event and fold it; gives its number. ``raw`` is the text of ``body``.

        It is accepted for good, and acknowledged, with the next commit.
        """
        number = self.archive.append(sender, raw, time, ordinal)
        self.accepted += 1
        context = sender.context(body)
        await self.route(number, context, sender, sender.event(body, time), time)
        if self.archive.unwritten > _ROOM:
            self._room.clear()
            self._wake.set()
            await self._room.wait()
        return number

    async def route(
        self, number: int, context: str | None, sender: Sender, event: Event, time: float
    ) -> None:
        """Give a numbered event to the runs of its context."""
        self.routed = number
        self.learners.seen(sender.identity, time)
        if not self._wake.is_set():
            self._wake.set()
        runs = self._routes.get(context) if context is not None else None
        if runs is None:
            self._no_reducer(context)
            return
        in_work = self._in_work
        in_work[number] = 1
        student = sender.student
        for run in runs:
            if number > run.joined and not await run.take(number, student, event):
                in_work[number] += 1
        if in_work[number] == 1:
            del in_work[number]
        else:
            in_work[number] -= 1

    def release(self, number: int) -> None:
        """A run has folded an event that had to wait."""
        left = self._in_work.get(number, 0) - 1
        if left > 0:
            self._in_work[number] = left
        else:
            self._in_work.pop(number, None)

    def _no_reducer(self, context: str | None) -> None:
        name = context if context is not None else "(none)"
        seen = self.unrouted.get(name, 0)
        if seen == 0 and len(self.unrouted) < 1000:
            self.errors.add(
                f"context '{name}'",
                "events came for this context, and no reducer has it. They are in the archive; a reducer "
                f"registered with context={name!r} will see them all",
                kind="NoReducer",
            )
        if seen or len(self.unrouted) < 1000:
            self.unrouted[name] = seen + 1

    def wake(self) -> None:
        """See to it that there is a commit soon."""
        self._wake.set()

    # -- runs ----------------------------------------------------------------------------------

    def attach(self, run: Run, context: str, row: Callable[[int, dict[str, int]], ReducerRow]) -> None:
        """Let a run have the events of a context from now on; ``row`` makes what is stored beside it."""
        run.joined = max(run.joined, self.routed)
        self._routes[context] = (*self._routes.get(context, ()), run)
        self._runs[run] = row
        self.unrouted.pop(context, None)
        self.errors.forget(f"context '{context}'")
        self._wake.set()

    def detach(self, run: Run) -> None:
        """Take a run out; its states stay in the store as they were committed last."""
        self._runs.pop(run, None)
        for context, runs in list(self._routes.items()):
            left = tuple(other for other in runs if other is not run)
            if left:
                self._routes[context] = left
            else:
                del self._routes[context]

    @property
    def runs(self) -> Iterable[Run]:
        """The runs that get events."""
        return self._runs.keys()

    # -- changes -------------------------------------------------------------------------------

    def changed(self, key: str) -> None:
        """Note that an internal state changed; listeners hear of it once per step of the loop."""
        if not self._changed and self._listeners:
            asyncio.get_running_loop().call_soon(self._tell)
        if self._listeners:
            self._changed.add(key)

    def _tell(self) -> None:
        keys, self._changed = frozenset(self._changed), set()
        if not keys:
            return
        for listener in list(self._listeners):
            try:
                listener(keys)
            except Exception as error:  # one listener's trouble is not the others'
                self.errors.add("a listener to changes", error)

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call ``listener`` on the app's loop with the keys that changed; gives what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # -- commits -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to commit in the background."""
        self._committer = asyncio.get_running_loop().create_task(self._commit_forever())

    async def stop(self) -> None:
        """Commit what is left and end; a store or a disk that doesn't answer can't hold it up."""
        if self._committer is not None:
            self._committer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._committer
            self._committer = None
        try:
            await self.commit()
        except LOError as error:
            self.errors.add("the last commit", error)

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(COMMIT_EVERY)
            self._wake.clear()
            try:
                # a cancel lets a commit that has begun come to its end
                await asyncio.shield(asyncio.ensure_future(self.commit()))
            except LOError as error:
                self.errors.add("archive" if isinstance(error, ArchiveError) else "store", error)
                await asyncio.sleep(0.25)
                self._wake.set()
            except Exception as error:
                self.errors.add("commit", error)
                await asyncio.sleep(1)
                self._wake.set()

    async def commit(self) -> None:
        """Bring archive and store up to now; see the module for the order."""
        async with self._committing:
            commits, snapshots = await self._snapshots()
            self.synced = max(self.synced, await self._sync())
            for tell in list(self.on_synced):
                tell(self.synced)
            learners = self.learners.commit(self.low)
            if learners is not None:
                commits.append(learners)
            if not commits:
                return
            try:
                await self.store.commit(commits)
            except BaseException:
                self.store_up = False
                if learners is not None:
                    self.learners.unsaved(learners)
                raise
            self.store_up = True
            for run, snapshot in snapshots:
                run.saved(snapshot)

    @property
    def low(self) -> int:
        """Every event up to this number is in the states of all runs."""
        return min(self._in_work) - 1 if self._in_work else self.routed

    async def _sync(self) -> int:
        if not self.archive.writable:
            return self.archive.last
        synced = await self.archive.flush()
        if not self._room.is_set():
            self._room.set()
        return synced

    async def _snapshots(self) -> tuple[list[Commit], list[tuple[Run, Snapshot]]]:
        commits: list[Commit] = []
        taken: list[tuple[Run, Snapshot]] = []
        for run, row in list(self._runs.items()):
            snapshot = await run.snapshot(self.low)
            if self.archive.writable:
                self.archive.write()  # no state may be stored whose events aren't in the file
            if not snapshot.states and snapshot.position == run.position:
                continue
            taken.append((run, snapshot))
            commits.append(Commit(run.generation, snapshot.states, row(snapshot.position, snapshot.ahead)))
        return commits, taken

    # -- reading -------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether all that was accepted is folded and committed."""
        return not self._in_work and self.synced >= self.routed and not self._wake.is_set()
