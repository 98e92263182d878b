"""What a store is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

__all__ = ["PLAIN", "Commit", "ReducerRow", "Store"]

PLAIN = 0
"""The generation of keys that belong to no reducer: none of them starts as a state's key does."""


class ReducerRow(msgspec.Struct, kw_only=True):
    """What is stored of a reducer beside its states.

    All events up to ``position`` (archive numbers start at 1) are in the states of ``generation``;
    ``ahead`` names the keys that are further, and up to which event each.
    """

    id: str
    key_name: str
    context: str
    scope: list[str]
    code: str
    generation: int
    position: int = 0
    ahead: dict[str, int] = {}
    null_state: msgspec.Raw = msgspec.Raw(b"null")
    module: str = "jupyter-helper"


@dataclass(slots=True)
class Commit:
    """The states of one generation that changed (JSON text by key), and the row that goes with them."""

    generation: int
    states: Mapping[str, bytes] = field(default_factory=dict)
    row: ReducerRow | None = None


class Store(Protocol):
    """A key-value store of states.

    All calls come from the app's loop. ``commit`` is atomic over everything it is given. A store that never
    makes the loop wait may have a plain method ``get_now(generation, key)`` for one key, besides.
    """

    name: str

    async def open(self) -> None:
        """Get ready; raises :class:`~lo_kernel.errors.StoreError` where that can't be."""

    async def close(self) -> None:
        """Let go; nothing that was committed is lost."""

    async def get_many(self, generation: int, keys: Sequence[str]) -> list[bytes | None]:
        """JSON texts by key, in the order asked for; ``None`` where there is none."""
        ...

    async def keys(self, generation: int, prefix: str = "") -> list[str]:
        """Keys of a generation that start with ``prefix``, sorted."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> None:
        """Write states and rows, all or nothing."""

    async def rows(self) -> list[ReducerRow]:
        """The rows of all reducers that ever committed and were not removed."""
        ...

    async def remove(self, generation: int, keys: Sequence[str] | None = None) -> None:
        """Delete keys of a generation, or (``None``) all of it."""

    async def remove_row(self, reducer_id: str) -> None:
        """Delete a reducer's row."""

    async def generations(self) -> list[int]:
        """The generations that hold anything, or that a row names."""
        ...

    def size(self) -> int:
        """Bytes it takes, roughly; 0 where that isn't known."""
        ...
