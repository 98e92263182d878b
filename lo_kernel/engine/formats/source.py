"""Files of events as streams of bytes: plain, gzip or zstd, whatever their name says."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from lo_kernel.errors import EventError

__all__ = [
    "LONGEST",
    "Bytes",
    "Fingerprint",
    "FingerprintMaker",
    "fingerprint",
    "line_lists",
    "numbered_lines",
    "opened",
]

CHUNK: Final = 256 << 10
LONGEST: Final = 16 << 20
"""Bytes of one record; what is longer is left out."""

_BLOCK: Final = 1 << 20  # bytes that one digest is made of
_HASHERS: Final = min(4, os.cpu_count() or 1)
_BREAK: Final = ord("\n")
_EMPTY: Final = (b"\n", b"\r\n")


class Bytes:
    """The decompressed bytes of a file, in chunks; memory doesn't grow with it.

    ``read`` counts bytes of the file itself, for progress. A file that ends in the middle, or is damaged,
    ends there: ``problem`` says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._raw: IO[bytes] = path.open("rb")
        self._stream: Any = self._raw
        self._zstd = False
        self._read: Callable[[int], bytes] = self._raw.read
        head = self._raw.read(4)
        self._raw.seek(0)
        if head[:2] == b"\x1f\x8b":
            self._stream = gzip.GzipFile(fileobj=self._raw)
            self._read = self._stream.read1  # `read` would lose what it has when the file ends too early
        elif head == b"\x28\xb5\x2f\xfd":
            from zstandard import ZstdDecompressor

            self._zstd = True
            self._stream = ZstdDecompressor().stream_reader(self._raw, read_across_frames=True, closefd=False)
            self._read = self._stream.read

    @property
    def read(self) -> int:
        """Bytes of the file that were read by now."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[bytes]:
        from zstandard import ZstdError

        while True:
            try:
                chunk = self._read(CHUNK)
            except (EOFError, OSError, zlib.error, ZstdError) as error:
                self.problem = f"the file can't be read any further: {error}"
                return
            if not chunk:
                if self._zstd and not _ends_whole(self._raw):
                    self.problem = "the file can't be read any further: it ends within a zstd frame"
                return
            yield chunk

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not self._raw:
            self._stream.close()
        self._raw.close()


def _ends_whole(file: IO[bytes]) -> bool:
    """Whether a file of zstd frames (RFC 8878, 3.1) ends behind one; the library doesn't say.

    Heads of blocks are looked at, and nothing is decompressed.
    """
    from zstandard import ZstdError, get_frame_parameters

    end = file.seek(0, 2)
    at = 0
    while at < end:
        file.seek(at)
        head = file.read(18)  # the longest head of a frame
        if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:  # a skippable one
            at += 8 + int.from_bytes(head[4:8], "little")
            continue
        try:
            frame = get_frame_parameters(head)
        except ZstdError:
            return False
        at += _head_size(head[4])
        last = False
        while not last:
            file.seek(at)
            block = int.from_bytes(file.read(3), "little")
            last = bool(block & 1)
            at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)  # a repeated byte stands there once
            if at > end:
                break
        at += 4 if frame.has_checksum else 0
    file.seek(end)
    return at == end


def _head_size(descriptor: int) -> int:
    """Bytes of a frame's head, from the magic number on, by its fifth byte."""
    single = descriptor >> 5 & 1
    size = (single, 2, 4, 8)[descriptor >> 6]
    return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size


def opened(path: Path) -> Bytes:
    """The bytes of a file; :class:`EventError` where it can't be opened."""
    try:
        return Bytes(path)
    except OSError as error:
        raise EventError(f"{path} can't be read: {error.strerror or error}", reason="unreadable") from error


def numbered_lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    r"""Lines with their numbers, from 1; empty ones are left out.

    >>> list(numbered_lines([b"one\n\ntw", b"o\r\nthree"]))
    [(1, b'one'), (3, b'two\r'), (4, b'three')]
    """
    number = 0
    for lines in line_lists(chunks):
        for line in lines:
            number += 1
            if line not in _EMPTY:
                yield number, line[:-1]


def line_lists(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    r"""Lines as they come together; empty ones too.

    Each has its line break, the last one too. In the place of one that is too long is one of blanks, too
    long as well.

    >>> list(line_lists([b"one\n\ntw", b"o\r\nthree"]))
    [[b'one\n', b'\n'], [b'two\r\n'], [b'three\n']]
    """
    rest, skipping = b"", False
    for chunk in chunks:
        lines = BytesIO(chunk).readlines()  # three times as fast as `split`
        begun = lines.pop() if lines and lines[-1][-1] != _BREAK else b""
        if lines and (rest or skipping):
            lines[0] = _too_long() if skipping else rest + lines[0]
            rest, skipping = b"", False
        if lines:
            yield lines
        if not skipping:
            rest += begun
        if len(rest) > LONGEST:
            rest, skipping = b"", True
    if rest or skipping:
        yield [_too_long() if skipping else rest + b"\n"]


def _too_long() -> bytes:
    return b" " * (LONGEST + 1) + b"\n"


class Fingerprint:
    """What tells a file's content apart: ``digest`` of the decompressed bytes, ``length`` of them.

    The digest is the SHA-256 of those of each MiB, one after another, so that several are made at a time.
    ``grown_from`` are digests of earlier contents that it begins with.
    """

    def __init__(self, digest: str, length: int, grown_from: list[str]) -> None:
        self.digest = digest
        self.length = length
        self.grown_from = grown_from


class FingerprintMaker:
    """Makes the fingerprint of a content that is being written, from its parts."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._block, self._in_block = hashlib.sha256(), 0

    def update(self, part: bytes) -> None:
        """More of it."""
        view = memoryview(part)
        while len(view) >= _BLOCK - self._in_block:
            room = _BLOCK - self._in_block
            self._block.update(view[:room])
            self._digests.append(self._block.digest())
            self._block, self._in_block = hashlib.sha256(), 0
            view = view[room:]
        self._block.update(view)
        self._in_block += len(view)

    def done(self) -> Fingerprint:
        """That was all."""
        length = len(self._digests) * _BLOCK + self._in_block
        rest = [self._block.digest()] if self._in_block else []
        return Fingerprint(_together([*self._digests, *rest]), length, [])


def fingerprint(path: Path, known: dict[int, set[str]]) -> Fingerprint:
    """Read a file once and say what it is; ``known`` has the digests of known contents by length.

    A log that was appended to since begins with the bytes that it had: so its old part is known again.
    """
    lengths = sorted(known, reverse=True)
    cuts: list[tuple[int, int, bytes]] = []  # length, whole blocks in it, digest of what is behind them
    digests: list[Future[bytes]] = []
    length = 0
    source = opened(path)
    try:
        with ThreadPoolExecutor(_HASHERS, "lo-fingerprint") as pool:
            for parts in _blocks(source):
                size = sum(map(len, parts))
                while lengths and lengths[-1] <= length + size:
                    cut = lengths.pop()
                    cuts.append((cut, len(digests), _digest(parts, cut - length)))
                digests.append(pool.submit(_digest, parts, size))
                if len(digests) > 2 * _HASHERS:  # no more in memory than they can do
                    digests[-2 * _HASHERS].result()
                length += size
            whole = [digest.result() for digest in digests]
    finally:
        source.close()
    digest = _together(whole)
    begins = [(cut, _together([*whole[:count], rest])) for cut, count, rest in cuts if cut < length]
    return Fingerprint(digest, length, [each for cut, each in begins if each in known[cut]])


def _blocks(chunks: Iterable[bytes]) -> Iterator[list[memoryview]]:
    """Parts that are a MiB together, again and again; fewer at the end."""
    parts: list[memoryview] = []
    room = _BLOCK
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view) >= room:
            yield [*parts, view[:room]]
            parts, view, room = [], view[room:], _BLOCK
        if view:
            parts.append(view)
            room -= len(view)
    if parts:
        yield parts


def _digest(parts: Iterable[memoryview], size: int) -> bytes:
    """Of the first so many bytes."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part[:size])
        size -= min(size, len(part))
    return hasher.digest()


def _together(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]
