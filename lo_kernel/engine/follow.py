"""Reading what is archived already: at a start, and while another process owns the workspace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from lo_kernel.engine.archive import UNSOUND, Archive, Cursor, Senders
from lo_kernel.engine.archive.lines import decode_body
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.store import PLAIN, Commit, Store

__all__ = ["Follower", "copy_plain", "take_late_stock", "take_stock"]

FOLLOW_EVERY = 0.05  # seconds between two looks at the owner's archive
_OWNER_EVERY = 1.0  # seconds between two looks for the owner itself


async def take_stock(pipeline: Pipeline, store: Store) -> None:
    """Bring the learners and the acknowledged streams up to the archive's end.

    Both know from the store up to where they were counted; only what came later is read.
    """
    found = await _count(pipeline, pipeline.learners, store, None)
    archive = pipeline.archive
    if archive.writable:
        await pipeline.streams.recover(found, archive.rejected_path, store)
    pipeline.routed = pipeline.synced = archive.last


async def take_late_stock(pipeline: Pipeline, store: Store, began: int) -> Learners:
    """:meth:`take_stock` of a store that did not answer at the start, when the archive ended with ``began``.

    Events go on coming in meanwhile, and are counted as they come. Gives the learners of those before.
    """
    before = Learners()
    found = await _count(pipeline, before, store, began)
    await pipeline.streams.recover(found, pipeline.archive.rejected_path, store)
    return before


async def _count(
    pipeline: Pipeline, learners: Learners, store: Store, end: int | None
) -> dict[str, set[int]]:
    """Count the learners, from where the store has them; gives what came in streams since then."""
    streams, archive = pipeline.streams, pipeline.archive
    await learners.load(store)
    await streams.load(store)
    counted, seen = streams.position, learners.position
    found: dict[str, set[int]] = {}
    senders = Senders()
    with contextlib.closing(archive.cursor(min(counted, seen))) as cursor:
        while records := cursor.read(checked=False):
            for record in records:
                if end is not None and record.n > end:
                    return found
                try:
                    sender = senders.of(record)
                except UNSOUND:
                    cursor.sound([record])  # it is told
                    continue
                if record.n > seen:
                    learners.seen(sender.identity, record.t)
                if record.n > counted and record.s is not None and "stream" in sender.mark:
                    found.setdefault(sender.mark["stream"], set()).add(record.s)
            await asyncio.sleep(0)
        archive.last = max(archive.last, cursor.position)
    return found


async def copy_plain(old: Store, new: Store) -> None:
    """Take what was set by hand from one store to another."""
    keys = await old.keys(PLAIN)
    texts = await old.get_many(PLAIN, keys)
    states = {key: text for key, text in zip(keys, texts, strict=True) if text is not None}
    if states:
        await new.commit([Commit(PLAIN, states)])


class Follower:
    """Routes what the owner of the workspace archives, as it grows, until it is stopped.

    ``owned`` says whether the workspace still has an owner; when it has none, that is noted once.
    """

    def __init__(
        self, archive: Archive, pipeline: Pipeline, errors: ErrorLog, owned: Callable[[], bool]
    ) -> None:
        self.archive = archive
        self.pipeline = pipeline
        self.errors = errors
        self.owned = owned
        self._cursor: Cursor | None = None
        self._senders = Senders()
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def start(self) -> None:
        """Begin."""
        self._cursor = self.archive.cursor(self.pipeline.routed)
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def caught_up(self) -> None:
        """Wait until all is routed that the owner has written by now, or until this ends."""
        if self._cursor is not None:
            found = asyncio.get_running_loop().create_future()
            self._waiting.append(found)
            await found

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        self._tell()

    async def finish(self) -> None:
        """End, with all that the owner wrote routed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        more = True
        while more:
            more = self._step()
            await asyncio.sleep(0)
        await self.stop()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time() + _OWNER_EVERY
        while True:
            try:
                more = self._step()
            except Exception as error:  # whatever it is, what comes next is looked for
                self.errors.add("archive", error)
                more = False
            if not more:
                self._tell()
            await asyncio.sleep(0 if more else FOLLOW_EVERY)
            if loop.time() >= next_look:
                next_look = loop.time() + _OWNER_EVERY
                self._look()

    def _step(self) -> bool:
        assert self._cursor is not None
        records = self._cursor.read(checked=False)
        for record in records:
            try:
                sender, body = self._senders.of(record), decode_body(record.body)
            except UNSOUND:
                body = None
            if type(body) is not dict:
                self._cursor.sound([record])  # it is told
                continue
            self.archive.last = record.n
            self.pipeline.accepted += 1
            self.pipeline.route(record.n, sender, body, record.body, record.t)
        return bool(records)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _look(self) -> None:
        if self.owned():
            if self.errors.of("workspace"):
                self.errors.forget("workspace")
            return
        self.errors.add(
            "workspace",
            "the process that owned it has ended, so no events come in: `await lo.own()` takes it over",
            kind="NoOwner",
        )
