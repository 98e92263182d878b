"""One pass of a reducer over the events: its live states, and the folding of an event into one.

An event is handed over in one step of the loop: a coroutine that gives up nothing is driven to its end at
once, and costs what a plain ``await`` costs. One that truly suspends is begun anew in a task of its key,
and from then on each event of that reducer is; what comes for the key meanwhile waits in the key's list,
other keys go on, and no connection is held up. So no event can be lost between two reducers, or by a
cancelled task.

A live state can always be put back to what it was before an event: ``base`` is its JSON text at some
point, ``since`` the events folded after it. A reducer that fails or answers ``False`` becomes *guarded*:
from then on the text is made before each event.

The event is one object for all reducers of its context: they read it, and leave it as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any

import msgspec

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Event, Sender
from lo_kernel.engine.keys import Scope, getter, reducer_prefix, state_key
from lo_kernel.engine.live_state import MISSING, Item, LiveState, Snapshot
from lo_kernel.engine.reducers import STUDENT_SCOPE, Reducer
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.store import Store
from lo_kernel.errors import LOError, ReducerError, StateError

__all__ = ["Run"]

HANGS_AFTER = 5.0  # seconds after which a reducer that hasn't finished an event is named
PENDING = 5000  # events that may wait in memory for one reducer; then it reads them from the archive again
ROOM = 1000  # events that may wait while a reducer goes through the archive

_SINCE = 50  # events kept with a state before its text is made anew

_decode = msgspec.json.Decoder().decode


class Run:
    """A reducer's states in one generation of the store.

    The internal keys that events changed are put into ``changes``; ``overrun(run)`` is called where more
    events wait than may.
    """

    def __init__(
        self,
        *,
        name: str,
        function: Reducer,
        scope: Scope,
        key_name: str,
        null_state: Any,
        code: str,
        generation: int,
        store: Store,
        errors: ErrorLog,
        position: int = 0,
        ahead: dict[str, int] | None = None,
        stored: bool = False,
        limit: int = 50_000,
    ) -> None:
        self.name = name
        self.function = function
        self.scope = scope
        self.key_name = key_name
        self.code = code
        self.generation = generation
        self.store = store
        self.position = position  # the committed one: all events up to here are in the stored states
        self.read: int | None = position  # how far it went through the archive; None: it is live
        self.joined = 0  # events up to here came from the archive, not live
        self.entries: dict[Any, LiveState] = {}
        self.dirty: list[LiveState] = []
        self.unsaved: dict[str, bytes] = {}
        self.pending: set[int] = set()  # numbers of the events that are in work, or wait
        self.ahead = dict(ahead or {})  # keys whose stored state is further than `position`, and up to where
        self.fresh = True  # its row isn't in the store yet
        self.events = 0
        self.failures = 0
        self.last_failure = ""
        self.guarded = False
        self.strict = False
        self.suspends = False
        self.limit = limit
        self.student_only = scope == STUDENT_SCOPE
        self.changes: set[str] | None = None  # where changed keys are put, if anybody wants to know
        self.tell: Callable[[], None] = _nobody  # called when there was none before
        self.overrun: Callable[[Run], None] | None = None
        self._null = encode_state(null_state)
        self._stored = stored
        self._errors = errors
        self._evict_at = limit
        self._head = reducer_prefix(key_name) + "STUDENT:"
        self._by_key: dict[str, LiveState] = {}  # only where the key isn't made of the learner alone
        self._getters = [getter(field) for field in sorted(scope, key=lambda field: field.key_name)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: list[LiveState] = []
        self._fetching = False
        self._not_loaded: set[LiveState] = set()
        self._room: asyncio.Event | None = None
        self._stopping = False

    @property
    def prefix(self) -> str:
        """What its internal keys start with."""
        return reducer_prefix(self.key_name)

    def low(self, routed: int) -> int:
        """Every event up to this number is folded in; ``routed`` is the newest one that went to live runs."""
        top = routed if self.read is None else self.read
        return min(top, min(self.pending) - 1) if self.pending else top

    # -- folding -------------------------------------------------------------------------------

    def ident(self, student: str, client: dict[str, Any]) -> Any:
        """What tells the state of an event from others; ``None`` where a field of the scope is missing."""
        if self.student_only:
            return student
        values = []
        for get in self._getters:
            value = get(student, client)
            if value is None:
                return None
            values.append(value)
        return tuple(values)

    def take(self, item: Item, event: Event) -> None:
        """Fold an event in, or let it wait for its key."""
        number = item[0]
        ident = item[1].student if self.student_only else self.ident(item[1].student, event["client"])
        entry = self.entries.get(ident)
        if entry is None:
            if ident is None:
                return
            entry = self._new(ident)
        if number <= entry.seq:
            return
        if entry.waiting is not None or self.suspends:
            self._wait(entry, item)
            return
        if self.guarded and entry.since is not None and not self._settle(entry):
            self._wait(entry, item)
            return
        try:
            result = self.function(event, entry.state)
            if type(result) is CoroutineType:
                try:
                    result.send(None)
                except StopIteration as stop:
                    result = stop.value
                else:
                    self._suspended(entry, item, result)
                    return
            if type(result) is not tuple or len(result) != 2:
                if inspect.isawaitable(result):  # a future, say: it takes a task to wait for it
                    self._suspended(entry, item, result)
                    return
                raise _not_a_pair(result)
            internal, external = result
            if self.strict and internal is not False:
                encode_state(internal)
        except KeyboardInterrupt:  # an interrupted cell: the event is folded in a moment
            self._undo(entry)
            self._wait(entry, item)
            raise
        except BaseException as error:  # `sys.exit()` too: it is the reducer that gave up, and not the app
            self._raised(entry, item, event, error)
            return
        if internal is False or external is False:
            self._kept_back(entry, item, internal, external)
            return
        self.events += 1
        entry.seq = number
        entry.state = internal
        entry.external = external
        since = entry.since
        if since is None:
            entry.since = [item]
        else:
            since.append(item)
            if len(since) > _SINCE:
                self._settle(entry)
        if not entry.dirty:
            entry.dirty = True
            self.dirty.append(entry)
        if (changes := self.changes) is not None:
            if not changes:
                self.tell()
            changes.add(entry.key)

    def take_many(self, items: Sequence[Item], events: Sequence[Event], sender: Sender | None = None) -> None:
        """:meth:`take` several events, one after another, with less work for each.

        ``sender`` is the one of all of them, if there is one.
        """
        one = sender.student if sender is not None and self.student_only else None
        at, interrupted = 0, None
        while at < len(items):
            if self.guarded or self.suspends:
                try:
                    self.take(items[at], events[at])
                except BaseException as error:  # it waits already; so do those behind it
                    interrupted = error
                at += 1
                continue
            work = _Work(at)
            if one is not None:
                many = self._take_one(one, items, events, work)
            else:
                many = self._take_on(items, events, work)
            try:
                many.send(None)
            except StopIteration as stop:
                at = stop.value
            except BaseException as error:
                interrupted = error
                at = work.at + 1
            else:
                work.over = True
                assert work.entry is not None
                if one is not None:  # what they gave is made anew from the events
                    self._folded(work.entry, items[at : work.at], None, None)
                self._suspended(work.entry, items[work.at], many)
                at = work.at + 1
        if interrupted is not None:
            raise interrupted

    async def _take_on(self, items: Sequence[Item], events: Sequence[Event], work: _Work) -> int:
        """Fold events in from ``work.at`` on; gives where it ended: the next may have to go another way.

        All of them in one coroutine: to ``await`` the reducer's takes half as long as to drive each by hand.
        """
        function, entries, student_only = self.function, self.entries, self.student_only
        dirty, changes = self.dirty, self.changes
        folded = 0
        changed: LiveState | None = None
        try:
            for at in range(work.at, len(items)):
                item, event = items[at], events[at]
                ident = item[1].student if student_only else self.ident(item[1].student, event["client"])
                entry = entries.get(ident)
                if entry is None:
                    if ident is None:
                        continue
                    entry = self._new(ident)
                number = item[0]
                if number <= entry.seq:
                    continue
                if entry.waiting is not None:
                    self._wait(entry, item)
                    continue
                work.at, work.entry = at, entry
                try:
                    result = function(event, entry.state)
                    if type(result) is CoroutineType:
                        result = await result
                        if work.over:  # it suspended, and took no notice of being closed
                            return at
                    if type(result) is not tuple or len(result) != 2:
                        if inspect.isawaitable(result):  # a future, say: it takes a task to wait for it
                            self._suspended(entry, item, result)
                            return at + 1
                        raise _not_a_pair(result)
                    internal, external = result
                except KeyboardInterrupt:
                    self._undo(entry)
                    self._wait(entry, item)
                    raise
                except BaseException as error:
                    if work.over:  # it suspended, and was closed: what it says to that doesn't count
                        return at
                    self._raised(entry, item, event, error)
                    return at + 1
                if internal is False or external is False:
                    self._kept_back(entry, item, internal, external)
                    return at + 1
                folded += 1
                entry.seq = number
                entry.state = internal
                entry.external = external
                since = entry.since
                if since is None:
                    entry.since = [item]
                else:
                    since.append(item)
                if entry is not changed:
                    changed = entry
                    if not entry.dirty:
                        entry.dirty = True
                        dirty.append(entry)
                    if changes is not None:
                        if not changes:
                            self.tell()
                        changes.add(entry.key)
                if since is not None and len(since) > _SINCE:
                    self._settle(entry)
                    if self.guarded:
                        return at + 1
            return len(items)
        finally:
            self.events += folded

    async def _take_one(
        self, student: str, items: Sequence[Item], events: Sequence[Event], work: _Work
    ) -> int:
        """:meth:`_take_on` where all events belong to one state: it is written to at the end alone."""
        start, function = work.at, self.function
        entry = self.entries.get(student) or self._new(student)
        if items[start][0] <= entry.seq or entry.waiting is not None:
            self.take(items[start], events[start])
            return start + 1
        work.entry = entry
        state = external = entry.state
        for at in range(start, len(events)):
            try:
                result = function(events[at], state)
                if type(result) is CoroutineType:
                    work.at = at
                    result = await result
                    if work.over:  # it suspended, and took no notice of being closed
                        return at
                if type(result) is not tuple or len(result) != 2:
                    if inspect.isawaitable(result):  # a future, say: it takes a task to wait for it
                        self._folded(entry, items[start:at], state, external)
                        self._suspended(entry, items[at], result)
                        return at + 1
                    raise _not_a_pair(result)
            except KeyboardInterrupt:
                work.at = at
                self._folded(entry, items[start:at], state, external)
                self._undo(entry)
                self._wait(entry, items[at])
                raise
            except BaseException as error:
                if work.over:  # it suspended, and was closed: what it says to that doesn't count
                    return at
                self._folded(entry, items[start:at], state, external)
                self._raised(entry, items[at], events[at], error)
                return at + 1
            internal, outer = result
            if internal is False or outer is False:
                self._folded(entry, items[start:at], state, external)
                self._kept_back(entry, items[at], internal, outer)
                return at + 1
            state, external = internal, outer
        self._folded(entry, items[start:], state, external)
        if entry.since is not None and len(entry.since) > _SINCE:
            self._settle(entry)
        return len(items)

    def _folded(self, entry: LiveState, items: Sequence[Item], state: Any, external: Any) -> None:
        """Note that events were folded into a state."""
        if not items:
            return
        self.events += len(items)
        entry.seq = items[-1][0]
        entry.state, entry.external = state, external
        if entry.since is None:
            entry.since = list(items)
        else:
            entry.since += items
        if not entry.dirty:
            entry.dirty = True
            self.dirty.append(entry)
        if (changes := self.changes) is not None:
            if not changes:
                self.tell()
            changes.add(entry.key)

    def _raised(self, entry: LiveState, item: Item, event: Event, error: BaseException) -> None:
        """A reducer failed at an event, or an earlier one did without being noticed."""
        if not self._unsound(entry, item):
            entry.seq = item[0]
            self._failed(error, event)
            self._undo(entry)

    def _kept_back(self, entry: LiveState, item: Item, internal: Any, external: Any) -> None:
        """A reducer answered ``False`` for a part of its state."""
        if internal is not False or not self._unsound(entry, item):
            self._apply(entry, item, internal, external)

    def _apply(self, entry: LiveState, item: Item, internal: Any, external: Any) -> None:
        """Take a reducer's answer; ``False`` for a part of it means that this part isn't written."""
        self.events += 1
        entry.seq = item[0]
        if external is False and entry.external is not MISSING and type(entry.external) is not bytes:
            self._keep_external(entry)  # what is to be written may be the object that this event changed
        if internal is False:
            if external is not False:  # it may be what is put back now
                external = self._external_text(external, item)
            self._undo(entry)
            if external is False:
                return
        else:
            entry.state = internal
            if entry.since is None:
                entry.since = [item]
            else:
                entry.since.append(item)
        if external is not False:
            entry.external = external
        if not entry.dirty:
            entry.dirty = True
            self.dirty.append(entry)
        if (changes := self.changes) is not None:
            if not changes:
                self.tell()
            changes.add(entry.key)

    def _failed(self, error: BaseException, event: Any) -> None:
        self.failures += 1
        self.last_failure = f"{type(error).__name__}: {error}"
        self._errors.add(f"reducer '{self.name}'", error, event=event)

    # -- putting back --------------------------------------------------------------------------

    def _undo(self, entry: LiveState) -> None:
        """Put a state back to what it was before the event at hand."""
        self.guarded = True
        self._refold(entry, entry.since or ())

    def _unsound(self, entry: LiveState, item: Item) -> bool:
        """Whether an earlier event left a state that isn't JSON: it goes, and ``item`` is folded again."""
        if self.strict or entry.since is None:
            return False
        before = self.failures
        self._refold(entry, entry.since)
        if self.failures == before:
            return False
        self.strict = self.guarded = True
        self.take(item, item[1].event(_decode(item[2]), item[3]))
        return True

    def _refold(self, entry: LiveState, items: Sequence[Item]) -> None:
        """Make a state anew from its text and events; what isn't JSON is left out and reported."""
        text, external, left = self._replay(entry.base, items)
        entry.base = text
        entry.since = None
        entry.state = self._decode(text)
        if items and entry.external is not MISSING and type(entry.external) is not bytes:
            entry.external = external
        if left:  # they suspend now, and so go the long way; they come before all that waits
            self.suspends = True
            self.events -= len(left)
            entry.seq = left[0][0] - 1
            for item in left:
                self.pending.add(item[0])
            if entry.waiting is None:
                entry.waiting = deque(left)
                self._spawn(self._drain(entry))
            else:
                entry.waiting.extendleft(reversed(left))

    def _replay(self, text: bytes | None, items: Sequence[Item]) -> tuple[bytes | None, Any, Sequence[Item]]:
        """Fold events from a text on; gives the text then, that of the external state, and what is left."""
        state, external = self._decode(text), MISSING
        for index, item in enumerate(items):
            event = item[1].event(_decode(item[2]), item[3])
            try:
                result = self._drive(self.function(event, state))
                if result is MISSING:
                    return text, external, items[index:]
                internal, given = result
                if internal is not False:
                    text = encode_state(internal)
                    state = internal
                if given is not False:
                    external = self._external_text(given, item)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self.events -= 1
                self._failed(error, event)
                state = self._decode(text)
        return text, external, ()

    def _keep_external(self, entry: LiveState) -> None:
        """Make the text of an external state as it was before the event at hand."""
        self.guarded = True
        failures, events = self.failures, self.events
        _, entry.external, _ = self._replay(entry.base, entry.since or ())
        self.failures, self.events = failures, events

    def _external_text(self, external: Any, item: Item) -> Any:
        try:
            return encode_state(external)
        except StateError as error:
            self._failed(error, item[1].event(_decode(item[2]), item[3]))
            return MISSING

    @staticmethod
    def _drive(result: Any) -> Any:
        """The answer of a reducer; ``MISSING`` where it suspends."""
        if type(result) is CoroutineType:
            try:
                result.send(None)
            except StopIteration as stop:
                return stop.value
            _close(result)
            return MISSING
        return MISSING if inspect.isawaitable(result) else result

    def _settle(self, entry: LiveState) -> bool:
        """Bring the texts of a state up to now; ``False`` where some of its events have to be folded anew."""
        try:
            text = encode_state(entry.state)
        except StateError:
            self.strict = self.guarded = True
            self._refold(entry, entry.since or ())
            return not entry.waiting
        external = entry.external
        if external is not MISSING and type(external) is not bytes:
            if external is entry.state:
                entry.external = text
            else:
                item = entry.since[-1] if entry.since else None
                try:
                    entry.external = encode_state(external)
                except StateError as error:
                    event = item[1].event(_decode(item[2]), item[3]) if item is not None else None
                    self._failed(error, event)
                    entry.external = MISSING
        entry.base = text
        entry.since = None
        return True

    # -- what takes longer ---------------------------------------------------------------------

    def _suspended(self, entry: LiveState, item: Item, coroutine: Any) -> None:
        """A reducer gave up the loop: it is begun anew, in a task of the key."""
        self.suspends = True
        _close(coroutine)
        self._undo(entry)
        self._wait(entry, item)

    def _wait(self, entry: LiveState, item: Item) -> None:
        """Put an event into the key's list; a task takes them one after another."""
        if type(item[2]) is msgspec.Raw:  # a part of something larger, which shouldn't wait with it
            item = (item[0], item[1], bytes(item[2]), item[3])
        self.pending.add(item[0])
        if entry.waiting is None:
            entry.waiting = deque([item])
            self._spawn(self._drain(entry))
            return
        entry.waiting.append(item)
        if len(self.pending) > PENDING and self.overrun is not None:
            self.overrun(self)

    async def _drain(self, entry: LiveState) -> None:
        waiting = entry.waiting
        assert waiting is not None
        folded = 0
        while waiting:
            item = waiting[0]
            if item[0] > entry.seq:
                await self._fold(entry, item)
                folded += 1
                if folded % 100 == 0:
                    if entry.since is not None:
                        self._settle(entry)
                    await asyncio.sleep(0)
            if waiting and waiting[0] is item:
                waiting.popleft()
                self.pending.discard(item[0])
        entry.waiting = None
        if self._room is not None and len(self.pending) < ROOM // 2:
            self._room.set()

    async def _fold(self, entry: LiveState, item: Item) -> None:
        if entry.since is not None:
            self._settle(entry)  # what others see, and what is committed, while this one is in work
            if entry.waiting is None or entry.waiting[0] is not item:
                return
        event = item[1].event(_decode(item[2]), item[3])
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        watch = loop.call_later(HANGS_AFTER, self._hangs, entry.key, item[0])
        try:
            result = self.function(event, entry.state)
            if inspect.isawaitable(result):
                result = await result
            if type(result) is not tuple or len(result) != 2:
                raise _not_a_pair(result)
            internal, external = result
            if internal is not False:
                encode_state(internal)
        except BaseException as error:
            stopped = isinstance(error, asyncio.CancelledError) and self._stopping
            left = isinstance(error, GeneratorExit) and not _runs(task)
            if stopped or left or isinstance(error, KeyboardInterrupt):
                self._undo(entry)  # it stays in work, and is folded after the next start
                raise
            entry.seq = item[0]
            self._failed(error, event)
            self._undo(entry)
            return
        finally:
            watch.cancel()
        self._apply(entry, item, internal, external)

    def _hangs(self, key: str, number: int) -> None:
        self._errors.add(
            f"reducer '{self.name}'",
            f"it has not finished event {number} of '{key}' after {HANGS_AFTER:g} s. What comes for this key "
            "waits; other keys and other reducers go on. Replace the reducer to end it",
            kind="Hanging",
        )

    async def room(self, few: int = ROOM) -> None:
        """Wait until few enough events wait."""
        while len(self.pending) > few:
            self._room = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), 0.05)
        self._room = None

    def drop_waiting(self) -> None:
        """Forget what waits, to read it from the archive again; what is in work goes on."""
        if not self.pending:
            return
        self.read = min(self.pending) - 1
        for entry in self.entries.values():
            waiting = entry.waiting
            while waiting is not None and len(waiting) > 1:
                self.pending.discard(waiting.pop()[0])

    async def stop(self) -> None:
        """End what is in work; it counts as not folded."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.3)

    def replace(self, function: Reducer, null_state: Any, code: str) -> None:
        """Go on with the same states under another function."""
        for entry in self.dirty:
            if entry.since is not None:
                self._settle(entry)
        self.function = function
        self._null = encode_state(null_state)
        if code != self.code:
            self.code = code
            self.fresh = True
            self.strict = self.suspends = False

    def take_stored(self) -> None:
        """From now on the store has states of keys that aren't in memory."""
        self._stored = True

    # -- loading -------------------------------------------------------------------------------

    def _new(self, ident: Any) -> LiveState:
        if len(self.entries) >= self._evict_at:
            self._evict()
        if self.student_only:
            key = self._head + ident
        else:
            key = state_key("Internal", self.key_name, dict(zip(self.scope.names, ident, strict=True)))
        entry = LiveState(key, None, self.ahead.get(key, 0))
        self.entries[ident] = entry
        if not self.student_only:
            self._by_key[key] = entry
        text = self.unsaved.get(key)
        if text is None and self._stored:
            text = self._from_store(entry)
        entry.base = text
        entry.state = self._decode(text)
        return entry

    def _from_store(self, entry: LiveState) -> bytes | None:
        """Text of a stored state, where the store answers at once; a task waits for others that don't."""
        get_now = getattr(self.store, "get_now", None)
        if get_now is not None:
            try:
                text: bytes | None = get_now(self.generation, entry.key)
                return text
            except LOError as error:
                self._errors.add("store", error)
        entry.waiting = deque()
        self._not_loaded.add(entry)
        self._loading.append(entry)
        if not self._fetching:
            self._fetching = True
            self._spawn(self._load())
        return None

    async def _load(self) -> None:
        """Fetch what was asked for by now, in one call, again and again until the store answers.

        What is asked for meanwhile comes with the next call, so a store that is gone is asked by one alone.
        """
        delay = 0.05
        try:
            await asyncio.sleep(0)
            while self._loading:
                entries, self._loading = self._loading, []
                try:
                    texts = await self.store.get_many(self.generation, [entry.key for entry in entries])
                except LOError as error:
                    self._errors.add("store", error)
                    self._loading = entries + self._loading
                    await asyncio.sleep(delay)
                    delay = min(1.0, delay * 2)
                    continue
                delay = 0.05
                for entry, text in zip(entries, texts, strict=True):
                    entry.base = text
                    entry.state = self._decode(text)
                    self._not_loaded.discard(entry)
                self._spawn(self._drain_many(entries))
        finally:
            self._fetching = False

    async def _drain_many(self, entries: list[LiveState]) -> None:
        for count, entry in enumerate(entries):
            await self._drain_loaded(entry)
            if count % 100 == 99:
                await asyncio.sleep(0)

    async def _drain_loaded(self, entry: LiveState) -> None:
        if self.suspends:  # its events may take long: others need not wait for them
            self._spawn(self._drain(entry))
        else:
            await self._drain(entry)

    def _evict(self) -> None:
        """Let states go that were not used since the last look and are in the store."""
        self._stored = True
        if not self.unsaved:
            for ident in list(itertools.islice(self.entries, max(500, self.limit // 5))):
                entry = self.entries.pop(ident)
                if entry.used or entry.dirty or entry.waiting is not None:
                    entry.used = False
                    self.entries[ident] = entry
                else:
                    self._by_key.pop(entry.key, None)
        self._evict_at = max(self.limit, len(self.entries) + self.limit // 50)

    def _decode(self, text: bytes | None) -> Any:
        return decode_state(self._null if text is None else text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error, None)

    # -- committing ----------------------------------------------------------------------------

    async def snapshot(self, low: int) -> Snapshot:
        """All that changed since the last one. ``low``: every event up to it is folded in."""
        dirty, self.dirty = self.dirty, []
        seqs: dict[str, int] = {}
        for count, entry in enumerate(dirty):
            if count % 100 == 99:
                await asyncio.sleep(0)
            if entry.since is not None:
                self._settle(entry)
            entry.dirty = False
            entry.used = True
            if entry.base is not None:
                self.unsaved[entry.key] = entry.base
            external = entry.external
            if external is not MISSING:
                if type(external) is not bytes:
                    external = self._lone_external(external)
                if external is not MISSING:
                    self.unsaved["External" + entry.key[8:]] = external
                entry.external = MISSING
            seqs[entry.key] = entry.seq
        if self.pending:  # some may have begun to suspend just now
            low = min(low, min(self.pending) - 1)
        self.ahead |= seqs
        self.ahead = {key: seq for key, seq in self.ahead.items() if seq > low}
        return Snapshot(self.unsaved, low, dict(self.ahead))

    def _lone_external(self, external: Any) -> Any:
        try:
            return encode_state(external)
        except StateError as error:
            self._failed(error, None)
            return MISSING

    def saved(self, snapshot: Snapshot) -> None:
        """The store has what the newest snapshot held."""
        self.unsaved = {}
        self.position = snapshot.position
        self.fresh = False
        if len(self.entries) > self.limit:
            self._evict()

    # -- reading -------------------------------------------------------------------------------

    def peek(self, key: str) -> Any:
        """A copy of a live state by its internal key.

        ``MISSING`` where it isn't in memory, ``None`` where it has no state yet.
        """
        entry = self.find(key)
        if entry is None or entry in self._not_loaded:
            text = self.unsaved.get(key)
            return MISSING if text is None else decode_state(text)
        if entry.since is None or entry.waiting is not None:
            return None if entry.base is None else decode_state(entry.base)
        try:
            return decode_state(encode_state(entry.state))
        except StateError:
            return self._decode(entry.base)

    def find(self, key: str) -> LiveState | None:
        """The live state of a key."""
        if self.student_only:
            return self.entries.get(key[len(self._head) :]) if key.startswith(self._head) else None
        return self._by_key.get(key)

    def live_keys(self) -> list[str]:
        """Keys of the states in memory that hold something."""
        return [
            entry.key for entry in self.entries.values() if entry.base is not None or entry.since is not None
        ]


class _Work:
    """Where several events are: which is in work, for which state, and whether it was left to a task."""

    __slots__ = ("at", "entry", "over")

    def __init__(self, at: int) -> None:
        self.at = at
        self.entry: LiveState | None = None
        self.over = False


def _nobody() -> None:
    """Nobody wants to know."""


def _close(awaitable: Any) -> None:
    close = getattr(awaitable, "close", None)
    if close is not None:
        try:
            close()
        except KeyboardInterrupt:
            raise
        except BaseException:  # it won't end, or fails at it: it is left, and begun anew all the same
            return


def _runs(task: asyncio.Task[Any] | None) -> bool:
    """Whether this is the step of a task; it isn't where what the loop left behind is cleared away."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # there is no loop any more
        return False


def _not_a_pair(result: Any) -> ReducerError:
    return ReducerError(
        "a reducer returns a pair (internal state, external state), "
        f"got {type(result).__name__}: {str(result)[:80]}. Write: return state, state"
    )
