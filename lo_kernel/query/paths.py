"""Dotted paths into JSON values, such as ``provenance.provenance.STUDENT.value.user_id``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from lo_kernel.query.ports import JSON

__all__ = ["MISSING", "describe", "follow", "follower"]

MISSING: Final[Any] = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
"""What :func:`follow` gives where a path leads nowhere; ``None`` is a value like any other."""


def follow(value: JSON, path: str | None) -> JSON:
    """The value at ``path`` inside ``value``, or :data:`MISSING`.

    An empty path is the value itself; a number is a place in a list. A key that holds dots is found too.

    >>> follow({"a": {"b": [1, 2]}}, "a.b.1")
    2
    >>> follow({"a.b": 3}, "a.b"), follow({"docs": {"essay.txt": {"words": 4}}}, "docs.essay.txt.words")
    (3, 4)
    >>> follow({"a": 1}, "a.b")
    MISSING
    """
    if not path:
        return value
    here = value
    try:  # nearly always objects all the way
        for name in path.split("."):
            here = here[name]
    except (KeyError, TypeError, IndexError):
        return _slowly(value, path)
    return here


def follower(path: str) -> Callable[[JSON], JSON]:
    """:func:`follow` along one path, for many values.

    >>> follower("a.b")({"a": {"b": 1}})
    1
    """
    names = path.split(".")

    def find(value: JSON) -> JSON:
        here = value
        try:
            for name in names:
                here = here[name]
        except (KeyError, TypeError, IndexError):
            return follow(value, path)
        return here

    return find if path else lambda value: value


def describe(value: JSON) -> str:
    """What is there instead, for an error message.

    >>> describe({"count": 1, "text": "a"})
    'count, text'
    >>> describe([1])
    'a list of 1'
    """
    if isinstance(value, dict):
        return ", ".join(map(str, list(value)[:12])) or "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{value!r:.60}"


def _slowly(value: JSON, path: str) -> JSON:
    """The same where keys hold dots: the shortest first part that leads to the end."""
    dot = path.find(".")
    while dot >= 0:
        there = _step(value, path[:dot])
        if isinstance(there, dict | list):
            found = _slowly(there, path[dot + 1 :])
            if found is not MISSING:
                return found
        dot = path.find(".", dot + 1)
    return _step(value, path)


def _step(value: JSON, name: str) -> JSON:
    if isinstance(value, dict):
        return value.get(name, MISSING)
    if isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
        return value[int(name)]
    return MISSING
