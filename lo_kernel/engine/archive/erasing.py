"""Erasing a learner from the archive: each of their lines becomes one that says only that it was there.

Numbers stay, so that positions do. A segment is written anew beside its place and moved there, so that
whoever reads the old one can go on. A crash in the middle leaves a whole segment, old or new: erasing
again finishes it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec

from lo_kernel.engine.archive.cursor import Senders
from lo_kernel.engine.archive.index import index_path
from lo_kernel.engine.archive.lines import decode_line
from lo_kernel.engine.archive.segments import Segment, open_reader, sync_folder, write_whole

__all__ = ["erase_from_files"]


def erase_from_files(
    segments: list[Segment], rejected: Path, student: str, user_id: str, time: float
) -> tuple[int, int]:
    """Take a learner (a safe id, and the id that clients gave) out of closed segments and what was rejected.

    ``time`` is put into each line in place of the event, in seconds since 1970 (UTC). Gives how many
    events and how many rejected frames went. Runs for as long as reading all of it takes: in a thread, best.
    """
    senders = Senders()
    events = sum(_erase_segment(segment, student, senders, time) for segment in segments)
    names = [name for name in (student, user_id) if name]
    return events, _erase_lines(rejected, lambda line: any(_names(line, name) for name in names))


def _erase_segment(segment: Segment, student: str, senders: Senders, time: float) -> int:
    needle = student.encode()
    with contextlib.closing(open_reader(segment)) as reader:
        parts: list[bytes] = []
        gone = 0
        while lines := reader.read():
            if needle not in lines and json.dumps(student).strip('"').encode() not in lines:
                parts.append(lines)
                continue
            kept: list[bytes] = []
            for line in lines.splitlines(keepends=True):
                erased = _tombstone(line, student, senders, time)
                gone += erased is not None
                kept.append(line if erased is None else erased)
            parts.append(b"".join(kept))
    if not gone:
        return 0
    # a compressed one becomes a plain one, which counts while both are there; its keeper compresses it again
    write_whole(segment.plain, b"".join(parts))
    for path in [index_path(segment.plain), *([segment.path] if segment.packed else [])]:
        path.unlink(missing_ok=True)
    sync_folder(segment.plain.parent)
    return gone


def _tombstone(line: bytes, student: str, senders: Senders, time: float) -> bytes | None:
    try:
        record = decode_line(line)
        if record.gone is not None or senders.of(record).student != student:
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
    return b'{"n":%d,"t":%b,"gone":%b}\n' % (record.n, _number(record.t), _number(time))


def _number(value: float) -> bytes:
    return msgspec.json.encode(value)


def _erase_lines(path: Path, wanted: Callable[[bytes], bool]) -> int:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if not wanted(line)]
    if len(kept) < len(lines):
        write_whole(path, b"".join(kept))
    return len(lines) - len(kept)


def _names(line: bytes, name: str) -> bool:
    text = json.dumps(name, ensure_ascii=False).encode()
    return text in line or text.replace(b'"', b'\\"') in line
