"""Segments: files of consecutive events, and the index of a closed one.

    events-000000000001.jsonl        the newest, or one that is not compressed yet
    events-000000000001.jsonl.zst    a compressed one: zstd frames one behind the other, one a block
    events-000000000001.index.json   its checksum, ranges and blocks

While both forms of a segment are there, the plain one counts. A compressed one counts once its index is
there too, which is written last; only then is the plain one taken away. So there is a whole segment at
every moment, and a reader that has opened one keeps it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from lo_kernel.engine.archive.index import Block, SegmentIndex, index_of_packed, misfit, read_index
from lo_kernel.engine.archive.lines import CHUNK, line_at, number_before, seek_number, sync_folder
from lo_kernel.errors import ArchiveError

__all__ = [
    "PackedReader",
    "PlainReader",
    "Segment",
    "find_index",
    "list_segments",
    "open_reader",
    "read_block",
    "write_whole",
]

_NAME: Final = re.compile(r"events-(\d{12,})\.jsonl(\.zst)?")


class Segment(NamedTuple):
    """A segment: number of its first event, its file, and whether that is compressed."""

    first: int
    path: Path
    packed: bool

    @property
    def plain(self) -> Path:
        """Where it is, or was, before it was compressed."""
        return self.path.with_suffix("") if self.packed else self.path


def list_segments(folder: Path) -> list[Segment]:
    """The segments of a folder, in order; of each the form that counts."""
    try:
        # twice: a large folder isn't read in one step, and a name may move meanwhile from behind to before
        names = {path.name for _ in range(2) for path in folder.iterdir()}
    except FileNotFoundError:
        return []
    found: dict[int, Segment] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match and (match[2] is None or int(match[1]) not in found):
            found[int(match[1])] = Segment(int(match[1]), folder / name, match[2] is not None)
    return [found[first] for first in sorted(found)]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that its user alone can read, whole or not at all, and have it on disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


class PlainReader:
    """Lines of a plain segment, from the event ``number`` on, also as it grows."""

    def __init__(self, segment: Segment, number: int) -> None:
        self.segment = segment
        self._descriptor = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._offset = 0
        if number > segment.first:
            self._offset = seek_number(self._descriptor, number)

    def read(self) -> bytes:
        """The next whole lines, about 256 KiB; empty where there are none by now.

        Where the file was written anew meanwhile, some may come a second time.
        """
        lines = line_at(self._descriptor, self._offset, CHUNK)
        if not lines and self._reopen():
            lines = line_at(self._descriptor, self._offset, CHUNK)
        self._offset += len(lines)
        return lines

    def _reopen(self) -> bool:
        """Go on in the file that has the segment's name by now, if that is another."""
        if os.name != "posix":
            return False
        try:
            if os.path.samestat(os.fstat(self._descriptor), self.segment.path.stat()):
                return False
            descriptor = os.open(self.segment.path, os.O_RDONLY)
        except FileNotFoundError:  # it was compressed
            return False
        before = number_before(self._descriptor, self._offset)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._offset = seek_number(descriptor, before + 1) if before else 0
        return True

    def unread(self, lines: bytes) -> None:
        """Give back what :meth:`read` gave last."""
        self._offset -= len(lines)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def find_index(segment: Segment, descriptor: int, kind: Any = SegmentIndex) -> tuple[Any, str]:
    """The index of a compressed segment, and what is wrong with the one beside it.

    Where anything is (it is missing, damaged, or not this file's), what is given is made from the file that
    is open as ``descriptor``: a whole :class:`SegmentIndex`, which takes as long as reading all of it. Else
    it may be a struct with some of the fields, derived from ``IndexParts``. ``FileNotFoundError`` where the
    segment has just changed its form.
    """
    last = 0
    try:
        index = read_index(segment.plain, kind)
        wrong = misfit(index, segment.first, os.fstat(descriptor).st_size)
        if not wrong:
            return index, ""
        if index.first == segment.first:
            last = getattr(index, "last", 0)
    except FileNotFoundError:
        if segment.plain.exists() or not segment.path.exists():
            raise
        wrong = "its index is missing"
    except ArchiveError as error:
        wrong = str(error)
    later = [each.first for each in list_segments(segment.path.parent) if each.first > segment.first]
    end = later[0] - 1 if later else 0
    return index_of_packed(descriptor, segment.first, last=last, end=end), wrong


def read_block(segment: Segment, descriptor: int, block: Block) -> bytes:
    """The lines of a block; :class:`ArchiveError` where it is damaged."""
    from zstandard import ZstdDecompressor, ZstdError

    try:
        os.lseek(descriptor, block.at, os.SEEK_SET)
        return ZstdDecompressor().decompress(os.read(descriptor, block.size))
    except (ZstdError, MemoryError) as error:
        what = f"of the events {block.first} to {block.last} nothing can be read"
        if block.last < block.first:
            what = f"the {block.size:,} bytes from {block.at:,} on can't be read; no event is missing"
        raise ArchiveError(f"{segment.path.name} is damaged ({error}): {what}") from None


class PackedReader:
    """Lines of a compressed segment, block after block, from the event ``number`` on.

    ``wrong`` says what is wrong with its index, where anything is; it is read all the same.
    """

    def __init__(self, segment: Segment, number: int) -> None:
        self.segment = segment
        self._descriptor = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            self.index: SegmentIndex
            self.index, self.wrong = find_index(segment, self._descriptor)
        except BaseException:
            self.close()
            raise
        self._blocks = iter([block for block in self.index.blocks if block.last >= number])

    def read(self) -> bytes:
        """The lines of the next block; empty at the end. :class:`ArchiveError` where it is damaged."""
        for block in self._blocks:
            return self.block(block)
        return b""

    def block(self, block: Block) -> bytes:
        """The lines of one block; :class:`ArchiveError` where it is damaged."""
        return read_block(self.segment, self._descriptor, block)

    def blocks(self) -> Iterator[Block]:
        """The blocks that are left to read; one that is taken from here is not given by :meth:`read`."""
        yield from self._blocks

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_reader(
    segment: Segment, number: int = 0, report: Callable[[Segment, str, str], None] | None = None
) -> PlainReader | PackedReader:
    """A reader of a segment; ``FileNotFoundError`` where it has just changed its form (list anew).

    An index that is missing or wrong is told to ``report``, as ``CorruptIndex``.
    """
    if not segment.packed:
        return PlainReader(segment, number)
    reader = PackedReader(segment, number)
    if reader.wrong and report is not None:
        report(segment, "CorruptIndex", f"{reader.wrong}: the segment is read without it")
    return reader
