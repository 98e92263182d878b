"""Fold: one reducer over files, its states given back, and nothing kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from lo_kernel.engine.events import Event
from lo_kernel.engine.files import Deadline, EventFile, Paths, check_files, merged
from lo_kernel.engine.formats import Parsed
from lo_kernel.engine.keys import Scope, identifier, state_key
from lo_kernel.engine.reducers import STUDENT_SCOPE, Reducer, check_reducer, declaration_of, not_a_pair
from lo_kernel.engine.report import ReplayReport
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.turns import give_way
from lo_kernel.errors import EventError, ReducerError, StateError

__all__ = ["Folded", "check_fold", "fold"]

_TELL_EVERY = 0.1  # seconds between two calls of `on_progress`
_SINCE_BYTES = 6 << 20  # of records that are kept to make a state anew; then the states' texts are made
_EVENT_BYTES = 4000  # of an event that is kept as it is, about


class Folded(dict[str, Any]):
    """States by key; ``report`` says what was read, ``failures`` at how many events the reducer failed.

    ``errors`` has the first few of those, each with its event's place; ``first_error`` the first of them as
    it was raised, ``first_event`` the event.
    """

    def __init__(self, report: ReplayReport) -> None:
        super().__init__()
        self.report = report
        self.failures = 0
        self.errors: list[str] = []
        self.first_error: BaseException | None = None
        self.first_event: Event | None = None

    @property
    def note(self) -> str:
        """What a reader of the states has to know: at how many events the reducer failed, and what else of
        the files isn't in them; empty where all is well.
        """
        _, *lines = repr(self.report).splitlines()
        if self.failures:
            lines.append(
                f"The reducer failed at {self.failures:,} of {self.report.events:,} events: these states are "
                f"without them (.errors has more). The first: {self.errors[0]}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(text for text in (super().__repr__(), self.note) if text)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.pretty(dict(self))
        if self.note:
            printer.text("\n" + self.note)


class _State:
    """A state, and how to make it again: its text at some point, and the records since."""

    __slots__ = ("base", "key", "since", "state", "touched")

    def __init__(self, key: str, state: Any) -> None:
        self.key = key
        self.state = state
        self.base: bytes | None = None
        self.since: list[Any] = []  # records as they are in the file, or events
        self.touched = False


def check_fold(
    reducer: Reducer,
    paths: Paths,
    *,
    format: str = "auto",
    learner: str | None = None,
    limit: int | None = None,
    context: str | None = None,
    source: str | None = None,
    scope: Scope | None = None,
) -> None:
    """Check the arguments of :func:`fold` without doing anything.

    Raises :class:`~lo_kernel.errors.ReducerError` or :class:`~lo_kernel.errors.EventError`.
    """
    check_reducer(reducer)
    if scope is not None and not Scope(scope):
        raise ReducerError("a scope needs at least one field, such as Scope([KeyField.STUDENT])")
    if context is not None and (not isinstance(context, str) or not context):
        raise ReducerError(f"context: expected the 'source' of the events, a text, got {context!r}")
    encode_state(declaration_of(reducer).null_state)
    check_files(paths, format, learner=learner, limit=limit, source=source)


async def fold(
    reducer: Reducer,
    paths: Paths,
    *,
    format: str = "auto",
    learner: str | None = None,
    limit: int | None = None,
    context: str | None = None,
    source: str | None = None,
    scope: Scope | None = None,
    on_progress: Callable[[ReplayReport], None] | None = None,
    on_error: Callable[[BaseException, Event], object] | None = None,
) -> Folded:
    """Run a reducer over the events of files; gives its internal states by key.

    ``context`` takes the events of that source alone (``None``: all), ``learner`` (a safe id) those of that
    learner, ``limit`` the first so many. States are made as they are live: each from its own copy of the
    null state, and after an exception or a ``False`` what they were before. Several files are merged by time.
    ``on_error`` hears of each event that the reducer failed at.
    """
    check_fold(reducer, paths, format=format, learner=learner, limit=limit, context=context, scope=scope)
    found = check_files(paths, format, learner=learner, limit=limit, source=source)
    report = ReplayReport(files=[str(path) for path, _ in found], verb="folded")
    report.total = sum(path.stat().st_size for path, _ in found)
    deadline = Deadline()
    files = [
        EventFile(path, kind(source=source, time=path.stat().st_mtime), report, deadline, (), learner)
        for path, kind in found
    ]
    work = _Fold(reducer, scope, context, report, deadline, files, limit, on_progress, on_error)
    try:
        if len(files) == 1:
            await work.one(files[0])
        else:
            await work.several(files)
    finally:
        for file in files:
            file.close()
    work.finish()
    report.ended = perf_counter()
    if on_progress is not None:
        on_progress(report)
    return work.folded


class _Fold:
    def __init__(
        self,
        reducer: Reducer,
        scope: Scope | None,
        context: str | None,
        report: ReplayReport,
        deadline: Deadline,
        files: list[EventFile],
        limit: int | None,
        on_progress: Callable[[ReplayReport], None] | None,
        on_error: Callable[[BaseException, Event], object] | None,
    ) -> None:
        declared = declaration_of(reducer)
        self.reducer = reducer
        self.scope = declared.scope if scope is None else Scope(scope)
        self.context = context
        self.report = report
        self.deadline = deadline
        self.files = files
        self.limit = limit if limit is not None else -1
        self.on_progress = on_progress
        self.on_error = on_error
        self.folded = Folded(report)
        self.guarded = False
        self.strict = False
        self._key_name = declared.key_name
        self._null = encode_state(declared.null_state)
        self._student_only = self.scope == STUDENT_SCOPE
        self._ident_of = identifier(self.scope)
        self._states: dict[Any, _State] = {}
        self._touched: list[_State] = []
        self._tell_at = 0.0
        self._event_of: Callable[[Any], Any] = lambda record: None
        self._awaited = inspect.iscoroutinefunction(reducer) or inspect.iscoroutinefunction(
            getattr(type(reducer), "__call__", None)  # noqa: B004 - its kind is asked, not whether it is there
        )

    # -- reading -------------------------------------------------------------------------------

    async def one(self, file: EventFile) -> None:
        """The whole of one file, in its order."""
        format, path, event_of = file.format, str(file.path), file.format.event
        if not format.stateful:  # what is kept of an event is its record
            self._event_of = event_of
        await self._go(format.records(file.bytes), event_of, lambda line, _: f"{path}, line {line}")
        if file.bytes.problem:
            self.report.skip(path, 0, EventError(file.bytes.problem, reason="damaged_file"))

    async def several(self, files: list[EventFile]) -> None:
        """Several files, merged by time."""
        await self._go(
            self._merged(files),
            _event_of_merged,
            lambda number, parsed: f"record {number} of a file, time {parsed[0]}",
        )

    def _merged(self, files: list[EventFile]) -> Iterator[tuple[int, Parsed | None]]:
        for item in merged(files):
            yield item if item is not None else (0, None)
            if self.report.events == self.limit:
                return

    async def _go(
        self,
        records: Iterator[tuple[int, Any]],
        event_of: Callable[[Any], tuple[str, Event] | None],
        place: Callable[[int, Any], str],
    ) -> None:
        """Fold the events of numbered records; ``place`` says where one stands."""
        learner, context, limit = self.files[0].learner, self.context, self.limit
        deadline, report, states = self.deadline, self.report, self._states
        student_only, ident_of = self._student_only, self._ident_of
        reducer, awaited, task = self.reducer, self._awaited, asyncio.current_task()
        as_record = self._event_of is event_of
        kept_bytes = 0
        format, alone = self.files[0].format, event_of is not _event_of_merged
        for number, record in records:
            if report.events == limit:
                break
            if perf_counter() > deadline.at:
                await self._turn()
            untimed = format.untimed
            try:
                pair = event_of(record)
            except EventError as error:
                report.skip(str(self.files[0].path), number, error)
                continue
            if pair is None:
                continue
            student, event = pair
            if learner is not None and student != learner:
                report.other(student)
                continue
            if context is not None and (its := _context(event)) != context:
                report.other_context(its)
                continue
            report.events += 1
            without = alone and untimed != format.untimed  # several files count for themselves
            report.untimed += without
            ident = student if student_only else ident_of(student, event["client"])
            state = states.get(ident)
            if state is None:
                if ident is None:
                    continue
                state = self._new(ident)
            if as_record and type(record) is bytes and not without:  # read again it had another's time
                kept: Any = record
                kept_bytes += len(record)
            else:
                kept = event
                kept_bytes += _EVENT_BYTES
            if self.guarded and state.since:
                await self._settle(state)
            try:
                result = reducer(event, state.state)
                if awaited or (type(result) is not tuple and inspect.isawaitable(result)):
                    result = await result
                internal, _ = result if type(result) is tuple else _refuse(result)
                if self.strict:
                    encode_state(internal)
            except BaseException as error:  # `sys.exit()` too: it is the reducer that gave up
                if _ends_the_fold(error, task):
                    raise
                self._failed(error, place(number, record), event)
                await self._put_back(state)
                continue
            if internal is False:
                await self._put_back(state)
                continue
            state.state = internal
            state.since.append(kept)
            if not state.touched:
                state.touched = True
                self._touched.append(state)
            if kept_bytes > _SINCE_BYTES:
                kept_bytes = 0
                await self._settle_all()
        await self._settle_all()

    async def _turn(self) -> None:
        self.report.done = sum(file.bytes.read for file in self.files)
        if self.on_progress is not None and perf_counter() > self._tell_at:
            self._tell_at = perf_counter() + _TELL_EVERY
            self.on_progress(self.report)
        await give_way()
        self.deadline.renew()

    # -- states --------------------------------------------------------------------------------

    def _new(self, ident: Any) -> _State:
        values = (ident,) if self._student_only else ident
        key = state_key("Internal", self._key_name, dict(zip(self.scope.names, values, strict=True)))
        state = self._states[ident] = _State(key, decode_state(self._null))
        return state

    def _decode(self, text: bytes | None) -> Any:
        return decode_state(self._null if text is None else text)

    async def _answer(self, event: Event, state: Any) -> Any:
        result = self.reducer(event, state)
        if inspect.isawaitable(result):
            result = await result
        internal, _ = result if type(result) is tuple and len(result) == 2 else _refuse(result)
        return internal

    async def _put_back(self, state: _State) -> None:
        """Make a state again as it was before the event at hand."""
        self.guarded = True
        task = asyncio.current_task()
        state.state = self._decode(state.base)
        since, state.since = state.since, []
        for kept in since:
            event = self._again(kept) if type(kept) is bytes else kept
            try:
                internal = await self._answer(event, state.state)
                if internal is not False:
                    state.base = encode_state(internal)
                    state.state = internal
            except BaseException as error:
                if _ends_the_fold(error, task):
                    raise
                self._failed(error, "an event before", event)
                state.state = self._decode(state.base)

    def _again(self, record: bytes) -> Event:
        """The event of a record that was read before; those to come go on from the newest one's time."""
        format = self.files[0].format
        time = format.time
        event: Event = self._event_of(record)[1]
        format.time = time
        return event

    async def _settle(self, state: _State) -> None:
        """Bring a state's text up to now; an event whose state is no JSON is left out."""
        try:
            state.base = encode_state(state.state)
            state.since = []
        except StateError:
            self.strict = True
            await self._put_back(state)

    async def _settle_all(self) -> None:
        touched, self._touched = self._touched, []
        for state in touched:
            state.touched = False
            if state.since:
                await self._settle(state)
            if perf_counter() > self.deadline.at:
                await self._turn()

    def _failed(self, error: BaseException, place: str, event: Event) -> None:
        self.folded.failures += 1
        if self.on_error is not None:
            self.on_error(error, event)
        if self.folded.first_error is None:
            self.folded.first_error, self.folded.first_event = error, event
        if len(self.folded.errors) < 10:
            self.folded.errors.append(f"{place}: {type(error).__name__}: {error}")

    def finish(self) -> None:
        """Give the states their keys."""
        for state in self._states.values():
            self.folded[state.key] = state.state


def _ends_the_fold(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether it isn't the reducer that gave up: an interrupt, a cancelled job, or no loop any more."""
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):  # what a loop left behind is cleared away in no step of the task
        try:
            return asyncio.current_task() is not task
        except RuntimeError:
            return True
    return isinstance(error, KeyboardInterrupt)


def _event_of_merged(parsed: Parsed | None) -> tuple[str, Event] | None:
    if parsed is None:
        return None
    time, sender, body, _ = parsed
    return sender.student, sender.event(body, time)


def _context(event: Event) -> Any:
    client = event["client"]
    return client["source"] if "source" in client else (event.get("metadata") or {}).get("source")


def _refuse(result: Any) -> Any:
    raise not_a_pair(result)
