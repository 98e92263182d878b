"""One pass of a reducer over the events: up to where it is, and what of it is committed."""

from __future__ import annotations

import asyncio
from typing import Any

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.keys import Scope, reducer_prefix
from lo_kernel.engine.reducers import Reducer
from lo_kernel.engine.run.folding import FoldedBefore
from lo_kernel.engine.run.live_state import MISSING, Snapshot
from lo_kernel.engine.run.live_states import LiveStates
from lo_kernel.engine.run.taking import Taking
from lo_kernel.engine.states import encode_state
from lo_kernel.engine.store import Store
from lo_kernel.errors import StateError

__all__ = ["Run"]


class Run(Taking):
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
        states = LiveStates(
            scope=scope,
            key_name=key_name,
            null_state=null_state,
            generation=generation,
            store=store,
            errors=errors,
            ahead=ahead,
            stored=stored,
            limit=limit,
        )
        super().__init__(name, function, states, errors)
        self.scope = scope
        self.key_name = key_name
        self.code = code
        self.generation = generation
        self.store = store
        self.position = position  # the committed one: all events up to here are in the stored states
        self.read: int | None = position  # how far it went through the archive; None: it is live
        self.joined = 0  # events up to here came from the archive, not live
        self.fresh = True  # its row isn't in the store yet
        self.began = position  # nothing up to here was folded by it
        self.left: FoldedBefore | None = None  # what it is left with where another one takes its place

    @property
    def prefix(self) -> str:
        """What its internal keys start with."""
        return reducer_prefix(self.key_name)

    @property
    def patience(self) -> int:
        """Interrupts after which it is given up; over the past the next event would only be the next hang."""
        return super().patience if self.read is None else 1

    def why_stateless(self, key: str) -> str:
        """Why there is no state under a key: it ``failed`` at the events, ``kept`` nothing, or had ``none``.

        Empty where that isn't known: what it folded before this process, or has let go, is not in memory.
        """
        entry = self.states.find(key)
        if entry is not None:
            return "failed" if entry.failed else "kept"
        return "" if self.began or self.states.stored else "none"

    def low(self, routed: int) -> int:
        """Every event up to this number is folded in; ``routed`` is the newest one that went to live runs."""
        top = routed if self.read is None else self.read
        return min(top, min(self.pending) - 1) if self.pending else top

    def replace(self, function: Reducer, null_state: Any, code: str) -> None:
        """Go on with the same states under another function."""
        for entry in self.dirty:
            if entry.since is not None:
                self._settle(entry)
        self.function = function
        self.states.null = encode_state(null_state)
        if code != self.code:
            self.code = code
            self.fresh = True
            self.strict = self.suspends = False

    # -- another run of the same code takes its place ------------------------------------------

    def hand_over(self, routed: int) -> None:
        """Leave the telling of errors to a run in another store, which folds its events anew."""
        if self.left is None:
            self.left = FoldedBefore(self, self.began, routed if self.read is None else self.read)
        self.outgoing = True

    def take_back(self) -> None:
        """Tell errors again: the other run came to nothing."""
        self.left = None
        self.outgoing = False

    def follow(self, before: FoldedBefore) -> None:
        """Go on with the counts of a run that has handed over."""
        self.before = before
        self.began = min(self.began, before.began)
        self.failures, self.last_failure = before.failures, before.last_failure

    def replaces(self, old: Run) -> None:
        """Now that the other one has folded all up to here, too, its events are those of both."""
        if self.before is not None and self.before is old.left:
            self.events = max(self.events, old.events)

    def drop_waiting(self) -> None:
        """Forget what waits, to read it from the archive again; what is in work goes on."""
        if self.pending:
            self.read = min(self.pending) - 1
            self.waiting.drop(self.states.entries.values())

    async def stop(self) -> None:
        """End what is in work; it counts as not folded."""
        await self.waiting.stop()

    # -- committing ----------------------------------------------------------------------------

    async def snapshot(self, low: int) -> Snapshot:
        """All that changed since the last one. ``low``: every event up to it is folded in."""
        dirty, self.dirty = self.dirty, []
        states = self.states
        seqs: dict[str, int] = {}
        for count, entry in enumerate(dirty):
            if count % 100 == 99:
                await asyncio.sleep(0)
            if entry.since is not None:
                self._settle(entry)
            entry.dirty = False
            entry.used = True
            if entry.base is not None:
                states.unsaved[entry.key] = entry.base
            external = entry.external
            if external is not MISSING:
                if type(external) is not bytes:
                    external = self._lone_external(external, entry.seq)
                if external is not MISSING:
                    states.unsaved["External" + entry.key[8:]] = external
                entry.external = MISSING
            seqs[entry.key] = entry.seq
        if self.pending:  # some may have begun to suspend just now
            low = min(low, min(self.pending) - 1)
        states.ahead |= seqs
        states.ahead = {key: seq for key, seq in states.ahead.items() if seq > low}
        return Snapshot(states.unsaved, low, dict(states.ahead))

    def _lone_external(self, external: Any, number: int) -> Any:
        try:
            return encode_state(external)
        except StateError as error:
            self._failed(error, None, number)
            return MISSING

    def saved(self, snapshot: Snapshot) -> None:
        """The store has what the newest snapshot held."""
        self.states.saved()
        self.position = snapshot.position
        self.fresh = False
