"""The archive itself: appending events, having them on disk, and keeping its segments beside the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from lo_kernel.engine.archive.cursor import Cursor, Search, Senders
from lo_kernel.engine.archive.index import index_path
from lo_kernel.engine.archive.lines import (
    Line,
    LineFile,
    NumberedLine,
    Record,
    end_of_last_line,
    last_number,
    rejection_line,
)
from lo_kernel.engine.archive.marks import find_numbers, find_ordinals
from lo_kernel.engine.archive.sealing import (
    Stopped,
    check_segment,
    repair_packed,
    seal,
    tidy,
    write_missing_index,
)
from lo_kernel.engine.archive.segments import Segment, list_segments
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Arrival, Sender
from lo_kernel.errors import ArchiveError, NotOwnerError

__all__ = ["Archive"]

SEGMENT_BYTES: Final = 64 << 20
_BUSY: Final = 1000  # events between two flushes from which on closed segments stay as they are
_PLAIN: Final = 24  # but not more of them than so many
_AT_ONCE: Final = 200  # a write of megabytes takes several times as long a line
_Found = TypeVar("_Found")
_encode_lines = msgspec.json.Encoder().encode_lines


class Archive:
    """The events of one workspace; one process writes it, any number read it.

    >>> import tempfile
    >>> from lo_kernel.engine.events import Sender, identify
    >>> sender = Sender(identify({"user_id": "u0"}), "my.source")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     archive = Archive(Path(folder), ErrorLog())
    ...     archive.open(writable=True)
    ...     _ = archive.append(sender, b'{"event":"keystroke"}', 1.5)
    ...     _ = asyncio.run(archive.flush())
    ...     [bytes(record.body) for record in archive.read()]
    ...     archive.close()
    [b'{"event":"keystroke"}']
    """

    def __init__(self, folder: Path, errors: ErrorLog, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder / "archive"
        self.rejected_path = folder / "rejected" / "rejected.jsonl"
        self.errors = errors
        self.segment_bytes = segment_bytes
        self.last = 0  # number of the newest event, written or not
        self.rejected = 0  # since the start
        self.writable = False  # whether this process writes it
        self.owned: Callable[[], bool] = lambda: True  # asked before it is written, and before it counts
        self._buffer: list[Line | NumberedLine] = []
        self._rejections: list[bytes] = []
        self._holds_rejections = False  # while their file is written anew
        self._file: LineFile | None = None
        self._rejected_file: LineFile | None = None
        self._unsynced: list[LineFile] = []  # written to since they were synced last
        self._in_sync: list[LineFile] = []
        self._full: list[LineFile] = []  # of segments that are closed: let go of once they are synced
        self._syncing = asyncio.Lock()
        self._reported: set[tuple[Path, str]] = set()
        self._damaged: dict[int, Segment] = {}
        self._untidy = False
        self._flushed = 0
        self._keeper: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._keeping = threading.Lock()

    # -- opening -------------------------------------------------------------------------------

    def open(self, *, writable: bool) -> None:
        """Find what is there; with ``writable``, cut off a line that a crash left half written.

        A reader that becomes the writer opens it again.
        """
        self.writable = writable
        self._buffer, self._rejections = [], []  # of when it was written here before, if it was
        self._full, self._unsynced = [], []
        if writable:
            self._stop.clear()
            for folder in (self.folder, self.rejected_path.parent):
                try:
                    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                except OSError as error:
                    raise ArchiveError(
                        f"{folder} has to be a folder that events can be written to, and it isn't: "
                        f"{error.strerror or error}"
                    ) from error
            tidy(self.folder)
            self._repair(self.rejected_path)
            if self.rejected_path.exists():
                self._rejected_file = LineFile(self.rejected_path, synced=False)
                self._written(self._rejected_file)
            self._untidy = True
        segments = self.segments()
        if not segments:
            self.last = 0
            return
        newest = segments[-1]
        if newest.packed:
            with contextlib.closing(Cursor(self.folder, newest.first - 1, self._report)) as cursor:
                while cursor.read():
                    pass
                self.last = cursor.position
            return
        if writable:
            self._repair(newest.path)
            self._file = LineFile(newest.path, synced=False)
            # what a process wrote that ended before it could sync it goes along with the next sync
            self._full += [
                LineFile(segment.path, synced=False) for segment in segments[:-1] if not segment.packed
            ]
            for file in (*self._full, self._file):
                self._written(file)
        self.last = last_number(newest.path, newest.first)

    def at_least(self, number: int) -> None:
        """Never give a number up to this one again: states stand for it, though its event is lost."""
        if number > self.last:
            self.errors.add(
                "archive",
                f"states stand at event {number:,}, and the archive ends with {self.last:,}: the events "
                "between are lost. New ones go on from there",
                kind="LostEvents",
            )
            self.last = number

    def _repair(self, path: Path) -> None:
        """Cut off a line that was half written."""
        if not path.exists():
            return
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            end = end_of_last_line(file.fileno(), size)
            if end == size:
                return
            file.seek(end)
            torn = file.read()
            if path != self.rejected_path:
                self._rejections.append(
                    rejection_line(0.0, None, torn, "torn_line", "half written when a process ended")
                )
                with contextlib.suppress(OSError):  # there may be room later on: it is written with the next
                    self._write_rejections()
            file.truncate(end)
            os.fsync(file.fileno())
        self.errors.add(
            f"archive {path.name}",
            f"the last line was half written when a process ended ({size - end} bytes): "
            "it was never accepted, and lies in rejected/",
            kind="TornLine",
        )

    def close(self) -> None:
        """Write what is left and let go of the files; call :meth:`flush` before, to have it on disk."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        with self._keeping:  # what runs in a thread ends at its next block
            pass
        if self.writable:
            try:
                self.write()
                self._put_back(self._open_files())
            except ArchiveError as error:
                self.errors.add("archive", error)
        for file in self._open_files():
            file.close()
        self._full, self._unsynced = [], []
        self._file = self._rejected_file = None
        self.writable = False

    def segments(self) -> list[Segment]:
        """The segments, in order."""
        return list_segments(self.folder)

    def size(self) -> int:
        """Bytes of all segments."""
        total = 0
        for segment in self.segments():
            with contextlib.suppress(FileNotFoundError):
                total += segment.path.stat().st_size
        return total

    # -- writing -------------------------------------------------------------------------------

    def append(self, sender: Sender, raw: bytes | Raw, time: float, ordinal: int | None = None) -> int:
        """Put an event at the end and give its number; it is on disk after the next :meth:`flush`.

        ``raw`` is a JSON object without line breaks; ``ordinal`` its number in the acknowledged stream or
        the replayed file that the sender's mark names.
        """
        if not self.writable:
            raise self._not_ours()
        self.last = number = self.last + 1
        body = raw if type(raw) is Raw else Raw(raw)
        if ordinal is None:
            self._buffer.append(Line(number, time, sender.by, body))
        else:
            self._buffer.append(NumberedLine(number, time, ordinal, sender.by, body))
        return number

    def append_array(
        self,
        sender: Sender,
        raws: Sequence[bytes | Raw],
        time: float,
        ordinals: Sequence[int] | None = None,
    ) -> int:
        """:meth:`append` several events of one sender and one time; gives the number of the last one."""
        if not self.writable:
            raise self._not_ours()
        put, by, number = self._buffer.append, sender.by, self.last
        if ordinals is None:
            for raw in raws:
                number += 1
                put(Line(number, time, by, raw if type(raw) is Raw else Raw(raw)))
        else:
            for raw, ordinal in zip(raws, ordinals, strict=True):
                number += 1
                put(NumberedLine(number, time, ordinal, by, raw if type(raw) is Raw else Raw(raw)))
        self.last = number
        return number

    def append_many(self, arrivals: Iterable[Arrival]) -> int:
        """:meth:`append` several events; gives the number of the last one."""
        if not self.writable:
            raise self._not_ours()
        put, number = self._buffer.append, self.last
        for sender, _, raw, time, ordinal in arrivals:
            number += 1
            body = raw if type(raw) is Raw else Raw(raw)
            if ordinal is None:
                put(Line(number, time, sender.by, body))
            else:
                put(NumberedLine(number, time, ordinal, sender.by, body))
        self.last = number
        return number

    def reject(
        self,
        sender: Sender | None,
        raw: bytes,
        time: float,
        reason: str,
        message: str,
        *,
        stream: str | None = None,
        ordinal: int | None = None,
    ) -> None:
        """Keep something that is no event, with the reason; ``ordinal`` as for :meth:`append`."""
        self.rejected += 1
        self._rejections.append(rejection_line(time, sender, raw, reason, message, stream, ordinal))

    def keep_as_sent(self, sender: Sender | None, raw: bytes, time: float, reason: str, message: str) -> None:
        """Keep under `rejected/`, as it came, what was accepted in another form."""
        self._rejections.append(rejection_line(time, sender, raw, reason, message))

    @property
    def unwritten(self) -> int:
        """How many events and rejections wait for :meth:`write`."""
        return len(self._buffer) + len(self._rejections)

    def write(self) -> None:
        """Hand what waits to the operating system, so that readers see it.

        Raises :class:`ArchiveError` where that fails; nothing is dropped then, and it can be tried again.
        """
        if not self.writable:
            raise self._not_ours()
        self._see_that_owned()
        try:
            if self._buffer:
                self._write_events()
            if self._rejections and not self._holds_rejections:
                self._write_rejections()
        except OSError as error:
            raise ArchiveError(
                f"the archive {self.folder} can't be written: {error}. Nothing is lost: events wait in "
                "memory, and clients are held back, until it can be"
            ) from error

    def put_back(self) -> None:
        """See that all that was written can be found by its name, and write it there anew where it can't.

        Nothing of it is lost while this process has it open: once its end comes, it is.
        """
        if not self._syncing.locked():
            self._put_back(self._open_files())

    def _put_back(self, files: list[LineFile]) -> None:
        for file in files:
            try:
                found = file.put_back()
            except OSError as error:
                raise ArchiveError(
                    f"{file.path} was removed while events went into it, and can't be written anew: {error}"
                ) from error
            if found is not None:
                self.errors.add(f"archive {file.path.name}", found[1], kind=found[0])

    def _open_files(self) -> list[LineFile]:
        found = (*self._full, self._file, self._rejected_file, *self._unsynced)
        return list({id(file): file for file in found if file is not None}.values())

    def _see_that_owned(self) -> None:
        if not self.owned():
            raise ArchiveError(
                f"the archive {self.folder} has another writer now: nothing more goes in here, and nothing "
                "is acknowledged"
            )

    def _not_ours(self) -> NotOwnerError:
        return NotOwnerError("this process follows the archive of another, which alone writes it")

    async def give_up(self) -> None:
        """Write no more, and drop what waits: another process writes it now."""
        self.writable = False
        async with self._syncing:  # nobody is at the files any more
            self.close()

    def _write_events(self) -> None:
        if self._file is None or self._file.size >= self.segment_bytes:
            first = self.last - len(self._buffer) + 1
            opened = LineFile(self.folder / f"events-{first:012d}.jsonl")
            if self._file is not None:
                self._full.append(self._file)
                self._untidy = True
            self._file = opened
        waiting, done = self._buffer, 0
        try:
            for start in range(0, len(waiting), _AT_ONCE):
                self._file.append(_encode_lines(waiting[start : start + _AT_ONCE]))
                done = start + _AT_ONCE
        finally:
            self._buffer = waiting[done:]
            if done:
                self._written(self._file)

    def _write_rejections(self) -> None:
        if self._rejected_file is None:
            self.rejected_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._rejected_file = LineFile(self.rejected_path)
        self._rejected_file.append(b"".join(self._rejections))
        self._rejections = []
        self._written(self._rejected_file)

    def _written(self, file: LineFile) -> None:
        if file not in self._unsynced:
            self._unsynced.append(file)

    async def flush(self) -> int:
        """Write what waits and have it on disk; gives the number of the newest event that is.

        The wait for the disk runs beside the loop.
        """
        async with self._syncing:
            newest = self.last
            self._see_that_owned()
            if self._buffer or self._rejections:
                self.write()
            if self._unsynced:
                files, self._unsynced = self._unsynced, []
                full, self._full = self._full, []
                self._in_sync = [*files, *full]
                try:
                    await asyncio.to_thread(self._sync, files)
                    self._put_back(files)
                except BaseException as error:
                    for file in files:
                        self._written(file)
                    self._full = full + self._full
                    if isinstance(error, OSError):
                        raise ArchiveError(f"the archive {self.folder} can't be synced: {error}") from error
                    raise
                finally:
                    self._in_sync = []
                for file in full:
                    file.close()
                self._see_that_owned()
            came, self._flushed = newest - self._flushed, newest
            if came < _BUSY or len(self.segments()) > _PLAIN:
                self._keep()  # compressing takes as long as taking in: it waits for a calmer moment
            return newest

    @staticmethod
    def _sync(files: list[LineFile]) -> None:
        for file in files:
            file.sync()

    async def erase(
        self, student: str, user_id: str, time: float, written: Callable[[], Callable[[], None]] | None = None
    ) -> tuple[int, int]:
        """Erase a learner (safe id, and the id that clients gave) from all that is written by now.

        Gives how many events and how many rejected frames went; their numbers stay. ``time`` is in seconds
        since 1970 (UTC). New events go on into a segment of their own meanwhile. ``written`` is asked when
        all that may go is written; what it gives is called, in a thread, when that is on disk and before
        anything goes.
        """
        from lo_kernel.engine.archive.erasing import erase_from_files

        await self.flush()
        async with self._syncing:
            self.write()
            before = written() if written is not None else None
            done = self._open_files()
            self._full, self._file, self._rejected_file = [], None, None
            # what is written anew: nothing of it may be opened from here on
            closed = {segment.first for segment in self.segments()}
            self._holds_rejections = True

            def erase() -> tuple[int, int]:
                if before is not None:
                    before()
                with self._keeping:
                    # as they are now: one may have been compressed since
                    segments = [segment for segment in self.segments() if segment.first in closed]
                    return erase_from_files(segments, self.rejected_path, student, user_id, time)

            try:
                await asyncio.to_thread(self._sync, done)
                self._unsynced = [file for file in self._unsynced if file not in done]
                return await _to_its_end(erase)
            except OSError as error:
                raise ArchiveError(f"the archive {self.folder} can't be written anew: {error}") from error
            finally:
                self._holds_rejections = False
                self._full += [file for file in done if file in self._unsynced]  # closed when they are synced
                for file in set(done).difference(self._full):
                    file.close()
                self._untidy = True
                self._keep()

    # -- reading -------------------------------------------------------------------------------

    def cursor(self, after: int = 0) -> Cursor:
        """A reader of all events with a number above ``after``, which goes on as the archive grows."""
        return Cursor(self.folder, after, self._report)

    def read(self, after: int = 0) -> Iterator[Record]:
        """All events above ``after`` that are written by now, one by one."""
        with contextlib.closing(self.cursor(after)) as cursor:
            while records := cursor.read():
                yield from records

    def search(self, search: Search, senders: Senders, after: int = 0) -> Iterator[tuple[Record, Sender]]:
        """The events above ``after`` that a search wants, with their senders; by the index, not all are read.

        A context is looked up in the index alone: ask ``sender.context(body)`` of each event, too.
        """
        return search.read(self.folder, self._report, senders, after)

    def tail(self, count: int) -> list[Record]:
        """The newest ``count`` events, the oldest of them first."""
        span = count
        while True:
            start = max(0, self.last - span)
            found = list(self.read(start))
            if len(found) >= count or start == 0:
                return found[-count:] if count > 0 else []
            span *= 4  # some were erased, or lost

    def ordinals(self, *marks: str) -> list[tuple[int, int]]:
        """Which numbers of streams (``stream:<id>``) or files (``file:<digest>``) are here, as sorted ranges.

        Reads the indexes, and what isn't compressed yet; in a thread, best. What waits for
        :meth:`write` is not seen.
        """
        return find_ordinals(self.folder, marks)

    def numbers(self, first: int = 1, last: int | None = None) -> list[tuple[int, int]]:
        """Which numbers have an event, or an erased one, as ranges; reads all of them, in a thread, best."""
        return find_numbers(self.folder, first, last)

    # -- keeping -------------------------------------------------------------------------------

    def _report(self, segment: Segment, kind: str, message: str) -> None:
        if (segment.path, message) not in self._reported:  # whoever reads meets it again
            self._reported.add((segment.path, message))
            self.errors.add(f"archive {segment.path.name}", message, kind=kind)
        if kind in ("CorruptSegment", "CorruptIndex") and self.writable:
            self._damaged[segment.first] = segment
            self._untidy = True

    def _keep(self) -> None:
        """See to closed and damaged segments, beside the loop."""
        if self._untidy and self.writable and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.get_running_loop().create_task(self.keep())

    async def keep(self) -> None:
        """Compress what is closed, set aside what is damaged, make missing indexes; beside the loop."""
        while self._untidy:
            self._untidy = False
            while self._damaged:
                _, segment = self._damaged.popitem()
                if segment.packed and segment.path.exists():
                    await self._beside(_mend, segment)
            for segment in self.segments()[:-1]:
                if segment.packed:
                    if not index_path(segment.plain).exists():
                        await self._beside(_mend, segment)
                elif any(
                    segment.path == file.path for file in (*self._full, *self._unsynced, *self._in_sync)
                ):
                    self._untidy = True  # not all on disk yet: the flush that sees to it comes here again
                    return
                elif self._file is None or segment.path != self._file.path:
                    await self._beside(self._seal, segment)

    def _seal(self, segment: Segment) -> str | None:
        return seal(segment, self._stop.is_set)

    async def _beside(self, work: Callable[[Segment], str | None], segment: Segment) -> None:
        """Run one piece of it in a thread, and report what it set aside."""

        def kept() -> str | None:
            with self._keeping:
                return None if self._stop.is_set() else work(segment)

        try:
            found = await asyncio.to_thread(kept)
        except (Stopped, FileNotFoundError):  # closed, or somebody else has seen to it
            return
        except (OSError, ArchiveError) as error:
            self.errors.add(f"archive {segment.path.name}", error)
            return
        if found:
            self.errors.add(f"archive {segment.path.name}", found, kind="SetAside")

    async def verify(self, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Read every segment from its first byte to its last; what is wrong, by file.

        Damaged ones are reported, and set aside as when a reader meets them.
        """
        found = []
        segments = self.segments()
        for count, segment in enumerate(segments):
            try:
                wrong = await asyncio.to_thread(check_segment, segment)
            except FileNotFoundError:  # compressed meanwhile
                continue
            if wrong:
                found.append(f"{segment.path.name}: {wrong}")
                self._report(segment, "CorruptSegment", wrong)
            if on_progress is not None:
                on_progress(count + 1, len(segments))
        self._keep()
        return found


async def _to_its_end(work: Callable[[], _Found]) -> _Found:
    """Run something in a thread, and wait until it is over even when this is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _mend(segment: Segment) -> str | None:
    """Make an index anew that is missing or damaged; set the segment aside where that wasn't all."""
    write_missing_index(segment)
    return repair_packed(segment) if check_segment(segment) else None
