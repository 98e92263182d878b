"""Scopes, and the keys under which states are stored.

A state's key names the reducer and the values of its scope's fields, sorted by field name
(format of the deployed Learning Observer)::

    Internal,my_module.count,EventField.doc_id:essay-1,STUDENT:tc-testcase-u0
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lo_kernel.errors import ReducerError

__all__ = [
    "EventField",
    "KeyField",
    "ParsedKey",
    "Scope",
    "ScopeField",
    "getter",
    "identifier",
    "learners_of",
    "parse_key",
    "reading_of",
    "reducer_prefix",
    "state_key",
]


class KeyField(enum.Enum):
    """A field of a scope that the system itself knows.

    >>> KeyField.STUDENT.key_name
    'STUDENT'
    """

    STUDENT = "STUDENT"
    CLASS = "CLASS"
    RESOURCE = "RESOURCE"
    TEACHER = "TEACHER"

    @property
    def key_name(self) -> str:
        """How the field is written in a key."""
        return self.value


@dataclass(frozen=True, slots=True)
class EventField:
    """A field of a scope whose value each event brings; dots reach inside (``"doc.id"``).

    >>> EventField("doc_id").key_name
    'EventField.doc_id'
    """

    event: str

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) or not self.event:
            raise ReducerError(f"EventField: expected the name of a field, a text, got {self.event!r}")

    @property
    def key_name(self) -> str:
        """How the field is written in a key."""
        return f"EventField.{self.event}"

    @property
    def name(self) -> str:
        """The same, under the name that an enum's member has it."""
        return self.key_name

    def __str__(self) -> str:
        return self.key_name


ScopeField = KeyField | EventField


class Scope(frozenset[ScopeField]):
    """What a state belongs to: a learner, a learner in a document, a class, ...

    >>> Scope([KeyField.STUDENT, EventField("doc_id")])
    Scope(EventField.doc_id, STUDENT)
    >>> Scope(["STUDENT"])
    Traceback (most recent call last):
        ...
    lo_kernel.errors.ReducerError: a scope holds KeyField and EventField members, got 'STUDENT' (str)
    """

    def __new__(cls, fields: Iterable[ScopeField] = ()) -> Scope:
        """A scope of these fields; :class:`ReducerError` for anything else."""
        members = list(fields)
        for member in members:
            if not isinstance(member, KeyField | EventField):
                raise ReducerError(
                    f"a scope holds KeyField and EventField members, got {member!r} ({type(member).__name__})"
                )
        return super().__new__(cls, members)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields as keys write them, sorted."""
        return tuple(sorted(field.key_name for field in self))

    def __repr__(self) -> str:
        return f"Scope({', '.join(self.names)})"


def state_key(which: str, qualname: str, values: Mapping[str, str]) -> str:
    """The key of one state; ``which`` is ``Internal`` or ``External``, ``values`` by field name.

    >>> state_key("Internal", "my_module.count", {"STUDENT": "tc-testcase-u0", "EventField.doc_id": "d"})
    'Internal,my_module.count,EventField.doc_id:d,STUDENT:tc-testcase-u0'
    """
    return ",".join([which, qualname, *(f"{name}:{values[name]}" for name in sorted(values))])


def reducer_prefix(qualname: str, which: str = "Internal") -> str:
    """What all keys of one reducer start with.

    >>> reducer_prefix("my_module.count")
    'Internal,my_module.count,'
    """
    return f"{which},{qualname},"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key, taken apart."""

    which: str
    qualname: str
    values: dict[str, str]

    @property
    def student(self) -> str | None:
        """Safe id of the learner, where the scope has one."""
        return self.values.get("STUDENT")


def parse_key(key: str) -> ParsedKey | None:
    """Take a key apart; ``None`` where it is not the key of a state.

    A value may hold commas and colons: a new field starts only where a known field name does.

    >>> parse_key("Internal,my_module.count,EventField.doc_id:a,b:c,STUDENT:tc-u0").values
    {'EventField.doc_id': 'a,b:c', 'STUDENT': 'tc-u0'}
    >>> parse_key("my-own-key") is None
    True
    """
    which, _, rest = key.partition(",")
    qualname, _, tail = rest.partition(",")
    if which not in ("Internal", "External") or not qualname:
        return None
    values: dict[str, str] = {}
    name = ""
    for part in tail.split(",") if tail else ():
        head, colon, value = part.partition(":")
        if colon and (head in KeyField.__members__ or head.startswith("EventField.")):
            name = head
            values[name] = value
        elif name:
            values[name] += "," + part
        else:
            return None
    return ParsedKey(which, qualname, values)


def reading_of(key: str) -> tuple[str, list[str]]:
    """What the record says of a key that was read, and whose it is; nothing in it names anybody.

    >>> reading_of("Internal,my_module.count,EventField.doc_id:d1,STUDENT:tc-u0")
    ('my_module.count by EventField.doc_id, STUDENT', ['tc-u0'])
    >>> reading_of("Blob,tc-u0,my.source,essay")
    ('a blob', ['tc-u0'])
    >>> reading_of("what tc-u0 said")
    ("a key of one's own", [])
    """
    if key.startswith("Blob,"):
        return "a blob", sorted(learners_of([key]))
    parsed = parse_key(key)
    if parsed is None:
        return "a key of one's own", []
    fields = ", ".join(parsed.values)
    return (f"{parsed.qualname} by {fields}" if fields else parsed.qualname), (
        [parsed.student] if parsed.student else []
    )


def learners_of(keys: Iterable[str]) -> set[str]:
    """The learners (safe ids) whose states and blobs some keys are of.

    >>> learners_of(["Internal,m.count,STUDENT:tc-u0,TEACHER:t", "Blob,tc-u1,my.source,essay", "mine"]) == {
    ...     "tc-u0", "tc-u1"
    ... }
    True
    """
    found = set()
    for key in keys:  # a safe id holds no comma; taking each key apart would take long for many
        if key.startswith("Blob,"):
            found.add(key.split(",", 2)[1])
        elif key.startswith(("Internal,", "External,")):
            _, field, rest = key.rpartition(",STUDENT:")
            if field:
                found.add(rest.partition(",")[0])
    return found


_NAMES = {
    KeyField.CLASS: ("class_id", "course_id"),
    KeyField.RESOURCE: ("resource_id", "doc_id"),
    KeyField.TEACHER: ("teacher_id",),
}


def getter(field: ScopeField) -> Callable[[str, Mapping[str, Any]], str | None]:
    """What finds the value of a scope's field: a function of the learner's safe id and an event's body.

    ``None`` where the event doesn't have it.

    >>> getter(EventField("doc.id"))("tc-u0", {"doc": {"id": 7}})
    '7'
    >>> getter(KeyField.RESOURCE)("tc-u0", {"event": "x"}) is None
    True
    """
    if field is KeyField.STUDENT:
        return lambda student, client: student
    if isinstance(field, EventField):
        name, path = field.event, field.event.split(".")

        def by_path(student: str, client: Mapping[str, Any]) -> str | None:
            if name in client:
                return _value(client[name])
            value: Any = client
            for part in path:
                if not isinstance(value, dict) or part not in value:
                    return None
                value = value[part]
            return _value(value)

        return by_path
    names = _NAMES[field]

    def by_name(student: str, client: Mapping[str, Any]) -> str | None:
        for each in names:
            if each in client and (value := _value(client[each])) is not None:
                return value
        return None

    return by_name


def identifier(scope: Scope) -> Callable[[str, Mapping[str, Any]], Any]:
    """What tells the state that an event belongs to from others: a function as :func:`getter` gives one.

    It gives the learner's safe id where the scope is that alone, else a tuple of the values of its fields
    in the order of their names; ``None`` where the event lacks one.

    >>> identifier(Scope([KeyField.STUDENT, EventField("doc_id")]))("tc-u0", {"doc_id": "d"})
    ('d', 'tc-u0')
    >>> identifier(Scope([KeyField.STUDENT]))("tc-u0", {})
    'tc-u0'
    """
    getters = [getter(field) for field in sorted(scope, key=lambda field: field.key_name)]
    if scope == Scope([KeyField.STUDENT]):
        return getters[0]

    def ident(student: str, client: Mapping[str, Any]) -> tuple[str, ...] | None:
        values = []
        for get in getters:
            value = get(student, client)
            if value is None:
                return None
            values.append(value)
        return tuple(values)

    return ident


def _value(value: Any) -> str | None:
    """A value as a key writes it: numbers and texts alike, and nothing else."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict | list):
        return None
    return str(value)
