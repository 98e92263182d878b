"""What is registered, and what the states of it say: looked up by id, read by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from lo_kernel.engine.keys import parse_key
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.registration import Registration
from lo_kernel.engine.run import MISSING, Run
from lo_kernel.engine.states import encode_state
from lo_kernel.engine.store import PLAIN, Commit, ReducerRow, Store
from lo_kernel.errors import LOError, UnknownReducerError

__all__ = ["Registered"]


class Registered:
    """The reducers of this process, those that the store knows besides, and the states of both."""

    def __init__(self, pipeline: Pipeline, store: Store) -> None:
        self.pipeline = pipeline
        self.store = store
        self.paused: dict[str, ReducerRow] = {}  # in the store, and not registered in this process
        self._registrations: dict[str, Registration] = {}

    # -- looking -------------------------------------------------------------------------------

    def get(self, reducer_id: str) -> Registration:
        """The registration of an id; raises :class:`UnknownReducerError`, which lists what is there."""
        found = self._registrations.get(reducer_id)
        if found is None and reducer_id in self.paused:
            found = Registration.paused(self.paused[reducer_id], self.pipeline)
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

    def behind(self, reducer_id: str) -> int:
        """How many events came that aren't in a reducer's states; a paused one is behind by more and more."""
        registration = self._registrations.get(reducer_id)
        if registration is not None and registration.run is not None:
            return registration.behind
        row = self.paused.get(reducer_id)
        if row is None:
            raise self._unknown(reducer_id)
        return max(0, self.pipeline.routed - row.position)

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
        missing: dict[tuple[int, int], list[int]] = {}
        names: dict[str, tuple[Run | None, int, Store]] = {}
        stores: dict[int, Store] = {}
        for index, key in enumerate(keys):
            name = key.split(",", 2)[1] if key.startswith(("Internal,", "External,")) else ""
            where = names.get(name)
            if where is None:
                where = self._where(name, key)
                if not self._shared(name):
                    names[name] = where
            run, generation, store = where
            if run is not None and key.startswith("Internal,"):
                value = run.states.peek(key)
                if value is not MISSING:
                    values[index] = value
                    continue
            else:
                text = run.states.unsaved.get(key) if run is not None else self.pipeline.plain.get(key)
                if text is not None:
                    values[index] = msgspec.json.decode(text)
                    continue
            stores[id(store)] = store
            missing.setdefault((id(store), generation), []).append(index)
        for (store_id, generation), indexes in missing.items():
            texts = await stores[store_id].get_many(generation, [keys[index] for index in indexes])
            for index, text in zip(indexes, texts, strict=True):
                if text is not None:
                    values[index] = msgspec.json.decode(text)
        return values

    def _shared(self, key_name: str) -> bool:
        """Whether reducers of several scopes have keys with this middle part."""
        return sum(each.key_name == key_name for each in self._registrations.values()) > 1

    def _of_key(self, key_name: str, key: str) -> Registration | None:
        """The registration that a key belongs to."""
        if not self._shared(key_name):
            return self.by_key_name(key_name)
        parsed = parse_key(key)
        fields = tuple(sorted(parsed.values)) if parsed is not None else ()
        having = (each for each in self._registrations.values() if each.key_name == key_name)
        return next((each for each in having if each.scope.names == fields), None)

    def _where(self, name: str, key: str) -> tuple[Run | None, int, Store]:
        registration = self._of_key(name, key) if name else None
        if registration is not None and registration.run is not None:
            run = registration.run
            return run, run.generation, run.store
        for row in self.paused.values():
            if row.key_name == name:
                return None, row.generation, self.store
        return None, PLAIN, self.store

    async def keys(self, prefix: str = "") -> list[str]:
        """All visible keys that start with ``prefix``, sorted: states, and what was set by hand."""
        runs = [r.run for r in self._registrations.values() if r.run is not None]
        named = {r.id for r in self._registrations.values() if r.run is not None}
        places: dict[tuple[int, int], Store] = {(id(self.store), PLAIN): self.store}
        places |= {(id(run.store), run.generation): run.store for run in runs}
        paused = [row for row in self.paused.values() if row.id not in named]
        places |= {(id(self.store), row.generation): self.store for row in paused}
        found: set[str] = set()
        for (_, generation), store in places.items():
            found.update(await store.keys(generation, prefix))
        for run in runs:
            found.update(key for key in run.states.live_keys() if key.startswith(prefix))
            found.update(key for key in run.states.unsaved if key.startswith(prefix))
        found.update(key for key in self.pipeline.plain if key.startswith(prefix))
        return sorted(found)

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call ``listener`` with the internal keys that changed; see :meth:`Pipeline.subscribe`."""
        return self.pipeline.subscribe(listener)

    def owner_of(self, key: str) -> str | None:
        """Id of the reducer that a key belongs to; ``None`` for a key of nobody's."""
        parsed = parse_key(key)
        if parsed is None:
            return None
        registration = self._of_key(parsed.qualname, key)
        if registration is not None:
            return registration.id
        return next((row.id for row in self.paused.values() if row.key_name == parsed.qualname), None)

    async def set(self, key: str, value: Any) -> None:
        """Store a value under a key of one's own; a reducer's keys are read-only."""
        owner = self.owner_of(key)
        if owner is not None or key.startswith(("Internal,", "External,")):
            whose = f"the reducer {owner!r}" if owner else "reducers"
            raise LOError(f"the key {key!r} belongs to {whose}, and is read-only: use a name of your own")
        text = encode_state(value)
        self.pipeline.plain.pop(key, None)
        await self.store.commit([Commit(PLAIN, {key: text})])
