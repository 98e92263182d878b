"""The default store: one SQLite file in the workspace, in WAL mode.

A commit is one transaction with one statement a generation, over ``json_each``: an ``executemany``
would take the interpreter's lock again for each row. ``synchronous=NORMAL`` is enough, since what a
power cut takes is folded again from the archive, from the position that the file then holds.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lo_kernel.engine.store.base import Commit, ReducerRow
from lo_kernel.errors import StoreError

__all__ = ["SqliteStore"]

_SLICE = 1000  # keys a statement: about 2 ms each

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    generation INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (generation, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reducer (id TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_UPSERT = """
INSERT INTO state (generation, key, value)
SELECT ?1, key, value FROM json_each(?2) WHERE true
ON CONFLICT (generation, key) DO UPDATE SET value = excluded.value
"""
_GET = """
SELECT state.key, state.value FROM json_each(?2) AS wanted
JOIN state ON state.generation = ?1 AND state.key = wanted.value
"""


class SqliteStore:
    """States in a file; see the module for how."""

    name = "sqlite"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._writing = asyncio.Lock()

    @contextmanager
    def _used(self, doing: str) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise StoreError(f"{doing}: the store {self.path} is not open")
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise StoreError(f"{doing}: SQLite says '{error}' of {self.path}") from error

    async def open(self) -> None:
        """Open or make the file; one written by a newer version is refused."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > 1:
                connection.close()
                raise StoreError(
                    f"{self.path} was written by a newer lo_kernel (format {version}, this one reads 1): "
                    "use that version, or another workspace"
                )
            connection.executescript(_SCHEMA)
            self.path.chmod(0o600)
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} can't be opened: {error}") from error
        self._connection = connection

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def get_many(self, generation: int, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used("reading states") as connection:
            if len(keys) == 1:
                row = connection.execute(
                    "SELECT value FROM state WHERE generation = ? AND key = ?", (generation, keys[0])
                ).fetchone()
                return [row[0].encode() if row else None]
            found: dict[str, str] = {}
            for start in range(0, len(keys), _SLICE):
                wanted = msgspec.json.encode(keys[start : start + _SLICE]).decode()
                found.update(connection.execute(_GET, (generation, wanted)).fetchall())
                if start:
                    await asyncio.sleep(0)
        return [found[key].encode() if key in found else None for key in keys]

    def get_now(self, generation: int, key: str) -> bytes | None:
        """The JSON text of one key, at once (a few microseconds); ``None`` where there is none."""
        with self._used("reading states") as connection:
            row = connection.execute(
                "SELECT value FROM state WHERE generation = ? AND key = ?", (generation, key)
            ).fetchone()
        return row[0].encode() if row else None

    async def keys(self, generation: int, prefix: str = "") -> list[str]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used("listing keys") as connection:
            rows = connection.execute(
                "SELECT key FROM state WHERE generation = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
                (generation, prefix, prefix + "\U0010ffff"),
            ).fetchall()
        return [key for (key,) in rows]

    async def commit(self, commits: Sequence[Commit]) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        async with self._writing:
            with self._used("writing states") as connection:
                await self._write(connection, commits)

    async def _write(self, connection: sqlite3.Connection, commits: Sequence[Commit]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for commit in commits:
                keys = list(commit.states)
                for start in range(0, len(keys), _SLICE):
                    part = {key: commit.states[key].decode() for key in keys[start : start + _SLICE]}
                    connection.execute(_UPSERT, (commit.generation, msgspec.json.encode(part).decode()))
                    if start:
                        await asyncio.sleep(0)
                if commit.row is not None:
                    connection.execute(
                        "INSERT OR REPLACE INTO reducer (id, row) VALUES (?, ?)",
                        (commit.row.id, msgspec.json.encode(commit.row).decode()),
                    )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def rows(self) -> list[ReducerRow]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used("reading reducers") as connection:
            rows = connection.execute("SELECT row FROM reducer").fetchall()
        return [msgspec.json.decode(text, type=ReducerRow) for (text,) in rows]

    async def remove(self, generation: int, keys: Sequence[str] | None = None) -> None:
        """See :class:`~lo_kernel.engine.store.Store`; a whole generation goes in slices."""
        with self._used("deleting states") as connection:
            if keys is not None:
                for key in keys:
                    connection.execute(
                        "DELETE FROM state WHERE generation = ? AND key = ?", (generation, key)
                    )
                return
            while True:
                gone = connection.execute(
                    "DELETE FROM state WHERE generation = ?1 AND key IN "
                    "(SELECT key FROM state WHERE generation = ?1 LIMIT 500)",
                    (generation,),
                ).rowcount
                if gone < 500:
                    return
                await asyncio.sleep(0)

    async def remove_row(self, reducer_id: str) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used("deleting a reducer") as connection:
            connection.execute("DELETE FROM reducer WHERE id = ?", (reducer_id,))

    async def generations(self) -> list[int]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used("reading generations") as connection:
            rows = connection.execute(
                # a loose index scan: one step a generation, however many states each holds
                "WITH RECURSIVE g(n) AS (SELECT min(generation) FROM state UNION ALL "
                "SELECT (SELECT min(generation) FROM state WHERE generation > n) FROM g WHERE n IS NOT NULL) "
                "SELECT n FROM g WHERE n IS NOT NULL"
            ).fetchall()
        return sorted({n for (n,) in rows} | {row.generation for row in await self.rows()})

    def size(self) -> int:
        """Bytes of the file and its journal."""
        return sum(
            path.stat().st_size
            for path in (self.path, self.path.with_name(self.path.name + "-wal"))
            if path.exists()
        )
