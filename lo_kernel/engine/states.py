"""States as data: encoding them, and naming what in them isn't JSON.

A state is made of dicts with string keys, lists, and JSON scalars (text, finite numbers, booleans,
``None``). What the encoder would quietly turn into something else (a tuple, a set, a date, a number as
key, a ``Counter``) is an error here, since the reducer would find another state after a restart.
"""

from __future__ import annotations

import json
import marshal
import math
from collections import deque
from typing import Any, Final

import msgspec

from lo_kernel.errors import StateError

__all__ = ["decode_state", "encode_state", "json_state"]

_encode = msgspec.json.Encoder().encode
decode_state = msgspec.json.Decoder().decode

_PLAIN: Final = (dict, list, str, int, float, bool)
_INSTEAD: Final = (
    (dict, "dict(...)"),
    ((list, tuple, set, frozenset, deque), "list(...)"),
    (str, "str(...)"),
    (int, "int(...)"),
    (float, "float(...)"),
)


def encode_state(state: Any) -> bytes:
    """JSON text (UTF-8) of a state.

    >>> encode_state({"words": ["a"]})
    b'{"words":["a"]}'
    >>> encode_state({"words": [{"seen": {1, 2}}]})
    Traceback (most recent call last):
        ...
    lo_kernel.errors.StateError: at $.words[0].seen the state holds {1, 2} (set); a state is made of dicts \
with text keys, lists, text, finite numbers, True, False and None. Write list(...)

    """
    try:
        text = _encode(state)
        if decode_state(text) == state and type(state) is not tuple:
            # It takes no subclass: a Counter would be a dict after a restart, and fail there.
            marshal.dumps(state, 2)
            return text
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        pass
    path, value = _first_wrong(state, "$", 0)
    raise StateError(
        f"at {path} the state holds {_short(value)} ({type(value).__name__}); a state is made of dicts with "
        f"text keys, lists, text, finite numbers, True, False and None{_instead(value)}",
        path=path,
    )


def json_state(state: Any) -> Any:
    """A state as it comes back from JSON: tuples as lists, numbers as keys as text.

    For reducers that were written for a store that passes each state through JSON (the deployed Learning
    Observer's does): done after each event, they find what they would find there, at whatever moment a
    commit or a restart comes. Raises :class:`TypeError` or :class:`ValueError` for what JSON can't hold.

    >>> json_state({"seen": (1, 2), "at": {3: "c"}})
    {'seen': [1, 2], 'at': {'3': 'c'}}
    """
    try:
        plain = decode_state(_encode(state))
        if plain == state and type(state) is not tuple:
            return plain
    except (TypeError, ValueError, msgspec.MsgspecError):
        pass
    return json.loads(json.dumps(state, allow_nan=False))


def _first_wrong(value: Any, path: str, depth: int) -> tuple[str, Any]:
    """Where the first value is that JSON can't hold, and the value; the root itself where none is found."""
    found = _search(value, path, depth)
    return found if found is not None else (path, value)


def _search(value: Any, path: str, depth: int) -> tuple[str, Any] | None:
    kind = type(value)
    if value is None or kind in (bool, int):
        return None
    if kind is float:
        return None if math.isfinite(value) else (path, value)
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return path, value
        return None
    if depth > 200:
        return path, value
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return f"{path}.{key!r}", key
            if found := _search(item, f"{path}.{key}", depth + 1):
                return found
        return None
    if kind is list:
        for index, item in enumerate(value):
            if found := _search(item, f"{path}[{index}]", depth + 1):
                return found
        return None
    return path, value


def _instead(value: Any) -> str:
    """What to write in the place of a value, where that is plain."""
    if type(value) in _PLAIN:
        return ""
    for kind, said in _INSTEAD:
        if isinstance(value, kind):
            return f". Write {said}"
    for name in ("tolist", "isoformat"):  # numpy's and pandas'; dates
        if callable(getattr(type(value), name, None)):
            return f". Write it with .{name}()"
    return ""


def _short(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # a broken __repr__ must not hide where it is
        return f"<{type(error).__name__} in repr>"
    return text if len(text) <= 80 else text[:77] + "..."
