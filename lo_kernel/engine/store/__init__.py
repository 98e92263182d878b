"""Stores: where states live, behind one small interface.

A state is JSON text under a key, in a *generation*. Generation 0 holds what belongs to no reducer; each
pass of a reducer over the past writes a generation of its own, and becomes visible when the reducer's
row names it. States and the archive position they stand for are committed together or not at all.
"""

from __future__ import annotations

from lo_kernel.engine.store.base import PLAIN, Commit, ReducerRow, Store
from lo_kernel.errors import SettingsError

__all__ = ["PLAIN", "Commit", "ReducerRow", "Store", "open_store"]


def open_store(address: str, folder: str) -> Store:
    """The store that a setting names: ``sqlite`` (a file in ``folder``), ``memory`` or ``redis://...``."""
    if address == "memory":
        from lo_kernel.engine.store.memory import MemoryStore

        return MemoryStore()
    if address == "sqlite":
        from lo_kernel.engine.store.sqlite import SqliteStore

        return SqliteStore(f"{folder}/states.sqlite")
    raise SettingsError(f"store: expected 'sqlite' or 'memory', got {address!r}")
