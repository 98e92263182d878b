"""What is in a closed segment: its index, and how one is made.

The index answers which blocks to read for one learner, one context, or some hours, and which records of a
replayed file (or events of an acknowledged stream) are held already.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.engine.archive.lines import decode_line
from lo_kernel.errors import ArchiveError

__all__ = [
    "BLOCK",
    "Block",
    "IndexMaker",
    "SegmentIndex",
    "add_ordinal",
    "index_of_packed",
    "index_path",
    "read_index",
]

BLOCK: Final = 512 << 10
"""Bytes of lines in a block, about: what has to be read for one event."""


class Block(msgspec.Struct, array_like=True, gc=False):
    """A part of a compressed segment that can be read alone.

    ``at`` and ``size`` are its place in the file; then come its first and last event number, how many
    events, their earliest and latest time, and which learners and contexts of the index's lists are in it.
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


def read_index(plain: Path, kind: Any = SegmentIndex) -> Any:
    """The index of a segment, or a smaller struct with some of its fields.

    Raises ``FileNotFoundError``, and :class:`ArchiveError` where it is damaged.
    """
    path = index_path(plain)
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArchiveError(f"the index {path} is damaged ({error})") from None


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
        self._last = first - 1
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
            heads[0].n if heads else self._last + 1,
            heads[-1].n if heads else self._last,
            len(heads),
            min((head.t for head in heads), default=0.0),
            max((head.t for head in heads), default=0.0),
            _numbers(learners, self._learners, self._learner_numbers),
            _numbers(contexts, self._contexts, self._context_numbers),
        )
        if heads:
            self._last = heads[-1].n
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

    def index(self, packed: int) -> SegmentIndex:
        """The index of what was taken; ``packed`` is the length of the compressed file."""
        full = [block for block in self._blocks if block.events]
        return SegmentIndex(
            first=self._first,
            last=self._last,
            events=sum(block.events for block in full),
            since=min((block.since for block in full), default=0.0),
            until=max((block.until for block in full), default=0.0),
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


def index_of_packed(descriptor: int, first: int) -> SegmentIndex:
    """The index of a compressed segment, from the file itself; it ends before the first damaged block."""
    from zstandard import ZstdDecompressor, ZstdError

    maker = IndexMaker(first)
    size = os.fstat(descriptor).st_size
    at, data = 0, b""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while at < size:
        data = data or os.read(descriptor, BLOCK)
        frame = ZstdDecompressor().decompressobj()
        lines, used = [], 0
        try:
            while not frame.eof and data:
                lines.append(frame.decompress(data))
                used += len(data)
                data = b"" if frame.eof else os.read(descriptor, BLOCK)
        except (ZstdError, MemoryError):
            break
        if not frame.eof:
            break
        data = frame.unused_data
        used -= len(data)
        _, block = maker.take(b"".join(lines))
        maker.place(block, at, used)
        at += used
    return maker.index(size)
