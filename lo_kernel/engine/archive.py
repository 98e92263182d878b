r"""The archive: every event that was accepted, one JSON line each, in the order of acceptance.

    archive/events-000000000001.jsonl
    {"n":1,"t":1795395047.45,"by":{...who sent it, from where...},"body":{...as it was received...}}

``n`` counts from 1 without a gap, ``t`` is the server's time (seconds since 1970, UTC). The body is the
text that came, byte for byte where it had no line break, apart from the identity in ``by``. A segment
is named after its first event; when it is full the next begins. An event counts as accepted when its
line is on disk (:meth:`Archive.flush`). The archive is the truth: states are folds of it.

What came and was no event lies in ``rejected/rejected.jsonl``, with the reason.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender
from lo_kernel.errors import ArchiveError, NotOwnerError

__all__ = ["Archive", "Cursor", "Record"]

SEGMENT_BYTES = 64 << 20
_CHUNK = 256 << 10
_MARK_EVERY = 1 << 20
_NAME = re.compile(r"events-(\d{12})\.jsonl")


class Record(msgspec.Struct):
    """One line of the archive; ``s`` is its number in a stream whose sender wants acknowledgements."""

    n: int
    t: float
    by: msgspec.Raw
    body: msgspec.Raw
    s: int | None = None


_decode_line = msgspec.json.Decoder(Record).decode
_decode_lines = msgspec.json.Decoder(Record).decode_lines


class Archive:
    """The events of one workspace; one process writes it, any number read it.

    >>> import tempfile
    >>> from lo_kernel.engine.events import Sender, identify
    >>> sender = Sender(identify({"user_id": "u0"}), "my.source")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     archive = Archive(Path(folder), ErrorLog())
    ...     archive.open(writable=True)
    ...     _ = archive.append(sender, b'{"event":"keystroke"}', 1.5)
    ...     _ = asyncio.run(archive.flush())
    ...     [bytes(record.body) for record in archive.cursor().read()]
    ...     archive.close()
    [b'{"event":"keystroke"}']
    """

    def __init__(self, folder: Path, errors: ErrorLog, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder / "archive"
        self.rejected_path = folder / "rejected" / "rejected.jsonl"
        self.errors = errors
        self.segment_bytes = segment_bytes
        self.last = 0  # number of the newest event, written or not
        self.rejected = 0
        self._buffer: list[bytes] = []
        self._rejections: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._size = 0
        self.writable = False  # whether this process writes it
        self._marks: list[tuple[int, Path, int]] = []  # (number of the next event, segment, offset)
        self._syncing = asyncio.Lock()

    # -- opening -------------------------------------------------------------------------------

    def open(self, *, writable: bool) -> None:
        """Find what is there; with ``writable``, cut off a line that a crash left half written."""
        self.writable = writable
        if writable:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.rejected_path.parent.mkdir(parents=True, exist_ok=True)
        segments = self.segments()
        if segments:
            first, path = segments[-1]
            if writable:
                self._repair(path)
            self.last = _last_number(path, first)
            if writable:
                self._open_segment(path)

    def _repair(self, path: Path) -> None:
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            end = _end_of_last_line(file, size)
            if end == size:
                return
            file.seek(end)
            torn = file.read()
            self._rejections.append(
                _rejection(0.0, None, torn, "torn_line", "half written when a process ended")
            )
            self._write_rejections()
            file.truncate(end)
            os.fsync(file.fileno())
        self.errors.add(
            f"archive {path.name}",
            f"the last line was half written when a process ended ({size - end} bytes): "
            "it was never accepted, and lies in rejected/",
            kind="TornLine",
        )

    def _open_segment(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._size = path.stat().st_size
        self._path = path

    def close(self) -> None:
        """Write what is left and let go of the files; call :meth:`flush` before, to have it on disk."""
        if self.writable:
            self.write()
        if self._file is not None:
            self._file.close()
            self._file = None

    def segments(self) -> list[tuple[int, Path]]:
        """Number of the first event, and path, of each segment, in order."""
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def size(self) -> int:
        """Bytes of all segments."""
        return sum(path.stat().st_size for _, path in self.segments())

    # -- writing -------------------------------------------------------------------------------

    def append(self, sender: Sender, raw: bytes, time: float, ordinal: int | None = None) -> int:
        """Put an event at the end and give its number; it is on disk after the next :meth:`flush`.

        ``raw`` is a JSON object without line breaks; ``ordinal`` its number in an acknowledged stream.
        """
        self.last = number = self.last + 1
        stream = b"" if ordinal is None else b'"s":%d,' % ordinal
        self._buffer.append(
            b'{"n":%d,"t":%r,%b"by":%b,"body":%b}\n' % (number, time, stream, sender.encoded, raw)
        )
        return number

    def reject(self, sender: Sender | None, raw: bytes, time: float, reason: str, message: str) -> None:
        """Keep something that is no event, with the reason."""
        self.rejected += 1
        self._rejections.append(_rejection(time, sender, raw, reason, message))

    @property
    def unwritten(self) -> int:
        """How many events and rejections wait for :meth:`write`."""
        return len(self._buffer) + len(self._rejections)

    def write(self) -> None:
        """Hand what waits to the operating system, so that readers see it.

        Raises :class:`ArchiveError` where that fails; nothing is dropped then, and it can be tried again.
        """
        if not self.writable:
            raise NotOwnerError("this process follows the archive of another, which alone writes it")
        try:
            if self._buffer:
                self._write_events()
            if self._rejections:
                self._write_rejections()
        except OSError as error:
            raise ArchiveError(
                f"the archive {self.folder} can't be written: {error}. Nothing is lost: events wait in "
                "memory, and clients are held back, until it can be"
            ) from error

    def _write_events(self) -> None:
        waiting = self._buffer
        first = self.last - len(waiting) + 1
        if self._file is None or self._size >= self.segment_bytes:
            self._next_segment(first)
        assert self._file is not None
        if (
            not self._marks
            or self._marks[-1][1] != self._path
            or self._size - self._marks[-1][2] >= _MARK_EVERY
        ):
            self._marks.append((first, self._path, self._size))
        data = memoryview(b"".join(waiting))
        done = 0
        try:
            while done < len(data):
                done += self._file.write(data[done:])
        except OSError:
            if done:
                os.truncate(self._path, self._size)
            raise
        self._size += len(data)
        self._buffer = []

    def _next_segment(self, first: int) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
        self._open_segment(self.folder / f"events-{first:012d}.jsonl")

    def _write_rejections(self) -> None:
        self.rejected_path.parent.mkdir(parents=True, exist_ok=True)
        with self.rejected_path.open("ab") as file:
            file.write(b"".join(self._rejections))
        self._rejections = []

    async def flush(self) -> int:
        """Write what waits and have it on disk; gives the number of the newest event that is.

        The wait for the disk runs beside the loop.
        """
        async with self._syncing:
            newest = self.last
            if self._buffer or self._rejections:
                self.write()
                file = self._file
                if file is not None:
                    try:
                        await asyncio.to_thread(_sync, file.fileno())
                    except OSError as error:
                        raise ArchiveError(f"the archive {self.folder} can't be synced: {error}") from error
            return newest

    # -- reading -------------------------------------------------------------------------------

    def cursor(self, after: int = 0) -> Cursor:
        """A reader of all events with a number above ``after``, which goes on as the archive grows."""
        return Cursor(self, after)

    def read(self, after: int = 0) -> Iterator[Record]:
        """All events above ``after`` that are written by now, one by one."""
        cursor = self.cursor(after)
        try:
            while records := cursor.read():
                yield from records
        finally:
            cursor.close()

    def _start(self, number: int) -> tuple[Path, int] | None:
        """Where to begin reading for an event: the segment, and an offset at or before it."""
        best: tuple[int, Path, int] | None = None
        for first, path in self.segments():
            if first <= number or best is None:
                best = (first, path, 0)
        if best is None:
            return None
        for mark in self._marks:
            if mark[1] == best[1] and best[0] <= mark[0] <= number:
                best = mark
        return best[1], best[2]


class Cursor:
    """A place in the archive; :meth:`read` goes on from there."""

    def __init__(self, archive: Archive, after: int) -> None:
        self.archive = archive
        self.position = after
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        self._rest = b""

    def read(self) -> list[Record]:
        """The next events, about 256 KiB of them; empty where there are no more by now.

        A line that can't be read is reported in the error log and passed over.
        """
        while True:
            if self._file is None and not self._open():
                return []
            assert self._file is not None
            data = self._file.read(_CHUNK)
            if not data:
                if not self._next():
                    return []
                continue
            end = data.rfind(b"\n")
            if end < 0:
                self._rest += data
                continue
            lines = self._rest + data[: end + 1]
            self._rest = data[end + 1 :]
            records = [record for record in self._parse(lines) if record.n > self.position]
            if records:
                self.position = records[-1].n
                return records

    def _open(self) -> bool:
        start = self.archive._start(self.position + 1)
        if start is None:
            return False
        self._path, offset = start
        self._file = self._path.open("rb")
        self._file.seek(offset)
        self._rest = b""
        return True

    def _next(self) -> bool:
        """Go to the following segment, if the one at hand has ended."""
        for _, path in self.archive.segments():
            if self._path is not None and path.name > self._path.name:
                assert self._file is not None
                data = self._file.read(1)
                if data:  # it grew between the two looks
                    self._file.seek(-1, os.SEEK_CUR)
                    return True
                self._file.close()
                self._path, self._file, self._rest = path, path.open("rb"), b""
                return True
        return False

    def _parse(self, lines: bytes) -> list[Record]:
        try:
            return _decode_lines(lines)
        except msgspec.MsgspecError:
            pass
        records = []
        for line in lines.splitlines():
            try:
                records.append(_decode_line(line))
            except msgspec.MsgspecError as error:
                name = self._path.name if self._path else "?"
                self.archive.errors.add(
                    f"archive {name}",
                    f"a line after event {records[-1].n if records else self.position} can't be read "
                    f"({error}) and is passed over",
                    kind="CorruptLine",
                )
        return records

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _sync(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)


def _rejection(time: float, sender: Sender | None, raw: bytes, reason: str, message: str) -> bytes:
    entry: dict[str, Any] = {
        "t": time,
        "reason": reason,
        "message": message,
        "by": msgspec.Raw(sender.encoded) if sender is not None else None,
    }
    try:
        entry["text"] = raw.decode()
    except UnicodeDecodeError:
        entry["base64"] = raw  # msgspec writes bytes as base64
    return msgspec.json.encode(entry) + b"\n"


def _end_of_last_line(file: IO[bytes], size: int) -> int:
    """Offset just after the last line break, 0 where there is none."""
    end = size
    while end > 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _last_number(path: Path, first: int) -> int:
    """Number of the last whole line of a segment; the one before ``first`` where it has none."""
    with path.open("rb") as file:
        end = _end_of_last_line(file, file.seek(0, os.SEEK_END))
        while end > 0:
            start = _end_of_last_line(file, end - 1)
            file.seek(start)
            try:
                return _decode_line(file.read(end - start)).n
            except msgspec.MsgspecError:
                end = start
    return first - 1
