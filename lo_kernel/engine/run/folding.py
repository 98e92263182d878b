"""What a reducer's answer does to a state, and how a state is put back to what it was before an event.

``base`` of a live state is its JSON text at some point, ``since`` the events folded after it. A reducer that
fails or answers ``False`` becomes *guarded*: from then on the text is made before each event.

A coroutine that truly suspends is begun anew in a task of its key, and from then on each event of that
reducer is; what comes for the key meanwhile waits in the key's list, other keys go on, and no connection is
held up. So no event can be lost between two reducers, or by a cancelled task.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any, Self

from lo_kernel.engine.archive.lines import decode_body
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.reducers import Reducer, not_a_pair
from lo_kernel.engine.run.interrupting import INTERRUPTS, Interrupted
from lo_kernel.engine.run.live_state import LEAST, MISSING, Item, LiveState
from lo_kernel.engine.run.live_states import LiveStates
from lo_kernel.engine.run.waiting import Waiting
from lo_kernel.engine.states import encode_state
from lo_kernel.errors import StateError

__all__ = ["Folding"]

_MOST = 50  # events kept with a state: more would need more memory than the processor has close by
_WORTH = 32  # bytes of a state's text that take as long to make as one event more to keep
HANGS_AFTER = 5.0  # seconds after which a reducer that hasn't finished an event is named


class FoldedBefore:
    """Which events another run of the same code has folded, and what it had counted by then.

    Those up to ``top``, without those that it had not finished, and those before it began.
    """

    __slots__ = ("began", "events", "failures", "last_failure", "pending", "top")

    def __init__(self, run: Folding, began: int, top: int) -> None:
        self.began = began
        self.top = top
        self.pending = frozenset(run.pending)
        self.events = run.events
        self.failures = run.failed
        self.last_failure = run.last_failure

    def __contains__(self, number: int) -> bool:
        return self.began < number <= self.top and number not in self.pending


class Folding:
    """A reducer, its states, and the events that wait for it."""

    overrun: Callable[[Self], None] | None = None  # called where more events wait than may
    stuck: Callable[[Self], None] | None = None  # called where it was interrupted too often

    def __init__(self, name: str, function: Reducer, states: LiveStates, errors: ErrorLog) -> None:
        self.name = name
        self.function = function
        self.states = states
        self.waiting = Waiting()
        self.pending = self.waiting.pending
        self.dirty: list[LiveState] = []
        self.events = 0
        self.failures = 0
        self.repeated = 0  # those of the failures that `before` has counted, too
        self.before: FoldedBefore | None = None
        self.last_failure = ""
        self.outgoing = False  # other code is about to take over: what fails here is no news
        self.guarded = False
        self.strict = False  # each answer is looked at at once: one was no JSON
        self.suspends = False
        self.interrupts = 0  # how often it was ended in the middle of an event
        self.given_up = False  # it was too often: it is given no event any more
        self.changes: set[str] | None = None  # where changed keys are put, if anybody wants to know
        self.tell: Callable[[], None] = _nobody  # called when there was none before
        self._errors = errors

    # -- answers -------------------------------------------------------------------------------

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
        self._mark(entry)

    def _mark(self, entry: LiveState) -> None:
        """Note that a state changed."""
        if not entry.dirty:
            entry.dirty = True
            self.dirty.append(entry)
        if (changes := self.changes) is not None:
            if not changes:
                self.tell()
            changes.add(entry.key)

    @property
    def failed(self) -> int:
        """Events at which it failed, each counted once where some were folded anew."""
        return self.failures - self.repeated

    def _failed(self: Self, error: BaseException, event: Any, number: int = 0) -> None:
        """Note a failure; ``number`` is that of the event, where it is known."""
        if isinstance(error, Interrupted):
            self.interrupts += 1
            more = self.patience - self.interrupts
            error.args = (
                f"{error} with this event. The event is left out of its states"
                + (". Interrupt it once more, and it is paused" if more > 0 else ""),
            )
        self.failures += 1
        repeated = self.before is not None and number in self.before
        if repeated:
            self.repeated += 1
        else:
            self.last_failure = f"{type(error).__name__}: {error}"
        if not self.outgoing and not repeated:
            self._errors.add(f"reducer '{self.name}'", error, event=event)
        if isinstance(error, Interrupted) and self.interrupts >= self.patience and not self.given_up:
            self._give_up()

    @property
    def patience(self) -> int:
        """Interrupts after which it is given up."""
        return INTERRUPTS

    def _give_up(self: Self) -> None:
        self.given_up = True
        self.suspends = True  # what comes still, waits; and nothing takes it
        kind = "Paused"
        what = (
            f"it was interrupted {INTERRUPTS} times, and is paused: it hears no more events, and its states "
            "stay as they are"
        )
        if self.patience < INTERRUPTS:
            kind = "GivenUp"
            what = (
                "it was interrupted on its way through past events, and is given up: where there was a "
                "version of it before, that one goes on"
            )
        again = "Run the cell that defines it again, mended, to go on with all events"
        self._errors.add(f"reducer '{self.name}'", f"{what}. {again}", kind=kind)
        if self.stuck is not None:
            self.stuck(self)

    # -- putting back --------------------------------------------------------------------------

    def _undo(self, entry: LiveState) -> None:
        """Put a state back to what it was before the event at hand."""
        self.guarded = True
        self._refold(entry, entry.since or ())

    def _refold(self, entry: LiveState, items: Sequence[Item]) -> None:
        """Make a state anew from its text and events; what isn't JSON is left out and reported."""
        before = self.failures
        text, external, left = self._replay(entry.base, items)
        entry.failed = entry.failed or self.failures > before
        entry.base = text
        entry.since = None
        entry.state = self.states.decode(text)
        if items and entry.external is not MISSING and type(entry.external) is not bytes:
            entry.external = external
        if left:  # they suspend now, and so go the long way; they come before all that waits
            self.suspends = True
            self.events -= len(left)
            entry.seq = left[0][0] - 1
            if self.waiting.put_back(entry, left):
                self._spawn(self._drain(entry))

    def _replay(self, text: bytes | None, items: Sequence[Item]) -> tuple[bytes | None, Any, Sequence[Item]]:
        """Fold events from a text on; gives the text then, that of the external state, and what is left."""
        state, external = self.states.decode(text), MISSING
        for index, item in enumerate(items):
            event = item[1].event(decode_body(item[2]), item[3])
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
                self._failed(error, event, item[0])
                state = self.states.decode(text)
        return text, external, ()

    def _keep_external(self, entry: LiveState) -> None:
        """Make the text of an external state as it was before the event at hand."""
        self.guarded = True
        counts = self.failures, self.repeated, self.events
        _, entry.external, _ = self._replay(entry.base, entry.since or ())
        self.failures, self.repeated, self.events = counts

    def _external_text(self, external: Any, item: Item) -> Any:
        try:
            return encode_state(external)
        except StateError as error:
            self._failed(error, item[1].event(decode_body(item[2]), item[3]), item[0])
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
                    event = item[1].event(decode_body(item[2]), item[3]) if item is not None else None
                    self._failed(error, event, entry.seq)
                    entry.external = MISSING
        entry.base = text
        entry.since = None
        size = len(text)
        if external is not entry.state and type(entry.external) is bytes:
            size += len(entry.external)
        entry.most = min(_MOST, LEAST + size // _WORTH)
        return True

    # -- what takes longer ---------------------------------------------------------------------

    def _suspended(self, entry: LiveState, item: Item, coroutine: Any) -> None:
        """A reducer gave up the loop: it is begun anew, in a task of the key."""
        self.suspends = True
        _close(coroutine)
        self._undo(entry)
        self._wait(entry, item)

    def _wait(self: Self, entry: LiveState, item: Item) -> None:
        """Let an event wait for its state; a task takes them one after another."""
        if self.given_up:
            self.pending.add(item[0])
        elif self.waiting.put(entry, item):
            self._spawn(self._drain(entry))
        elif self.waiting.too_many and self.overrun is not None:
            self.overrun(self)

    async def _drain(self, entry: LiveState) -> None:
        waiting = entry.waiting
        assert waiting is not None
        folded = 0
        while waiting and not self.given_up:
            item = waiting[0]
            if item[0] > entry.seq:
                await self._fold(entry, item)
                folded += 1
                if folded % 100 == 0:
                    if entry.since is not None:
                        self._settle(entry)
                    await asyncio.sleep(0)
            self.waiting.done(entry, item)
        self.waiting.end(entry)

    async def _fold(self, entry: LiveState, item: Item) -> None:
        if entry.since is not None:
            self._settle(entry)  # what others see, and what is committed, while this one is in work
            if entry.waiting is None or entry.waiting[0] is not item:
                return
        event = item[1].event(decode_body(item[2]), item[3])
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        watch = loop.call_later(HANGS_AFTER, self._hangs, entry.key, item[0])
        try:
            result = self.function(event, entry.state)
            if inspect.isawaitable(result):
                result = await result
            if type(result) is not tuple or len(result) != 2:
                raise not_a_pair(result)
            internal, external = result
            if internal is not False:
                encode_state(internal)
        except BaseException as error:
            stopped = isinstance(error, asyncio.CancelledError) and self.waiting.stopping
            left = isinstance(error, GeneratorExit) and not _runs(task)
            if stopped or left or isinstance(error, KeyboardInterrupt):
                self._undo(entry)  # it stays in work, and is folded after the next start
                raise
            entry.seq = item[0]
            entry.failed = True
            self._failed(error, event, item[0])
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.waiting.spawn(work).add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error, None)

    # -- loading -------------------------------------------------------------------------------

    def _new(self, ident: Any) -> LiveState:
        entry = self.states.new(ident)
        if entry.waiting is not None and not self.states.fetching:
            self.states.fetching = True
            self._spawn(self._load())
        return entry

    async def _load(self) -> None:
        async for entries in self.states.fetch():
            self._spawn(self._drain_many(entries))

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
