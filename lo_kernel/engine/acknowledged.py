"""What was acknowledged, beside the store: ``acknowledged.jsonl``, with the counts of streams.

    {"stream":"#1f0c...","n":120}

A count that a client was told must never go back, also where the store is lost, or lines of the archive are
(to damage, or to an erasure). So it is noted here: when a connection ends, and every hundred events. A
stream has a hash for a name, since a client may call it after somebody.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lo_kernel.engine.archive.lines import sync_folder
from lo_kernel.engine.archive.segments import write_whole
from lo_kernel.errors import ArchiveError

__all__ = ["Notes", "Place", "is_stream_key", "stream_key"]

_KEY: Final = re.compile("#[0-9a-f]{32}")
_MUCH: Final = 4 << 20  # bytes from which on a start looks whether old notes can go
_LOOK: Final = 256  # bytes that tell whether a file is what it was


def stream_key(stream_id: str) -> str:
    """How a stream is called in what is stored.

    >>> stream_key("5d9c1f0e-0000-4000-8000-000000000001")
    '#37d8cc3a263d7fd9da53cf543ca1217a'
    """
    return "#" + blake2b(stream_id.encode("utf-8", "replace"), digest_size=16).hexdigest()


def is_stream_key(name: str) -> bool:
    """Whether a name in what is stored is a stream's key; else it is its own, as in stores before."""
    return _KEY.fullmatch(name) is not None


class Place(NamedTuple):
    """A place in a file that grows, in bytes, and a checksum of what stands before it."""

    at: int = 0
    check: int = 0

    @classmethod
    def of(cls, path: Path, at: int) -> Place:
        """The place at so many bytes; the file's beginning where it isn't that long."""
        try:
            with path.open("rb") as file:
                file.seek(max(0, at - _LOOK))
                before = file.read(min(at, _LOOK))
        except OSError:
            return cls()
        return cls(at, zlib.crc32(before)) if len(before) == min(at, _LOOK) else cls()

    def found(self, path: Path) -> int:
        """Where it is now: at the file's beginning, if that isn't the file any more that it was."""
        return self.at if Place.of(path, self.at) == self else 0


class _Note(msgspec.Struct):
    stream: str
    n: int


class Notes:
    """The file, in one process: the owner's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, since: Place) -> dict[str, int]:
        """The highest count noted of each stream since a place; damaged lines say nothing.

        Raises :class:`ArchiveError` where it can't be read.
        """
        try:
            if self.path.stat().st_size > _MUCH:
                with contextlib.suppress(OSError):  # a full disk: another start does it
                    self._tidy()
            with self.path.open("rb") as file:
                file.seek(since.found(self.path))
                return _counts(file.read())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ArchiveError(
                f"{self.path} says what clients were told, and can't be read: {error.strerror or error}"
            ) from error

    def _tidy(self) -> None:
        data = self.path.read_bytes()
        counts = _counts(data)
        if data.count(b"\n") > 2 * len(counts):
            write_whole(self.path, _lines(counts))

    def add(self, counts: Mapping[str, int], *, sync: bool = False) -> None:
        """Note counts by stream; with ``sync`` they are on disk. Raises ``OSError``."""
        if not counts:
            return
        # a line that was torn before ends here
        data = b"\n" + _lines(counts)
        descriptor = os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600
        )
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            if sync:
                os.fsync(descriptor)
                sync_folder(self.path.parent)
        finally:
            os.close(descriptor)

    def end(self) -> Place:
        """Where the next note will stand."""
        try:
            return Place.of(self.path, self.path.stat().st_size)
        except OSError:
            return Place()


def _lines(counts: Mapping[str, int]) -> bytes:
    return b"".join(msgspec.json.encode(_Note(key, n)) + b"\n" for key, n in counts.items())


def _counts(data: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    decode = msgspec.json.Decoder(_Note).decode
    for line in data.split(b"\n"):
        try:
            note = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        found[note.stream] = max(note.n, found.get(note.stream, 0))
    return found
