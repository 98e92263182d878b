"""Which numbers of a stream or of a replayed file the archive holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from lo_kernel.engine.archive.cursor import UNSOUND, Senders, parse_lines
from lo_kernel.engine.archive.index import IndexMaker, IndexParts, add_ordinal
from lo_kernel.engine.archive.lines import Record
from lo_kernel.engine.archive.segments import PlainReader, Segment, find_index, list_segments, open_reader
from lo_kernel.errors import ArchiveError

__all__ = ["find_numbers", "find_ordinals", "merged"]


class _Marks(IndexParts):
    """Of an index, what is asked for here."""

    marks: dict[str, list[tuple[int, int]]]


def find_ordinals(folder: Path, marks: Sequence[str]) -> list[tuple[int, int]]:
    """See :meth:`Archive.ordinals`."""

    def of(segment: Segment) -> list[tuple[int, int]]:
        return _of_packed(segment, marks) if segment.packed else _of_plain(segment, marks)

    return _of_all(folder, list_segments(folder), of)


def _of_all(
    folder: Path, segments: Iterable[Segment], of: Callable[[Segment], list[tuple[int, int]]]
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for listed in segments:
        segment = listed
        while True:
            try:
                found += of(segment)
                break
            except FileNotFoundError:  # it changed its form meanwhile, or was set aside
                now = [each for each in list_segments(folder) if each.first == listed.first]
                if not now:
                    break
                segment = now[0]
    return merged(found)


def find_numbers(folder: Path, first: int = 1, last: int | None = None) -> list[tuple[int, int]]:
    """Which numbers have an event, or had one that was erased, as ranges.

    Reads the segments that may have those from ``first`` to ``last`` (``None``: to the end): what is damaged
    is none.
    """
    segments = list_segments(folder)
    ends = [*(each.first for each in segments[1:]), None]
    wanted = [
        segment
        for segment, end in zip(segments, ends, strict=True)
        if (end is None or end > first) and (last is None or segment.first <= last)
    ]
    senders = Senders()
    return _of_all(folder, wanted, lambda segment: _numbers_of(segment, senders))


def _numbers_of(segment: Segment, senders: Senders) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    with contextlib.closing(open_reader(segment)) as reader:
        for lines in _readable(reader.read):
            for record in parse_lines(lines, segment, lambda *_: None):  # whoever reads events reports it
                if _is_there(record, senders):
                    add_ordinal(found, record.n)
    return found


def _readable(read: Callable[[], bytes]) -> Iterator[bytes]:
    while True:
        try:
            lines = read()
        except ArchiveError:
            continue
        if not lines:
            return
        yield lines


def _is_there(record: Record, senders: Senders) -> bool:
    if record.gone is not None:
        return True
    try:
        senders.of(record)
    except UNSOUND:
        return False
    return bytes(record.body)[:1] == b"{"


def _of_packed(segment: Segment, marks: Iterable[str]) -> list[tuple[int, int]]:
    with segment.path.open("rb") as file:
        index: _Marks = find_index(segment, file.fileno(), _Marks)[0]
        return _chosen(index.marks, marks)


def _chosen(found: Mapping[str, list[tuple[int, int]]], marks: Iterable[str]) -> list[tuple[int, int]]:
    return [each for mark in marks for each in found.get(mark, ())]


def _of_plain(segment: Segment, marks: Sequence[str]) -> list[tuple[int, int]]:
    parts = [mark.partition(":") for mark in marks]
    needles = [b'"mark":' + msgspec.json.encode({kind: name})[:-1] for kind, _, name in parts]
    maker = IndexMaker(segment.first)
    reader = PlainReader(segment, 0)
    try:
        while lines := reader.read():
            if any(needle in lines for needle in needles):
                maker.take(lines)
    finally:
        reader.close()
    return _chosen(maker.index(0).marks, marks)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of whole numbers, sorted and joined.

    >>> merged([(5, 9), (1, 2), (3, 4), (20, 20), (8, 12)])
    [(1, 12), (20, 20)]
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
