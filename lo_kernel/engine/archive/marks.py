"""Which numbers of a stream or of a replayed file the archive holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from lo_kernel.engine.archive.index import IndexMaker, IndexParts
from lo_kernel.engine.archive.lines import last_number
from lo_kernel.engine.archive.segments import PlainReader, Segment, find_index, list_segments

__all__ = ["find_numbers", "find_ordinals", "merged"]


class _Marks(IndexParts):
    """Of an index, what is asked for here."""

    marks: dict[str, list[tuple[int, int]]]


def find_ordinals(folder: Path, marks: Sequence[str]) -> list[tuple[int, int]]:
    """See :meth:`Archive.ordinals`."""

    def of(segment: Segment) -> list[tuple[int, int]]:
        return _of_packed(segment, marks) if segment.packed else _of_plain(segment, marks)

    return _of_all(folder, of)


def _of_all(folder: Path, of: Callable[[Segment], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for listed in list_segments(folder):
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


class _Last(IndexParts):
    """Of an index, what is asked for here."""

    last: int


def find_numbers(folder: Path) -> list[tuple[int, int]]:
    """Which numbers the segments of a folder have, erased ones too, as ranges."""
    return _of_all(folder, lambda segment: [(segment.first, _last_of(segment))])


def _last_of(segment: Segment) -> int:
    if not segment.packed:
        return last_number(segment.path, segment.first)
    with segment.path.open("rb") as file:
        index: _Last = find_index(segment, file.fileno(), _Last)[0]
        return index.last


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
