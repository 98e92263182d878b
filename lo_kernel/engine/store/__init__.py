"""Stores: where states live, behind one small interface.

A state is JSON text under a key, in a *generation*. Generation 0 holds what belongs to no reducer; each
pass of a reducer over the past writes a generation of its own, and becomes visible when the reducer's
row names it. States and the archive position they stand for are committed together or not at all.
"""

from __future__ import annotations

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.store.base import PLAIN, Commit, ReducerRow, Store
from lo_kernel.errors import SettingsError

__all__ = ["PLAIN", "Commit", "ReducerRow", "Store", "open_store"]


def open_store(address: str, folder: str, errors: ErrorLog | None = None) -> Store:
    """The store that a setting names: ``sqlite`` (a file in ``folder``), ``memory`` or ``redis://...``.

    What has to be known of its opening (a damaged file that was set aside) goes into ``errors``. Raises
    :class:`~lo_kernel.errors.SettingsError`, and :class:`~lo_kernel.errors.MissingExtraError` where the extra
    ``redis`` isn't installed.
    """

    def report(kind: str, message: str) -> None:
        if errors is not None:
            errors.add("store", message, kind=kind)

    if address == "memory":
        from lo_kernel.engine.store.memory import MemoryStore

        return MemoryStore()
    if address == "sqlite":
        from lo_kernel.engine.store.sqlite import SqliteStore

        return SqliteStore(f"{folder}/states.sqlite", report)
    if address.startswith(("redis://", "rediss://", "unix://")):
        from lo_kernel.engine.store.redis import RedisStore

        return RedisStore(address, folder)
    raise SettingsError(f"store: expected 'sqlite', 'memory' or a redis:// address, got {address!r}")
