"""The files of a record: their names, their lines, and the lock that processes share."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "DELETING",
    "LogFile",
    "lines_of",
    "list_logs",
    "locked",
    "log_name",
    "open_private",
    "text_path",
    "write_over",
]

DELETING: Final = "deleting.json"
"""What is to be deleted, until it is: see :mod:`lo_kernel.kernel.audit.erasing`."""

_NAME: Final = re.compile(r"log-(\d{12,})\.jsonl(\.zst)?")
_LOCK_WITHIN: Final = 2.0  # s; somebody holds it for microseconds, unless that process was stopped
_CHUNK: Final = 1 << 20


class LogFile(NamedTuple):
    """A file of the chain: number of its first record, its path, whether it is compressed."""

    first: int
    path: Path
    packed: bool


def log_name(first: int) -> str:
    """Name of the file that begins with record ``first``."""
    return f"log-{first:012d}.jsonl"


def text_path(folder: Path, first: int, *, packed: bool = False) -> Path:
    """Where the texts of such a file lie."""
    return folder / f"text-{first:012d}.jsonl{'.zst' * packed}"


def list_logs(folder: Path) -> list[LogFile]:
    """The files of the chain, in order; while a file is there in both forms, the plain one counts."""
    found: dict[int, LogFile] = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and (match[2] is None or int(match[1]) not in found):
                found[int(match[1])] = LogFile(int(match[1]), path, match[2] is not None)
    return [found[first] for first in sorted(found)]


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a plain or compressed file, each with its line break; the last one may lack it."""
    rest = b""
    for chunk in _chunks(path):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    packed = path.with_name(path.name + ".zst")
    if path.suffix != ".zst" and not path.exists() and packed.exists():
        path = packed  # it was closed and compressed a moment ago
    with path.open("rb") as file:
        if path.suffix != ".zst":
            while chunk := file.read(_CHUNK):
                yield chunk
            return
        from zstandard import ZstdDecompressor, ZstdError

        try:
            yield from ZstdDecompressor().read_to_iter(file, write_size=_CHUNK)
        except ZstdError as error:
            raise ValueError(f"it can't be decompressed ({error})") from None


def open_private(path: Path) -> int:
    """A descriptor that appends to a file which its user alone can read; made where it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)


def write_over(path: Path, data: bytes) -> None:
    """Replace a file by ``data``, whole or not at all; what was in it is overwritten first, then unlinked."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    with contextlib.suppress(OSError):
        old = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        temporary.replace(path)
        try:
            size = os.fstat(old).st_size
            os.lseek(old, 0, os.SEEK_SET)
            while size > 0:
                size -= os.write(old, b"\0" * min(size, _CHUNK))
            os.fsync(old)
        finally:
            os.close(old)
    if temporary.exists():
        temporary.replace(path)


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold an open file's lock, as no other process does meanwhile; `TimeoutError` after two seconds."""
    if not _try_lock(descriptor):
        deadline = time.monotonic() + _LOCK_WITHIN
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError("another process has held the record's lock for too long")
            time.sleep(0.0005)
    try:
        yield
    finally:
        _unlock(descriptor)


if os.name == "posix":
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

else:
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
