"""The registry: which reducers there are, and how one takes the place of another.

A registration begins with the past. States that the same code left in the store are taken up, and only
the events after their position run. Other code starts a *shadow*: a new generation of states, folded
from the archive in slices, while the old reducer goes on answering. When the shadow has seen every
event it is swapped in within one step of the loop, so no event is missed and none counted twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lo_kernel.engine.codehash import code_hash
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import ANY_CONTEXT, Sender
from lo_kernel.engine.keys import Scope, parse_key, reducer_prefix
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import Declaration, Reducer, check_reducer, declaration_of
from lo_kernel.engine.run import Run, is_missing
from lo_kernel.engine.states import encode_state
from lo_kernel.engine.store import PLAIN, Commit, ReducerRow, Store
from lo_kernel.errors import LOError, ReducerError, UnknownReducerError

__all__ = ["Registration", "Registry"]

_SLICE = 0.004  # seconds that a shadow holds the loop at a time
_KEEP = 20_000  # events a shadow folds between two writes of its states
_SYSTEM = "lo_kernel."  # ids of rows that are not reducers


@dataclass(eq=False)
class Registration:
    """A reducer that was registered, and how far it is."""

    id: str
    context: str
    function: Reducer
    scope: Scope
    key_name: str
    null_state: Any
    default: Any
    module: str
    code: str
    status: str = "waiting"  # waiting, catching up, live, failed, removed
    done: int = 0
    total: int = 0
    run: Run | None = field(default=None, repr=False)
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def qualname(self) -> str:
        """The middle part of its keys, ``<module>.<function>``."""
        return self.key_name

    @property
    def prefix(self) -> str:
        """What its internal keys start with."""
        return reducer_prefix(self.key_name)

    @property
    def events(self) -> int:
        """Events folded since it was registered, the past ones among them."""
        return self.run.events if self.run else 0

    @property
    def errors(self) -> int:
        """Events at which it failed."""
        return self.run.failures if self.run else 0

    @property
    def last_error(self) -> str:
        """What it failed with last; empty where it didn't."""
        return self.run.last_failure if self.run else ""

    @property
    def position(self) -> int:
        """Number of the newest archived event that is in its committed states."""
        return self.run.position if self.run else 0

    async def ready(self) -> Registration:
        """Wait until it has seen all of the past; raises what it failed with."""
        if self._task is not None:
            await asyncio.shield(self._task)
        return self

    def __repr__(self) -> str:
        progress = f", {self.done:,} of {self.total:,}" if self.status == "catching up" else ""
        return f"<reducer {self.id!r} of {self.context}: {self.status}{progress}, {self.events:,} events>"


class Registry:
    """Reducers by id."""

    def __init__(self, pipeline: Pipeline, store: Store, errors: ErrorLog) -> None:
        self.pipeline = pipeline
        self.store = store
        self.errors = errors
        self.paused: dict[str, ReducerRow] = {}  # in the store, and not registered in this process
        self.on_live: list[Callable[[Registration], None]] = []
        self.on_removed: list[Callable[[Registration], None]] = []
        self._registrations: dict[str, Registration] = {}
        self._generation = 0
        self._cleaners: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take up what the store knows; what an interrupted shadow left is deleted."""
        rows = [row for row in await self.store.rows() if not row.id.startswith(_SYSTEM)]
        self.paused = {row.id: row for row in rows}
        named = {row.generation for row in rows}
        generations = await self.store.generations()
        self._generation = max([*generations, *named, PLAIN])
        for generation in generations:
            if generation > PLAIN and generation not in named:
                await self.store.remove(generation)

    # -- registering ---------------------------------------------------------------------------

    def add(
        self,
        reducer_id: str,
        function: Reducer,
        *,
        context: str | None = None,
        scope: Scope | None = None,
        default: Any = None,
        module: str = "jupyter-helper",
        migrate: Any = "restream",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Registration:
        """Register a reducer; what has this id already goes on answering until the new one is ready.

        Mistakes in the arguments raise :class:`~lo_kernel.errors.ReducerError` here and now; the rest
        happens in the background (:meth:`Registration.ready`). Only on the app's loop.
        """
        declared, scope, context = self.check(
            reducer_id, function, context=context, scope=scope, default=default, migrate=migrate
        )
        null_state = declared.null_state
        code = code_hash(function, null_state, declared.key_name, context, list(scope.names))
        registration = Registration(
            reducer_id,
            context,
            function,
            scope,
            declared.key_name,
            null_state,
            null_state if default is None else default,
            module,
            code,
        )
        old = self._registrations.get(reducer_id)
        if old is not None and old._task is not None and not old._task.done():
            old._task.cancel()
        if old is not None and old.status == "catching up" and old.run is None:
            old = None
        self.errors.forget(f"reducer '{reducer_id}'")
        self._registrations[reducer_id] = registration
        work = self._bring_in(registration, old, on_progress)
        registration._task = asyncio.get_running_loop().create_task(work)
        registration._task.add_done_callback(_consume)
        return registration

    def check(
        self,
        reducer_id: str,
        function: Reducer,
        *,
        context: str | None = None,
        scope: Scope | None = None,
        default: Any = None,
        migrate: Any = "restream",
    ) -> tuple[Declaration, Scope, str]:
        """Check the arguments of :meth:`add`, and fill in what they leave open; from any thread."""
        if not isinstance(reducer_id, str) or not reducer_id:
            raise ReducerError(f"a reducer's id is a text, got {reducer_id!r}")
        check_reducer(function)
        declared = declaration_of(function)
        scope = declared.scope if scope is None else Scope(scope)
        if not scope:
            raise ReducerError("a scope needs at least one field, such as Scope([KeyField.STUDENT])")
        context = ANY_CONTEXT if context is None else context
        if not isinstance(context, str) or not context:
            raise ReducerError(f"context: expected the 'source' of the events, a text, got {context!r}")
        if migrate != "restream":
            raise ReducerError(f"migrate: expected 'restream', got {migrate!r}")
        encode_state(declared.null_state)
        encode_state(default)
        self._check_keys(reducer_id, declared.key_name)
        return declared, scope, context

    def _check_keys(self, reducer_id: str, key_name: str) -> None:
        for other in self._registrations.values():
            if other.id != reducer_id and other.key_name == key_name:
                raise ReducerError(
                    f"the reducers {other.id!r} and {reducer_id!r} would both write the keys "
                    f"'{reducer_prefix(key_name)}...': give one a name of its own with "
                    "qualname_override=... in its decorator, or use the same id to replace it"
                )

    async def _bring_in(
        self, new: Registration, old: Registration | None, progress: Callable[[int, int], None] | None
    ) -> None:
        run: Run | None = None
        # until the swap the old run answers, through the new registration
        new.run = old.run if old is not None else None
        try:
            row = self.paused.get(new.id)
            if row is not None and row.code == new.code and old is None:
                run = self._run(new, row.generation, row.position, row.ahead, stored=True)
            elif old is not None and old.code == new.code and old.run is not None and old.status == "live":
                run = old.run  # the same code again: it goes on with its states, under the new function
                run.function = new.function
                new.status = "live"
                return
            else:
                self._generation += 1
                run = self._run(new, self._generation, 0, {}, stored=False)
            new.status = "catching up"
            await self._catch_up(new, run, progress)
        except BaseException as error:
            new.status = "failed"
            if not isinstance(error, asyncio.CancelledError):
                self.errors.add(f"reducer '{new.id}'", error)
            if run is not None and new.id not in self.paused:
                self._clean(run.generation)
            raise
        await self._swapped(new, old, run)

    def _run(
        self, new: Registration, generation: int, position: int, ahead: dict[str, int], *, stored: bool
    ) -> Run:
        return Run(
            name=new.id,
            function=new.function,
            scope=new.scope,
            key_name=new.key_name,
            null_state=new.null_state,
            generation=generation,
            store=self.store,
            errors=self.errors,
            release=self.pipeline.release,
            position=position,
            ahead=ahead,
            stored=stored,
        )

    async def _catch_up(
        self, new: Registration, run: Run, progress: Callable[[int, int], None] | None
    ) -> None:
        """Fold the archive into a run until it has all events, then swap it in, in the same step."""
        pipeline, archive = self.pipeline, self.pipeline.archive
        cursor = archive.cursor(run.position)
        senders: dict[bytes, Sender] = {}
        start, kept, pause = run.position, 0, time.perf_counter() + _SLICE
        position = run.position
        try:
            while True:
                if archive.writable and archive.unwritten:
                    archive.write()
                records = cursor.read()
                if not records:
                    if position >= pipeline.routed:
                        break
                    await asyncio.sleep(0.005)  # a follower routes what it read a moment ago
                    continue
                for record in records:
                    position = record.n
                    sender = _sender(senders, record.by)
                    body = msgspec.json.decode(record.body)
                    if sender.context(body) == new.context:
                        event = sender.event(body, record.t)
                        await run.take(record.n, sender.student, event)
                        kept += 1
                    if time.perf_counter() > pause:
                        new.done, new.total = position - start, max(pipeline.routed - start, position - start)
                        if progress is not None:
                            progress(new.done, new.total)
                        if kept >= _KEEP:
                            kept = 0
                            await self._keep(run)
                        await asyncio.sleep(0)
                        pause = time.perf_counter() + _SLICE
        finally:
            cursor.close()
        run.joined = position
        new.done = new.total = position - start
        self._swap(new, run)

    async def _keep(self, run: Run) -> None:
        """Write a shadow's states without making them visible, so that memory doesn't grow."""
        snapshot = await run.snapshot(run.position)
        await self.store.commit([Commit(run.generation, snapshot.states)])
        run.saved(snapshot)

    def _swap(self, new: Registration, run: Run) -> None:
        if new.run is not None:
            self.pipeline.detach(new.run)
        run.changed = self.pipeline.changed
        self.pipeline.attach(run, new.context, _row_maker(new, run.generation))
        new.run = run
        new.status = "live"
        for listener in list(self.on_live):
            listener(new)
        for key in run.by_key:
            self.pipeline.changed(key)

    async def _swapped(self, new: Registration, old: Registration | None, run: Run) -> None:
        before = self.paused.pop(new.id, None)
        await self.pipeline.commit()
        gone = {old.run.generation} if old is not None and old.run is not None else set()
        if before is not None:
            gone.add(before.generation)
        for generation in gone - {run.generation}:
            self._clean(generation)

    def _clean(self, generation: int) -> None:
        """Delete a generation that nothing names any more, beside the rest."""
        task = asyncio.get_running_loop().create_task(self.store.remove(generation))
        self._cleaners.add(task)
        task.add_done_callback(self._cleaners.discard)

    async def remove(self, reducer_id: str) -> None:
        """Take a reducer out, its states with it; events stay in the archive."""
        registration = self._registrations.pop(reducer_id, None)
        row = self.paused.pop(reducer_id, None)
        if registration is None and row is None:
            raise self._unknown(reducer_id)
        generations = {row.generation} if row is not None else set()
        if registration is not None:
            if registration._task is not None and not registration._task.done():
                registration._task.cancel()
            if registration.run is not None:
                self.pipeline.detach(registration.run)
                generations.add(registration.run.generation)
            registration.status = "removed"
            for listener in list(self.on_removed):
                listener(registration)
        await self.pipeline.commit()
        await self.store.remove_row(reducer_id)
        for generation in generations:
            await self.store.remove(generation)

    async def stop(self) -> None:
        """End what runs in the background; shadows are dropped, and begin anew at the next start."""
        tasks = [r._task for r in self._registrations.values() if r._task is not None and not r._task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._cleaners, return_exceptions=True)

    # -- looking -------------------------------------------------------------------------------

    def get(self, reducer_id: str) -> Registration:
        """The registration of an id; raises :class:`UnknownReducerError`, which lists what is there."""
        found = self._registrations.get(reducer_id)
        if found is None:
            raise self._unknown(reducer_id)
        return found

    def _unknown(self, reducer_id: str) -> UnknownReducerError:
        there = ", ".join(sorted({*self._registrations, *self.paused})) or "none yet"
        return UnknownReducerError(f"no reducer has the id {reducer_id!r}; there are: {there}")

    def all(self) -> list[Registration]:
        """All registrations, in the order they were made."""
        return list(self._registrations.values())

    def by_key_name(self, key_name: str) -> Registration | None:
        """The registration whose keys have this middle part."""
        for registration in self._registrations.values():
            if registration.key_name == key_name:
                return registration
        return None

    def __contains__(self, reducer_id: object) -> bool:
        return reducer_id in self._registrations

    def __iter__(self) -> Iterator[Registration]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self._registrations)

    # -- reading states ------------------------------------------------------------------------

    async def read(self, keys: list[str] | tuple[str, ...]) -> list[Any]:
        """States by key, as copies, in the order asked for; ``None`` where there is none.

        Live states come first, then what the store holds.
        """
        values: list[Any] = [None] * len(keys)
        missing: dict[int, list[int]] = {}
        names: dict[str, tuple[Run | None, int]] = {}
        for index, key in enumerate(keys):
            name = key.split(",", 2)[1] if key.startswith(("Internal,", "External,")) else ""
            where = names.get(name)
            if where is None:
                where = names[name] = self._where(name)
            run, generation = where
            if run is not None and key.startswith("Internal,"):
                value = run.peek(key)
                if not is_missing(value):
                    values[index] = value
                    continue
            elif run is not None and key in run.unsaved:
                values[index] = msgspec.json.decode(run.unsaved[key])
                continue
            missing.setdefault(generation, []).append(index)
        for generation, indexes in missing.items():
            texts = await self.store.get_many(generation, [keys[index] for index in indexes])
            for index, text in zip(indexes, texts, strict=True):
                if text is not None:
                    values[index] = msgspec.json.decode(text)
        return values

    def _where(self, name: str) -> tuple[Run | None, int]:
        registration = self.by_key_name(name) if name else None
        if registration is not None and registration.run is not None:
            return registration.run, registration.run.generation
        for row in self.paused.values():
            if row.key_name == name:
                return None, row.generation
        return None, PLAIN

    async def keys(self, prefix: str = "") -> list[str]:
        """All visible keys that start with ``prefix``, sorted: states, and what was set by hand."""
        found = set(await self.store.keys(PLAIN, prefix))
        runs = [r.run for r in self._registrations.values() if r.run is not None]
        generations = {run.generation for run in runs}
        named = {r.key_name for r in self._registrations.values() if r.run is not None}
        generations |= {row.generation for row in self.paused.values() if row.key_name not in named}
        for generation in generations:
            found.update(await self.store.keys(generation, prefix))
        for run in runs:
            found.update(key for key, entry in run.by_key.items() if entry.seq and key.startswith(prefix))
        return sorted(found)

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call ``listener`` with the internal keys that changed; see :meth:`Pipeline.subscribe`."""
        return self.pipeline.subscribe(listener)

    def owner_of(self, key: str) -> str | None:
        """Id of the reducer that a key belongs to; ``None`` for a key of nobody's."""
        parsed = parse_key(key)
        if parsed is None:
            return None
        registration = self.by_key_name(parsed.qualname)
        if registration is not None:
            return registration.id
        return next((row.id for row in self.paused.values() if row.key_name == parsed.qualname), None)

    async def set(self, key: str, value: Any) -> None:
        """Store a value under a key of one's own; a reducer's keys are read-only."""
        owner = self.owner_of(key)
        if owner is not None or key.startswith(("Internal,", "External,")):
            whose = f"the reducer {owner!r}" if owner else "reducers"
            raise LOError(f"the key {key!r} belongs to {whose}, and is read-only: use a name of your own")
        await self.store.commit([Commit(PLAIN, {key: encode_state(value)})])


def _row_maker(new: Registration, generation: int) -> Callable[[int, dict[str, int]], ReducerRow]:
    null_state = msgspec.Raw(encode_state(new.null_state))

    def row(position: int, ahead: dict[str, int]) -> ReducerRow:
        return ReducerRow(
            id=new.id,
            key_name=new.key_name,
            context=new.context,
            scope=list(new.scope.names),
            code=new.code,
            generation=generation,
            position=position,
            ahead=ahead,
            null_state=null_state,
        )

    return row


def _sender(senders: dict[bytes, Sender], encoded: msgspec.Raw) -> Sender:
    key = bytes(encoded)
    sender = senders.get(key)
    if sender is None:
        if len(senders) > 5000:
            senders.clear()
        sender = senders[key] = Sender.decode(key)
    return sender


def _consume(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # it is in the error log; nobody has to await the task
