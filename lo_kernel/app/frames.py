"""Frames as they come: what one says, as JSON data, or why it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lo_kernel.errors import EventError

__all__ = ["decode_array", "kind_of", "parse", "parse_frame"]

_decode = msgspec.json.Decoder().decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def parse(data: bytes, decode: Callable[[bytes], Any] = _decode) -> Any:
    """What a text says; :class:`~lo_kernel.errors.EventError` where it isn't JSON."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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
