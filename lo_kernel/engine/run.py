"""One pass of a reducer over the events: its live states, and the folding of an event into one.

Events of one key are folded one after another, also when a reducer truly suspends: what comes for the
key meanwhile waits in the key's list, and other keys go on. Where nothing suspends, an event costs a
dictionary look-up and a plain ``await``.

A live state can always be put back to what it was before an event: ``base`` is its JSON text at some
point, ``since`` the events folded after it. A reducer that fails or answers ``False`` becomes *guarded*:
from then on the text is made before each event.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Event
from lo_kernel.engine.keys import EventField, KeyField, Scope, reducer_prefix, state_key
from lo_kernel.engine.reducers import STUDENT_SCOPE, Reducer
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.store import Store
from lo_kernel.errors import LOError, ReducerError, StateError

__all__ = ["LiveState", "Run", "Snapshot"]

_MISSING: Any = object()
_NO_STUDENT_FIELDS = {
    KeyField.CLASS: ("class_id", "course_id"),
    KeyField.RESOURCE: ("resource_id", "doc_id"),
    KeyField.TEACHER: ("teacher_id",),
}


class LiveState:
    """One state in memory."""

    __slots__ = (
        "base",
        "busy",
        "dirty",
        "external",
        "first_dirty",
        "key",
        "seq",
        "since",
        "state",
        "used",
        "waiting",
    )

    def __init__(self, key: str, state: Any, base: bytes | None, seq: int) -> None:
        self.key = key  # of the internal state
        self.state = state
        self.external: Any = _MISSING
        self.base = base  # JSON text before the events in `since`; None: the null state
        self.since: list[tuple[int, Event]] = []
        self.seq = seq  # number of the newest event folded in
        self.first_dirty = 0  # number of the oldest event folded in and not in a snapshot
        self.dirty = False
        self.busy = False
        self.used = True
        self.waiting: list[tuple[int, Event]] = []


class Snapshot:
    """What a run has to commit: JSON texts by key, the position they stand for, and who is ahead of it."""

    __slots__ = ("ahead", "position", "states")

    def __init__(self, states: dict[str, bytes], position: int, ahead: dict[str, int]) -> None:
        self.states = states
        self.position = position
        self.ahead = ahead


class Run:
    """A reducer's states in one generation of the store.

    ``release(seq)`` is called for each event that had to wait, when it is done; ``changed(key)`` for
    each internal key that an event changed.
    """

    def __init__(
        self,
        *,
        name: str,
        function: Reducer,
        scope: Scope,
        key_name: str,
        null_state: Any,
        generation: int,
        store: Store,
        errors: ErrorLog,
        release: Callable[[int], None],
        changed: Callable[[str], None] | None = None,
        position: int = 0,
        ahead: dict[str, int] | None = None,
        stored: bool = False,
        limit: int = 50_000,
    ) -> None:
        self.name = name
        self.function = function
        self.scope = scope
        self.key_name = key_name
        self.generation = generation
        self.position = position  # all events up to here are folded in (while catching up: read)
        self.joined = 0  # events up to here came from the archive, not by accept
        self.entries: dict[Any, LiveState] = {}
        self.by_key: dict[str, LiveState] = {}
        self.dirty: list[LiveState] = []
        self.unsaved: dict[str, bytes] = {}
        self.events = 0
        self.failures = 0
        self.last_failure = ""
        self.guarded = False
        self.strict = False
        self.limit = limit
        self.awaited = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            type(function).__call__
        )
        self.student_only = scope == STUDENT_SCOPE
        self.changed = changed
        self._release = release
        self._null = encode_state(null_state)
        self._store = store
        self._stored = stored
        self._errors = errors
        self.ahead = dict(ahead or {})  # keys whose stored state is further than `position`, and up to where
        self._evict_at = limit
        self._getters = [_getter(field) for field in sorted(scope, key=lambda field: field.key_name)]
        self._tasks: set[asyncio.Task[None]] = set()

    # -- folding -------------------------------------------------------------------------------

    def ident(self, student: str, event: Event) -> Any:
        """What tells the state of an event from others; ``None`` where a field of the scope is missing."""
        if self.student_only:
            return student
        values = []
        for get in self._getters:
            value = get(student, event["client"])
            if value is None:
                return None
            values.append(value)
        return tuple(values)

    async def take(self, seq: int, student: str, event: Event) -> bool:
        """Fold an event in; ``False`` where it has to wait for its key (``release`` is called then)."""
        ident = student if self.student_only else self.ident(student, event)
        entry = self.entries.get(ident)
        if entry is None:
            if ident is None:
                return True
            entry = self._new(ident)
            if self._stored:
                entry.busy = True
                if not await self._load(entry):
                    entry.waiting.append((seq, event))
                    self._spawn(self._load_later(entry))
                    return False
                entry.busy = False
        if entry.busy:
            entry.waiting.append((seq, event))
            return False
        if seq <= entry.seq:
            return True
        entry.busy = True
        await self._fold(entry, seq, event)
        if entry.waiting:
            await self._drain(entry)
        entry.busy = False
        return True

    async def _fold(self, entry: LiveState, seq: int, event: Event) -> None:
        try:
            if self.guarded and entry.since:
                entry.base = encode_state(entry.state)
                entry.since = []
            result = self.function(event, entry.state)
            if self.awaited:
                result = await result
            if type(result) is not tuple or len(result) != 2:
                raise _not_a_pair(result)
            internal, external = result
            if self.strict:
                encode_state(internal)
        except Exception as error:
            self._failed(error, event)
            await self._restore(entry)
            entry.seq = seq
            return
        except BaseException:  # cancelled: the event stays in work, and is folded after a restart
            await self._restore(entry)
            raise
        self.events += 1
        entry.seq = seq
        if internal is False:
            await self._restore(entry)
            if external is False:
                return
        else:
            entry.state = internal
            entry.since.append((seq, event))
        if external is not False:
            entry.external = external
        if not entry.dirty:
            entry.dirty = True
            entry.first_dirty = seq
            self.dirty.append(entry)
        if self.changed is not None:
            self.changed(entry.key)

    async def _drain(self, entry: LiveState) -> None:
        while entry.waiting:
            seq, event = entry.waiting.pop(0)
            if seq > entry.seq:
                await self._fold(entry, seq, event)
            self._release(seq)

    async def _restore(self, entry: LiveState) -> None:
        """Put a state back to what it was before the event at hand."""
        state = self._decode(entry.base)
        for _, event in entry.since:
            try:
                result = self.function(event, state)
                state = (await result if self.awaited else result)[0]
            except Exception as error:  # it went well before: the reducer isn't a function of its arguments
                self._failed(error, event)
        entry.state = state
        if entry.since:
            self.guarded = True

    def _failed(self, error: Exception, event: Event) -> None:
        self.failures += 1
        self.last_failure = f"{type(error).__name__}: {error}"
        self._errors.add(f"reducer '{self.name}'", error, event=event)

    # -- loading -------------------------------------------------------------------------------

    def _new(self, ident: Any) -> LiveState:
        if len(self.entries) >= self._evict_at:
            self._evict()
        values = (ident,) if self.student_only else ident
        key = state_key("Internal", self.key_name, dict(zip(self.scope.names, values, strict=True)))
        entry = LiveState(key, self._decode(None), None, self.ahead.get(key, 0))
        self.entries[ident] = self.by_key[key] = entry
        return entry

    async def _load(self, entry: LiveState) -> bool:
        try:
            text = self.unsaved.get(entry.key)
            if text is None:
                text = (await self._store.get_many(self.generation, [entry.key]))[0]
        except LOError as error:
            self._errors.add("store", error)
            return False
        if text is not None:
            entry.base = text
            entry.state = decode_state(text)
        return True

    async def _load_later(self, entry: LiveState) -> None:
        delay = 0.05
        while not await self._load(entry):
            await asyncio.sleep(delay)
            delay = min(2.0, delay * 2)
        await self._drain(entry)
        entry.busy = False

    def _evict(self) -> None:
        """Let the states go that were not used since the last look and are in the store."""
        self._stored = True
        if not self.unsaved:
            gone = 0
            for ident, entry in list(self.entries.items()):
                if entry.used:
                    entry.used = False
                elif not entry.dirty and not entry.busy and entry.key not in self.ahead:
                    del self.entries[ident], self.by_key[entry.key]
                    gone += 1
                    if gone >= self.limit // 10:
                        break
        self._evict_at = max(self.limit, len(self.entries) + self.limit // 20)

    def _decode(self, text: bytes | None) -> Any:
        return decode_state(self._null if text is None else text)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- committing ----------------------------------------------------------------------------

    async def snapshot(self, low: int) -> Snapshot:
        """All that changed since the last one. ``low``: every event up to it is folded in."""
        dirty, self.dirty = self.dirty, []
        for count, entry in enumerate(dirty):
            if count % 500 == 499:
                await asyncio.sleep(0)
            if entry.busy:  # its state may be half changed: it stays for the next time
                self.dirty.append(entry)
                self.guarded = True
                continue
            entry.dirty = False
            entry.used = True
            try:
                text = encode_state(entry.state)
            except StateError:
                text = await self._repair(entry)
            entry.base = text
            entry.since = []
            self.unsaved[entry.key] = text
            if entry.external is not _MISSING:
                self._keep_external(entry, text)
            if entry.seq > low:
                self.ahead[entry.key] = entry.seq
            if entry.waiting and not entry.busy:  # came during a repair
                entry.busy = True
                await self._drain(entry)
                entry.busy = False
        position = min([low, *(entry.first_dirty - 1 for entry in self.dirty if entry.busy)])
        self.ahead = {key: seq for key, seq in self.ahead.items() if seq > position}
        return Snapshot(self.unsaved, position, dict(self.ahead))

    def _keep_external(self, entry: LiveState, internal: bytes) -> None:
        try:
            text = internal if entry.external is entry.state else encode_state(entry.external)
        except StateError as error:
            self._failed(error, {})
            entry.external = _MISSING
            return
        self.unsaved["External" + entry.key[8:]] = text

    async def _repair(self, entry: LiveState) -> bytes:
        """The newest state that is JSON: events whose state isn't are undone, and reported."""
        self.strict = self.guarded = True
        events, entry.since = entry.since, []
        entry.state = self._decode(entry.base)
        text = entry.base if entry.base is not None else self._null
        entry.busy = True
        for _, event in events:
            try:
                result = self.function(event, entry.state)
                state = (await result if self.awaited else result)[0]
                text = encode_state(state)
                entry.state = state
            except Exception as error:
                self._failed(error, event)
                entry.state = decode_state(text)
        entry.busy = False
        return text

    def saved(self, snapshot: Snapshot) -> None:
        """The store has what the newest snapshot held."""
        self.unsaved = {}
        self.position = snapshot.position

    # -- reading -------------------------------------------------------------------------------

    def peek(self, key: str) -> Any:
        """A copy of a live state by its internal key; ``_MISSING`` where it isn't in memory."""
        entry = self.by_key.get(key)
        if entry is None:
            text = self.unsaved.get(key)
            return _MISSING if text is None else decode_state(text)
        if entry.busy:
            self.guarded = True
            return self._decode(entry.base)
        try:
            return decode_state(encode_state(entry.state))
        except StateError:
            return self._decode(entry.base)

    @property
    def prefix(self) -> str:
        """What its internal keys start with."""
        return reducer_prefix(self.key_name)


def is_missing(value: Any) -> bool:
    """Whether :meth:`Run.peek` found nothing."""
    return value is _MISSING


def _getter(field: KeyField | EventField) -> Callable[[str, dict[str, Any]], str | None]:
    if field is KeyField.STUDENT:
        return lambda student, client: student
    if isinstance(field, EventField):
        path = field.event.split(".")

        def by_path(student: str, client: dict[str, Any]) -> str | None:
            if field.event in client:
                return _text(client[field.event])
            value: Any = client
            for part in path:
                if not isinstance(value, dict) or part not in value:
                    return None
                value = value[part]
            return _text(value)

        return by_path
    names = _NO_STUDENT_FIELDS[field]

    def by_name(student: str, client: dict[str, Any]) -> str | None:
        for name in names:
            if name in client:
                return _text(client[name])
        return None

    return by_name


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)


def _not_a_pair(result: Any) -> ReducerError:
    hint = ""
    if inspect.iscoroutine(result):
        hint = " (was it meant to be awaited?)"
        result.close()
    return ReducerError(
        "a reducer returns a pair (internal state, external state), "
        f"got {type(result).__name__}: {str(result)[:80]}{hint}. Write: return state, state"
    )
