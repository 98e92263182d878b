"""What came in gets to the disk, and into the store: the commits of archive, states and positions.

A commit takes what changed: states are turned to text, the archive is written and synced, acknowledgements
go out, and then states and positions go to the store in one transaction. While a store doesn't answer, the
archive is synced all the same. Where more waits for the disk than memory should hold, sources have to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.run import Run, Snapshot
from lo_kernel.engine.store import PLAIN, Commit, ReducerRow, Store
from lo_kernel.engine.streams import Stream, Streams
from lo_kernel.errors import ArchiveError, LOError

__all__ = ["Committer", "RowMaker"]

COMMIT_EVERY = 0.02  # seconds from the first event of a batch to its commit
LATER = 0.5  # where all of them are in a file anyway: what a crash costs is folded again
_AMONG = 0.005  # from the first of them that came by itself: the disk takes longer meanwhile
SYNC_EVERY = 0.04  # seconds after which the archive is synced without a commit
_ROOM = 20_000  # events that may wait for the disk before sources are held back
_ROOM_BYTES = 64 << 20  # and bytes of those that are large
_WRITE_EVERY = 200  # events between two writes to the archive's file

RowMaker = Callable[[int, dict[str, int]], ReducerRow]


class Committer:
    """The archive, the store, and the runs whose states go there."""

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
        self.full = False  # whether sources have to wait (`room`)
        self.store_up = True
        self.plain: dict[str, bytes] = {}  # keys of nobody's reducer, on their way to the store
        self.on_synced: list[Callable[[int], None]] = []
        self.on_committed: list[Callable[[ReducerRow], None]] = []
        self.committing = asyncio.Lock()
        self._syncing = asyncio.Lock()
        self._runs: dict[Run, RowMaker] = {}
        self._ceiling = 0  # number of the event at which to look again
        self._large = 0  # bytes of large events that wait for the disk
        self._awake = self._waits = False
        self._wake = asyncio.Event()  # there is something to commit soon
        self._any = asyncio.Event()  # or later
        self._room = asyncio.Event()
        self._room.set()
        self._synced_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    # -- room ----------------------------------------------------------------------------------

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

    def give_room(self) -> None:
        """Hold nobody up: what waited is here no more."""
        self.full, self._large = False, 0
        self._room.set()

    async def room(self) -> None:
        """Wait until the disk has taken enough for more to come in."""
        await self._room.wait()

    # -- commits -------------------------------------------------------------------------------

    def wake(self) -> None:
        """See to it that there is a commit soon."""
        self._awake = True
        self._wake.set()
        self._any.set()

    def wake_later(self) -> None:
        """See to it that there is a commit: the next one that somebody wants soon, or one of its own."""
        self._waits = True
        self._any.set()

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
            await self._any.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATER):
                    await self._wake.wait()
                    await asyncio.sleep(_AMONG if self._waits else COMMIT_EVERY)
            self._wake.clear()
            self._any.clear()
            self._awake = self._waits = False
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
                await self._any.wait()
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
        async with self._syncing:  # one after another: what one could not do is seen by the next
            return await self._sync_now()

    async def _sync_now(self) -> int:
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

    def is_idle(self) -> bool:
        """Whether all that was accepted is folded and committed."""
        committed = self.synced >= self.routed and not self._any.is_set()
        return committed and not any(run.pending for run in self._runs)
