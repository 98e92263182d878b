"""The chain: how a record becomes a line, and what ties each line to the one before.

A record is a JSON object in canonical form: UTF-8, keys sorted, no white space. Its hash is the SHA-256 over
the hash of the record before (as 64 hex digits) followed by the canonical record, and is put at its end:

    {"at":"2026-03-02T08:30:00.000001Z","kind":"run",...,"n":2,...,"hash":"3f1c..."}

To check a line anywhere: parse it, take ``hash`` away, write the rest canonically, hash.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["GENESIS", "VERSION", "Entry", "Text", "canonical", "chained", "digest", "split", "text_of", "utc"]

VERSION: Final = 1
"""Version of the schema; a reader refuses a later one."""

GENESIS: Final = "0" * 64
"""What stands for the hash before the first record."""

_TAIL: Final = len(b',"hash":""}') + 64
_encode = msgspec.json.Encoder(order="sorted").encode


class Entry(msgspec.Struct, gc=False):
    """The fields that every record has; a record has more of its own kind."""

    n: int
    kind: str
    at: str
    v: int = VERSION


class Text(msgspec.Struct, gc=False):
    """A free text beside the chain: ``hash`` is the SHA-256 over salt and text."""

    hash: str
    salt: str
    text: str


def canonical(record: Mapping[str, Any]) -> bytes:
    """The canonical JSON of a record.

    >>> canonical({"n": 1, "kind": "run"})
    b'{"kind":"run","n":1}'
    """
    return _encode(record)


def digest(before: str, body: bytes) -> str:
    """The hash of a record: ``before`` is that of the one before, ``body`` its canonical JSON."""
    return hashlib.sha256(before.encode() + body).hexdigest()


def chained(before: str, body: bytes) -> tuple[bytes, str]:
    """The line of a record, line break included, and its hash.

    >>> line, found = chained(GENESIS, b'{"n":1}')
    >>> split(line) == (b'{"n":1}', found)
    True
    """
    found = digest(before, body)
    return body[:-1] + b',"hash":"' + found.encode() + b'"}\n', found


def split(line: bytes) -> tuple[bytes, str]:
    """The canonical record and the hash that a line holds; ``ValueError`` for anything else."""
    end = len(line) - (line[-1:] == b"\n")
    cut = end - _TAIL
    if cut < 1 or line[cut : cut + 9] != b',"hash":"' or line[end - 2 : end] != b'"}':
        raise ValueError("no record of a chain")
    return line[:cut] + b"}", line[cut + 9 : end - 2].decode("ascii", "replace")


def text_of(text: str) -> Text:
    """A text with a salt of its own: without that, no guess at it can be checked against the hash."""
    salt = secrets.token_hex(16)
    return Text(hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest(), salt, text)


def utc(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as a time in UTC, to the microsecond.

    >>> utc(0)
    '1970-01-01T00:00:00.000000Z'
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z"
