"""Acknowledged streams: how many events of each are on disk, across connections and crashes.

A client that names its stream has its events counted there, from 1 on, those too that are rejected. The
number goes into the archive's line (or that in ``rejected/``), so that a crash loses no count; the store
holds the counts up to an archive position, so that a start reads the tail alone. After a crash a number
may be on disk while an earlier one is not: it is remembered, and taken for held when it is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from lo_kernel.engine.store import Commit, ReducerRow, Store
from lo_kernel.errors import LOError

__all__ = ["Stream", "Streams"]

_ROW = "lo_kernel.streams"
_GENERATION = -2


class _Stored(msgspec.Struct):
    n: int
    held: list[int] = []


class _Rejected(msgspec.Struct):
    stream: str | None = None
    s: int | None = None


class Stream:
    """One stream. ``synced`` is the number of its events that are on disk, without a gap."""

    __slots__ = ("above", "count", "fence", "first_held", "held", "id", "synced", "tell", "users")

    def __init__(self, stream_id: str, count: int = 0, held: Iterable[int] = ()) -> None:
        self.id = stream_id
        self.count = self.synced = count  # numbers given; numbers on disk
        self.held = set(held)  # on disk, above the count
        self.first_held: int | None = None  # the first number that waits, with its event, for an identity
        self.above: set[int] = set()  # numbers in the archive behind that one
        self.tell: Callable[[], None] | None = None  # called when there is more to acknowledge
        self.fence: Callable[[], Awaitable[None]] | None = None  # ends the connection that is on it
        self.users = 0

    def next(self) -> int | None:
        """The number of an event that came; ``None`` where it is on disk already."""
        self.count += 1
        if self.count in self.held:
            self.held.discard(self.count)
            return None
        return self.count

    @property
    def whole(self) -> int:
        """How many events are in the archive without a gap, if all that was given to it is written."""
        return self.count if self.first_held is None else self.first_held - 1


class Streams:
    """The streams of a workspace."""

    def __init__(self) -> None:
        self.position = 0  # archive and rejections are counted up to here
        self.rejected_at = 0
        self._streams: dict[str, Stream] = {}
        self._stored: dict[str, _Stored] = {}  # found at the start, not asked for yet
        self._changed: set[Stream] = set()  # not in the store yet
        self._unsynced: set[Stream] = set()

    # -- counting ------------------------------------------------------------------------------

    async def open(self, stream_id: str, store: Store) -> Stream:
        """The stream of this name; its counts come from the store where it isn't in memory."""
        stream = self._streams.get(stream_id)
        if stream is None:
            text = None
            stored = self._stored.pop(stream_id, None)
            if stored is None:
                text = (await store.get_many(_GENERATION, [stream_id]))[0]
                stored = msgspec.json.decode(text, type=_Stored) if text is not None else _Stored(0)
                stream = self._streams.get(stream_id)  # another connection may have been quicker
            if stream is None:
                stream = self._streams[stream_id] = Stream(stream_id, stored.n, stored.held)
                if text is None and stored.n:
                    self._changed.add(stream)
        stream.users += 1
        return stream

    def close(self, stream: Stream) -> None:
        """A connection is done with a stream."""
        stream.users -= 1
        if stream.users:
            return
        if stream.count:
            self._changed.add(stream)  # the next commit lets go of it
        elif self._streams.get(stream.id) is stream:  # it never brought anything
            del self._streams[stream.id]

    def put(self, stream: Stream, number: int) -> None:
        """An event of a stream was given to the archive."""
        if stream.first_held is not None and number > stream.first_held:
            stream.above.add(number)
        self._changed.add(stream)
        self._unsynced.add(stream)

    def released(self, stream: Stream) -> None:
        """What waited for an identity is in the archive."""
        stream.first_held = None
        stream.above.clear()

    def marks(self) -> list[tuple[Stream, int]]:
        """What will be on disk when the archive, as it is now, is."""
        found = [(stream, stream.whole) for stream in self._unsynced]
        self._unsynced.clear()
        return found

    def unsynced(self, marks: Iterable[tuple[Stream, int]]) -> None:
        """The disk didn't take it."""
        self._unsynced.update(stream for stream, _ in marks)

    @staticmethod
    def synced(marks: Iterable[tuple[Stream, int]]) -> None:
        """It is on disk: who wants to know is told."""
        for stream, count in marks:
            if count > stream.synced:
                stream.synced = count
                if stream.tell is not None:
                    stream.tell()

    # -- in the store --------------------------------------------------------------------------

    async def load(self, store: Store) -> None:
        """Find out up to where the store has counted."""
        for row in await store.rows():
            if row.id == _ROW:
                self.position = row.position
                self.rejected_at = row.ahead.get("rejected", 0)

    def commit(self, position: int, rejected_at: int) -> Commit | None:
        """What to write so that the store stands at these places; ``None`` where nothing changed."""
        if not self._changed:
            return None
        self.position, self.rejected_at = position, rejected_at
        states: dict[str, bytes] = {}
        for stream in self._changed:
            held = sorted(stream.held | stream.above)
            states[stream.id] = msgspec.json.encode(_Stored(stream.whole, held))
            if not stream.users:
                self._streams.pop(stream.id, None)
                self._stored[stream.id] = _Stored(stream.whole, held)
        self._changed = set()
        row = ReducerRow(
            id=_ROW,
            key_name=_ROW,
            context="*",
            scope=[],
            code="1",
            generation=_GENERATION,
            position=position,
            ahead={"rejected": rejected_at},
        )
        return Commit(_GENERATION, states, row)

    def saved(self, commit: Commit) -> None:
        """The store has it."""
        for stream_id in commit.states:
            self._stored.pop(stream_id, None)

    def unsaved(self, commit: Commit) -> None:
        """The store didn't take a commit: it comes again with the next."""
        for stream_id in commit.states:
            stream = self._streams.get(stream_id)
            if stream is None:
                stored = self._stored.pop(stream_id, None)
                if stored is None:
                    continue
                stream = self._streams[stream_id] = Stream(stream_id, stored.n, stored.held)
            self._changed.add(stream)

    # -- after a start -------------------------------------------------------------------------

    async def recover(self, found: dict[str, set[int]], rejected: Path, store: Store) -> int:
        """Count what came after the store's last commit.

        ``found`` has the numbers by stream in the archive's tail; those of rejections are read here.
        Gives how many streams had any.
        """
        for stream_id, number in _read_rejected(rejected, self.rejected_at):
            found.setdefault(stream_id, set()).add(number)
        if not found:
            return 0
        names = list(found)
        try:
            texts = await store.get_many(_GENERATION, names)
        except LOError:
            self.position = self.rejected_at = 0  # not known: the next start counts again
            raise
        for name, text in zip(names, texts, strict=True):
            stored = msgspec.json.decode(text, type=_Stored) if text is not None else _Stored(0)
            held = {number for number in {*stored.held, *found[name]} if number > stored.n}
            count = stored.n
            while count + 1 in held:
                count += 1
                held.discard(count)
            stream = self._streams[name] = Stream(name, count, held)
            self._changed.add(stream)
        return len(names)


def _read_rejected(path: Path, start: int) -> Iterable[tuple[str, int]]:
    decode = msgspec.json.Decoder(_Rejected).decode
    try:
        with path.open("rb") as file:
            if path.stat().st_size >= start:
                file.seek(start)
            for line in file:
                try:
                    entry = decode(line)
                except msgspec.MsgspecError:  # torn by a crash: it was not acknowledged
                    continue
                if entry.stream is not None and entry.s is not None:
                    yield entry.stream, entry.s
    except FileNotFoundError:
        return
