"""A store that ends with the process: for tests, trials and followers."""

from __future__ import annotations

from collections.abc import Sequence

from lo_kernel.engine.store.base import Commit, ReducerRow

__all__ = ["MemoryStore"]


class MemoryStore:
    """States in dictionaries, one a generation."""

    name = "memory"

    def __init__(self) -> None:
        self._states: dict[int, dict[str, bytes]] = {}
        self._rows: dict[str, ReducerRow] = {}

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def get_many(self, generation: int, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        states = self._states.get(generation, {})
        return [states.get(key) for key in keys]

    def get_now(self, generation: int, key: str) -> bytes | None:
        """The JSON text of one key, at once; ``None`` where there is none."""
        return self._states.get(generation, {}).get(key)

    async def keys(self, generation: int, prefix: str = "") -> list[str]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        return sorted(key for key in self._states.get(generation, ()) if key.startswith(prefix))

    async def commit(self, commits: Sequence[Commit]) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        for commit in commits:
            if commit.states:
                self._states.setdefault(commit.generation, {}).update(commit.states)
            if commit.row is not None:
                self._rows[commit.row.id] = commit.row

    async def rows(self) -> list[ReducerRow]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        return list(self._rows.values())

    async def remove(self, generation: int, keys: Sequence[str] | None = None) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        if keys is None:
            self._states.pop(generation, None)
        else:
            for key in keys:
                self._states.get(generation, {}).pop(key, None)

    async def remove_row(self, reducer_id: str) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        self._rows.pop(reducer_id, None)

    async def generations(self) -> list[int]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        return sorted({*self._states, *(row.generation for row in self._rows.values())})

    def size(self) -> int:
        """Bytes of all keys and values."""
        return sum(len(key) + len(value) for states in self._states.values() for key, value in states.items())
