"""The registry: which reducers there are, and how one takes the place of another.

A registration begins with the past. States that the same code left in the store are taken up, and only
the events after their position run. Other code starts a *shadow*: a new generation of states, folded
from the archive in slices, while the old reducer goes on answering. When the shadow has seen every
event it is swapped in within one step of the loop, so no event is missed and none counted twice. What
else may become of the old code's states is said by ``migrate``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from lo_kernel.engine.codehash import code_hash
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import ANY_CONTEXT
from lo_kernel.engine.keys import Scope, reducer_prefix
from lo_kernel.engine.past import CatchUp, OldStates, convert
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import Declaration, Reducer, check_reducer, declaration_of
from lo_kernel.engine.registered import Registered
from lo_kernel.engine.registration import Registration
from lo_kernel.engine.run import PENDING, Run
from lo_kernel.engine.states import encode_state
from lo_kernel.engine.store import PLAIN, ReducerRow, Store
from lo_kernel.errors import LOError, ReducerError

__all__ = ["Registration", "Registry"]

_SYSTEM = "lo_kernel."  # ids of rows that are not reducers
_MIGRATE = ("restream", "drop", "keep")
_PATIENCE = 2.0  # seconds that a registration waits for the store to take it, before it is ready all the same

Progress = Callable[[int, int], None]


class Registry(Registered):
    """Reducers by id."""

    def __init__(self, pipeline: Pipeline, store: Store, errors: ErrorLog) -> None:
        super().__init__(pipeline, store)
        self.errors = errors
        self.live_states = 50_000  # that a reducer keeps in memory; more go out to the store
        self.on_live: list[Callable[[Registration], None]] = []
        self.on_removed: list[Callable[[str], None]] = []
        self.on_restored: list[Callable[[Registration], None]] = []  # the next one failed
        self._owners: dict[str, Registration] = {}  # whose states answer
        self._stored: dict[str, ReducerRow] = {}  # rows as the store has them
        self._generation = 0
        self._cleaners: set[asyncio.Task[None]] = set()
        self.loaded = asyncio.Event()  # where it isn't set, registrations wait: the store has their states
        self.loaded.set()
        pipeline.on_committed.append(self._committed)
        pipeline.awaits = self._awaits

    async def load(self, end: int | None = None) -> None:
        """Take up what the store knows; what an interrupted shadow left is deleted.

        ``end`` is where the archive ended at the start, if numbers were given since: what the store has of
        events behind it is not of those.
        """
        self._take_up(await self.store.rows(), await self.store.generations(), end)

    def _take_up(self, rows: Iterable[ReducerRow], generations: Collection[int], end: int | None) -> None:
        rows = [row for row in rows if not row.id.startswith(_SYSTEM)]
        if end is not None:
            for row in rows:
                row.position = min(row.position, end)
                row.ahead = {key: min(number, end) for key, number in row.ahead.items()}
        self._stored = {row.id: row for row in rows}
        self.paused = dict(self._stored)
        named = {row.generation for row in rows}
        self._generation = max([*generations, *named, PLAIN])
        left = [generation for generation in generations if generation > PLAIN and generation not in named]
        if left:
            self._beside(self._remove_generations(self.store, left))
        self.loaded.set()

    def _awaits(self, context: str) -> bool:
        """Whether a reducer of a context is on its way through the past, and will hear what comes now."""
        on_the_way = ("waiting", "catching up")
        return any(each.context == context and each.status in on_the_way for each in self)

    def _committed(self, row: ReducerRow) -> None:
        if not row.id.startswith(_SYSTEM):
            self._stored[row.id] = row
            if row.id in self.paused:
                self.paused[row.id] = row

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
        release: str = "",
        on_progress: Progress | None = None,
    ) -> Registration:
        """Register a reducer; what has this id already goes on answering until the new one is ready.

        The same code goes on with its states. ``migrate`` says what becomes of those of other code:
        ``"restream"`` folds all past events anew; ``"drop"`` begins with nothing, and with the events from
        now on; ``"keep"`` goes on with the old states as they are; a function (or coroutine function) makes
        each new state from an old one. Where there are no old states, the last two restream. ``release`` is
        the version of the package that the code is from: another one counts as other code.

        Mistakes in the arguments raise :class:`~lo_kernel.errors.ReducerError` here and now; the rest
        happens in the background (:meth:`Registration.ready`). Only on the app's loop.
        """
        declared, scope, context = self.check(
            reducer_id, function, context=context, scope=scope, default=default, migrate=migrate
        )
        null_state = declared.null_state
        told = [release] if release else []
        registration = Registration(
            reducer_id,
            context,
            function,
            scope,
            declared.key_name,
            null_state,
            null_state if default is None else default,
            module,
            code_hash(function, null_state, declared.key_name, context, list(scope.names), *told),
            pipeline=self.pipeline,
        )
        old = self._registrations.get(reducer_id)
        if old is not None:
            if old._task is not None and not old._task.done():
                old._task.cancel()
            old.status, old.successor = "replaced", registration
            registration.run = old.run  # until the swap it answers
        if old is None or old.run is None or old.run.code != registration.code:
            self.errors.forget(f"reducer '{reducer_id}'")  # else nothing runs again, and they stand
            if old is not None and old.run is not None:
                old.run.outgoing = True
        self._registrations[reducer_id] = registration
        self.pipeline.expect(context)
        self._begin(registration, migrate, on_progress)
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
        if not isinstance(reducer_id, str) or not reducer_id or reducer_id.startswith(_SYSTEM):
            raise ReducerError(
                f"a reducer's id is a text that doesn't start with {_SYSTEM!r}, got {reducer_id!r}"
            )
        check_reducer(function)
        declared = declaration_of(function)
        scope = declared.scope if scope is None else Scope(scope)
        if not scope:
            raise ReducerError("a scope needs at least one field, such as Scope([KeyField.STUDENT])")
        context = ANY_CONTEXT if context is None else context
        if not isinstance(context, str) or not context:
            raise ReducerError(f"context: expected the 'source' of the events, a text, got {context!r}")
        if migrate not in _MIGRATE and not callable(migrate):
            raise ReducerError(
                "migrate: expected 'restream', 'drop', 'keep' or a function of an old state that gives a "
                f"new one, got {migrate!r}"
            )
        encode_state(declared.null_state)
        encode_state(default)
        self._check_keys(reducer_id, declared.key_name, scope)
        if migrate == "keep" or callable(migrate):
            self._check_shape(reducer_id, declared.key_name, scope, migrate == "keep")
        return declared, scope, context

    def _check_keys(self, reducer_id: str, key_name: str, scope: Scope) -> None:
        for other in list(self._registrations.values()):
            same_name = other.id != reducer_id and other.key_name == key_name
            if same_name and other.scope == scope:  # else the fields in the keys tell them apart
                raise ReducerError(
                    f"the reducers {other.id!r} and {reducer_id!r} would both write the keys "
                    f"'{reducer_prefix(key_name)}...', which have the function's name: give one function "
                    "another name, or qualname_override=... in a @student_event_reducer or @kvs_pipeline "
                    "under its @lo.reducer; or use the same id, to replace it"
                )

    def _check_shape(self, reducer_id: str, key_name: str, scope: Scope, same_name: bool) -> None:
        """Old states can be kept or converted only where they belong to the same things."""
        old, row = self._registrations.get(reducer_id), self.paused.get(reducer_id)
        if old is not None and old.run is not None:
            names, name = old.run.scope.names, old.run.key_name
        elif row is not None:
            names, name = tuple(row.scope), row.key_name
        else:
            return
        if names != scope.names or (same_name and name != key_name):
            raise ReducerError(
                f"migrate: the old states of {reducer_id!r} belong to {name} by {', '.join(names)}, the new "
                f"ones would to {key_name} by {', '.join(scope.names)}: use migrate='restream', or keep name "
                "and scope"
            )

    def _begin(self, new: Registration, migrate: Any, progress: Progress | None) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            _consume(task)
            if task.cancelled() and new.status == "waiting":  # before it had begun
                self._undo(new, None, "cancelled")

        task = asyncio.get_running_loop().create_task(self._bring_in(new, migrate, progress))
        task.add_done_callback(ended)
        new._task = task

    async def _bring_in(self, new: Registration, migrate: Any, progress: Progress | None) -> None:
        run: Run | None = None
        try:
            await self.loaded.wait()
            run, shadow = self._start(new, migrate)
            if run.read is not None:
                new.status = "catching up"
                advance = _both(new, progress)
                if shadow and callable(migrate) and (found := self._old_states(new)) is not None:
                    await convert(found, run, migrate, self.pipeline, advance)
                row = None if shadow else new.row_maker(run.generation)
                await CatchUp(self.pipeline, run, new.context, advance, row).go()
            gone = self._swap(new, run)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            if not cancelled:
                self.errors.add(f"reducer '{new.id}'", error)
            self._undo(new, run, "cancelled" if cancelled else "failed")
            raise
        finish = self._beside(self._finish(new, run, gone))
        await asyncio.wait({finish}, timeout=_PATIENCE)

    def _start(self, new: Registration, migrate: Any) -> tuple[Run, bool]:
        """The run that a registration begins with, and whether it is a shadow: states that nothing names.

        Where its ``read`` is set it has the past before it.
        """
        answering = new.run if new.run is not None and new.run.store is self.store else None
        row = self.paused.get(new.id) if answering is None else None
        if answering is not None and (answering.code == new.code or migrate == "keep"):
            if answering.code != new.code:
                answering.events = answering.failures = answering.repeated = 0
            answering.replace(new.function, new.null_state, new.code)
            answering.outgoing = False
            return answering, False
        if row is not None and (row.code == new.code or migrate == "keep"):
            return self._run(new, row.generation, row.position, row.ahead, stored=True), False
        self._generation += 1
        run = self._run(new, self._generation, 0, {}, stored=False)
        if migrate == "drop":
            run.position = run.joined = run.began = self.pipeline.routed
            run.read = None
        return run, True

    def _old_states(self, new: Registration) -> OldStates | None:
        run, row = new.run, self.paused.get(new.id)
        if run is not None:
            return OldStates(run.store, run.generation, run.prefix, run.position, run.states.ahead, run)
        if row is not None:
            prefix = reducer_prefix(row.key_name)
            return OldStates(self.store, row.generation, prefix, row.position, row.ahead)
        return None

    def _run(
        self, new: Registration, generation: int, position: int, ahead: dict[str, int], *, stored: bool
    ) -> Run:
        run = Run(
            name=new.id,
            function=new.function,
            scope=new.scope,
            key_name=new.key_name,
            null_state=new.null_state,
            code=new.code,
            generation=generation,
            store=self.store,
            errors=self.errors,
            position=position,
            ahead=ahead,
            stored=stored,
            limit=self.live_states,
        )
        run.overrun = self._fall_behind
        run.stuck = self._set_aside
        before = new.run
        if before is not None and before.left is not None and before.code == new.code:
            run.follow(before.left)
        return run

    def _swap(self, new: Registration, run: Run) -> set[int]:
        """Let a run take the place of the one that answers, in one step; gives the generations to delete."""
        old = new.run
        keys = set(run.states.live_keys()) if old is not run else set()
        gone: set[int] = set()
        if old is not None:
            self.pipeline.detach(old)
            if old is not run:
                run.replaces(old)
                keys.update(old.states.live_keys())
                self._beside(old.stop())
                if old.store is self.store:
                    gone.add(old.generation)
        before = self.paused.pop(new.id, None)
        if before is not None and before.generation != run.generation:
            gone.add(before.generation)
        self.pipeline.attach(run, new.context, new.row_maker(run.generation))
        new.run = run
        new.status = "live"
        self._owners[new.id] = new
        for listener in list(self.on_live):
            listener(new)
        self.pipeline.changed(keys)
        return gone

    async def _finish(self, new: Registration, run: Run, gone: set[int]) -> None:
        """Have the swap in the store; only then the old states go."""
        while self._registrations.get(new.id) is new:
            try:
                await self.pipeline.commit()
            except LOError as error:
                self.errors.add("store", error)
            row = self._stored.get(new.id)
            if row is not None and row.generation not in gone and not run.fresh:
                break
            await asyncio.sleep(0.1)
        row = self._stored.get(new.id)
        if row is None or row.generation not in gone:
            await self._remove_generations(self.store, gone)

    def _undo(self, new: Registration, run: Run | None, status: str) -> None:
        """A registration came to nothing: the one whose states answer stays in place."""
        if new.status != "replaced":
            new.status = status
        if run is not None and run is not new.run:
            self._beside(run.stop())
            row = self._stored.get(new.id)
            if row is None or row.generation != run.generation:
                self._beside(self._remove_generations(run.store, {run.generation}))
        if new.run is not None and new.run.left is not None:
            new.run.take_back()
        self.pipeline.miss(new.context)
        owner = self._owners.get(new.id)
        if self._registrations.get(new.id) is not new or owner is None or owner is new or owner.run is None:
            return
        self._registrations[new.id] = owner
        owner.status = "live"
        owner.run.outgoing = False
        for listener in list(self.on_restored):
            listener(owner)
        if owner.run.read is not None:
            self._regain(owner, owner.run)

    # -- falling behind ------------------------------------------------------------------------

    def _fall_behind(self, run: Run) -> None:
        """More events wait for a reducer than memory should hold: it reads them from the archive again."""
        if run.read is not None:
            return
        registration = next((r for r in self._registrations.values() if r.run is run), None)
        self.pipeline.detach(run)
        run.drop_waiting()
        self.errors.add(
            f"reducer '{run.name}'",
            f"it is slower than events come: {PENDING:,} wait. It goes on from the archive at its own pace, "
            "and answers with what it has by then; nothing is lost",
            kind="Behind",
        )
        if registration is not None and registration.status == "live":
            self._regain(registration, run)

    def _regain(self, registration: Registration, run: Run) -> None:
        registration.status = "catching up"

        async def regain() -> None:
            row = registration.row_maker(run.generation)
            try:
                await CatchUp(self.pipeline, run, registration.context, registration.advance, row).go()
                self._swap(registration, run)
            except Exception as error:
                registration.status = "failed"
                self.errors.add(f"reducer '{registration.id}'", error)
                raise

        registration._task = asyncio.get_running_loop().create_task(regain())
        registration._task.add_done_callback(_consume)

    # -- interrupted too often -----------------------------------------------------------------

    def _set_aside(self, run: Run) -> None:
        """A reducer does not come to an end: what it was to replace stays, or else it is paused.

        Where another one is on its way into its place, that one goes on.
        """
        registration = self._registrations.get(run.name)
        if registration is None or (registration.run is run and registration.replacing):
            return
        registration.cancel()
        if registration.run is run:
            self._beside(self._pause(registration, run))

    async def _pause(self, registration: Registration, run: Run) -> None:
        with contextlib.suppress(LOError):
            await self.pipeline.commit()
        if self._registrations.get(run.name) is not registration:
            return
        self.pipeline.detach(run)
        del self._registrations[run.name]
        self._owners.pop(run.name, None)
        registration.status = "paused"
        row = self._stored.get(run.name)
        if row is not None:
            self.paused[run.name] = row
        await run.stop()

    async def pause(self, reducer_id: str) -> None:
        """Take a reducer out, and leave its states in the store, as the end of a process does."""
        registration = self._registrations[reducer_id]
        if registration._task is not None:
            registration._task.cancel()
        if registration.run is not None:
            await self._pause(registration, registration.run)
        else:
            del self._registrations[reducer_id]
            registration.status = "paused"
            self.pipeline.miss(registration.context)

    # -- removing ------------------------------------------------------------------------------

    async def remove(self, reducer_id: str) -> None:
        """Take a reducer out, its states with it; events stay in the archive."""
        registration = self._registrations.pop(reducer_id, None)
        self._owners.pop(reducer_id, None)
        row = self._stored.get(reducer_id)
        if registration is None and row is None and reducer_id not in self.paused:
            raise self._unknown(reducer_id)
        generations = {row.generation} if row is not None else set()
        if registration is not None:
            if registration._task is not None and not registration._task.done():
                registration._task.cancel()
            registration.status = "removed"
            self.pipeline.miss(registration.context)
            self.errors.rename(f"reducer '{reducer_id}'", f"reducer '{reducer_id}' (removed)")
            if registration.run is not None:
                self.pipeline.detach(registration.run)
                generations.add(registration.run.generation)
                await registration.run.stop()
        with contextlib.suppress(LOError):
            await self.pipeline.commit()  # one that had begun may hold its row
        if row is not None:
            self.paused[reducer_id] = row  # where the store fails now, it can be tried again
        await self.store.remove_row(reducer_id)
        self._stored.pop(reducer_id, None)
        self.paused.pop(reducer_id, None)
        await self._remove_generations(self.store, generations)
        for listener in list(self.on_removed):
            listener(reducer_id)

    async def _remove_generations(self, store: Store, generations: set[int] | list[int]) -> None:
        for generation in generations:
            try:
                await store.remove(generation)
            except LOError as error:  # nothing names it: the next start deletes it
                self.errors.add("store", error)

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._cleaners.add(task)
        task.add_done_callback(self._cleaners.discard)
        return task

    async def move(self, store: Store) -> None:
        """Go over to another store, as when this process takes over a workspace.

        What it knows is taken up; reducers go on answering with what they have until they stand there. Where
        it can't be asked, all stays as it was.
        """
        rows, generations = await store.rows(), await store.generations()
        self.pipeline.leave_out([r.run for r in self._registrations.values() if r.run is not None])
        for registration in self._registrations.values():
            if registration._task is not None and not registration._task.done():
                registration._task.cancel()
        self.store = store
        self._take_up(rows, generations, None)
        for registration in list(self._registrations.values()):
            if registration.status == "cancelled" and registration.run is None:
                continue  # somebody has stopped it: it may be one that never comes to an end
            if registration.status in ("waiting", "catching up", "live", "cancelled"):
                self._hand_over(registration)
                self._begin(registration, "restream", None)

    def _hand_over(self, registration: Registration) -> None:
        """Events are folded anew: their errors are told once."""
        run = registration.run
        if run is not None and run.code == registration.code:
            run.hand_over(self.pipeline.routed)
        else:
            self.errors.forget(f"reducer '{registration.id}'")

    async def stop(self) -> None:
        """End what runs in the background; shadows are dropped, and begin anew at the next start."""
        registrations = list(self._registrations.values())
        tasks = [r._task for r in registrations if r._task is not None and not r._task.done()]
        for task in tasks:
            task.cancel()
        for run in [r.run for r in registrations if r.run is not None]:
            if run.pending:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(run.waiting.room(0), 0.3)
                await run.stop()
        cleaners = list(self._cleaners)
        for task in cleaners:
            task.cancel()
        await asyncio.gather(*tasks, *cleaners, return_exceptions=True)


def _both(new: Registration, progress: Progress | None) -> Progress:
    def advance(done: int, total: int) -> None:
        new.advance(done, total)
        if progress is not None:
            progress(done, total)

    return advance


def _consume(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # it is in the error log; nobody has to await the task
