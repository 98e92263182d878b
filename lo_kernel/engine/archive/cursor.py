"""Reading the archive: a cursor that goes on as it grows, and a search that reads only what it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.engine.archive.index import SegmentIndex
from lo_kernel.engine.archive.lines import Record, decode_body, decode_line, decode_lines
from lo_kernel.engine.archive.segments import PackedReader, PlainReader, Segment, list_segments, open_reader
from lo_kernel.engine.events import Sender
from lo_kernel.errors import ArchiveError

__all__ = ["UNSOUND", "Cursor", "Search", "Senders"]

Report = Callable[[Segment, str, str], None]
"""Called with a segment, a kind of damage, and what is damaged in it."""

UNSOUND: Final = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What comes of taking a record for an event that is none, whatever is written there."""

_TRIES: Final = 20  # a segment may change its form under a reader; not so often


class Cursor:
    """A place in the archive; :meth:`read` goes on from there.

    It survives that the segment it reads is compressed, or set aside. Each cursor is used by one thread.
    """

    def __init__(self, folder: Path, after: int, report: Report) -> None:
        self.position = after
        self._folder = folder
        self._report = report
        self._reader: PlainReader | PackedReader | None = None
        self._senders = Senders()

    def read(self, *, checked: bool = True) -> list[Record]:
        """The next events, 256 to 512 KiB of them; empty where there are no more by now.

        What can't be read is reported in the error log and passed over; so are erased events, silently.
        Where they aren't ``checked``, their senders and bodies may be anything (:meth:`sound`).
        """
        while True:
            if self._reader is None and not self._open():
                return []
            assert self._reader is not None
            segment = self._reader.segment
            try:
                lines = self._reader.read()
            except ArchiveError as error:
                self._report(segment, "CorruptSegment", str(error))
                continue
            if not lines:
                if not self._next(self._reader):
                    return []
                continue
            records = parse_lines(lines, segment, self._report)
            if not records:
                continue
            last = records[-1].n
            if records[0].n <= self.position:
                records = [record for record in records if record.n > self.position]
            if last > self.position:
                self.position = last
            if b'"gone":' in lines:
                records = [record for record in records if record.gone is None]
            if checked:
                records = self.sound(records)
            if records:
                return records

    def sound(self, records: list[Record]) -> list[Record]:
        """Those of the records read last that have a sender and an object for a body; others are reported."""
        assert self._reader is not None
        segment = self._reader.segment
        return [record for record in records if _is_sound(record, self._senders, segment, self._report)]

    def _open(self) -> bool:
        """Open the segment that holds the next event."""
        for _ in range(_TRIES):
            segments = list_segments(self._folder)
            if not segments:
                return False
            before = [segment for segment in segments if segment.first <= self.position + 1]
            try:
                self._reader = open_reader(
                    before[-1] if before else segments[0], self.position + 1, self._report
                )
                return True
            except FileNotFoundError:
                continue
        return False

    def _next(self, reader: PlainReader | PackedReader) -> bool:
        """Go to the following segment, if there is one: the one at hand has got all its events then."""
        segment = reader.segment
        later = self._after(segment)
        if later is None:
            return False
        if isinstance(reader, PlainReader) and (lines := reader.read()):
            reader.unread(lines)  # it grew between the two looks
            return True
        if later.first > self.position + 1:
            # a listing made while a segment changes its form may lack it
            later = self._after(segment) or later
        try:
            self._reader = open_reader(later, self.position + 1, self._report)
        except FileNotFoundError:
            self._reader = None  # found again by the position
        reader.close()
        return True

    def _after(self, segment: Segment) -> Segment | None:
        for name in (f"events-{self.position + 1:012d}.jsonl", f"events-{self.position + 1:012d}.jsonl.zst"):
            if self.position + 1 > segment.first and (self._folder / name).exists():
                return Segment(self.position + 1, self._folder / name, name.endswith(".zst"))
        return next((each for each in list_segments(self._folder) if each.first > segment.first), None)

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def parse_lines(lines: bytes, segment: Segment, report: Report) -> list[Record]:
    """The records of whole lines; those that can't be read are reported and left out."""
    try:
        return decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    records: list[Record] = []
    for line in lines.split(b"\n"):
        if not line:
            continue
        try:
            records.append(decode_line(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            after = records[-1].n if records else 0
            place = f"after event {after}" if after else "in it"
            report(segment, "CorruptLine", f"a line {place} can't be read ({error}) and is passed over")
    return records


def _is_sound(record: Record, senders: Senders, segment: Segment, report: Report) -> bool:
    try:
        senders.of(record)
        if type(decode_body(record.body)) is dict:
            return True
        what = "it is no object"
    except UNSOUND as error:
        what = f"{type(error).__name__}: {error}"
    report(segment, "CorruptLine", f"event {record.n} can't be read ({what}) and is passed over")
    return False


class Senders(dict[bytes, Sender]):
    """The senders of records, each decoded once; it forgets when it grows too large."""

    def of(self, record: Record) -> Sender:
        """Who sent a record."""
        key = bytes(record.by)
        sender = self.get(key)
        if sender is None:
            if len(self) > 5000:
                self.clear()
            sender = self[key] = Sender.decode(key)
        return sender


class Search:
    """Which events are wanted: of a learner (safe id), of a context, of a time, as far as the index knows.

    ``since`` and ``until`` are seconds since 1970 (UTC), the second one excluded.
    """

    def __init__(
        self,
        *,
        learner: str | None = None,
        context: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> None:
        self.learner = learner
        self.context = context
        self.since = since
        self.until = until

    def misses(self, index: SegmentIndex) -> bool:
        """Whether a segment holds nothing that is wanted."""
        return (
            (self.learner is not None and self.learner not in index.learners)
            or (self.context is not None and self.context not in index.contexts)
            or (self.since is not None and index.until < self.since)
            or (self.until is not None and index.since >= self.until)
        )

    def parts(self, reader: PlainReader | PackedReader, report: Report) -> Iterator[bytes]:
        """Lines of a segment, of those blocks alone that may hold what is wanted."""
        if isinstance(reader, PlainReader):
            while lines := reader.read():
                yield lines
            return
        if self.misses(reader.index):
            return
        learner = list(reader.index.learners).index(self.learner) if self.learner is not None else None
        context = list(reader.index.contexts).index(self.context) if self.context is not None else None
        for block in reader.blocks():
            if (
                (learner is not None and learner not in block.learners)
                or (context is not None and context not in block.contexts)
                or (self.since is not None and block.until < self.since)
                or (self.until is not None and block.since >= self.until)
            ):
                continue
            try:
                yield reader.block(block)
            except ArchiveError as error:
                report(reader.segment, "CorruptSegment", str(error))

    def lets_through(self, record: Record, sender: Sender) -> bool:
        """Whether a record is wanted, as far as learner and time go; its context is in the body."""
        return (
            (self.learner is None or sender.student == self.learner)
            and (self.since is None or record.t >= self.since)
            and (self.until is None or record.t < self.until)
        )

    def _wants(self, record: Record, senders: Senders) -> bool:
        try:
            return record.gone is None and self.lets_through(record, senders.of(record))
        except UNSOUND:
            return True  # to be named

    def read(
        self, folder: Path, report: Report, senders: Senders, after: int = 0
    ) -> Iterator[tuple[Record, Sender]]:
        """The events that are wanted, with their senders, from the number above ``after`` on."""
        position, done = after, -1
        while (segment := _segment_after(folder, done, position + 1)) is not None:
            try:
                reader = open_reader(segment, position + 1, report)
            except FileNotFoundError:
                continue
            done = segment.first
            with contextlib.closing(reader):
                # that there is a later segment says that this one has got all its events: look at its end
                # once more then
                ended = False
                while not ended:
                    ended = reader.segment.packed or _segment_after(folder, done, 0) is not None
                    for lines in self.parts(reader, report):
                        for record in parse_lines(lines, segment, report):
                            if record.n <= position:
                                continue
                            position = record.n
                            if not self._wants(record, senders):
                                continue
                            if _is_sound(record, senders, segment, report):
                                yield record, senders.of(record)
                    if not ended and _segment_after(folder, done, 0) is None:
                        return


def _segment_after(folder: Path, done: int, number: int) -> Segment | None:
    """The segment to read after the one that began at ``done`` (-1: none yet), for events from ``number``."""
    left = [segment for segment in list_segments(folder) if segment.first > done]
    if done < 0:
        before = [segment for segment in left if segment.first <= number]
        left = before[-1:] or left
    return left[0] if left else None
