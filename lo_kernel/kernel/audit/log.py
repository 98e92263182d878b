"""Writing the record: any thread of any number of processes, one chain.

A process holds the lock for as long as one write takes, some 10 microseconds, and looks at the shared head
first: where another process has written meanwhile, it finds the chain's end anew. What is written is with
the operating system at once, so that it outlives the process however that ends; :meth:`AuditLog.sync` has it
on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.kernel.audit.chain import GENESIS, VERSION, Entry, Text, canonical, chained, split, utc
from lo_kernel.kernel.audit.files import (
    lines_of,
    list_logs,
    locked,
    log_name,
    open_private,
    text_path,
)
from lo_kernel.kernel.audit.witness import HEAD_BYTES, Head, Witness, parse_head

__all__ = ["ROTATE_BYTES", "AuditLog", "Writing"]

ROTATE_BYTES: Final = 8 << 20
"""Size at which the next file begins; each day (UTC) begins one, too."""

_DAY: Final = 86_400 * 10**9
_entry = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.encode


class AuditLog:
    """The record of one workspace, to be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = AuditLog(Path(folder), state=Path(folder) / "state")
    ...     log.open()
    ...     log.append("note", {"what": "a test"})
    ...     log.close()
    2
    """

    def __init__(
        self,
        workspace: Path,
        *,
        state: Path | None = None,
        rotate_bytes: int = ROTATE_BYTES,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.workspace = workspace
        self.folder = workspace / "audit"
        self.rotate_bytes = rotate_bytes
        self.chain = ""
        self.run = secrets.token_hex(4)
        """What tells the records of this process from those of others."""
        self.on_rotate: Callable[[], None] | None = None
        self._state = state
        self._clock = clock
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._head = Head(0, GENESIS, 0, 0)
        self._seen = b""  # the shared head as this process left it
        self._day = 0
        self._head_file = self._log_file = self._text_file = self._witness_file = -1
        self._dirty = False

    # -- opening and closing -------------------------------------------------------------------

    def open(self) -> None:
        """Find the chain's end, or begin a chain; ``OSError`` where the folder can't be written."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pid = os.getpid()
        self._head_file = os.open(
            self.folder / "head", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600
        )
        with self.writing():
            pass

    @property
    def is_open(self) -> bool:
        """Whether it can be written."""
        return self._head_file >= 0

    @property
    def head(self) -> Head:
        """Where the chain ended when this process wrote last."""
        return self._head

    @property
    def state(self) -> Path | None:
        """Folder of what is kept outside of the workspace; ``None`` for the user's."""
        return self._state

    def reopen(self) -> None:
        """Take up files that were replaced; other processes do when they see that the chain went on."""
        self._close("_text_file")

    def sync(self) -> None:
        """Have on disk what was written; costs nothing where nothing was."""
        if self._dirty and self.is_open:
            self._dirty = False
            for file in (self._text_file, self._log_file):
                if file >= 0:
                    with contextlib.suppress(OSError):  # it was rotated a moment ago
                        os.fsync(file)

    def close(self) -> None:
        """Have it on disk and let go of the files."""
        with self._lock:
            self.sync()
            self._close("_log_file", "_text_file", "_witness_file", "_head_file")

    # -- writing -------------------------------------------------------------------------------

    def append(self, kind: str, fields: Mapping[str, Any], texts: Sequence[Text] = ()) -> int:
        """Write one record and give its number; ``OSError`` where that fails.

        ``texts`` are those that ``fields`` names by ``text:<hash>``.
        """
        with self.writing() as writing:
            return writing.append(kind, fields, texts)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """Write several records, all into the same file, one after another."""
        if self._pid != os.getpid():
            self._after_fork()
        with self._lock:
            if not self.is_open:
                raise OSError("the record is not open")
            with locked(self._head_file):
                self._catch_up()
                if self._head.size >= self.rotate_bytes or self._clock() // _DAY != self._day:
                    self._rotate()
                yield Writing(self)

    def _write(self, kind: str, fields: Mapping[str, Any], texts: Sequence[Text]) -> int:
        head = self._head
        number = head.n + 1
        record = {
            **fields,
            "v": VERSION,
            "n": number,
            "at": utc(self._clock()),
            "mono": time.monotonic_ns(),
            "run": self.run,
            "kind": kind,
        }
        line, found = chained(head.hash, canonical(record))
        if texts:  # before the record that names them: a crash may leave one too many, never one too few
            if self._text_file < 0:
                self._text_file = open_private(text_path(self.folder, head.first))
                _cut_torn_line(self._text_file)
            _write_whole(self._text_file, b"".join(_encode(text) + b"\n" for text in texts))
        _write_whole(self._log_file, line, head.size)
        self._dirty = True
        self._head = Head(number, found, head.first, head.size + len(line))
        self._write_head()
        return number

    def _write_head(self) -> None:
        """Say where the chain ends. The record itself is written: where this fails, the end is found anew."""
        self._seen = b""
        seen = self._head.encode()
        with contextlib.suppress(OSError):
            _write_at_start(self._head_file, seen)
            self._seen = seen
        if self._witness_file >= 0:
            with contextlib.suppress(OSError):
                _write_at_start(self._witness_file, seen)

    # -- where the chain ends ------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Find the chain's end where another process, or a crash, has moved it."""
        data = _read_at_start(self._head_file, HEAD_BYTES)
        size = os.fstat(self._log_file).st_size if self._log_file >= 0 else -1
        if data == self._seen and data and size == self._head.size:  # nobody was cut off while writing
            return
        head = parse_head(data)
        if head is not None and head.first == self._head.first and size == head.size:
            self._close("_text_file")  # it may have been replaced
            self._head, self._seen = head, data
        else:
            self._find_end(head)

    def _find_end(self, shared: Head | None) -> None:
        self._let_go()
        self.chain = self._chain_id()
        witness = Witness(self.chain, self._state)
        if self._witness_file < 0:
            with contextlib.suppress(OSError):  # a home that can't be written: `verify` says what that costs
                self._witness_file = witness.open(self.workspace)
        known = max((head for head in (shared, witness.head()) if head), default=None)
        logs = list_logs(self.folder)
        if not logs or logs[-1].packed:
            self._head = known or _end_of(logs[-1].path if logs else None)
            self._begin_file()
            return
        last = logs[-1]
        self._log_file = open_private(last.path)
        self._day = _day_of(last.path)
        size = os.fstat(self._log_file).st_size
        if known is not None and known == shared and known.first == last.first and known.size == size:
            self._head = known
            self._write_head()
            return
        found, torn = _end_of(last.path)._replace(first=last.first), _cut_torn_line(self._log_file)
        if not found.size and (known is None or known.n < last.first):  # cut off as it began this file
            self._head = known or _end_of(logs[-2].path if len(logs) > 1 else None)
            self._close("_log_file")
            self._begin_file()
            found = self._head
        self._head = found
        if known is not None and known.n > found.n:
            # the chain goes on from where it is known to have been: so its hashes tell that a part is gone
            self._head = Head(known.n, known.hash, last.first, found.size)
            self._write("gap", {"reason": "lost", "first": found.n + 1, "last": known.n}, ())
        if torn:
            self._write("gap", {"reason": "torn line", "bytes": torn}, ())
        self._write_head()

    def _chain_id(self) -> str:
        path = self.folder / "id"
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text(encoding="ascii").strip():
                return found
        made = secrets.token_hex(8)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(made + "\n")
        return made

    # -- files ---------------------------------------------------------------------------------

    def _rotate(self) -> None:
        self._let_go()
        self._begin_file()
        if self.on_rotate is not None:
            self.on_rotate()

    def _begin_file(self) -> None:
        first = self._head.n + 1
        self._log_file = open_private(self.folder / log_name(first))
        before = self._head.hash
        self._head = Head(self._head.n, before, first, os.fstat(self._log_file).st_size)
        self._seen = b""  # where its first record can't be written, the next one looks again
        self._day = self._clock() // _DAY
        self._write("file", {"chain": self.chain, "before": before}, ())

    def _let_go(self) -> None:
        self.sync()
        self._close("_log_file", "_text_file")

    def _close(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def _after_fork(self) -> None:
        """A forked process would share the parent's locks: it opens all anew, and is a run of its own."""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        if self.is_open:
            self._close("_log_file", "_text_file", "_witness_file", "_head_file")
            self.run = secrets.token_hex(4)
            self._seen = b""
            self._head_file = os.open(self.folder / "head", os.O_RDWR | getattr(os, "O_BINARY", 0))


class Writing:
    """Writes records while the log is held; see :meth:`AuditLog.writing`."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    @property
    def first(self) -> int:
        """Number of the first record of the file that is written to."""
        return self._log._head.first

    def append(self, kind: str, fields: Mapping[str, Any], texts: Sequence[Text] = ()) -> int:
        """As :meth:`AuditLog.append`."""
        return self._log._write(kind, fields, texts)


def _end_of(path: Path | None) -> Head:
    """Number and hash of the last whole record of a file, and the bytes up to its end."""
    number, found, size, last = 0, GENESIS, 0, b""
    for line in lines_of(path) if path is not None else ():
        if line.endswith(b"\n"):
            last = line
            size += len(line)
    with contextlib.suppress(ValueError, msgspec.MsgspecError):
        _, found = split(last)
        number = _entry(last).n
    return Head(number, found, 0, size)


def _day_of(path: Path) -> int:
    """The day (UTC, since 1970) of a file's first record."""
    for line in lines_of(path):
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            return timegm(time.strptime(_entry(line).at[:10], "%Y-%m-%d")) // 86_400
    return 0


def _write_whole(descriptor: int, data: bytes, end: int | None = None) -> None:
    """Write at a file's ``end``, all or nothing: a full disk may take the first half of it."""
    if end is None:
        end = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            data = data[written:]
            written = os.write(descriptor, data)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _cut_torn_line(descriptor: int) -> int:
    """Cut off a line that was half written at a file's end; how many bytes it had."""
    size = os.fstat(descriptor).st_size
    at = size
    while at:
        start = max(0, at - 4096)
        os.lseek(descriptor, start, os.SEEK_SET)
        place = os.read(descriptor, at - start).rfind(b"\n")
        if place >= 0:
            at = start + place + 1
            break
        at = start
    if at < size:
        os.ftruncate(descriptor, at)
    return size - at


if hasattr(os, "pread"):

    def _read_at_start(descriptor: int, size: int) -> bytes:
        return os.pread(descriptor, size, 0)

    def _write_at_start(descriptor: int, data: bytes) -> None:
        os.pwrite(descriptor, data, 0)

else:

    def _read_at_start(descriptor: int, size: int) -> bytes:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, size)

    def _write_at_start(descriptor: int, data: bytes) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, data)
