r"""Lines of the archive, and files that whole lines are put at the end of.

{"n":1,"t":1795395047.45,"by":{...},"body":{...}}           an event
{"n":2,"t":1795395047.46,"s":7,"by":{...},"body":{...}}     with its number in a stream or in a file
{"n":3,"t":1795395047.47,"gone":1795400000.0}               an erased one: its number stays
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from lo_kernel.engine.events import Sender

__all__ = [
    "CHUNK",
    "Line",
    "LineFile",
    "NumberedLine",
    "Record",
    "decode_body",
    "decode_line",
    "decode_lines",
    "deep",
    "end_of_last_line",
    "last_number",
    "line_at",
    "number_before",
    "rejection_line",
    "seek_number",
    "sync_folder",
    "whole_lines",
]

_Decoded = TypeVar("_Decoded")
CHUNK: Final = 256 << 10
_ABSENT: Final = msgspec.Raw(b"null")
_AT_THE_END: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_NUMBER: Final = re.compile(rb'\{"n":(\d+),')


class Record(msgspec.Struct, gc=False):
    """One line of the archive.

    ``n`` is its number, ``t`` the server's time (seconds since 1970, UTC), ``by`` the sender and ``body``
    the event, both as JSON text. ``s`` is its number in the stream or the file that ``by.mark`` names,
    counted from 1. ``gone`` is the time at which it was erased.
    """

    n: int
    t: float
    by: msgspec.Raw = _ABSENT
    body: msgspec.Raw = _ABSENT
    s: int | None = None
    gone: float | None = None


class Line(msgspec.Struct, gc=False):
    """A line as it is written: several are made text in one call."""

    n: int
    t: float
    by: msgspec.Raw
    body: msgspec.Raw


class NumberedLine(msgspec.Struct, gc=False):
    """One with the event's number in a stream or in a file."""

    n: int
    t: float
    s: int
    by: msgspec.Raw
    body: msgspec.Raw


def deep(decode: Callable[[Any], _Decoded]) -> Callable[[Any], _Decoded]:
    """A decoder that takes what another one took that had more of the stack left: nested up to the limit.

    Raises :class:`msgspec.DecodeError` where even that won't do, and what ``decode`` raises besides.
    """

    def decoded(data: Any) -> _Decoded:
        try:
            return decode(data)
        except RecursionError:
            pass
        try:
            with ThreadPoolExecutor(1) as beside:  # all of a stack is left there
                return beside.submit(decode, data).result()
        except RecursionError:
            raise msgspec.DecodeError("it is nested too deep") from None

    return decoded


decode_line = deep(msgspec.json.Decoder(Record).decode)
decode_lines = deep(msgspec.json.Decoder(Record).decode_lines)
decode_body: Callable[[bytes | msgspec.Raw], Any] = deep(msgspec.json.Decoder().decode)


def rejection_line(
    time: float,
    sender: Sender | None,
    raw: bytes,
    reason: str,
    message: str,
    stream: str | None = None,
    ordinal: int | None = None,
) -> bytes:
    """What came and was no event, with the reason, as a line of ``rejected.jsonl``.

    ``ordinal`` is its number in the acknowledged ``stream``, where it came by one.
    """
    entry: dict[str, Any] = {
        "t": time,
        "reason": reason,
        "message": message,
        "by": sender.by if sender is not None else None,
    }
    if ordinal is not None:
        entry |= {"stream": stream, "s": ordinal}
    try:
        entry["text"] = raw.decode()
    except UnicodeDecodeError:
        entry["base64"] = raw  # msgspec writes bytes as base64
    return msgspec.json.encode(entry) + b"\n"


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def whole_lines(data: bytes) -> list[bytes]:
    r"""Lines, each with its line break. ``splitlines`` would cut at a carriage return in an event, too.

    >>> whole_lines(b'{"a":\r1}\n{}')
    [b'{"a":\r1}\n', b'{}']
    """
    return BytesIO(data).readlines()


class LineFile:
    """A file, readable by its user alone, at whose end whole lines are put.

    A write that fails half way is taken back: readers see whole lines, and the same bytes can be tried
    again. What a :meth:`sync` could not bring to the disk is written once more by the next one, since the
    operating system may tell of it once, and forget it. Raises ``OSError``.
    """

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        """``synced``: whether what is there already is on disk for sure."""
        self.path = path
        self._descriptor = os.open(path, _AT_THE_END, 0o600)
        self.size = self._began = os.fstat(self._descriptor).st_size
        self._torn = False
        self._named = False  # whether its name is on disk, too
        self._safe = self.size if synced else 0  # bytes of it that are
        self._failed = False
        self._lost = 0  # bytes that somebody cut off, until that was told

    def append(self, data: bytes) -> None:
        """Hand lines to the operating system; they are on disk after :meth:`sync`."""
        if self._torn:
            os.ftruncate(self._descriptor, self.size)
            self._torn = False
        self._see_end()
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += os.write(self._descriptor, view[done:])
        except OSError:
            self._torn = done > 0
            if self._torn:
                os.ftruncate(self._descriptor, self.size)
                self._torn = False
            raise
        self.size += len(view)

    def sync(self) -> None:
        """Wait until all of it is on disk; from any thread."""
        size = self.size
        try:
            if self._failed:
                self._write_again(size)
            _sync(self._descriptor)
        except OSError:
            self._failed = True
            raise
        self._safe, self._failed = size, False
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True

    def _write_again(self, size: int) -> None:
        """Write what is not safe over itself, as it can be read now; it is told where it no longer can."""
        with self.path.open("rb+", buffering=0) as file:
            same = os.path.sameopenfile(file.fileno(), self._descriptor)
            at = self._safe
            while at < size:
                file.seek(at)
                data = file.read(min(CHUNK, size - at))
                # no line holds a zero: they stand where pages were given up
                if not data or b"\0" in data or not same:
                    raise OSError(
                        errno.EIO,
                        f"the disk lost what was written to {self.path.name} behind byte {at:,}, which was "
                        "never acknowledged: end this process, and have clients send it to the next one",
                    )
                file.seek(at)
                at += file.write(data)
            _sync(file.fileno())

    def put_back(self) -> tuple[str, str] | None:
        """See that its name still leads to it, some microseconds; else write what it has there, and sync it.

        Not while it is synced. Gives what was found, as a kind and a sentence; none where nothing was. What
        is open can be read to the end, whatever became of its name.
        """
        if os.name != "posix":  # a file that is open can't be removed there
            return None
        found = self._see_end()
        if self._lost:
            lost, self._lost = self._lost, 0
            return "CutOff", f"somebody cut it off while this process wrote it: {lost:,} bytes of it are lost"
        try:
            if os.path.samestat(found, self.path.stat()):
                return None
        except (FileNotFoundError, NotADirectoryError):
            self._write_anew()
            return "Removed", (
                "it was removed while this process wrote it, and is written anew, whole: nothing is lost"
            )
        except OSError:  # nobody can tell
            return None
        self._write_behind()
        return "Replaced", (
            "another file was put in its place while this process wrote it: what came since it was begun was "
            "put at the end of that one. What was in the first one before is there as far as that one has it"
        )

    def _see_end(self) -> os.stat_result:
        """Where somebody cut it off, go on behind its last whole line."""
        found = os.fstat(self._descriptor)
        if found.st_size < self.size:
            end = end_of_last_line(self._descriptor, found.st_size)
            os.ftruncate(self._descriptor, end)
            self._lost += self.size - end
            self.size, self._safe = end, min(self._safe, end)
        return found

    def _write_anew(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, _AT_THE_END | os.O_TRUNC, 0o600)
        try:
            self._copy(descriptor, 0)
            temporary.replace(self.path)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        self._go_on_with(descriptor)

    def _write_behind(self) -> None:
        descriptor = os.open(self.path, _AT_THE_END, 0o600)
        size = os.fstat(descriptor).st_size
        try:
            end = end_of_last_line(descriptor, size)
            if end < size:
                os.ftruncate(descriptor, end)
            self._copy(descriptor, self._began)
        except BaseException:
            os.ftruncate(descriptor, size)
            os.close(descriptor)
            raise
        self._began = end
        self._go_on_with(descriptor)

    def _copy(self, descriptor: int, start: int) -> None:
        at = start
        while at < self.size:
            data = _read(self._descriptor, min(CHUNK, self.size - at), at)
            if not data:
                raise OSError(errno.EIO, f"{self.path.name} has {at:,} bytes, and {self.size:,} were written")
            at += os.write(descriptor, data)
        _sync(descriptor)

    def _go_on_with(self, descriptor: int) -> None:
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)
        self.size = self._safe = os.fstat(descriptor).st_size
        self._failed = self._torn = False
        sync_folder(self.path.parent)
        self._named = True

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sync(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)


def line_at(descriptor: int, offset: int, size: int) -> bytes:
    """Whole lines from an offset on, about ``size`` bytes of them; empty where there is no whole one.

    What follows the last line break is left: its writer may be at it, or take it back.
    """
    while True:
        data = _read(descriptor, size, offset)
        end = data.rfind(b"\n")
        if end >= 0:
            return data[: end + 1] if end + 1 < len(data) else data
        if len(data) < size:
            return b""
        size *= 2


def _read(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def seek_number(descriptor: int, number: int) -> int:
    """Offset of a line at or before the one of an event, near to it; by bisection, not by reading all."""
    low, high = 0, os.fstat(descriptor).st_size
    while high - low > CHUNK:
        found = _numbered(descriptor, (low + high) // 2, high)
        if found is None or found[1] > number:
            high = (low + high) // 2
        else:
            low = found[0]
    return low


def _numbered(descriptor: int, offset: int, end: int) -> tuple[int, int] | None:
    """Offset and number of the first readable line that begins behind ``offset``."""
    rest = b""
    while offset < end:
        data = rest + _read(descriptor, CHUNK // 4, offset)
        start = offset - len(rest)
        if len(data) == len(rest):
            return None
        place = data.find(b"\n") + 1
        while place:
            match = _NUMBER.match(data, place)
            if match:
                return start + place, int(match[1])
            if len(data) - place < 30:
                break
            place = data.find(b"\n", place) + 1
        offset = start + len(data)
        rest = data[place - 1 :] if place else b""
    return None


def end_of_last_line(descriptor: int, size: int) -> int:
    """Offset just behind the last line break before ``size``, 0 where there is none."""
    end = size
    while end > 0:
        start = max(0, end - CHUNK)
        found = _read(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def number_before(descriptor: int, offset: int) -> int:
    """Number of the last event whose line ends at or before an offset; 0 where there is none to be read."""
    for line in lines_backward(descriptor, offset):
        try:
            return decode_line(line).n
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return 0


def lines_backward(descriptor: int, end: int | None = None) -> Iterator[bytes]:
    """Whole lines of a file, or of what is before ``end``, the last one first."""
    end = end_of_last_line(descriptor, os.fstat(descriptor).st_size if end is None else end)
    while end > 0:
        start = end_of_last_line(descriptor, end - 1)
        yield _read(descriptor, end - start, start)
        end = start


def last_number(path: Path, first: int) -> int:
    """Number of the last whole line of a segment; the one before ``first`` where it has none.

    A line that can't be read counts: each had a number, which must not be given again.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        unreadable = 0
        for line in lines_backward(descriptor):
            try:
                return decode_line(line).n + unreadable
            except (msgspec.MsgspecError, UnicodeDecodeError):
                unreadable += 1
        return first - 1 + unreadable
    finally:
        os.close(descriptor)
