"""Going through the past: a reducer's run reads the archive in slices until it has all that came.

The loop is held for a few milliseconds at a time. Memory does not grow with the archive: states are
written now and then, and where events wait for a reducer that suspends, reading waits too.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lo_kernel.engine.archive import UNSOUND, Cursor, Record, Senders
from lo_kernel.engine.archive.lines import decode_body
from lo_kernel.engine.events import Event
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.run import MISSING, ROOM, Item, Run
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.store import Commit, ReducerRow, Store
from lo_kernel.engine.turns import Turns
from lo_kernel.errors import ArchiveError, LOError, ReducerError

__all__ = ["CatchUp", "OldStates", "convert"]

_AT_ONCE = 20  # events between two looks at the clock
_KEEP = 4000  # events between two writes of the states: more in memory make the collector pause
_KEEP_EVERY = 1.0  # seconds between them, where the states are the visible ones
_CHUNK = 200  # states converted between two looks at the clock

Progress = Callable[[int, int], None]
_decode = msgspec.json.Decoder().decode


@dataclass
class CatchUp:
    """A run's way through the archive, from where it stands to the newest event.

    ``row`` makes what is stored beside its states, where these are visible already; without it they are
    a shadow's, and nothing names them yet.
    """

    pipeline: Pipeline
    run: Run
    context: str
    progress: Progress
    row: Callable[[int, dict[str, int]], ReducerRow] | None = None

    async def go(self) -> None:
        """Read all there is. Between the last look and the return the loop isn't left."""
        pipeline, run, archive = self.pipeline, self.run, self.pipeline.archive
        start = run.read or 0
        cursor, senders = archive.cursor(start), Senders()
        turns = Turns()
        folded, kept_at = 0, time.monotonic()
        barrier = -1
        try:
            while True:
                written = self._write()
                records = cursor.read(checked=False)
                if not records:
                    if not written:
                        await asyncio.sleep(0.05)
                        continue
                    run.read = max(cursor.position, start)
                    if barrier < 0:
                        barrier = max(run.pending, default=0)
                    if run.pending and min(run.pending) <= barrier:  # the past isn't over for these
                        await asyncio.sleep(0.005)
                        continue
                    break
                for at in range(0, len(records), _AT_ONCE):
                    some = records[at : at + _AT_ONCE]
                    folded += self._fold(some, senders, cursor)
                    if len(run.pending) > ROOM:
                        await run.waiting.room()
                    if turns.over:
                        self.progress(some[-1].n - start, max(pipeline.routed, some[-1].n) - start)
                        visible = self.row is not None
                        if folded >= _KEEP or (visible and time.monotonic() - kept_at > _KEEP_EVERY):
                            folded, kept_at = 0, time.monotonic()
                            await self._keep()
                        await turns.give()
        finally:
            cursor.close()
        run.joined = max(run.joined, run.read)
        self.progress(run.read - start, run.read - start)

    def _fold(self, records: list[Record], senders: Senders, cursor: Cursor) -> int:
        """Fold those of the context; gives how many they are."""
        try:
            items, events = self._events(records, senders)
        except UNSOUND:
            items, events = self._events(cursor.sound(records), senders, decode_body)
        self.run.read = records[-1].n
        self.run.take_many(items, events)
        return len(items)

    def _events(
        self, records: list[Record], senders: Senders, decode: Callable[[msgspec.Raw], Any] = _decode
    ) -> tuple[list[Item], list[Event]]:
        items: list[Item] = []
        events: list[Event] = []
        for record in records:
            sender = senders.of(record)
            body = decode(record.body)
            if sender.context(body) == self.context:
                items.append((record.n, sender, record.body, record.t))
                events.append(sender.event(body, record.t))
        return items, events

    def _write(self) -> bool:
        """Have all that came in by now in the file, where this process writes it."""
        archive = self.pipeline.archive
        if not archive.writable or not archive.unwritten:
            return True
        try:
            archive.write()
        except ArchiveError as error:
            self.pipeline.errors.add("archive", error)
            return False
        return True

    async def _keep(self) -> None:
        """Write the states so far; once begun this comes to its end, so that memory and store agree."""
        task = asyncio.ensure_future(self._keep_now())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    async def _keep_now(self) -> None:
        run = self.run
        snapshot = await run.snapshot(run.low(self.pipeline.routed))
        row = self.row(snapshot.position, snapshot.ahead) if self.row is not None else None
        try:
            if row is not None:  # no state may be visible whose event isn't on disk
                await self.pipeline.sync()
            await run.store.commit([Commit(run.generation, snapshot.states, row)])
        except LOError as error:
            self.pipeline.errors.add("store", error)
            return
        run.saved(snapshot)
        if row is None:
            run.fresh = True
        else:
            for tell in list(self.pipeline.on_committed):
                tell(row)


@dataclass
class OldStates:
    """States to convert: those of a run, or (where there is none) those that a row in the store names."""

    store: Store
    generation: int
    prefix: str
    position: int
    ahead: Mapping[str, int]
    run: Run | None = None


async def convert(
    old: OldStates,
    new: Run,
    function: Callable[[Any], Any],
    pipeline: Pipeline,
    progress: Progress,
) -> None:
    """Make a run's first states from old ones, by a function of one state (it may be a coroutine function).

    The old run goes on meanwhile: each state stands at the event up to which it was folded when it was
    taken. Raises :class:`ReducerError`, which names the key.
    """
    run = old.run
    new.position = new.read = old.position if run is None else run.low(pipeline.routed)
    found = set(await old.store.keys(old.generation, old.prefix))
    if run is not None:
        found.update(run.states.live_keys())
        found.update(key for key in run.states.unsaved if key.startswith(old.prefix))
    keys = sorted(found)
    turns = Turns()
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        states: dict[str, bytes] = {}
        for key, (state, number) in (await _current(old, chunk, pipeline)).items():
            name = new.prefix + key[len(old.prefix) :]
            states[name] = await _converted(function, key, state)
            if number > new.position:
                new.states.ahead[name] = number
            if turns.over:
                progress(start, len(keys))
                await turns.give()
        await new.store.commit([Commit(new.generation, states)])
    new.states.stored = True


async def _current(old: OldStates, keys: list[str], pipeline: Pipeline) -> dict[str, tuple[Any, int]]:
    """The states of keys, each with the number of an event up to which it has all of its own."""
    run = old.run
    top = 0 if run is None else pipeline.routed if run.read is None else run.read
    texts = await old.store.get_many(old.generation, keys)
    found: dict[str, tuple[Any, int]] = {}
    for key, text in zip(keys, texts, strict=True):
        if run is None:
            if text is not None:
                found[key] = decode_state(text), old.ahead.get(key, 0)
            continue
        state, number = run.states.peek(key), top
        if state is MISSING:  # as the store had it: no event of it came since before it was asked
            state = None if text is None else decode_state(text)
        else:
            number = pipeline.routed if run.read is None else run.read
        entry = run.states.find(key)
        if entry is not None and entry.waiting:  # the first of these isn't in it
            number = min(number, entry.waiting[0][0] - 1)
        if state is not None:
            found[key] = state, number
    return found


async def _converted(function: Callable[[Any], Any], key: str, state: Any) -> bytes:
    try:
        result: Any | Awaitable[Any] = function(state)
        if inspect.isawaitable(result):
            result = await result
        return encode_state(result)
    except (Exception, SystemExit) as error:
        raise ReducerError(
            f"migrate: the function failed at the state of {key!r}: {type(error).__name__}: {error}. "
            "The old reducer goes on"
        ) from error
