"""Files of events that are to be read: found, known by their content, and cut into events."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from lo_kernel.engine.events import Arrival
from lo_kernel.engine.formats import FORMATS, Format, Parsed, detect, named, opened
from lo_kernel.engine.formats.base import whole_of
from lo_kernel.engine.formats.source import line_lists
from lo_kernel.engine.report import ReplayReport
from lo_kernel.errors import EventError

__all__ = ["PAUSE", "Deadline", "EventFile", "Held", "Paths", "check_files", "grouped", "merged"]

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]

PAUSE: Final = None
"""What a reader yields in place of an event when others should have their turn."""


class Deadline:
    """When to let others have their turn; a step is at most a few milliseconds."""

    __slots__ = ("at", "slice")

    def __init__(self, seconds: float = 0.004) -> None:
        self.slice = seconds
        self.at = perf_counter() + seconds

    def renew(self) -> None:
        """They had it."""
        self.at = perf_counter() + self.slice


class Held:
    """Whether a number is in sorted ranges; asked with growing numbers."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.last = ranges[-1][1] if ranges else 0
        self._ranges = iter(ranges)
        self._start, self._end = next(self._ranges, (0, 0))

    def __contains__(self, number: int) -> bool:
        while number > self._end and self._end:
            self._start, self._end = next(self._ranges, (0, 0))
        return self._start <= number <= self._end


def check_files(
    paths: Paths, format: str, *, learner: str | None, limit: int | None, source: str | None
) -> list[tuple[Path, type[Format]]]:
    """The files and their formats; :class:`EventError` names what can't be used of the arguments."""
    if not isinstance(paths, str | PathLike | Sequence):
        raise EventError(f"expected a path or a list of paths, got {paths!r}", reason="bad_argument")
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not given:
        raise EventError("expected a path or a list of them, got an empty list", reason="no_files")
    if format != "auto" and format not in FORMATS:
        raise EventError(
            f"format: expected 'auto' or one of {', '.join(FORMATS)}, got {format!r}", reason="unknown_format"
        )
    for name, value in (("learner", learner), ("source", source)):
        if value is not None and (not isinstance(value, str) or not value):
            raise EventError(f"{name}: expected a text, got {value!r}", reason="bad_argument")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise EventError(f"limit: expected a number from 1 on, got {limit!r}", reason="bad_argument")
    found = []
    for each in given:
        if not isinstance(each, str | PathLike):
            raise EventError(f"expected a path, got {each!r}", reason="bad_argument")
        path = Path(each).expanduser()
        if path.is_dir():
            raise EventError(
                f"{path} is a folder: give its files, such as sorted(Path({str(path)!r}).glob('*.log*'))",
                reason="unreadable",
            )
        if not path.exists():
            raise EventError(f"{path} is not there", reason="unreadable")
        found.append((path, detect(path) if format == "auto" else named(path, format)))
    return found


class EventFile:
    """One file, read once from its start.

    ``report`` takes the counts; ``held`` are the records to leave out.
    """

    def __init__(
        self,
        path: Path,
        format: Format,
        report: ReplayReport,
        deadline: Deadline,
        held: Sequence[tuple[int, int]] = (),
        learner: str | None = None,
    ) -> None:
        self.path = path
        self.format = format
        self.report = report
        self.deadline = deadline
        self.held = Held(held)
        self.learner = learner
        self.bytes = opened(path)
        self.matching = 0  # events that were asked for, held ones among them

    def events(self, *, early: bool) -> Iterator[tuple[int, Parsed] | None]:
        """The events that were asked for and aren't held, with their record numbers; else ``PAUSE``.

        ``early``: what is held need not be looked at.
        """
        format, report, deadline, held, learner = (
            self.format, self.report, self.deadline, self.held, self.learner,
        )  # fmt: skip
        parse = format.parse
        early = early and not format.stateful
        number = 0
        known = False
        nothing_held = not held.last
        untimed = 0
        for line, record in format.records(self.bytes):
            number += 1
            if perf_counter() > deadline.at:
                yield PAUSE
            if not nothing_held:
                known = number in held
                if known and early:
                    report.held += 1
                    continue
            try:
                parsed = parse(record)
            except EventError as error:
                parsed = self._mended(line, record, error, known)
            if parsed is None:
                continue
            without, untimed = untimed != format.untimed, format.untimed
            if learner is not None and parsed[1].student != learner:
                report.other(parsed[1].student)
                continue
            self.matching += 1
            if known:
                report.held += 1
                yield PAUSE  # so that a limit can count it
                continue
            report.untimed += without
            yield number, parsed
        self._end()

    def arrivals(self, most: int) -> Iterator[list[Arrival]]:
        """All events that aren't held, up to ``most`` at a time, of a format that takes lines together.

        It gives what it has, be it nothing, when others should have their turn. A list is used again.
        """
        take, parse, deadline, held = self.format.take, self.format.parse, self.deadline, self.held
        number = line = 0
        found: list[Arrival] = []
        for lines in line_lists(self.bytes):
            at, end = 0, len(lines)
            while at < end:
                if number >= held.last:
                    begun, at = at, take(lines, at, number + 1, most, found)
                    number += at - begun
                    line += at - begun
                if at < end and len(found) < most:
                    record = lines[at][:-1]
                    at += 1
                    line += 1
                    if not record or record == b"\r":
                        continue
                    number += 1
                    if number in held:
                        self.report.held += 1
                    else:
                        untimed = self.format.untimed
                        try:
                            parsed = parse(record)
                        except EventError as error:
                            parsed = self._mended(line, record, error, False)
                        if parsed is not None:
                            time, sender, body, raw = parsed
                            self.report.untimed += untimed != self.format.untimed
                            found.append((sender, body, raw, time, number))
                if len(found) >= most or perf_counter() > deadline.at:
                    yield found
                    found.clear()
        yield found
        self._end()

    def _mended(self, line: int, record: Any, error: EventError, known: bool) -> Parsed | None:
        """What a record that could not be read says without its half characters; else it is reported."""
        try:
            return self.format.parse(whole_of(record, error))
        except EventError as wrong:
            if not known:
                self.report.skip(str(self.path), line, wrong)
            return None

    def _end(self) -> None:
        if self.bytes.problem:
            self.report.skip(str(self.path), 0, EventError(self.bytes.problem, reason="damaged_file"))

    def close(self) -> None:
        """Let go of the file."""
        self.bytes.close()


def merged(files: Sequence[EventFile]) -> Iterator[tuple[int, Parsed] | None]:
    """The events of several files by their time; those of one file stay in their order."""
    iterators = [file.events(early=False) for file in files]
    heap: list[tuple[float, int, int, Any]] = []
    latest = [0.0] * len(files)

    def following(index: int) -> Iterable[None]:
        for item in iterators[index]:
            if item is None:
                yield None
                continue
            # within a file the order of its lines counts: an event is never before the one above it
            number, parsed = item
            latest[index] = max(latest[index], parsed[0])
            heapq.heappush(heap, (latest[index], index, number, parsed))
            return

    for index in range(len(files)):
        yield from following(index)
    while heap:
        _, index, number, parsed = heapq.heappop(heap)
        yield number, parsed
        yield from following(index)


def grouped(
    events: Iterator[tuple[int, Parsed] | None], files: Sequence[EventFile], most: int, limit: int | None
) -> Iterator[list[Arrival]]:
    """Events in lists of up to ``most``; ends with the first so many, held ones counted.

    It gives what it has, be it nothing, when others should have their turn. A list is used again.
    """
    found: list[Arrival] = []
    count = 0
    for item in events:
        if item is not None:
            number, (time, sender, body, raw) = item
            found.append((sender, body, raw, time, number))
            count += 1
            over = limit is not None and count + files[0].report.held >= limit
            if len(found) < most and not over:
                continue
        else:
            over = limit is not None and sum(file.matching for file in files) >= limit
        yield found
        found.clear()
        if over:
            return
    yield found
