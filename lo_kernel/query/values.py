"""Rows, and errors that take the place of a value."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import msgspec

from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.ports import JSON

__all__ = [
    "Identity",
    "check_json",
    "check_key",
    "error_value",
    "identity",
    "is_error",
    "mistaken",
    "own",
    "path_of",
    "same",
    "visible",
]

Identity = tuple[tuple[str, str], ...]
"""Whom a row belongs to: ``(("STUDENT", "tc-u0"), ("RESOURCE", "essay-1"))``."""

_ID_NAMES: Final = {
    "STUDENT": ("user_id", "student_id", "id"),
    "TEACHER": ("user_id", "teacher_id", "id"),
    "CLASS": ("class_id", "id"),
    "RESOURCE": ("doc_id", "resource_id", "id"),
}
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))
_SEGMENTS: Final = {"STUDENT": "students", "TEACHER": "teachers", "CLASS": "classes", "RESOURCE": "documents"}
_ORDER: Final = {"CLASS": 0, "TEACHER": 1, "STUDENT": 2, "RESOURCE": 3}


def error_value(
    message: str, function: str, error: BaseException | None = None, **about: JSON
) -> dict[str, JSON]:
    """An error as a value: ``error``, ``function``, ``error_provenance`` and ``traceback``.

    >>> error_value("no such field", "select", node="n")["error_provenance"]
    {'node': 'n'}
    """
    trace = ""
    if error is not None:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-6))
    return {"error": message, "function": function, "error_provenance": about, "traceback": trace}


def check_key(key: str) -> str:
    """A key of the store as it is, where it can be one; raises :class:`LOError` elsewhere.

    >>> check_key("notes")
    'notes'
    """
    if not isinstance(key, str):
        raise LOError(f"a key is a text such as 'Internal,my_module.count,STUDENT:tc-u0', got {key!r}")
    check_json(key, "a key of the store")
    return key


def check_json(value: JSON, what: str) -> None:
    """Raise :class:`QueryError` for what JSON can't hold: names that are no text, half characters, objects.

    >>> check_json({"a": ["\\ud83d"]}, "query")
    Traceback (most recent call last):
    lo_kernel.errors.QueryError: query: at 'a.0': expected text, got half of a character: '\\ud83d'
    """
    waiting: list[tuple[JSON, str]] = [(value, "")]
    while waiting:
        here, where = waiting.pop()
        if isinstance(here, str):
            if not here.isascii() and not _is_text(here):
                place = f"at {where!r}: " if where else ""
                raise QueryError(f"{what}: {place}expected text, got half of a character: {here!r:.80}")
        elif isinstance(here, Mapping):
            for key, item in here.items():
                if not isinstance(key, str):
                    place = f"at {where!r}: " if where else ""
                    raise QueryError(f"{what}: {place}expected names that are text, got {key!r:.80}")
                waiting.append((key, where))
                waiting.append((item, f"{where}.{key}".strip(".")))
        elif isinstance(here, list | tuple):
            waiting.extend((item, f"{where}.{place}".strip(".")) for place, item in enumerate(here))
        elif here is not None and not isinstance(here, int | float):
            try:
                msgspec.json.encode(here)
            except (TypeError, ValueError) as error:
                place = f"at {where!r}: " if where else ""
                why = mistaken(here) or f": {error}"
                raise QueryError(f"{what}: {place}expected JSON, got {here!r:.80}{why}") from None


def mistaken(value: Any) -> str:
    """What to write in the place of a value that people give for a query; empty for others.

    >>> from lo_kernel.query.language import q
    >>> mistaken(q.call("mean"))
    "; it isn't called yet: write q.call('mean')(...), with the rows it is for"
    """
    name = getattr(value, "__lo_name__", None)
    if callable(value) and isinstance(name, str):
        return f"; it isn't called yet: write q.call({name!r})(...), with the rows it is for"
    if isinstance(value, Awaitable):
        return "; that is an answer on its way: give the query itself, or await the answer where it is wanted"
    if callable(value):
        return "; a function goes by a name: that of a reducer, or q.call(name)(...) for a published one"
    return ""


def own(value: JSON) -> JSON:
    """A copy of a JSON value, for whoever may change it or go on changing it.

    >>> rows = [{"words": ["a"]}]
    >>> own(rows)[0]["words"].append("b"), rows
    (None, [{'words': ['a']}])
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        copied: Any = value.copy()
        for name, item in value.items():
            if type(item) not in _PLAIN:
                copied[name] = own(item)
        return copied
    if isinstance(value, list):
        copied = value.copy()
        for place, item in enumerate(value):
            if type(item) not in _PLAIN:
                copied[place] = own(item)
        return copied
    return value


def same(one: JSON, other: JSON) -> bool:
    """Whether two JSON values are one, as a client reads them: ``True`` is no number there.

    >>> same({"a": [1]}, {"a": [1]}), same({"a": [1]}, {"a": [True]}), same(0, False)
    (True, False, False)
    """
    if one is other:
        return True
    if one != other:
        return False
    if isinstance(one, dict | list):
        try:
            return msgspec.json.encode(one) == msgspec.json.encode(other)
        except (TypeError, ValueError, RecursionError):  # no JSON: an error stands in its place
            return True
    return isinstance(one, bool) is isinstance(other, bool)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_error(value: JSON) -> bool:
    """Whether ``value`` is an error in a value's place."""
    return isinstance(value, dict) and "error" in value and "function" in value


def identity(row: JSON) -> Identity:
    """Whom a row belongs to, from its provenance; from ``user_id`` where it has none.

    >>> identity({"provenance": {"key": "k", "provenance": {"STUDENT": {"user_id": "tc-u0"}}}})
    (('STUDENT', 'tc-u0'),)
    """
    if not isinstance(row, dict):
        return ()
    here: JSON = row.get("provenance")
    try:  # nearly always what a select wrote of one learner
        (only,) = here["provenance"].values()
        if "key" in here and "STUDENT" in here["provenance"] and type(only["user_id"]) is str:
            return (("STUDENT", only["user_id"]),)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    for _ in range(32):  # a map over a map over a select: the innermost provenance has the ids
        if not isinstance(here, dict):
            break
        if "key" in here or "function" in here:  # what a select or a map wrote
            here = here.get("provenance")
            continue
        if len(here) == 1 and "STUDENT" in here:
            only = _id_of("STUDENT", here["STUDENT"])
            return (("STUDENT", only),) if only is not None else ()
        found = [(name, here[name]) for name in here if name in _ORDER or name.startswith("EventField.")]
        if found:
            pairs = [(name, _id_of(name, entry)) for name, entry in found]
            pairs.sort(key=lambda pair: (_ORDER.get(pair[0], 9), pair[0]))
            return tuple((name, value) for name, value in pairs if value is not None)
        here = here.get("provenance")
    user_id = row.get("user_id")
    return (("STUDENT", user_id),) if isinstance(user_id, str) and user_id else ()


def path_of(who: Identity) -> str:
    """The path of an update: ``students.tc-u0.documents.essay-1``. Dots inside an id are written ``%2E``.

    >>> path_of((("STUDENT", "tc-a.b"), ("RESOURCE", "d")))
    'students.tc-a%2Eb.documents.d'
    """
    if len(who) == 1 and who[0][0] == "STUDENT" and "." not in who[0][1]:
        return f"students.{who[0][1]}"
    parts = []
    for name, value in who:
        segment = _SEGMENTS.get(name) or name.partition(".")[2].replace(".", "_") + "s"
        parts.append(f"{segment}.{value.replace('.', '%2E')}")
    return ".".join(parts)


def visible(value: JSON) -> JSON:
    """A value as it leaves the server: without the provenance of its rows."""
    if isinstance(value, dict):
        if "provenance" in value:
            value = value.copy()
            del value["provenance"]
        return value
    if isinstance(value, list):
        return [visible(item) if isinstance(item, dict) else item for item in value]
    return value


def _id_of(name: str, entry: JSON) -> str | None:
    if not isinstance(entry, dict):
        return None if entry is None else str(entry)
    names = _ID_NAMES.get(name) or (name.partition(".")[2],)
    first = entry.get(names[0])
    if isinstance(first, str):
        return first
    for candidate in (*names, "value"):
        value = entry.get(candidate)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    inner = entry.get("value")
    if isinstance(inner, dict):
        for candidate in names:
            value = inner.get(candidate)
            if isinstance(value, str | int) and not isinstance(value, bool):
                return str(value)
    return None
