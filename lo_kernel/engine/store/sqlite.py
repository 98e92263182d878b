"""The default store: one SQLite file in the workspace, in WAL mode.

A commit is one transaction with one statement for up to a thousand keys, over ``json_each``: an
``executemany`` would take the interpreter's lock again for each row. ``synchronous=NORMAL`` is enough, since
what a power cut takes is folded again from the archive, from the position that the file then holds. Reads
go by a connection of their own, and see what is committed. The write-ahead log is copied into the file
beside the loop, by a third one.

States can be made anew from the archive. So a file that is damaged is set aside, and a new one begun.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.engine.store.base import Commit, ReducerRow
from lo_kernel.errors import StoreError

__all__ = ["SqliteStore"]

_SLICE: Final = 1000  # keys a statement: about 2 ms each
_SLICE_BYTES: Final = 1 << 20
_LISTED: Final = 5000  # keys that are listed at once: about 3 ms
_CHECKPOINT_BYTES: Final = 4 << 20  # of the write-ahead log, after which it is copied
_BUSY: Final = 0.05  # seconds that another program's lock may hold the loop up; then it is tried again
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    generation INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (generation, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reducer (id TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_ON_CONFLICT = "ON CONFLICT (generation, key) DO UPDATE SET value = excluded.value"
_UPSERT = f"""
INSERT INTO state (generation, key, value)
SELECT ?1, key, value FROM json_each(?2) WHERE true {_ON_CONFLICT}
"""
_UPSERT_ONE = f"INSERT INTO state (generation, key, value) VALUES (?1, ?2, ?3) {_ON_CONFLICT}"
# CROSS JOIN keeps the order: else the planner may go through all states, and look each up in the list.
_GET = """
SELECT state.key, state.value FROM json_each(?2) AS wanted
CROSS JOIN state ON state.generation = ?1 AND state.key = wanted.value
"""
_GET_ONE = "SELECT value FROM state WHERE generation = ?1 AND key = ?2"
_LIST = """
SELECT key FROM state WHERE generation = ?1 AND key >= ?2 AND key < ?3 AND key > ?4 ORDER BY key LIMIT ?5
"""


class SqliteStore:
    """States in a file; see the module for how. ``report(kind, message)`` hears of a file set aside."""

    name = "sqlite"

    def __init__(self, path: str | Path, report: Callable[[str, str], object] | None = None) -> None:
        self.path = Path(path)
        self._report = report
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = asyncio.Lock()
        self._checkpoint: asyncio.Task[None] | None = None
        self._log = self.path.with_name(self.path.name + "-wal")
        self._note = self.path.with_name(self.path.name + ".damaged")

    @contextmanager
    def _used(self, connection: sqlite3.Connection | None, doing: str) -> Iterator[sqlite3.Connection]:
        if connection is None:
            raise StoreError(f"{doing}: the store {self.path} is not open")
        try:
            yield connection
        except sqlite3.Error as error:
            if _is_damaged(error):
                self._note.touch()
                raise StoreError(
                    f"{doing}: the store {self.path} is damaged ({error}). Events go on being archived; "
                    "after a restart it is set aside, and states are made anew from the archive"
                ) from error
            raise StoreError(f"{doing}: SQLite says '{error}' of {self.path}") from error

    async def open(self) -> None:
        """Open or make the file; a damaged one is set aside, one of a newer version is refused."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._note.exists():
            self._set_aside("it was found damaged when it was used last")
        try:
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                await self.close()
                self._set_aside(str(error))
                self._connect()
        except sqlite3.Error as error:
            await self.close()
            raise StoreError(f"the store {self.path} can't be opened: {error}") from error

    def _connect(self) -> None:
        self._writer = connection = self._connection()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > 1:
            connection.close()
            self._writer = None
            raise StoreError(
                f"{self.path} was written by a newer lo_kernel (format {version}, this one reads 1): "
                "use that version, or another workspace"
            )
        connection.executescript(_SCHEMA)
        connection.execute("SELECT count(*) FROM reducer").fetchone()
        connection.execute("SELECT key FROM state ORDER BY generation, key LIMIT 1").fetchone()
        self.path.chmod(0o600)
        self._reader = self._connection()
        self._reader.execute("PRAGMA query_only = ON")

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY)

    def _set_aside(self, why: str) -> None:
        target = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).replace(target.with_name(target.name + suffix))
        self._note.unlink(missing_ok=True)
        if self._report is not None:
            self._report(
                "DamagedStore",
                f"the file of states could not be used ({why}) and lies now in {target.name}. A new one is "
                "begun: reducers go through the archive again when they are registered. What was set by "
                "hand, and blobs of clients, was in the old file alone",
            )

    async def close(self) -> None:
        """Close the file."""
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
            self._checkpoint = None
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    # -- reading -------------------------------------------------------------------------------

    async def get_many(self, generation: int, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), _SLICE):
            if start:
                await asyncio.sleep(0)
            with self._used(self._reader, "reading states") as connection:
                part = keys[start : start + _SLICE]
                wanted = [key for key in part if "\0" not in key]
                if len(part) == 1 or len(wanted) < len(part):
                    for key in part if len(part) == 1 else [key for key in part if "\0" in key]:
                        row = connection.execute(_GET_ONE, (generation, key)).fetchone()
                        if row:
                            found[key] = row[0]
                if len(part) > 1 and wanted:
                    text = msgspec.json.encode(wanted).decode()
                    found.update(connection.execute(_GET, (generation, text)).fetchall())
        return [found[key].encode() if key in found else None for key in keys]

    def get_now(self, generation: int, key: str) -> bytes | None:
        """The JSON text of one key, at once (a few microseconds); ``None`` where there is none."""
        with self._used(self._reader, "reading states") as connection:
            row = connection.execute(_GET_ONE, (generation, key)).fetchone()
        return row[0].encode() if row else None

    async def keys(self, generation: int, prefix: str = "") -> list[str]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        found: list[str] = []
        end = _behind(prefix)
        while True:
            with self._used(self._reader, "listing keys") as connection:
                last = found[-1] if found else ""
                if not found:  # the empty key is one, too
                    query, first = _LIST.replace("AND key > ?4", "AND ?4 = ''"), ""
                else:
                    query, first = _LIST, last
                rows = connection.execute(query, (generation, prefix, end, first, _LISTED)).fetchall()
            found += [key for (key,) in rows]
            if len(rows) < _LISTED:
                return found
            await asyncio.sleep(0)

    async def rows(self) -> list[ReducerRow]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used(self._reader, "reading reducers") as connection:
            rows = connection.execute("SELECT row FROM reducer ORDER BY id").fetchall()
        return [msgspec.json.decode(text, type=ReducerRow) for (text,) in rows]

    async def generations(self) -> list[int]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        with self._used(self._reader, "reading generations") as connection:
            rows = connection.execute(
                # a loose index scan: one step a generation, however many states each holds
                "WITH RECURSIVE g(n) AS (SELECT min(generation) FROM state UNION ALL "
                "SELECT (SELECT min(generation) FROM state WHERE generation > n) FROM g WHERE n IS NOT NULL) "
                "SELECT n FROM g WHERE n IS NOT NULL"
            ).fetchall()
        return sorted({n for (n,) in rows} | {row.generation for row in await self.rows()})

    def size(self) -> int:
        """Bytes of the file and its journal."""
        return sum(path.stat().st_size for path in (self.path, self._log) if path.exists())

    # -- writing -------------------------------------------------------------------------------

    async def commit(self, commits: Sequence[Commit]) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        async with self._writing:
            with self._used(self._writer, "writing states") as connection:
                await self._write(connection, commits)
        self._copy_log()

    async def _write(self, connection: sqlite3.Connection, commits: Sequence[Commit]) -> None:
        with _transaction(connection):
            written = 0
            for commit in commits:
                for text, alone in _parts(commit.states):
                    if written:
                        await asyncio.sleep(0)
                    written += 1
                    if text is not None:
                        connection.execute(_UPSERT, (commit.generation, text))
                    for key, value in alone:
                        connection.execute(_UPSERT_ONE, (commit.generation, key, value))
                if commit.row is not None:
                    connection.execute(
                        "INSERT OR REPLACE INTO reducer (id, row) VALUES (?, ?)",
                        (commit.row.id, msgspec.json.encode(commit.row).decode()),
                    )

    async def remove(self, generation: int, keys: Sequence[str] | None = None) -> None:
        """See :class:`~lo_kernel.engine.store.Store`; a whole generation goes in slices."""
        if keys is not None:
            for start in range(0, len(keys), 500):
                async with self._writing:
                    with self._used(self._writer, "deleting states") as connection, _transaction(connection):
                        for key in keys[start : start + 500]:
                            connection.execute(
                                "DELETE FROM state WHERE generation = ? AND key = ?", (generation, key)
                            )
                await asyncio.sleep(0)
            return
        gone = 500
        while gone == 500:
            async with self._writing:
                with self._used(self._writer, "deleting states") as connection:
                    gone = connection.execute(
                        "DELETE FROM state WHERE generation = ?1 AND key IN "
                        "(SELECT key FROM state WHERE generation = ?1 LIMIT 500)",
                        (generation,),
                    ).rowcount
            await asyncio.sleep(0)
        self._copy_log()

    async def remove_row(self, reducer_id: str) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        async with self._writing:
            with self._used(self._writer, "deleting a reducer") as connection:
                connection.execute("DELETE FROM reducer WHERE id = ?", (reducer_id,))

    # -- the write-ahead log -------------------------------------------------------------------

    def _copy_log(self) -> None:
        """Begin to copy the log into the file, if it has grown and nobody is at it."""
        if self._checkpoint is not None and not self._checkpoint.done():
            return
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > _CHECKPOINT_BYTES:
                self._checkpoint = asyncio.get_running_loop().create_task(self._copy_log_now())

    async def _copy_log_now(self) -> None:
        """Copy most of it while commits go on; then the little that came since, so that it begins anew.

        It begins anew with the next write after all of it was copied; while commits kept coming that moment
        might never be, and it would grow on.
        """
        with suppress(sqlite3.Error):  # the next commit tries again, and says what is wrong
            await asyncio.to_thread(self._checkpoint_once)
            async with self._writing:
                await asyncio.to_thread(self._checkpoint_once)

    def _checkpoint_once(self) -> None:
        connection = self._connection()
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside or, after an error of any kind, nothing; the connection is free again."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _parts(states: Any) -> Iterator[tuple[str | None, list[tuple[str, str]]]]:
    """States in parts for one statement each; keys that ``json_each`` would cut short come alone."""
    part: dict[str, str] = {}
    alone: list[tuple[str, str]] = []
    size = 0
    for key, value in states.items():
        if "\0" in key:
            alone.append((key, value.decode()))
        else:
            part[key] = value.decode()
            size += len(value)
        if len(part) >= _SLICE or size >= _SLICE_BYTES:
            yield msgspec.json.encode(part).decode(), alone
            part, alone, size = {}, [], 0
    if part or alone:
        yield msgspec.json.encode(part).decode() if part else None, alone


def _behind(prefix: str) -> str:
    """A text behind all that begin with a prefix (there is no character after the last one)."""
    return prefix + "\U0010ffff" * 4


def _is_damaged(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED
