"""A store, reducers and learners that a test sets by hand, and the naive evaluator.

The evaluator is written from PROTOCOL.md alone, as plainly as can be, and shares no code with the package:
each question is answered anew, from the raw DAG, with nothing kept.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lo_kernel.engine.keys import KeyField, Scope
from lo_kernel.errors import UnknownReducerError
from lo_kernel.query.catalog import Catalog
from lo_kernel.query.executor import Executor
from lo_kernel.query.functions import Functions
from lo_kernel.query.live import LiveQueries
from lo_kernel.query.rosters import Rosters

STUDENT = Scope([KeyField.STUDENT])


class States:
    """States by key. `set` tells listeners in the next step of the loop."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.reads: list[list[str]] = []
        self.fails = 0
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._changed: set[str] = set()

    async def read(self, keys: list[str]) -> list[Any]:
        """Copies, in the order asked for."""
        self.reads.append(list(keys))
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise OSError("the store is out of reach")
        return [copy.deepcopy(self.states.get(key)) for key in keys]

    async def keys(self, prefix: str) -> list[str]:
        """Keys that start so."""
        await asyncio.sleep(0)
        return [key for key in self.states if key.startswith(prefix)]

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Hear of changes."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def set(self, key: str, state: Any) -> None:
        """Change a state."""
        self.states[key] = state
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._tell)
        self._changed.add(key)

    def _tell(self) -> None:
        keys, self._changed = frozenset(self._changed), set()
        for listener in list(self._listeners):
            listener(keys)


@dataclass(eq=False)
class Reducer:
    """A reducer as queries see it."""

    id: str
    scope: Scope = STUDENT
    default: Any = None
    qualname: str = ""
    module: str = "m"
    gate: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.qualname = self.qualname or f"m.{self.id}"

    @property
    def null_state(self) -> Any:
        """The same as the default."""
        return self.default

    def why_stateless(self, key: str, /) -> str:
        """No event came."""
        return "none"

    async def ready(self) -> None:
        """Wait for the gate, where there is one."""
        if self.gate is not None:
            await self.gate.wait()


class Reducers:
    """Reducers by id."""

    def __init__(self, *reducers: Reducer) -> None:
        self.all = {reducer.id: reducer for reducer in reducers}

    def __iter__(self) -> Iterator[Reducer]:
        return iter(self.all.values())

    def get(self, reducer_id: str, /) -> Reducer:
        """The one of this id."""
        if reducer_id not in self.all:
            raise UnknownReducerError(
                f"no reducer has the id {reducer_id!r}; there are: {', '.join(self.all)}"
            )
        return self.all[reducer_id]


@dataclass
class Person:
    """Someone who has sent an event."""

    safe_user_id: str

    @property
    def user_id(self) -> str:
        """The id without where it is from."""
        return self.safe_user_id.partition("-")[2]


class People:
    """Everyone seen."""

    def __init__(self, *ids: str) -> None:
        self.people = {name: Person(name) for name in ids}
        self._listeners: list[Callable[..., None]] = []

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.people))

    def __getitem__(self, name: str, /) -> Person:
        return self.people[name]

    def __len__(self) -> int:
        return len(self.people)

    def subscribe(self, listener: Callable[..., None], /) -> Callable[[], None]:
        """Hear of someone new."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, name: str) -> None:
        """See someone."""
        self.people[name] = Person(name)
        for listener in list(self._listeners):
            listener(self.people[name])

    def remove(self, name: str) -> None:
        """Forget someone."""
        person = self.people.pop(name)
        for listener in list(self._listeners):
            listener(person)


@dataclass
class Reads:
    """What was read, as it would be put on record."""

    records: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def record(self, kind: str, what: str, learners: Any) -> None:
        """Keep it."""
        self.records.append((kind, what, list(learners)))


class Parts:
    """All that queries need, in small."""

    def __init__(self, *reducers: Reducer, people: int = 0) -> None:
        self.states = States()
        self.reducers = Reducers(*reducers)
        self.people = People(*(f"tc-u{number}" for number in range(people)))
        self.functions = Functions()
        self.rosters = Rosters(self.people, self.functions)
        self.catalog = Catalog()
        self.reads = Reads()
        self.executor = Executor(self.states, self.reducers, self.functions, self.catalog, self.reads)
        self.errors: list[str] = []
        self.live = LiveQueries(
            self.executor, self.states, lambda what, error: self.errors.append(str(error))
        )

    def set(self, reducer: str, student: str, state: Any, **more: str) -> None:
        """Set a learner's state; ``more`` are further fields of the scope, such as ``doc_id``."""
        fields = {"STUDENT": student} | {f"EventField.{name}": value for name, value in more.items()}
        qualname = self.reducers.get(reducer).qualname
        self.states.set(f"Internal,{qualname}," + ",".join(f"{k}:{fields[k]}" for k in sorted(fields)), state)


# -- the naive evaluator ------------------------------------------------------------------------

_NOTHING: Any = object()


async def naive(
    parts: Parts, nodes: Mapping[str, Any], node: Any, parameters: Mapping[str, Any] | None = None
) -> Any:
    """The answer of one node of a DAG, by the rules of PROTOCOL.md."""
    given = parameters or {}
    if isinstance(node, list | tuple):
        return [await naive(parts, nodes, item, given) for item in node]
    if not isinstance(node, dict):
        return node
    if "dispatch" not in node:
        return {key: await naive(parts, nodes, item, given) for key, item in node.items()}
    kind = node["dispatch"]
    if kind == "variable":
        return await naive(parts, nodes, nodes[node["variable_name"]], given)
    if kind == "parameter":
        return given.get(node["parameter_name"], node.get("default"))
    fields = {
        key: await naive(parts, nodes, item, given)
        for key, item in node.items()
        if key not in ("dispatch", "value_path", "left_on", "right_on", "function_name", "function")
    }
    wrong = next((value for value in fields.values() if _failed(value)), None)
    if wrong is not None:
        return {"error": wrong["error"], "function": wrong["function"]}
    if kind == "call":
        try:
            function = parts.functions.get(node["function_name"])
            kwargs = {key: value for key, value in fields.get("kwargs", {}).items() if key != "runtime"}
            result = function.function(*copy.deepcopy(fields.get("args", [])), **copy.deepcopy(kwargs))
            return await result if asyncio.iscoroutine(result) else result
        except Exception:
            return {"error": "...", "function": "call"}
    if kind == "keys":
        return _keys(parts, node["function"], fields)
    if kind == "select":
        return [_selected(parts, item, fields.get("fields")) for item in fields["keys"]]
    if kind == "join":
        return _joined(fields["left"], fields["right"], node["left_on"], node["right_on"])
    assert kind == "map"
    return [await _mapped(parts, node, row, fields.get("func_kwargs") or {}) for row in fields["values"]]


def bare(value: Any) -> Any:
    """An answer without provenance, and each error in it as ``"error"``, for comparing."""
    if _failed(value):
        return "error"
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if key != "provenance"}
    if isinstance(value, list):
        return [bare(item) for item in value]
    return value


def _keys(parts: Parts, function: str, fields: dict[str, Any]) -> list[Any]:
    reducer = parts.reducers.get(function)
    items: list[Any] = []
    students = fields["STUDENTS"] if isinstance(fields["STUDENTS"], list) else [fields["STUDENTS"]]
    resources = fields.get("RESOURCES", itertools.repeat(None))
    for student, resource in zip(students, resources, strict=False):
        who = _at(student, fields.get("STUDENTS_path"))
        if who is _NOTHING or _failed(who) or _failed(student):
            items.append({"error": "...", "function": "keys"})
            continue
        values: dict[str, Any] = {"STUDENT": who}
        provenance: dict[str, Any] = {"STUDENT": {"value": student, "user_id": who}}
        if "RESOURCES" in fields:
            document = _at(resource, fields.get("RESOURCES_path"))
            if document is _NOTHING or _failed(document) or _failed(resource):
                items.append({"error": "...", "function": "keys"})
                continue
            values["EventField.doc_id"] = document
        key = None
        if None not in values.values():
            key = f"Internal,{reducer.qualname}," + ",".join(f"{k}:{values[k]}" for k in sorted(values))
        items.append({"key": key, "default": reducer.default, "provenance": provenance})
    return items


def _selected(parts: Parts, item: dict[str, Any], fields: Any) -> Any:
    if _failed(item):
        return item
    state = copy.deepcopy(parts.states.states.get(item["key"]))
    shown = state if state is not None else item["default"]
    row: dict[str, Any] = {"provenance": {"key": item["key"], "provenance": item["provenance"]}}
    if fields == "All":
        return row | (shown if isinstance(shown, dict) else {} if shown is None else {"value": shown})
    for path, name in (fields if isinstance(fields, dict) else {}).items():
        value = _at(shown, path)
        if value is _NOTHING:
            value = None if state is None else {"error": "...", "function": "select"}
        row[name] = value
    return row


def _joined(left: list[Any], right: list[Any], left_on: str, right_on: str) -> list[Any]:
    rows = []
    for row in left:
        wanted = _at(row, left_on)
        match = {}
        for other in right:
            found = _at(other, right_on)
            if wanted is not _NOTHING and found is not _NOTHING and found == wanted:
                match = other
        joined = {**row, **match} if isinstance(row, dict) else row
        if isinstance(row, dict) and "provenance" in row:
            joined["provenance"] = row["provenance"]
        rows.append(joined)
    return rows


async def _mapped(parts: Parts, node: dict[str, Any], row: Any, kwargs: dict[str, Any]) -> Any:
    value = _at(row, node.get("value_path"))
    provenance = row.get("provenance", {}) if isinstance(row, dict) else {}
    if value is _NOTHING or _failed(value) or _failed(row):
        return {"error": "...", "function": "map", "provenance": provenance}
    try:
        result = parts.functions.get(node["function_name"]).function(copy.deepcopy(value), **kwargs)
        if asyncio.iscoroutine(result):
            result = await result
    except Exception:
        return {"error": "...", "function": "map", "provenance": provenance}
    return {**(result if isinstance(result, dict) else {"output": result}), "provenance": provenance}


def _at(value: Any, path: str | None) -> Any:
    for name in path.split(".") if path else []:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _NOTHING
    return value


def _failed(value: Any) -> bool:
    return isinstance(value, dict) and "error" in value and "function" in value
