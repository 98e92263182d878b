"""The states of one reducer: those in memory, and how they come there from the store and go again."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.keys import Scope, reducer_prefix, state_key
from lo_kernel.engine.reducers import STUDENT_SCOPE
from lo_kernel.engine.run.live_state import MISSING, LiveState
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.store import Store
from lo_kernel.errors import LOError, StateError

__all__ = ["LiveStates"]


class LiveStates:
    """States by what tells them from others: the learner's safe id, or a tuple of the values of a scope.

    More than ``limit`` are let go, where the store has them.
    """

    def __init__(
        self,
        *,
        scope: Scope,
        key_name: str,
        null_state: Any,
        generation: int,
        store: Store,
        errors: ErrorLog,
        ahead: dict[str, int] | None = None,
        stored: bool = False,
        limit: int = 50_000,
    ) -> None:
        self.scope = scope
        self.key_name = key_name
        self.generation = generation
        self.store = store
        self.entries: dict[Any, LiveState] = {}
        self.unsaved: dict[str, bytes] = {}  # texts that the store doesn't have yet
        self.ahead = dict(ahead or {})  # keys whose stored state is further than the rest, and up to where
        self.null = encode_state(null_state)
        self.stored = stored  # whether the store has states of keys that aren't in memory
        self.limit = limit
        self.student_only = scope == STUDENT_SCOPE
        self.fetching = False  # whether somebody goes through :meth:`fetch`
        self._errors = errors
        self._evict_at = limit
        self._head = reducer_prefix(key_name) + "STUDENT:"
        self._by_key: dict[str, LiveState] = {}  # only where the key isn't made of the learner alone
        self._wanted: list[LiveState] = []
        self._not_loaded: set[LiveState] = set()

    def decode(self, text: bytes | None) -> Any:
        """A state from its text; a null state of its own where there is none."""
        return decode_state(self.null if text is None else text)

    # -- coming --------------------------------------------------------------------------------

    def new(self, ident: Any) -> LiveState:
        """The state of what isn't in memory. Where the store has to be waited for, its ``waiting`` is set."""
        if len(self.entries) >= self._evict_at:
            self.evict()
        if self.student_only:
            key = self._head + ident
        else:
            key = state_key("Internal", self.key_name, dict(zip(self.scope.names, ident, strict=True)))
        entry = LiveState(key, None, self.ahead.get(key, 0))
        self.entries[ident] = entry
        if not self.student_only:
            self._by_key[key] = entry
        text = self.unsaved.get(key)
        if text is None and self.stored:
            text = self._from_store(entry)
        entry.base = text
        entry.state = self.decode(text)
        return entry

    def _from_store(self, entry: LiveState) -> bytes | None:
        """Text of a stored state, where the store answers at once; else it is fetched."""
        get_now = getattr(self.store, "get_now", None)
        if get_now is not None:
            try:
                text: bytes | None = get_now(self.generation, entry.key)
                return text
            except LOError as error:
                self._errors.add("store", error)
        entry.waiting = deque()
        self._not_loaded.add(entry)
        self._wanted.append(entry)
        return None

    async def fetch(self) -> AsyncIterator[list[LiveState]]:
        """Fetch what is wanted by now, in one call, again and again until the store answers.

        What is wanted meanwhile comes with the next call, so a store that is gone is asked by one alone.
        """
        self.fetching = True
        delay = 0.05
        try:
            await asyncio.sleep(0)
            while self._wanted:
                entries, self._wanted = self._wanted, []
                try:
                    texts = await self.store.get_many(self.generation, [entry.key for entry in entries])
                except LOError as error:
                    self._errors.add("store", error)
                    self._wanted = entries + self._wanted
                    await asyncio.sleep(delay)
                    delay = min(1.0, delay * 2)
                    continue
                delay = 0.05
                for entry, text in zip(entries, texts, strict=True):
                    entry.base = text
                    entry.state = self.decode(text)
                    self._not_loaded.discard(entry)
                yield entries
        finally:
            self.fetching = False

    # -- going ---------------------------------------------------------------------------------

    def evict(self) -> None:
        """Let states go that were not used since the last look and are in the store."""
        self.stored = True
        if not self.unsaved:
            for ident in list(itertools.islice(self.entries, max(500, self.limit // 5))):
                entry = self.entries.pop(ident)
                if entry.used or entry.dirty or entry.waiting is not None:
                    entry.used = False
                    self.entries[ident] = entry
                else:
                    self._by_key.pop(entry.key, None)
        self._evict_at = max(self.limit, len(self.entries) + self.limit // 50)

    def saved(self) -> None:
        """The store has all that was unsaved."""
        self.unsaved = {}
        if len(self.entries) > self.limit:
            self.evict()

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
            return self.decode(entry.base)

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
