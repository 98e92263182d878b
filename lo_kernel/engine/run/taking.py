"""Events into states, as fast as they come: one at a time, or several in one step of the loop.

An event is handed over in one step of the loop: a coroutine that gives up nothing is driven to its end at
once, and costs what a plain ``await`` costs. What else may come: :mod:`~lo_kernel.engine.run.folding`.

The event is one object for all reducers of its context: they read it, and leave it as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import CoroutineType
from typing import Any

from lo_kernel.engine.archive.lines import decode_body
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Event, Sender
from lo_kernel.engine.keys import identifier
from lo_kernel.engine.reducers import Reducer, not_a_pair
from lo_kernel.engine.run.folding import Folding
from lo_kernel.engine.run.live_state import Item, LiveState
from lo_kernel.engine.run.live_states import LiveStates
from lo_kernel.engine.states import encode_state

__all__ = ["Taking"]


class Taking(Folding):
    """Takes events in."""

    def __init__(self, name: str, function: Reducer, states: LiveStates, errors: ErrorLog) -> None:
        super().__init__(name, function, states, errors)
        self._entries = states.entries
        self._student_only = states.student_only
        self._ident = identifier(states.scope)

    def take(self, item: Item, event: Event) -> None:
        """Fold an event in, or let it wait for its key."""
        number = item[0]
        ident = item[1].student if self._student_only else self._ident(item[1].student, event["client"])
        entry = self._entries.get(ident)
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
                raise not_a_pair(result)
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
            if len(since) > entry.most:
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
        one = sender.student if sender is not None and self._student_only else None
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
        function, entries, student_only = self.function, self._entries, self._student_only
        dirty, changes = self.dirty, self.changes
        folded = 0
        changed: LiveState | None = None
        try:
            for at in range(work.at, len(items)):
                item, event = items[at], events[at]
                ident = item[1].student if student_only else self._ident(item[1].student, event["client"])
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
                        raise not_a_pair(result)
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
                if since is not None and len(since) > entry.most:
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
        entry = self._entries.get(student) or self._new(student)
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
                    raise not_a_pair(result)
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
        if entry.since is not None and len(entry.since) > entry.most:
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
        self._mark(entry)

    def _raised(self, entry: LiveState, item: Item, event: Event, error: BaseException) -> None:
        """A reducer failed at an event, or an earlier one did without being noticed."""
        if not self._unsound(entry, item):
            entry.seq = item[0]
            entry.failed = True
            self._failed(error, event, item[0])
            self._undo(entry)

    def _kept_back(self, entry: LiveState, item: Item, internal: Any, external: Any) -> None:
        """A reducer answered ``False`` for a part of its state."""
        if internal is not False or not self._unsound(entry, item):
            self._apply(entry, item, internal, external)

    def _unsound(self, entry: LiveState, item: Item) -> bool:
        """Whether an earlier event left a state that isn't JSON: it goes, and ``item`` is folded again."""
        if self.strict or entry.since is None:
            return False
        before = self.failures
        self._refold(entry, entry.since)
        if self.failures == before:
            return False
        self.strict = self.guarded = True
        self.take(item, item[1].event(decode_body(item[2]), item[3]))
        return True


class _Work:
    """Where several events are: which is in work, for which state, and whether it was left to a task."""

    __slots__ = ("at", "entry", "over")

    def __init__(self, at: int) -> None:
        self.at = at
        self.entry: LiveState | None = None
        self.over = False
