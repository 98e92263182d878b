"""Keeping the archive's segments: compressing closed ones, setting damaged ones aside, checking them.

All of it runs beside the loop, in slices that leave the interpreter to others. At each moment of it a
crash leaves a whole segment: see :mod:`~lo_kernel.engine.archive.segments` for the order.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lo_kernel.engine.archive.index import (
    BLOCK,
    IndexMaker,
    SegmentIndex,
    index_path,
    index_text,
    read_index,
)
from lo_kernel.engine.archive.lines import line_at, sync_folder
from lo_kernel.engine.archive.marks import merged
from lo_kernel.engine.archive.segments import (
    Segment,
    find_index,
    list_segments,
    read_block,
    write_whole,
)
from lo_kernel.errors import ArchiveError

__all__ = ["Stopped", "check_segment", "repair_packed", "seal", "tidy", "write_missing_index"]

_REST: Final = 1.0  # seconds of rest for each second of work
_LEVEL: Final = 3


class Stopped(Exception):
    """The archive was closed meanwhile; what was begun is taken back."""


def seal(segment: Segment, stopped: Callable[[], bool], *, rest: float | None = None) -> str | None:
    """Compress a closed segment. Gives what was wrong in it: the original was set aside then.

    Raises :class:`Stopped`, and ``OSError``.
    """
    from zstandard import ZstdCompressor

    compress = ZstdCompressor(level=_LEVEL, write_checksum=True).compress
    packed = segment.path.with_name(segment.path.name + ".zst")
    temporary = packed.with_name(f"{packed.name}.{os.getpid()}.tmp")
    maker = IndexMaker(segment.first)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            at = 0
            began = time.perf_counter()
            for lines in _blocks_of(segment.path):
                if stopped():
                    raise Stopped
                good, block = maker.take(lines)
                if block.events:
                    frame = compress(good)
                    out.write(frame)
                    maker.place(block, at, len(frame))
                    at += len(frame)
                time.sleep((_REST if rest is None else rest) * (time.perf_counter() - began))
                began = time.perf_counter()
            out.flush()
            os.fsync(descriptor)
        if stopped():
            raise Stopped
        temporary.replace(packed)
        write_whole(index_path(segment.path), index_text(maker.index(at)))
    finally:
        temporary.unlink(missing_ok=True)
    if not maker.bad:
        segment.path.unlink()
        return None
    aside = _set_aside(segment.path)
    return f"{maker.bad} of its lines can't be read, the rest is used; as it was, it lies in {aside}"


def _blocks_of(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        offset, size = 0, os.fstat(descriptor).st_size
        while lines := line_at(descriptor, offset, BLOCK):
            yield lines
            offset += len(lines)
        if offset < size:  # a closed segment ends with a line break: what follows the last one is damage
            yield b"\0\n"
    finally:
        os.close(descriptor)


def _set_aside(path: Path) -> Path:
    folder = path.parent / "damaged"
    folder.mkdir(mode=0o700, exist_ok=True)
    target, count = folder / path.name, 1
    while target.exists():
        count += 1
        target = folder / f"{path.name}.{count}"
    path.replace(target)
    sync_folder(folder)
    sync_folder(path.parent)
    return target


def repair_packed(segment: Segment) -> str:
    """Set a damaged compressed segment aside, and put its readable blocks in its place, as plain lines."""
    temporary = segment.plain.with_name(f"{segment.plain.name}.{os.getpid()}.tmp")
    source = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    lost: list[tuple[int, int]] = []
    try:
        index: SegmentIndex = find_index(segment, source)[0]
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            for block in index.blocks:
                try:
                    lines = read_block(segment, source, block)
                except ArchiveError:
                    if block.first <= block.last:
                        lost.append((block.first, block.last))
                    continue
                out.write(lines)
            out.flush()
            os.fsync(descriptor)
    finally:
        os.close(source)
    # from here on the plain form counts, and the index says nothing of it
    temporary.replace(segment.plain)
    index_path(segment.plain).unlink(missing_ok=True)
    aside = _set_aside(segment.path)
    ranges = ", ".join(f"{first} to {last}" for first, last in merged(lost))
    what = f"the events {ranges} can't be read" if lost else "a part of it can't be read"
    return f"{what}, the rest is used; as it was, it lies in {aside}"


def tidy(folder: Path) -> None:
    """Finish or take back what a crash interrupted; before anything else is written."""
    if not folder.is_dir():
        return
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)
    for segment in list_segments(folder):
        packed = segment.plain.with_name(segment.plain.name + ".zst")
        if segment.packed or not packed.exists():
            continue
        try:
            index: SegmentIndex | None = read_index(segment.plain)
        except (FileNotFoundError, ArchiveError):
            index = None
        if index is not None and index.packed == packed.stat().st_size:
            if index.bytes == segment.path.stat().st_size:
                segment.path.unlink()
            else:
                _set_aside(segment.path)
        elif index is not None:
            _set_aside(packed)
            index_path(segment.plain).unlink(missing_ok=True)
        else:
            packed.unlink()


def write_missing_index(segment: Segment) -> None:
    """Make the index of a compressed segment anew where it is missing, damaged, or not that of the file."""
    descriptor = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        index, wrong = find_index(segment, descriptor)
    finally:
        os.close(descriptor)
    if wrong:
        write_whole(index_path(segment.plain), index_text(index))


def check_segment(segment: Segment) -> str | None:
    """What is wrong with a segment, read from its first byte to its last; ``None`` where nothing is."""
    if not segment.packed:
        maker = IndexMaker(segment.first)
        for lines in _blocks_of(segment.path):
            maker.take(lines)
        return f"{maker.bad} of its lines can't be read" if maker.bad else None
    digest = hashlib.sha256()
    descriptor = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        index, wrong = find_index(segment, descriptor)
        if wrong:
            return str(wrong)
        for block in index.blocks:
            digest.update(read_block(segment, descriptor, block))
    except ArchiveError as error:
        return str(error)
    finally:
        os.close(descriptor)
    return "its checksum is not the one in its index" if digest.hexdigest() != index.sha256 else None
