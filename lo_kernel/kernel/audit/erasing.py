"""Deleting from the record on purpose: texts, and what retention ends. Both leave word of themselves.

What is to be deleted is written down first (``audit/deleting.json``, by hashes), then the record says that it
is, and only then it goes. So a deletion that was cut off leaves a chain that verifies, and is finished when
the record is opened next, or with the next deletion.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from lo_kernel.kernel.audit.chain import Entry, Text, canonical, split, utc
from lo_kernel.kernel.audit.files import (
    DELETING,
    LogFile,
    lines_of,
    list_logs,
    open_private,
    text_path,
    write_over,
)
from lo_kernel.kernel.audit.log import AuditLog, Writing
from lo_kernel.kernel.audit.witness import Witness

__all__ = ["delete_texts", "finish_deleting", "pack", "retain"]

_DAY = 86_400 * 10**9
_entry = msgspec.json.Decoder(Entry).decode
_text = msgspec.json.Decoder(Text).decode


class _Intent(msgspec.Struct):
    """A deletion that has begun: why, and the hashes of the texts that go."""

    reason: str
    hashes: list[str]


def delete_texts(
    log: AuditLog,
    wanted: Callable[[str], bool],
    reason: str,
    *,
    on_damage: Callable[[ValueError], None] | None = None,
) -> int:
    """Delete every text that is ``wanted``; how many there were.

    The record says that they were deleted, why and when; the chain stays whole. ``on_damage`` is told of a
    file that can't be read, and so may hold one still (by default that is raised).
    """
    # closed files before the record is held: others, and cells, wait for it no longer than must be
    early: dict[Path, tuple[object, list[str]]] = {}
    for path in _text_files(log)[:-1]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            early[path] = _stamp(path), _wanted_in(path, wanted)
    with log.writing() as writing:
        _finish(log, writing)
        found: dict[Path, list[str]] = {}
        for path in _text_files(log):
            stamp, hits = early.get(path, (None, []))
            if stamp != _stamp(path):
                try:
                    hits = _wanted_in(path, wanted)
                except ValueError as error:
                    if on_damage is None:
                        raise
                    on_damage(ValueError(f"{path}: {error}. It may hold what was to be deleted: delete it"))
            if hits:
                found[path] = hits
        hashes = list(dict.fromkeys(each for hits in found.values() for each in hits))
        if hashes:
            intent = msgspec.json.encode({"reason": reason, "hashes": hashes})
            _write_whole(log.folder / DELETING, intent)
            _finish(log, writing, found)
    return len(hashes)


def _wanted_in(path: Path, wanted: Callable[[str], bool]) -> list[str]:
    texts = map(_read_text, lines_of(path))
    return [text.hash for text in texts if text is not None and wanted(text.text)]


def finish_deleting(log: AuditLog) -> None:
    """Finish a deletion that was cut off, where there is one; ``OSError`` where that fails."""
    if (log.folder / DELETING).exists():
        with log.writing() as writing:
            _finish(log, writing)


def _finish(log: AuditLog, writing: Writing, files: Iterable[Path] | None = None) -> None:
    """Delete what was written down; ``files`` are those in which it is, where that is known."""
    try:
        intent = msgspec.json.decode((log.folder / DELETING).read_bytes(), type=_Intent)
    except FileNotFoundError:
        return
    writing.append("redaction", {"reason": intent.reason, "hashes": intent.hashes})
    log.sync()
    gone = frozenset(intent.hashes)
    for path in _text_files(log) if files is None else files:
        with contextlib.suppress(FileNotFoundError, ValueError):  # one that can't be read holds none of them
            lines = list(lines_of(path))
            kept = [line for line in lines if (text := _read_text(line)) is None or text.hash not in gone]
            if len(kept) < len(lines):
                data = b"".join(kept)
                write_over(path, _packed(data) if path.suffix == ".zst" else data)
    log.reopen()
    _tidy(log)
    (log.folder / DELETING).unlink()


def _stamp(path: Path) -> tuple[int, int, int]:
    """What tells whether a file is the one that was read."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _text_files(log: AuditLog) -> list[Path]:
    """All there are; while one is being compressed, in both forms."""
    return sorted(path for path in log.folder.glob("text-*") if path.suffix in (".jsonl", ".zst"))


def _tidy(log: AuditLog) -> None:
    """Delete what a process that was cut off left beside; while the record is held nobody is at it."""
    for path in log.folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def pack(log: AuditLog) -> None:
    """Compress every file but the newest."""
    with log.writing():
        _tidy(log)
        for file in list_logs(log.folder)[:-1]:
            if file.packed:
                continue
            for plain in (text_path(log.folder, file.first), file.path):  # the chain's last: it counts
                with contextlib.suppress(FileNotFoundError):
                    _write_whole(plain.with_name(plain.name + ".zst"), _packed(plain.read_bytes()))
            for plain in (file.path, text_path(log.folder, file.first)):
                plain.unlink(missing_ok=True)


def retain(log: AuditLog, days: int, *, now: int | None = None) -> int:
    """Delete the files whose records are all older than ``days``; how many records went.

    A signed anchor takes the place of what is gone, and the record says so, too.
    """
    if days <= 0:
        return 0
    oldest = utc((time.time_ns() if now is None else now) - days * _DAY)
    gone = 0
    with log.writing() as writing:
        for file in list_logs(log.folder)[:-1]:
            anchor = _anchor(file)
            if anchor is None or anchor["until"] >= oldest:
                break
            anchor |= {"chain": log.chain, "at": utc(time.time_ns()), "reason": f"older than {days} days"}
            anchor["signature"] = Witness(log.chain, log.state).sign(canonical(anchor))
            descriptor = open_private(log.folder / "anchors.jsonl")
            with os.fdopen(descriptor, "ab") as out:
                out.write(canonical(anchor) + b"\n")
                out.flush()
                os.fsync(descriptor)
            for path in (file.path, text_path(log.folder, file.first, packed=file.packed)):
                path.unlink(missing_ok=True)
            said = {name: anchor[name] for name in ("first", "last", "before", "after", "reason")}
            writing.append("retention", said)
            gone += anchor["last"] - anchor["first"] + 1
    return gone


def _anchor(file: LogFile) -> dict[str, Any] | None:
    """Where a file's part of the chain begins and ends; ``None`` where it can't be read."""
    before, last = "", b""
    try:
        for line in lines_of(file.path):
            if not before:
                before = str(msgspec.json.decode(line, type=dict[str, Any]).get("before", ""))
            last = line
        entry, (_, after) = _entry(last), split(last)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return {"first": file.first, "last": entry.n, "before": before, "after": after, "until": entry.at}


def _read_text(line: bytes) -> Text | None:
    try:
        return _text(line)
    except msgspec.MsgspecError:
        return None


def _packed(data: bytes) -> bytes:
    from zstandard import ZstdCompressor

    return ZstdCompressor(level=3, write_checksum=True).compress(data)


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
