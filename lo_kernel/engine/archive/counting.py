"""How many events the archive holds: fewer than their numbers say, where some were erased or lost."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lo_kernel.engine.archive.lines import CHUNK, decode_line, line_at, whole_lines
from lo_kernel.engine.archive.segments import Segment, find_index, list_segments

__all__ = ["EventCounter"]


@dataclass(slots=True)
class _Counted:
    file: tuple[int, int]  # device and inode: erasing and compressing make another one
    size: int = 0
    events: int = 0
    last: int = 0  # number of the last event


class EventCounter:
    """Counts the events in a folder of segments; what it has counted once is read no more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted: dict[int, _Counted] = {}

    def missing(self) -> int:
        """How many numbers have no event, up to the newest one that is written.

        The first call reads what isn't compressed, 64 MB as a rule; later ones what came since.
        """
        counted = {}
        for segment in list_segments(self._folder):
            with contextlib.suppress(FileNotFoundError):  # it has just changed its form
                counted[segment.first] = self._count(segment)
        self._counted = counted
        last = max((each.last for each in counted.values()), default=0)
        return last - sum(each.events for each in counted.values())

    def _count(self, segment: Segment) -> _Counted:
        descriptor = os.open(segment.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            stat = os.fstat(descriptor)
            file = stat.st_dev, stat.st_ino
            known = self._counted.get(segment.first)
            if known is None or known.file != file or known.size > stat.st_size:
                known = _Counted(file, last=segment.first - 1)
            if segment.packed:
                if not known.size:
                    index, _ = find_index(segment, descriptor)
                    known.size, known.last = stat.st_size, index.last
                    known.events = sum(index.contexts.values())  # erased ones have none
            else:
                _count_lines(descriptor, known)
            return known
        finally:
            os.close(descriptor)


def _count_lines(descriptor: int, known: _Counted) -> None:
    while lines := line_at(descriptor, known.size, CHUNK):
        known.size += len(lines)
        count = lines.count(b"\n")
        known.last += count
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # some may be lost
            known.last = decode_line(lines[lines.rfind(b"\n", 0, -1) + 1 :]).n
        known.events += count - (_gone(lines) if b'"gone":' in lines else 0)


def _gone(lines: bytes) -> int:
    gone = 0
    for line in whole_lines(lines):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            gone += decode_line(line).gone is not None
    return gone
