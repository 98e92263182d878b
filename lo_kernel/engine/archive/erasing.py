"""Erasing a learner from the archive: each of their lines becomes one that says only that it was there.

Numbers stay, so that positions do. A segment is written anew beside its place and moved there, so that
whoever reads the old one can go on. A crash in the middle leaves a whole segment, old or new: erasing
again finishes it. What can't be read is set aside first, as its keeper would, and what was set aside is
searched as well as it can be.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lo_kernel.engine.archive.cursor import Senders
from lo_kernel.engine.archive.index import index_path
from lo_kernel.engine.archive.lines import decode_line, sync_folder, whole_lines
from lo_kernel.engine.archive.sealing import repair_packed
from lo_kernel.engine.archive.segments import Segment, open_reader, write_whole
from lo_kernel.errors import ArchiveError

__all__ = ["erase_from_damaged", "erase_from_files", "lines_naming"]

_FRAME = b"\x28\xb5\x2f\xfd"  # what each block of a compressed segment begins with
_UNREADABLE = b"?\n"  # in the place of a line that can't be read: it counts, as it did


def erase_from_files(
    segments: list[Segment], rejected: Path, student: str, user_id: str, time: float
) -> tuple[int, int]:
    """Take a learner (a safe id, and the id that clients gave) out of closed segments and what was rejected.

    ``time`` is put into each line in place of the event, in seconds since 1970 (UTC). Gives how many
    events and how many rejected frames went. Runs for as long as reading all of it takes: in a thread, best.
    """
    senders = Senders()
    names = [name for name in (student, user_id) if name]
    events = sum(_erase_segment(segment, student, names, senders, time) for segment in segments)
    return events, _erase_lines(rejected, lambda line: any(_names(line, name) for name in names))


def lines_naming(path: Path, names: list[str]) -> list[bytes]:
    """The lines of what was rejected that an erasure of ``names`` takes."""
    try:
        lines = whole_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    return [line.removesuffix(b"\n") for line in lines if any(_names(line, name) for name in names if name)]


def erase_from_damaged(
    folder: Path, student: str, user_id: str, time: float
) -> tuple[int, list[tuple[Path, str]]]:
    """The same for segments that were set aside, in ``folder``.

    Gives how many lines and blocks went, and of which files something can't be read, so that nobody knows
    whose it is, with what that is.
    """
    names = [name for name in (student, user_id) if name]
    senders, gone = Senders(), 0
    unread: list[tuple[Path, str]] = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if not path.is_file():
            continue
        if ".zst" in path.suffixes:
            count, what = _erase_blocks(path, names)
        else:
            count, what = _erase_lines_aside(path, student, names, senders, time)
        gone += count
        if what:
            unread.append((path, what))
    return gone, unread


def _erase_segment(segment: Segment, student: str, names: list[str], senders: Senders, time: float) -> int:
    try:
        return _erase_readable(segment, student, names, senders, time)
    except ArchiveError:  # a block of it: the others come into a plain segment, and it is set aside
        repair_packed(segment)
        return _erase_readable(Segment(segment.first, segment.plain, False), student, names, senders, time)


def _erase_readable(segment: Segment, student: str, names: list[str], senders: Senders, time: float) -> int:
    needles = [needle.strip(b'"') for name in names for needle in _written(name)]
    with contextlib.closing(open_reader(segment)) as reader:
        parts: list[bytes] = []
        gone = 0
        while lines := reader.read():
            if any(needle in lines for needle in needles):
                lines, count = _erased_lines(lines, student, names, senders, time)
                gone += count
            parts.append(lines)
    if not gone:
        return 0
    # a compressed one becomes a plain one, which counts while both are there; its keeper compresses it again
    write_whole(segment.plain, b"".join(parts))
    for path in [index_path(segment.plain), *([segment.path] if segment.packed else [])]:
        path.unlink(missing_ok=True)
    sync_folder(segment.plain.parent)
    return gone


def _erased_lines(
    lines: bytes, student: str, names: list[str], senders: Senders, time: float
) -> tuple[bytes, int]:
    """Lines without what is a learner's, also those that can't be read and name them; how many those were."""
    kept: list[bytes] = []
    gone = 0
    for line in whole_lines(lines):
        erased = _tombstone(line, student, senders, time)
        if erased is None and _record_of(line) is None and any(_names(line, name) for name in names):
            erased = _UNREADABLE
        gone += erased is not None
        kept.append(line if erased is None else erased)
    return b"".join(kept), gone


def _erase_lines_aside(
    path: Path, student: str, names: list[str], senders: Senders, time: float
) -> tuple[int, str]:
    lines = path.read_bytes()
    erased, gone = _erased_lines(lines, student, names, senders, time)
    if gone:
        write_whole(path, erased)
    bad = sum(_record_of(line) is None and line != _UNREADABLE for line in whole_lines(erased))
    return gone, f"{bad} of its lines" if bad else ""


def _erase_blocks(path: Path, names: list[str]) -> tuple[int, str]:
    """Empty the readable blocks that name a learner: what stands in them is in the archive, too."""
    data = bytearray(path.read_bytes())
    needles = [needle for name in names for needle in _written(name)]
    gone, read = 0, 0
    for start, end, lines in _frames(bytes(data)):
        read += end - start
        if any(needle in lines for needle in needles):
            data[start:end] = bytes(end - start)
            gone += 1
    if gone:
        write_whole(path, bytes(data))
    return gone, f"{len(data) - read:,} of its {len(data):,} bytes" if read < len(data) else ""


def _frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """What can be decompressed of a file, frame by frame: where it begins and ends, and what it holds."""
    from zstandard import ZstdDecompressor, ZstdError

    at = data.find(_FRAME)
    while at >= 0:
        frame = ZstdDecompressor().decompressobj()
        end = 0
        with contextlib.suppress(ZstdError, MemoryError):
            lines = frame.decompress(memoryview(data)[at:])
            end = len(data) - len(frame.unused_data) if frame.eof else 0
        if end:
            yield at, end, lines
        at = data.find(_FRAME, end or at + 1)


def _tombstone(line: bytes, student: str, senders: Senders, time: float) -> bytes | None:
    try:
        record = decode_line(line)
        if record.gone is not None or senders.of(record).student != student:
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
    return b'{"n":%d,"t":%b,"gone":%b}\n' % (record.n, _number(record.t), _number(time))


def _record_of(line: bytes) -> object:
    try:
        return decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _number(value: float) -> bytes:
    return msgspec.json.encode(value)


def _erase_lines(path: Path, wanted: Callable[[bytes], bool]) -> int:
    try:
        lines = whole_lines(path.read_bytes())
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if not wanted(line)]
    if len(kept) < len(lines):
        write_whole(path, b"".join(kept))
    return len(lines) - len(kept)


def _names(line: bytes, name: str) -> bool:
    return any(text in line for text in _written(name))


def _written(name: str) -> list[bytes]:
    """How a name may stand in a line: as JSON, also as JSON within a text."""
    found = []
    for text in (json.dumps(name, ensure_ascii=False).encode(), json.dumps(name).encode()):
        found += [text, text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')]
    return list(dict.fromkeys(found))
