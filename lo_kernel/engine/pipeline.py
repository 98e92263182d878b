"""The way of an event: archive, then all reducers of its context, then, in batches, the store.

An event is routed in the same step of the loop in which it gets its number, so between two steps every
numbered event is with the runs that were registered then. How it gets to the disk and to the store is
:mod:`lo_kernel.engine.commits`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.commits import Committer, RowMaker
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Arrival, Event, Sender
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.run import Item, Run
from lo_kernel.engine.store import Store
from lo_kernel.engine.streams import Streams

__all__ = ["Pipeline"]

_LARGE = 4096  # bytes of an event that counts as large
_CONTEXTS = 20  # contexts without a reducer that get a notice of their own
_CONTEXTS_COUNTED = 1000
_NO_CONTEXT = object()  # where no event was looked at yet


class Pipeline(Committer):
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
        super().__init__(archive, store, errors, learners, streams)
        self.accepted = 0  # events taken in since the start
        self.unrouted: dict[str, int] = {}  # events by context that no reducer has
        # whether a reducer of a context goes through the past
        self.awaits: Callable[[str], bool] = lambda context: False
        self._routes: dict[str, tuple[Run, ...]] = {}
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

    def take_many(self, arrivals: Sequence[Arrival], *, later: bool = False) -> None:
        """:meth:`take` several events at once: the same for each of them, with less work.

        ``later``: they are in a file anyway, so their states may wait for a commit that others want.
        """
        first = self.archive.last + 1
        last = self.archive.append_many(arrivals)
        self.accepted += len(arrivals)
        if last > self._ceiling:
            self._look(last)
        if later:
            if not self._waits:
                self.wake_later()
        elif not self._awake:
            self.wake()
        self._route_many(first, arrivals)

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

    def _route_many(self, first: int, arrivals: Iterable[Arrival]) -> None:
        """:meth:`route` events that have the numbers from ``first`` on."""
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

    def _no_reducer(self, context: Any) -> None:
        name = context if type(context) is str else "(none)"
        seen = self.unrouted.get(name, 0)
        if not seen and self.awaits(name):
            return
        if seen or len(self.unrouted) < _CONTEXTS_COUNTED:
            self.unrouted[name] = seen + 1
        if not seen:
            self._say_unheard(context)

    def _say_unheard(self, context: Any) -> None:
        name = context if type(context) is str else "(none)"
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

    def expect(self, context: str) -> None:
        """A reducer of a context is on its way through the past: that nobody hears its events is no news."""
        self.errors.forget(f"context '{context}'")

    def miss(self, context: str) -> None:
        """Nothing came of that one: what :meth:`expect` took back is said again, where it is true."""
        if self.unrouted.get(context) and context not in self._routes and not self.awaits(context):
            self._say_unheard(context)

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
