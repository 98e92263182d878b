"""The journal of files, ``replayed.jsonl``: whose content was replayed here, or was exported from here.

A file is known by the digest of its decompressed content. Of a replayed one the archive itself has which
records it holds; of an exported one the journal says which record is which event. That a learner was erased
stands there too, as a salted hash of the safe id: so it is known which files were there before.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.engine.formats.source import Fingerprint, FingerprintMaker

__all__ = ["Exported", "Journal", "Run", "held_records", "journal_of", "note_erased"]

Run = tuple[int, int, int]
"""Records of a file that are events of the archive: the first record, its event's number, how many."""

_MOST: Final = 50_000  # runs of one file


class _Known(msgspec.Struct, omit_defaults=True):
    """A line: a content, how long it is, the file's name, and which of its records are whose events.

    ``grown_from`` are the contents that it began with, of those that were known then.
    """

    file: str
    bytes: int
    name: str = ""
    own: list[Run] = []
    grown_from: list[str] = []


class _Erased(msgspec.Struct):
    """A line: somebody was erased."""

    erased: str
    salt: str


def journal_of(workspace: Path) -> Path:
    """Where it is."""
    return workspace / "replayed.jsonl"


class Journal:
    """What a journal says.

    ``known`` has digests by length, ``own`` the records of exported contents, and ``grown`` the contents
    that others have grown to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, set[str]] = {}
        self.own: dict[str, list[Run]] = {}
        self.grown: dict[str, list[str]] = {}
        self.salts: set[str] = set()
        self._lines: dict[str, int] = {}  # the first line of each content, and the last of each erasure
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        for number, line in enumerate(data.split(b"\n")):
            try:
                entry = msgspec.json.decode(line, type=_Known)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self._take_erased(number, line)
                continue
            self.known.setdefault(entry.bytes, set()).add(entry.file)
            self._lines.setdefault(entry.file, number)
            if entry.own:
                self.own[entry.file] = entry.own
            for each in entry.grown_from:
                self.grown.setdefault(each, []).append(entry.file)

    def _take_erased(self, number: int, line: bytes) -> None:
        try:
            erased = msgspec.json.decode(line, type=_Erased)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # torn by a crash: a grown file isn't recognised then, and no other harm is done
        self.salts.add(erased.salt)
        self._lines[erased.erased] = number

    def was_erased(self, student: str) -> bool:
        """Whether a learner (a safe id) was ever erased here."""
        return any(_hashed(student, salt) in self._lines for salt in self.salts)

    def erased_since(self, student: str, digests: Iterable[str]) -> bool:
        """Whether a learner was erased after one of these contents was known here."""
        erased = max((self._lines.get(_hashed(student, salt), -1) for salt in self.salts), default=-1)
        return any(self._lines.get(digest, erased) < erased for digest in digests)

    def replayed(self, prints: Sequence[Fingerprint], names: Sequence[str]) -> None:
        """Note that these were replayed."""
        _append(
            self.path,
            [
                _Known(what.digest, what.length, Path(name).name, [], what.grown_from)
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


def note_erased(path: Path, student: str) -> None:
    """Note that a learner (a safe id) is erased, so that no file that is known by now brings them back."""
    salt = min(Journal(path).salts, default="") or secrets.token_hex(16)
    _append(path, [_Erased(_hashed(student, salt), salt)])


def _hashed(student: str, salt: str) -> str:
    key = salt.encode()[:64]
    return hashlib.blake2b(student.encode("utf-8", "replace"), key=key, digest_size=16).hexdigest()


def _append(path: Path, entries: Sequence[_Known | _Erased]) -> None:
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
