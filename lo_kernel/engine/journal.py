"""The journal of files, ``replayed.jsonl``: whose content was replayed here, or was exported from here.

A file is known by the digest of its decompressed content. Of a replayed one the archive itself has which
records it holds; of an exported one the journal says which record is which event.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.engine.formats.source import Fingerprint, FingerprintMaker

__all__ = ["Exported", "Journal", "Run", "held_records", "journal_of"]

Run = tuple[int, int, int]
"""Records of a file that are events of the archive: the first record, its event's number, how many."""

_MOST: Final = 50_000  # runs of one file


class _Known(msgspec.Struct, omit_defaults=True):
    """A line: a content, how long it is, the file's name, and which of its records are whose events."""

    file: str
    bytes: int
    name: str = ""
    own: list[Run] = []


def journal_of(workspace: Path) -> Path:
    """Where it is."""
    return workspace / "replayed.jsonl"


class Journal:
    """What a journal says: digests by length, and of exported contents their records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, set[str]] = {}
        self.own: dict[str, list[Run]] = {}
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.split(b"\n"):
            try:
                entry = msgspec.json.decode(line, type=_Known)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # torn by a crash: a grown file isn't recognised then, and no other harm is done
            self.known.setdefault(entry.bytes, set()).add(entry.file)
            if entry.own:
                self.own[entry.file] = entry.own

    def replayed(self, prints: Sequence[Fingerprint], names: Sequence[str]) -> None:
        """Note that these were replayed."""
        _append(
            self.path,
            [
                _Known(what.digest, what.length, Path(name).name)
                for what, name in zip(prints, names, strict=True)
                if what.digest not in self.known.get(what.length, ())
            ],
        )


class Exported:
    """What an export writes, on its way to the journal."""

    def __init__(self) -> None:
        self._content = FingerprintMaker()
        self._count = 0
        self._own: list[Run] = []

    def add(self, line: bytes, number: int) -> None:
        """An event was written."""
        self._content.update(line)
        self._count += 1
        if self._own:
            record, first, count = self._own[-1]
            if first + count == number:
                self._own[-1] = record, first, count + 1
                return
        self._own.append((self._count, number, 1))

    def note(self, path: Path, name: str) -> None:
        """Put it into the journal; one that is picked from here and there all over is left out."""
        if 0 < len(self._own) <= _MOST:
            what = self._content.done()
            _append(path, [_Known(what.digest, what.length, name, self._own)])


def held_records(own: Iterable[Run], numbers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which records of an exported file are among the events that there are, as ranges.

    >>> held_records([(1, 11, 5), (6, 31, 2)], [(1, 12), (30, 40)])
    [(1, 2), (6, 7)]
    """
    found = []
    for record, number, count in own:
        for first, last in numbers:
            start, end = max(first, number), min(last, number + count - 1)
            if start <= end:
                found.append((record + start - number, record + end - number))
    return found


def _append(path: Path, entries: list[_Known]) -> None:
    """Put lines at the end, in one piece: other processes do so too, so none takes a torn one back."""
    if not entries:
        return
    data = b"\n" + b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        if (written := os.write(descriptor, data)) < len(data):
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
