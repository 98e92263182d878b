"""Frames as they come: what one says, as JSON data, or why it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lo_kernel.engine.halves import mended
from lo_kernel.errors import EventError

__all__ = ["decode_array", "elements", "kind_of", "parse", "parse_frame"]

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def parse(data: bytes, decode: Callable[[bytes], Any] = _decode) -> Any:
    """What a text says; :class:`~lo_kernel.errors.EventError` where it isn't JSON."""
    try:
        return decode(data)
    except _UNREADABLE as error:
        raise EventError(
            f"expected one JSON object per frame, got {_excerpt(data)}, which is not JSON: {error}",
            reason="not_json",
        ) from None


def parse_frame(data: bytes) -> Any:
    """What a frame says; of an array with elements that can't be read, nothing of any (each is looked at)."""
    try:
        return parse(data)
    except EventError:
        if data.lstrip()[:1] != b"[":
            raise
    return [None] * len(parse(data, decode_array))


def elements(data: bytes, *, text: bool = True) -> Sequence[bytes | msgspec.Raw] | None:
    """What a frame holds that is refused: the elements of an array, else the frame itself.

    ``None`` where it can't be known: of an array that isn't JSON, or of anything that is neither JSON nor
    ``text``.

    >>> [bytes(each) for each in elements(b'[1, {"a": 2}]')], elements(b"oops"), elements(b"[oops")
    ([b'1', b'{"a": 2}'], [b'oops'], None)
    """
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] != b"[":
        try:
            if not text:
                _decode(start)
        except _UNREADABLE:
            return None
        return [data]
    try:
        return decode_array(start)
    except _UNREADABLE:
        whole = mended(start)
    try:
        return decode_array(whole) if whole is not None else None
    except _UNREADABLE:
        return None


def _excerpt(data: bytes) -> str:
    text = data[:60].decode(errors="replace")
    return repr(text + ("..." if len(data) > 60 else ""))


def kind_of(value: object) -> str:
    """What a value is, in the words of JSON.

    >>> kind_of([1]), kind_of(2.5)
    ('an array', 'a number')
    """
    names = {type(None): "null", bool: "a boolean", str: "a text", dict: "an object", list: "an array"}
    return names.get(type(value), "a number")
