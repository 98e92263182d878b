"""The way of an event: archive, then all reducers of its context, then, in batches, the store.

An event is routed in the same step of the loop in which it gets its number, so between two steps every
numbered event is with the runs that were registered then. A commit takes what changed: states are turned
to text, the archive is written and synced, acknowledgements go out, and then states and positions go to
the store in one transaction. While a store doesn't answer, the archive is synced all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Arrival, Event, Sender
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.live_state import Item, Snapshot
from lo_kernel.engine.run import Run
from lo_kernel.engine.store import PLAIN, Commit, ReducerRow, Store
from lo_kernel.engine.streams import Stream, Streams
from lo_kernel.errors import ArchiveError, LOError

__all__ = ["Pipeline"]

COMMIT_EVERY = 0.02  # seconds from the first event of a batch to its commit
SYNC_EVERY = 0.04  # seconds after which the archive is synced without a commit
_ROOM = 20_000  # events that may wait for the disk before sources are held back
_ROOM_BYTES = 64 << 20  # and bytes of those that are large
_LARGE = 4096
_WRITE_EVERY = 200  # events between two writes to the archive's file
_CONTEXTS = 20  # contexts without a reducer that get a notice of their own
_CONTEXTS_COUNTED = 1000
_NO_CONTEXT = object()  # where no event was looked at yet

RowMaker = Callable[[int, dict[str, int]], ReducerRow]


class Pipeline:
    """Takes events in, folds them, commits; knows nothing of where they come from.

    ``time`` of an event is the server's, in seconds since 1970 (UTC).
    """

    def __init__(
        self,
        archive: Archive,
        store: Store,
        errors: ErrorLog,
        learners: Learners,
        streams: Streams | None = None,
    ) -> None:
        self.archive = archive
        self.store = store
        self.errors = errors
        self.learners = learners
        self.streams = streams if streams is not None else Streams()
        self.routed = 0  # number of the newest event that went to its runs
        self.synced = 0  # number of the newest event that is on disk
        self.accepted = 0  # events taken in since the start
        self.full = False  # whether sources have to wait (`room`)
        self.commit_every = COMMIT_EVERY  # longer while a replay goes on, whose events are in its file anyway
        self.unrouted: dict[str, int] = {}  # events by context that no reducer has
        self.store_up = True
        self.awaits: Callable[[str], bool] = lambda context: (
            False
        )  # whether a reducer of it goes through the past
        self.plain: dict[str, bytes] = {}  # keys of nobody's reducer, on their way to the store
        self.on_synced: list[Callable[[int], None]] = []
        self.on_committed: list[Callable[[ReducerRow], None]] = []
        self._routes: dict[str, tuple[Run, ...]] = {}
        self._runs: dict[Run, RowMaker] = {}
        self._ceiling = 0  # number of the event at which to look again
        self._large = 0  # bytes of large events that wait for the disk
        self._awake = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.committing = asyncio.Lock()
        self._synced_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed: set[str] = set()
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    # -- in ------------------------------------------------------------------------------------

    def take(
        self,
        sender: Sender,
        body: dict[str, Any],
        raw: bytes | msgspec.Raw,
        time: float,
        ordinal: int | None = None,
    ) -> int:
        """Archive an event and fold it; gives its number. ``raw`` is the text of ``body``.

        It is accepted for good, and acknowledged, with the next commit. Where :attr:`full` is set
        afterwards, the source has to wait (:meth:`room`) before it gives more.
        """
        number = self.archive.append(sender, raw, time, ordinal)
        self.accepted += 1
        if len(raw) > _LARGE:
            self.heavy(len(raw))
        if number > self._ceiling:
            self._look(number)
        self.route(number, sender, body, raw, time)
        return number

    async def accept(
        self,
        sender: Sender,
        body: dict[str, Any],
        raw: bytes | msgspec.Raw,
        time: float,
        ordinal: int | None = None,
    ) -> int:
        """:meth:`take` an event, and wait where there is no room for more."""
        number = self.take(sender, body, raw, time, ordinal)
        if self.full:
            await self.room()
        return number

    def route(
        self, number: int, sender: Sender, body: dict[str, Any], raw: bytes | msgspec.Raw, time: float
    ) -> None:
        """Give a numbered event to the runs of its context. ``body`` is taken over."""
        self.routed = number
        if sender.fresh:
            sender.fresh += 1
            sender.last = time
        else:
            self.learners.touch(sender, time)
        if not self._awake:
            self.wake()
        event = sender.event(body, time)
        context = body.get("source")  # with what the connection locked
        runs = self._routes.get(context) if type(context) is str else None
        if runs is None:
            self._no_reducer(context)
            return
        item = (number, sender, raw, time)
        interrupted: BaseException | None = None
        for run in runs:
            if number > run.joined:
                try:
                    run.take(item, event)
                except BaseException as error:  # an interrupted cell: the others get it all the same
                    interrupted = error
        if interrupted is not None:
            raise interrupted

    def take_many(self, arrivals: Sequence[Arrival]) -> None:
        """:meth:`take` several events at once: the same for each of them, with less work."""
        first = self.archive.last + 1
        last = self.archive.append_many(arrivals)
        self.accepted += len(arrivals)
        if last > self._ceiling:
            self._look(last)
        self.route_many(first, arrivals)

    def take_array(
        self,
        sender: Sender,
        bodies: Sequence[dict[str, Any]],
        raws: Sequence[bytes | msgspec.Raw],
        time: float,
        ordinals: Sequence[int] | None = None,
    ) -> None:
        """:meth:`take` several events that one sender sent at once; ``raws`` are the texts of ``bodies``."""
        first, count = self.archive.last + 1, len(bodies)
        last = self.archive.append_array(sender, raws, time, ordinals)
        self.accepted += count
        if (size := sum(map(len, raws))) > _LARGE * count:
            self.heavy(size)
        if last > self._ceiling:
            self._look(last)
        if not sender.fresh:
            self.learners.touch(sender, time)
            count -= 1
        sender.fresh += count
        sender.last = time
        if not self._awake:
            self.wake()
        events = sender.events(bodies, time)
        items = list(zip(range(first, last + 1), repeat(sender), raws, repeat(time)))
        contexts = [body.get("source") for body in bodies]  # with what the connection locked
        self.routed = last
        if contexts.count(contexts[0]) == len(contexts):
            self._hand_over({contexts[0] if type(contexts[0]) is str else None: (items, events)}, sender)
            return
        by_context: dict[Any, tuple[list[Item], list[Event]]] = {}
        for context, item, event in zip(contexts, items, events, strict=True):
            its = by_context.setdefault(context if type(context) is str else None, ([], []))
            its[0].append(item)
            its[1].append(event)
        self._hand_over(by_context, sender)

    def route_many(self, first: int, arrivals: Iterable[Arrival]) -> None:
        """:meth:`route` events that have the numbers from ``first`` on."""
        if not self._awake:
            self.wake()
        touch, number = self.learners.touch, first - 1
        by_context: dict[Any, tuple[list[Item], list[Event]]] = {}
        newest: Any = _NO_CONTEXT
        for sender, body, raw, time, _ in arrivals:
            number += 1
            if sender.fresh:
                sender.fresh += 1
                sender.last = time
            else:
                touch(sender, time)
            if len(raw) > _LARGE:
                self.heavy(len(raw))
            event = sender.event(body, time)
            context = body.get("source")  # with what the connection locked
            if context != newest:
                newest = context
                items, events = by_context.setdefault(context if type(context) is str else None, ([], []))
            items.append((number, sender, raw, time))
            events.append(event)
        self.routed = number
        self._hand_over(by_context, None)

    def _hand_over(
        self, by_context: dict[Any, tuple[list[Item], list[Event]]], sender: Sender | None
    ) -> None:
        """Give events to the runs of their contexts; ``sender`` is that of all of them, if there is one."""
        interrupted: BaseException | None = None
        for context, (items, events) in by_context.items():
            runs = self._routes.get(context) if type(context) is str else None
            if runs is None:
                for _ in items:
                    self._no_reducer(context)
                continue
            for run in runs:
                try:
                    if items[0][0] > run.joined:
                        run.take_many(items, events, sender)
                    else:  # it has some of them from the archive
                        for item, event in zip(items, events, strict=True):
                            if item[0] > run.joined:
                                run.take(item, event)
                except BaseException as error:  # an interrupted cell: the others get theirs all the same
                    interrupted = error
        if interrupted is not None:
            raise interrupted

    def _look(self, number: int) -> None:
        """See now and then, between commits, that what waits doesn't grow."""
        self._ceiling = number + _WRITE_EVERY
        if number - self.synced > _ROOM:
            self._hold()
        elif self.archive.writable:
            # small pieces stay in the processor's cache, and their memory is used again
            with contextlib.suppress(ArchiveError):  # the next commit tries again, and says so
                self.archive.write()

    def heavy(self, size: int) -> None:
        """Count something large that waits for the disk, in bytes."""
        self._large += size
        if self._large > _ROOM_BYTES:
            self._hold()

    def _hold(self) -> None:
        self.full = True
        self._room.clear()
        self.wake()

    async def room(self) -> None:
        """Wait until the disk has taken enough for more to come in."""
        await self._room.wait()

    def _no_reducer(self, context: Any) -> None:
        name = context if type(context) is str else "(none)"
        seen = self.unrouted.get(name, 0)
        if not seen and self.awaits(name):
            return
        if seen or len(self.unrouted) < _CONTEXTS_COUNTED:
            self.unrouted[name] = seen + 1
        if not seen:
            alone = len(self.unrouted) <= _CONTEXTS
            if type(context) is str:
                message = (
                    "events came for this context, and no reducer has it. They are in the archive; a reducer "
                    f"registered with context={name!r} will see them all"
                )
            else:
                message = (
                    "events came that name no 'source', so no reducer hears them. They are in the archive. "
                    "Whoever sends them can name one; for those of files say lo.replay(..., source='...')"
                )
            self.errors.add(f"context '{name}'" if alone else "contexts", message, kind="NoReducer")

    def wake(self) -> None:
        """See to it that there is a commit soon."""
        self._awake = True
        self._wake.set()

    # -- runs ----------------------------------------------------------------------------------

    def attach(self, run: Run, context: str, row: RowMaker) -> None:
        """Let a run have the events of a context from now on; ``row`` makes what is stored beside it."""
        run.joined = max(run.joined, self.routed)
        run.read = None
        self._listen(run)
        self._routes[context] = (*self._routes.get(context, ()), run)
        self._runs[run] = row
        self.unrouted.pop(context, None)
        self.errors.forget(f"context '{context}'")
        self.wake()

    def rename(self, run: Run, row: RowMaker) -> None:
        """Store another row beside a run from now on."""
        self._runs[run] = row
        self.wake()

    def detach(self, run: Run) -> None:
        """Take a run out; its states stay in the store as they were committed last."""
        self._runs.pop(run, None)
        for context, runs in list(self._routes.items()):
            left = tuple(other for other in runs if other is not run)
            if left:
                self._routes[context] = left
            else:
                del self._routes[context]

    def leave_out(self, runs: Iterable[Run]) -> None:
        """Go on folding these, and commit them no more."""
        for run in runs:
            self._runs.pop(run, None)

    @property
    def runs(self) -> Iterable[Run]:
        """The runs that get events."""
        return self._runs.keys()

    # -- changes -------------------------------------------------------------------------------

    def changed(self, keys: Iterable[str]) -> None:
        """Note that internal states changed; listeners hear of it once per step of the loop."""
        keys = set(keys)
        if self._listeners and keys:
            if not self._changed:
                self._tell_soon()
            self._changed.update(keys)

    def _tell_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        keys = frozenset(self._changed)
        self._changed.clear()
        for listener in list(self._listeners):
            try:
                listener(keys)
            except Exception as error:  # one listener's trouble is not the others'
                self.errors.add("a listener to changes", error)

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call ``listener`` on the app's loop with the keys that changed; gives what ends it."""
        self._listeners.append(listener)
        self._listen(*self._runs)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                self._listen(*self._runs)

        return end

    def _listen(self, *runs: Run) -> None:
        for run in runs:
            run.changes, run.tell = (self._changed if self._listeners else None), self._tell_soon

    # -- commits -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to commit in the background."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._commit_forever()), loop.create_task(self._sync_forever())]

    async def stop(self) -> None:
        """Commit what is left and end; a store or a disk that doesn't answer can't hold it up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(LOError):
            await self.sync()
        try:
            await asyncio.wait_for(self.commit(), 1)
        except TimeoutError:
            self.errors.add("store", "it did not answer at the end: the next start folds again")
        except LOError as error:
            self.errors.add("the last commit", error)

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self.commit_every)
            self._wake.clear()
            self._awake = False
            try:
                # a cancel lets a commit that has begun come to its end
                await asyncio.shield(asyncio.ensure_future(self.commit()))
            except Exception as error:
                where = "archive" if isinstance(error, ArchiveError) else "store"
                self.errors.add(where if isinstance(error, LOError) else "commit", error)
                await asyncio.sleep(0.1 if isinstance(error, LOError) else 1)
                self.wake()

    async def _sync_forever(self) -> None:
        """Have the archive on disk also while a commit waits for its store."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SYNC_EVERY)
            if self.synced >= self.archive.last and not self.archive.unwritten:
                await self._wake.wait()
            elif loop.time() - self._synced_at >= SYNC_EVERY:
                try:
                    await self.sync()
                except LOError as error:
                    self.errors.add("archive", error)
                    await asyncio.sleep(0.1)

    async def commit(self) -> None:
        """Bring archive and store up to now; see the module for the order."""
        async with self.committing:
            commits, snapshots = await self._snapshots()
            # from here to the write there is no pause: what is counted is in the file
            if self.archive.writable:
                self.archive.write()
            learners = self.learners.commit(self.routed)
            streams = self.streams.commit(self.archive.last, self._rejected_at())
            plain = dict(self.plain)
            if learners is not None:
                commits.append(learners)
            if streams is not None:
                commits.append(streams)
            if plain:
                commits.append(Commit(PLAIN, plain))
            try:
                await self.sync()
                if commits:
                    await self._store(commits)
            except BaseException:
                if learners is not None:
                    self.learners.unsaved(learners)
                if streams is not None:
                    self.streams.unsaved(streams)
                raise
            self._committed(commits, snapshots, plain)
            if streams is not None:
                self.streams.saved(streams)

    async def _store(self, commits: list[Commit]) -> None:
        try:
            await self.store.commit(commits)
        except BaseException:
            self.store_up = False
            raise
        if not self.store_up:
            self.store_up = True
            self.errors.add("store", "it answers again; states have caught up", kind="Notice")

    def _committed(
        self, commits: list[Commit], snapshots: list[tuple[Run, Snapshot]], plain: dict[str, bytes]
    ) -> None:
        for run, snapshot in snapshots:
            run.saved(snapshot)
        for key, text in plain.items():
            if self.plain.get(key) is text:
                del self.plain[key]
        for commit in commits:
            if commit.row is not None:
                for tell in list(self.on_committed):
                    tell(commit.row)

    def _rejected_at(self) -> int:
        try:
            return self.archive.rejected_path.stat().st_size
        except OSError:
            return 0

    async def sync(self) -> int:
        """Have all that came in by now on disk, and acknowledge it; gives the newest event's number."""
        if not self.archive.writable:
            self.synced = self.archive.last
            return self.synced
        marks, large = self.streams.marks(), self._large
        try:
            synced = await self.archive.flush()
        except BaseException:
            self.streams.unsynced(marks)
            raise
        self._synced_at = asyncio.get_running_loop().time()
        self.synced = max(self.synced, synced)
        self._large -= large
        if self.full and self.archive.last - self.synced <= _ROOM // 2 and self._large <= _ROOM_BYTES // 2:
            self.full = False
            self._room.set()
        self.streams.synced(marks)
        for tell in list(self.on_synced):
            tell(self.synced)
        return self.synced

    async def durable(self, stream: Stream) -> int:
        """Wait until all that a stream brought is on disk, however long the disk takes; gives its count."""
        while True:
            try:
                await self.sync()
                return stream.synced
            except ArchiveError as error:
                self.errors.add("archive", error)
                await asyncio.sleep(0.1)

    @property
    def low(self) -> int:
        """Every event up to this number is in the states of all runs."""
        return min([self.routed, *(run.low(self.routed) for run in self._runs)])

    async def _snapshots(self) -> tuple[list[Commit], list[tuple[Run, Snapshot]]]:
        commits: list[Commit] = []
        taken: list[tuple[Run, Snapshot]] = []
        for run, row in list(self._runs.items()):
            snapshot = await run.snapshot(run.low(self.routed))
            if run not in self._runs:  # it was replaced meanwhile
                continue
            if not snapshot.states and snapshot.position == run.position and not run.fresh:
                continue
            taken.append((run, snapshot))
            commits.append(Commit(run.generation, snapshot.states, row(snapshot.position, snapshot.ahead)))
        return commits, taken

    # -- reading -------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether all that was accepted is folded and committed."""
        return self.synced >= self.routed and not self._awake and not any(run.pending for run in self._runs)
