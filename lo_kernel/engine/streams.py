"""Acknowledged streams: how many events of each are on disk, across connections and crashes.

A client that names its stream has its events counted there, from 1 on, those too that are rejected. The
number goes into the archive's line (or that in ``rejected/``), so that a crash loses no count; the store
holds the counts up to an archive position, so that a start reads the tail alone. After a crash a number
may be on disk while an earlier one is not: it is remembered, and taken for held when it is sent again.

A count never goes back below what was noted beside the store (:mod:`~lo_kernel.engine.acknowledged`): what
isn't found below it is lost, and no number for something new.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from pathlib import Path

import msgspec

from lo_kernel.engine.acknowledged import Notes, Place, is_stream_key, stream_key
from lo_kernel.engine.store import Commit, ReducerRow, Store
from lo_kernel.errors import LOError

__all__ = ["Stream", "Streams"]

_ROW = "lo_kernel.streams"
_GENERATION = -2
_NOTE_EVERY = 100  # events of a stream between two notes of its count
_UNCOUNTED = 1000  # streams whose last frame that could not be counted is known
_SLICE = 1000  # counts that are read at a time


class _Stored(msgspec.Struct, omit_defaults=True):
    n: int
    held: list[int] = []
    noted: int = 0  # beside the store


_decode = msgspec.json.Decoder(_Stored).decode


def _merged(*texts: bytes | None) -> _Stored:
    """What is stored of a stream, also under the name that it had in stores before."""
    found = [_decode(text) for text in texts if text is not None]
    return max(found, key=lambda each: each.n) if found else _Stored(0)


def _names(stream_id: str) -> list[str]:
    """Under which names a stream may be stored: its own only where that isn't another one's key."""
    key = stream_key(stream_id)
    return [key] if is_stream_key(stream_id) else [key, stream_id]


class _Rejected(msgspec.Struct):
    stream: str | None = None
    s: int | None = None


class Stream:
    """One stream. ``synced`` is the number of its events that are on disk, without a gap."""

    __slots__ = (
        "above",
        "count",
        "fence",
        "first_held",
        "held",
        "id",
        "key",
        "noted",
        "synced",
        "tell",
        "users",
    )

    def __init__(self, stream_id: str, count: int = 0, held: Iterable[int] = ()) -> None:
        self.id = stream_id
        self.key = stream_key(stream_id)
        self.noted = 0  # the count that is noted beside the store
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
        self._rejected_at = Place()
        self._noted_at = Place()  # what is noted up to here is in the store
        self._streams: dict[str, Stream] = {}  # by key
        self._stored: dict[str, _Stored] = {}  # on their way to the store, and nobody's now
        self._loose: set[str] = set()  # keys of those that have to be told to it again
        self._changed: set[Stream] = set()  # not in the store yet
        self._unsynced: set[Stream] = set()
        self._let_go: list[Stream] = []  # with the commit that is on its way
        self._rejected: Path | None = None
        self._notes: Notes | None = None
        self._uncounted: dict[str, bytes] = {}  # by key: a hash of what could not be counted last

    # -- counting ------------------------------------------------------------------------------

    async def open(self, stream_id: str, store: Store) -> Stream:
        """The stream of this name; its counts come from the store where it isn't in memory."""
        key = stream_key(stream_id)
        stream = self._streams.get(key)
        if stream is None:
            changed = True
            stored = self._stored.pop(key, None)
            if stored is None:
                stored = _merged(*await store.get_many(_GENERATION, _names(stream_id)))
                changed = False
                stream = self._streams.get(key)  # another connection may have been quicker
            if stream is None:
                stream = self._streams[key] = Stream(stream_id, stored.n, stored.held)
                stream.noted = stored.noted
                self._loose.discard(key)
                if changed and stored.n:
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
            if stream.synced > stream.noted:
                self._note([stream])
        elif self._streams.get(stream.key) is stream:  # it never brought anything
            del self._streams[stream.key]

    def put(self, stream: Stream, number: int) -> None:
        """An event of a stream was given to the archive."""
        if stream.first_held is not None and number > stream.first_held:
            stream.above.add(number)
        self._changed.add(stream)
        self._unsynced.add(stream)

    def passed(self, stream: Stream) -> None:
        """An event of a stream came that is on disk already: it is acknowledged with the next sync."""
        self._changed.add(stream)
        self._unsynced.add(stream)

    def released(self, stream: Stream) -> None:
        """What waited for an identity is in the archive."""
        stream.first_held = None
        stream.above.clear()

    def came_again(self, stream: Stream, data: bytes) -> bool:
        """Whether something that can't be counted is what this stream brought the last time, too."""
        digest = blake2b(data, digest_size=16).digest()
        if self._uncounted.pop(stream.key, None) == digest:
            self._uncounted[stream.key] = digest
            return True
        while len(self._uncounted) >= _UNCOUNTED:
            del self._uncounted[next(iter(self._uncounted))]
        self._uncounted[stream.key] = digest
        return False

    def marks(self) -> list[tuple[Stream, int]]:
        """What will be on disk when the archive, as it is now, is."""
        found = [(stream, stream.whole) for stream in self._unsynced]
        self._unsynced.clear()
        return found

    def unsynced(self, marks: Iterable[tuple[Stream, int]]) -> None:
        """The disk didn't take it."""
        self._unsynced.update(stream for stream, _ in marks)

    def synced(self, marks: Iterable[tuple[Stream, int]]) -> None:
        """It is on disk: who wants to know is told."""
        due = []
        for stream, count in marks:
            if count > stream.synced:
                stream.synced = count
                if stream.tell is not None:
                    stream.tell()
                if count - stream.noted >= _NOTE_EVERY or not stream.users:
                    due.append(stream)
        if due:
            self._note(due)

    def _note(self, streams: Iterable[Stream]) -> None:
        """Note the counts that are on disk; where that fails, the next time does it."""
        if self._notes is None:
            return
        with contextlib.suppress(OSError):
            self._notes.add({stream.key: stream.synced for stream in streams})
            for stream in streams:
                stream.noted = stream.synced

    async def keep(self, store: Store) -> None:
        """Note all counts, on disk: lines of the archive that say them are about to go.

        Raises ``OSError``, and :class:`~lo_kernel.errors.StoreError`.
        """
        if self._notes is None:
            return
        counts: dict[str, int] = {}
        keys = await store.keys(_GENERATION)
        for start in range(0, len(keys), _SLICE):
            part = keys[start : start + _SLICE]
            for name, text in zip(part, await store.get_many(_GENERATION, part), strict=True):
                key = name if is_stream_key(name) else stream_key(name)
                counts[key] = max(_merged(text).n, counts.get(key, 0))
        for stream in self._streams.values():
            counts[stream.key] = max(stream.synced, counts.get(stream.key, 0))
        await asyncio.to_thread(self._notes.add, counts, sync=True)

    def written(self) -> Callable[[], None]:
        """What notes all counts as they are now; to be called when all that the archive has now is on disk.

        What it gives raises ``OSError``.
        """
        notes = self._notes
        counts = {key: stored.n for key, stored in self._stored.items()}
        for stream in self._streams.values():
            counts[stream.key] = max(stream.whole, counts.get(stream.key, 0))

        def note() -> None:
            if notes is not None:
                notes.add({key: count for key, count in counts.items() if count}, sync=True)

        return note

    # -- in the store --------------------------------------------------------------------------

    async def load(self, store: Store) -> None:
        """Find out up to where the store has counted."""
        for row in await store.rows():
            if row.id == _ROW:
                self.position, ahead = row.position, row.ahead.get
                self._rejected_at = Place(ahead("rejected", 0), ahead("rejected_check", 0))
                self._noted_at = Place(ahead("noted", 0), ahead("noted_check", 0))

    def commit(self, position: int, rejected_at: int) -> Commit | None:
        """What to write so that the store stands at these places; ``None`` where nothing changed."""
        if not self._changed and not self._loose:
            return None
        self.position = position
        if self._rejected is not None and rejected_at != self._rejected_at.at:
            self._rejected_at = Place.of(self._rejected, rejected_at)
        if self._notes is not None:
            self._noted_at = self._notes.end()
        states = {key: msgspec.json.encode(self._stored[key]) for key in self._loose}
        self._loose = set()
        self._let_go = []
        for stream in self._changed:
            stored = _Stored(stream.whole, sorted(stream.held | stream.above), stream.noted)
            states[stream.key] = msgspec.json.encode(stored)
            if not stream.users:
                self._streams.pop(stream.key, None)
                self._stored[stream.key] = stored
                self._let_go.append(stream)
        self._changed = set()
        row = ReducerRow(
            id=_ROW,
            key_name=_ROW,
            context="*",
            scope=[],
            code="1",
            generation=_GENERATION,
            position=position,
            ahead={
                "rejected": self._rejected_at.at,
                "rejected_check": self._rejected_at.check,
                "noted": self._noted_at.at,
                "noted_check": self._noted_at.check,
            },
        )
        return Commit(_GENERATION, states, row)

    def saved(self, commit: Commit) -> None:
        """The store has it, and the disk what it counts."""
        for key in commit.states:
            if key not in self._loose:
                self._stored.pop(key, None)
        due = [stream for stream in self._let_go if stream.synced > stream.noted]
        self._let_go = []
        if due:
            self._note(due)

    def unsaved(self, commit: Commit) -> None:
        """The store didn't take a commit: it comes again with the next."""
        self._let_go = []
        for key in commit.states:
            stream = self._streams.get(key)
            if stream is not None:
                self._changed.add(stream)
            elif key in self._stored:
                self._loose.add(key)

    # -- after a start -------------------------------------------------------------------------

    async def recover(self, found: dict[str, set[int]], rejected: Path, store: Store) -> int:
        """Count what came after the store's last commit.

        ``found`` has the numbers by stream in the archive's tail; those of rejections are read here.
        Gives how many streams had any.
        """
        self._rejected = rejected
        self._notes = Notes(rejected.parent.parent / "acknowledged.jsonl")
        noted = await asyncio.to_thread(self._notes.read, self._noted_at)
        for stream_id, number in _read_rejected(rejected, self._rejected_at.found(rejected)):
            found.setdefault(stream_id, set()).add(number)
        if not found and not noted:
            return 0
        names = {stream_key(name): name for name in found}
        asked = list({**names, **noted})
        try:
            texts = await store.get_many(_GENERATION, asked)
            before = await store.get_many(_GENERATION, [_names(name)[-1] for name in names.values()])
        except LOError:
            self.position = 0  # not known: the next start counts again
            self._rejected_at = self._noted_at = Place()
            raise
        older = dict(zip(names, before, strict=True))
        for key, text in zip(asked, texts, strict=True):
            stored = _merged(text, older.get(key))
            told = noted.get(key, 0)
            least = max(stored.n, told)
            stored.noted = max(stored.noted, told)
            if key not in names:
                if least > stored.n:
                    self._stored[key] = _Stored(*_counted(least, stored.held), stored.noted)
                    self._loose.add(key)
                continue
            stream = Stream(names[key], *_counted(least, [*stored.held, *found[names[key]]]))
            stream.noted = stored.noted
            self._streams[key] = stream
            self._changed.add(stream)
        return len(names)


def _counted(least: int, numbers: Iterable[int]) -> tuple[int, list[int]]:
    """A count, as far as numbers go on from it without a gap, and those behind that."""
    held, count = {number for number in numbers if number > least}, least
    while count + 1 in held:
        count += 1
        held.discard(count)
    return count, sorted(held)


def _read_rejected(path: Path, start: int) -> Iterable[tuple[str, int]]:
    decode = msgspec.json.Decoder(_Rejected).decode
    try:
        with path.open("rb") as file:
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
