"""What is in a closed segment: its index, and how one is made.

The index answers which blocks to read for one learner, one context, or some hours, and which records of a
replayed file (or events of an acknowledged stream) are held already.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.engine.archive.lines import decode_line
from lo_kernel.errors import ArchiveError

__all__ = [
    "BLOCK",
    "Block",
    "IndexMaker",
    "IndexParts",
    "SegmentIndex",
    "add_ordinal",
    "index_of_packed",
    "index_path",
    "index_text",
    "misfit",
    "read_index",
]

BLOCK: Final = 512 << 10
"""Bytes of lines in a block, about: what has to be read for one event."""

_FRAME: Final = b"\x28\xb5\x2f\xfd"  # what each block of a compressed segment begins with


class Block(msgspec.Struct, array_like=True, gc=False):
    """A part of a compressed segment that can be read alone.

    ``at`` and ``size`` are its place in the file; then come its first and last event number, how many
    events, their earliest and latest time, and which learners and contexts of the index's lists are in it.
    One without events is a part that can't be read, with the numbers that are missing.
    """

    at: int
    size: int
    first: int
    last: int
    events: int
    since: float
    until: float
    learners: list[int]
    contexts: list[int]


class _Place(msgspec.Struct, array_like=True, gc=False):
    at: int
    size: int


class IndexParts(msgspec.Struct):
    """Of an index, as much as shows whether it is that of a file: see :func:`misfit`."""

    first: int
    packed: int
    blocks: list[_Place]


class SegmentIndex(msgspec.Struct, kw_only=True):
    """What is in a closed segment.

    Times are seconds since 1970 (UTC). ``sha256`` is that of the lines, uncompressed, ``bytes`` their
    length, ``packed`` the length of the compressed file. ``learners`` (safe ids) and ``contexts`` have the
    number of events of each (the context of events that have none is ``""``); ``marks`` says which
    numbers of which stream or file are in it, as ranges.
    """

    format: int = 1
    first: int
    last: int
    events: int
    since: float
    until: float
    bytes: int
    packed: int
    sha256: str
    contexts: dict[str, int]
    learners: dict[str, int]
    marks: dict[str, list[tuple[int, int]]]
    blocks: list[Block]


def index_path(plain: Path) -> Path:
    """The index of a segment, by the path of its plain form."""
    return plain.with_suffix(".index.json")


_CRC: Final = b'{"crc":"%08x",'


def index_text(index: SegmentIndex) -> bytes:
    """An index as it is written: JSON that begins with the CRC-32 of the rest, so that damage shows."""
    rest = msgspec.json.encode(index)[1:]
    return _CRC % zlib.crc32(rest) + rest


def read_index(plain: Path, kind: Any = SegmentIndex) -> Any:
    """The index of a segment, or a smaller struct with some of its fields.

    Raises ``FileNotFoundError``, and :class:`ArchiveError` where it is damaged. Whether it is that of the
    file beside it says :func:`misfit`.
    """
    path = index_path(plain)
    data = path.read_bytes()
    length = len(_CRC % 0)
    if data.startswith(_CRC[:8]) and data[:length] != _CRC % zlib.crc32(data[length:]):
        raise ArchiveError(f"the index {path} is damaged (its checksum is another)")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArchiveError(f"the index {path} is damaged ({error})") from None


def misfit(index: SegmentIndex | IndexParts, first: int, size: int) -> str:
    """Why an index can't be that of the segment from event ``first`` on, of ``size`` bytes; empty if it can.

    >>> misfit(IndexParts(first=1, packed=90, blocks=[_Place(0, 40), _Place(40, 50)]), 1, 90)
    ''
    >>> misfit(IndexParts(first=1, packed=90, blocks=[_Place(0, 40)]), 1, 90)
    'its index ends at byte 40 of 90'
    """
    if index.first != first:
        return f"its index is that of the segment from event {index.first} on"
    if index.packed != size:
        return f"its index is of a file with {index.packed:,} bytes, and it has {size:,}"
    at = 0
    for block in index.blocks:
        if block.at != at or block.size < 0:
            return f"its index leaves out what is at byte {at:,}"
        at += block.size
    return f"its index ends at byte {at:,} of {size:,}" if at != size else ""


_ABSENT: Final = msgspec.Raw(b"null")


class _Body(msgspec.Struct, gc=False):
    source: Any = msgspec.UNSET


class _Head(msgspec.Struct, gc=False):
    """As much of a line as an index needs."""

    n: int
    t: float
    by: msgspec.Raw = _ABSENT
    body: _Body | None = None
    s: int | None = None


class _By(msgspec.Struct, gc=False):
    auth: dict[str, Any]
    source: Any = None
    lock: dict[str, Any] = {}
    mark: dict[str, Any] = {}


_Sender = tuple[str, str, bool, str | None]
"""Of a sender: the learner, the context, whether that holds for all its events, and the mark's name."""

_decode_heads = msgspec.json.Decoder(_Head).decode_lines
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_by = msgspec.json.Decoder(_By).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError)


def mark_name(mark: dict[str, Any]) -> str | None:
    """How an index calls the stream or the file of a sender's mark.

    >>> mark_name({"file": "9f86d081"})
    'file:9f86d081'
    """
    for kind in ("file", "stream"):
        if isinstance(mark.get(kind), str):
            return f"{kind}:{mark[kind]}"
    return None


def add_ordinal(ranges: list[tuple[int, int]], ordinal: int) -> None:
    """Put a number into ranges that grow mostly upwards.

    >>> ranges = [(1, 2)]
    >>> add_ordinal(ranges, 3), add_ordinal(ranges, 7), ranges
    (None, None, [(1, 3), (7, 7)])
    """
    if ranges and ranges[-1][1] + 1 == ordinal:
        ranges[-1] = (ranges[-1][0], ordinal)
    else:
        ranges.append((ordinal, ordinal))


class IndexMaker:
    """Makes the index of a segment from its blocks, given one after another."""

    def __init__(self, first: int) -> None:
        self.bad = 0  # lines that can't be read
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._first = first
        self.last = first - 1  # number of the last event
        self._blocks: list[Block] = []
        self._learners: dict[str, int] = {}
        self._contexts: dict[str, int] = {}
        self._learner_numbers: dict[str, int] = {}
        self._context_numbers: dict[str, int] = {}
        self._marks: dict[str, list[tuple[int, int]]] = {}
        self._senders: dict[bytes, _Sender] = {}

    def take(self, lines: bytes) -> tuple[bytes, Block]:
        """Take whole lines; gives those that can be read, and the block of them, still without its place."""
        try:
            heads = _decode_heads(lines)
        except _UNREADABLE:
            lines, heads = self._readable(lines)
        self._hash.update(lines)
        self._bytes += len(lines)
        learners: dict[str, int] = {}
        contexts: dict[str, int] = {}
        for head in heads:
            if head.body is None:
                continue
            learner, source, locked, mark = self._sender(head)
            learners[learner] = learners.get(learner, 0) + 1
            own = head.body.source
            context = source if locked or own is msgspec.UNSET else own if type(own) is str else ""
            contexts[context] = contexts.get(context, 0) + 1
            if mark is not None and head.s is not None:
                add_ordinal(self._marks.setdefault(mark, []), head.s)
        block = Block(
            0,
            0,
            heads[0].n if heads else self.last + 1,
            heads[-1].n if heads else self.last,
            len(heads),
            min((head.t for head in heads), default=0.0),
            max((head.t for head in heads), default=0.0),
            _numbers(learners, self._learners, self._learner_numbers),
            _numbers(contexts, self._contexts, self._context_numbers),
        )
        if heads:
            self.last = heads[-1].n
        return lines, block

    def _sender(self, head: _Head) -> _Sender:
        key = bytes(head.by)
        found = self._senders.get(key)
        if found is None:
            if len(self._senders) > 5000:
                self._senders.clear()
            found = self._senders[key] = _read_sender(key)
        return found

    def _readable(self, lines: bytes) -> tuple[bytes, list[_Head]]:
        good, heads = [], []
        for line in lines.split(b"\n"):
            if not line:
                continue
            try:
                heads.append(_head(line))
            except _UNREADABLE:
                self.bad += 1
                continue
            good.append(line + b"\n")
        return b"".join(good), heads

    def place(self, block: Block, at: int, size: int) -> None:
        """Say where a block lies in the compressed file."""
        block.at, block.size = at, size
        self._blocks.append(block)

    def lose(self, at: int, size: int, first: int, last: int) -> None:
        """Say that a part of the file can't be read, which had the events ``first`` to ``last``."""
        self._blocks.append(Block(at, size, first, last, 0, 0.0, 0.0, [], []))
        self.last = max(self.last, last)

    def index(self, packed: int) -> SegmentIndex:
        """The index of what was taken; ``packed`` is the length of the compressed file."""
        full = [block for block in self._blocks if block.events]
        since = min((block.since for block in full), default=0.0)
        until = max((block.until for block in full), default=0.0)
        for block in self._blocks:
            if not block.events:  # anybody may have been in it: a search has to come upon it
                block.since, block.until = since, until
                block.learners = list(range(len(self._learners)))
                block.contexts = list(range(len(self._contexts)))
        return SegmentIndex(
            first=self._first,
            last=self.last,
            events=sum(block.events for block in full),
            since=since,
            until=until,
            bytes=self._bytes,
            packed=packed,
            sha256=self._hash.hexdigest(),
            contexts=self._contexts,
            learners=self._learners,
            marks=self._marks,
            blocks=self._blocks,
        )


def _head(line: bytes) -> _Head:
    """What an index needs of a line; a line that a reader can read is kept, whatever is strange in it."""
    try:
        return _decode_head(line)
    except _UNREADABLE:
        record = decode_line(line)
        return _Head(record.n, record.t, record.by, _Body() if record.gone is None else None, record.s)


def _read_sender(by: bytes) -> _Sender:
    try:
        sender = _decode_by(by)
    except _UNREADABLE:
        return "", "", False, None
    locked = "source" in sender.lock
    source = sender.lock["source"] if locked else sender.source
    learner = str(sender.auth.get("safe_user_id", ""))
    return learner, source if type(source) is str else "", locked, mark_name(sender.mark)


def _numbers(counts: dict[str, int], totals: dict[str, int], numbers: dict[str, int]) -> list[int]:
    """Add counts to totals; the places of their names in the totals."""
    for name, count in counts.items():
        numbers.setdefault(name, len(numbers))
        totals[name] = totals.get(name, 0) + count
    return sorted(numbers[name] for name in counts)


def index_of_packed(descriptor: int, first: int, *, last: int = 0, end: int = 0) -> SegmentIndex:
    """The index of a compressed segment, made from the file itself.

    A part that can't be read becomes a block without events: reading it says so. ``last`` is the number of
    the segment's last event, where that is known; ``end`` the one before the next segment's first.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
    maker = IndexMaker(first)
    at = start = 0  # what lies between them can't be read
    while 0 <= at < len(data):
        found = _unpacked(data, at)
        before = maker.last
        _, block = maker.take(found[0] if found else b"")
        if found is None or not block.events:
            at = data.find(_FRAME, at + 1)
            continue
        if at > start:
            maker.lose(start, at - start, before + 1, block.first - 1)
        maker.place(block, at, found[1] - at)
        at = start = found[1]
    if start < len(data):
        last = max(last, end)
    if start < len(data) or last > maker.last:
        maker.lose(start, len(data) - start, maker.last + 1, max(last, maker.last))
    return maker.index(len(data))


def _unpacked(data: bytes, at: int) -> tuple[bytes, int] | None:
    """What the frame at a place holds, and where it ends; nothing where it can't be read to its end."""
    from zstandard import ZstdDecompressor, ZstdError

    frame = ZstdDecompressor().decompressobj()
    lines = []
    try:
        while not frame.eof and at < len(data):
            part = data[at : at + BLOCK]
            lines.append(frame.decompress(part))
            at += len(part)
    except (ZstdError, MemoryError):
        return None
    return (b"".join(lines), at - len(frame.unused_data)) if frame.eof else None
