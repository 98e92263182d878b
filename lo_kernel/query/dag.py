"""An execution DAG, read from JSON: nested nodes flattened, references resolved, exports named.

Three shapes are read: a whole DAG ``{"execution_dag": {name: node}, "exports": {name: {"returns":
node}}}``, its nodes alone (each node that no other uses is then an export), and a single node (its export
is ``result``).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.errors import QueryError
from lo_kernel.query.ports import JSON
from lo_kernel.query.values import check_json, mistaken

__all__ = ["DISPATCHES", "HIDDEN_PARAMETERS", "Dag", "Export", "Node", "Parameter", "Ref"]

DISPATCHES: Final = {
    "parameter": ("parameter_name",),
    "variable": ("variable_name",),
    "call": ("function_name",),
    "keys": ("function",),
    "select": ("keys",),
    "join": ("left", "right", "left_on", "right_on"),
    "map": ("function_name", "values"),
}
"""The kinds of nodes, and the fields that each must have."""

_TEXT: Final = ((str,), "a name")
_KINDS: Final[dict[str, dict[str, tuple[tuple[type, ...], str]]]] = {
    "parameter": {"parameter_name": _TEXT},
    "variable": {"variable_name": ((str,), "the name of a node")},
    "call": {
        "function_name": _TEXT,
        "args": ((list, tuple), "a list of values"),
        "kwargs": ((Mapping,), "an object of values by name"),
    },
    "keys": {"function": ((str,), "the id of a reducer")},
    "select": {},
    "join": {},
    "map": {"function_name": _TEXT, "func_kwargs": ((Mapping,), "an object of values by name")},
}
"""What the fields must be that no other node's answer can stand in for."""

HIDDEN_PARAMETERS: Final = frozenset({"runtime"})
"""Parameters that the server gives, never the client."""

MAX_NODES: Final = 2000
MAX_DEPTH: Final = 60

OtherDag = Callable[[str], "tuple[Dag, str] | None"]


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands in a node's fields for the answer of another node."""

    node: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that whoever runs a query gives."""

    name: str
    required: bool = False
    default: JSON = None


@dataclass(frozen=True, slots=True)
class Export:
    """An answer that a DAG offers."""

    name: str
    returns: str
    description: str = ""
    sample: JSON = None
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a DAG. ``fields`` hold a :class:`Ref` wherever another node's answer belongs."""

    name: str
    dispatch: str
    fields: dict[str, JSON] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, str]:
        """Which of the fields take which node's answer: ``{"kwargs.course_id": "course"}``."""
        return dict(_refs(self.fields, ""))


class Dag:
    """A DAG, ready to be checked and run. ``json`` is what it was read from.

    >>> dag = Dag.read({"dispatch": "call", "function_name": "f",
    ...                 "kwargs": {"n": {"dispatch": "parameter", "parameter_name": "n", "required": True}}})
    >>> list(dag.nodes), dag.exports["result"].parameters
    (['result', 'result.n'], (Parameter(name='n', required=True, default=None),))
    """

    def __init__(
        self, json: Mapping[str, JSON], nodes: dict[str, Node], exports: dict[str, Export], name: str = ""
    ) -> None:
        self.json = dict(json)
        self.nodes = nodes
        self.name = name
        self.exports = {
            export.name: Export(
                export.name,
                export.returns,
                export.description,
                export.sample,
                tuple(self._parameters(export.returns)),
            )
            for export in exports.values()
        }

    @classmethod
    def read(cls, source: Any, *, name: str = "", other: OtherDag | None = None) -> Dag:
        """Read a DAG from JSON (a dict), from text or bytes of JSON, or from a ``Path`` to a file of it.

        ``other`` finds nodes of other DAGs (``"other_dag.node"``). Raises :class:`QueryError`, which names
        node and field.
        """
        if isinstance(source, Dag):
            return source
        if isinstance(source, Path):
            source = source.read_bytes()
        if isinstance(source, str | bytes):
            try:
                source = msgspec.json.decode(source)
            except (msgspec.DecodeError, RecursionError) as error:
                raise QueryError(f"a query: expected JSON, got text that isn't: {error}") from None
        if not isinstance(source, Mapping):
            raise QueryError(
                f"a query: expected a JSON object, got {type(source).__name__}{mistaken(source)}"
            )
        check_json(source, f"query {name!r}" if name else "query")
        return _Reader(source, name, other).dag()

    def export(self, name: str) -> Export:
        """The export of this name; an error that lists what there is otherwise."""
        found = self.exports.get(name)
        if found is None:
            there = ", ".join(self.exports) or "none"
            raise QueryError(f"{self._title()}: there is no export {name!r}; there are: {there}")
        return found

    def needed(self, targets: Iterable[str]) -> list[str]:
        """The nodes that ``targets`` need, each after those that it needs itself.

        Raises :class:`QueryError` for a cycle and for a node that isn't there.
        """
        order: list[str] = []
        state: dict[str, int] = {}
        stack: list[tuple[str, Iterator[tuple[str, str]]]] = []

        def enter(node: str) -> None:
            state[node] = 1
            stack.append((node, iter(self.nodes[node].inputs.items())))

        for target in targets:
            if target not in self.nodes:
                raise QueryError(f"{self._title()}: there is no node {target!r}; {self._there()}")
            if target not in state:
                enter(target)
            while stack:
                name, inputs = stack[-1]
                for where, ref in inputs:
                    if ref not in self.nodes:
                        raise QueryError(
                            f"{self._title()}: node {name!r}, field {where!r}: expected the name of a node, "
                            f"got {ref!r}, which isn't there; {self._there()}"
                        )
                    if state.get(ref) == 1:
                        ring = [open_node for open_node, _ in stack]
                        ring = [*ring[ring.index(ref) :], ref]
                        raise QueryError(
                            f"{self._title()}: node {name!r}, field {where!r}: a cycle: {' -> '.join(ring)}; "
                            "a node can't need its own answer"
                        )
                    if ref not in state:
                        enter(ref)
                        break
                else:
                    state[name] = 2
                    order.append(name)
                    stack.pop()
        return order

    def meaning(self, target: str) -> str:
        """What a node answers, whatever it and those that it needs are called: the same for the same.

        >>> from lo_kernel.query.language import q
        >>> dag = Dag.read({"a": q.call("f")(), "b": q.call("f")(), "c": q.variable("a"), "d": q.call("g")()})
        >>> [dag.meaning(name) == dag.meaning("a") for name in "bcd"]
        [True, True, False]
        """
        found: dict[str, str] = {}
        for name in self.needed([target]):
            node = self.nodes[name]
            inner = node.fields.get("value")
            if node.dispatch == "variable" and isinstance(inner, Ref):
                found[name] = found[inner.node]
                continue
            fields = _renamed(node.fields, found)
            text = msgspec.json.encode([node.dispatch, fields], order="deterministic")
            found[name] = hashlib.blake2b(text, digest_size=16).hexdigest()
        return found[target]

    def concerns(self, name: str) -> bool:
        """Whether this is the DAG ``name``, or has taken in nodes of it."""
        return self.name == name or any(node.startswith(f"{name}.") for node in self.nodes)

    def to_json(self) -> dict[str, JSON]:
        """The DAG as JSON; :meth:`read` makes the same DAG of it."""
        return copy.deepcopy(self.json)

    def _parameters(self, target: str) -> Iterator[Parameter]:
        found: dict[str, Parameter] = {}
        for name in self.needed([target]):
            node = self.nodes[name]
            if node.dispatch == "parameter":
                parameter = Parameter(
                    node.fields["parameter_name"],
                    bool(node.fields.get("required")),
                    node.fields.get("default"),
                )
                known = found.get(parameter.name)
                if known is None or parameter.required:
                    found[parameter.name] = parameter
        return (parameter for parameter in found.values() if parameter.name not in HIDDEN_PARAMETERS)

    def _title(self) -> str:
        return f"query {self.name!r}" if self.name else "query"

    def _there(self) -> str:
        return "there are: " + ", ".join(list(self.nodes)[:20])


class _Reader:
    """Flattens one DAG."""

    def __init__(self, source: Mapping[str, JSON], name: str, other: OtherDag | None) -> None:
        self.source = source
        self.name = name
        self.other = other
        self.nodes: dict[str, Node] = {}
        self.seen: dict[bytes, str] = {}

    def dag(self) -> Dag:
        top, exports = self._shape()
        for name in top:
            self.nodes[name] = Node(name, "constant")  # holds its place, and its name
        for name, node in top.items():
            self._node(name, node, 0)
        if exports is None:
            used = {ref for node in self.nodes.values() for ref in node.inputs.values()}
            named = [name for name in top if name not in used] or list(top)
            exports = {name: {"returns": name} for name in named}
        json = {"execution_dag": dict(top), "exports": dict(exports)}
        return Dag(json, self.nodes, self._exports(exports), self.name)

    def _shape(self) -> tuple[Mapping[str, JSON], Mapping[str, JSON] | None]:
        source = self.source
        if "dispatch" in source:
            return {"result": source}, {"result": {"returns": "result"}}
        if isinstance(source.get("execution_dag"), Mapping) and "dispatch" not in source["execution_dag"]:
            exports = source.get("exports")
            if exports is not None and not isinstance(exports, Mapping):
                raise self._error("exports", "", "an object of exports", exports)
            return source["execution_dag"], exports
        if not source:
            raise QueryError(f"{self._title()}: expected nodes, got an empty object")
        return source, None

    def _exports(self, exports: Mapping[str, JSON]) -> dict[str, Export]:
        read: dict[str, Export] = {}
        for name, export in exports.items():
            if not isinstance(export, Mapping) or not isinstance(export.get("returns"), str):
                raise QueryError(
                    f"{self._title()}: export {name!r}, field 'returns': expected the name of a node, "
                    f"got {export!r:.80}"
                )
            returns = export["returns"]
            if returns not in self.nodes:
                raise QueryError(
                    f"{self._title()}: export {name!r}, field 'returns': there is no node {returns!r}; "
                    f"there are: {', '.join(list(self.nodes)[:20])}"
                )
            sample = export.get("sample", export.get("output"))
            read[name] = Export(name, returns, str(export.get("description", "")), sample or None)
        return read

    def _node(self, name: str, node: JSON, depth: int) -> None:
        if depth > MAX_DEPTH or len(self.nodes) > MAX_NODES:
            raise QueryError(
                f"{self._title()}: node {name!r}: expected at most {MAX_NODES} nodes, nested {MAX_DEPTH} deep"
            )
        if not isinstance(node, Mapping) or "dispatch" not in node:
            self.nodes[name] = Node(name, "constant", {"value": self._inside(name, "value", node, depth)})
            return
        dispatch = node["dispatch"]
        if not isinstance(dispatch, str) or dispatch not in DISPATCHES:
            raise self._error(name, "dispatch", "one of " + ", ".join(DISPATCHES), dispatch)
        for required in DISPATCHES[dispatch]:
            if node.get(required) is None:
                raise self._error(name, required, "a value", None)
        for key, (kinds, expected) in _KINDS[dispatch].items():
            given = node.get(key)
            a_node = isinstance(given, Mapping) and "dispatch" in given and key != "func_kwargs"
            if given is not None and (a_node or not isinstance(given, kinds)):
                raise self._error(name, key, expected, given)
        if dispatch == "variable":
            self.nodes[name] = Node(
                name, "variable", {"value": self._variable(name, node["variable_name"], depth)}
            )
            return
        fields = {}
        for key, value in node.items():
            if key == "dispatch":
                continue
            if dispatch == "parameter":
                fields[key] = value
            elif dispatch in ("call", "map") and key in ("args", "kwargs", "func_kwargs"):
                fields[key] = self._inside(name, "", value, depth)
            else:
                fields[key] = self._inside(name, key, value, depth)
        self.nodes[name] = Node(name, dispatch, fields)

    def _inside(self, name: str, where: str, value: JSON, depth: int) -> JSON:
        """``value`` with each nested node replaced by a reference to it."""
        if depth > MAX_DEPTH:
            raise QueryError(f"{self._title()}: node {name!r}: nested more than {MAX_DEPTH} deep")
        if isinstance(value, Mapping):
            if "dispatch" in value:
                return self._nested(name, where, value, depth + 1)
            return {
                key: self._inside(name, f"{where}.{key}".strip("."), item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [
                self._inside(name, f"{where}.{place}".strip("."), item, depth + 1)
                for place, item in enumerate(value)
            ]
        return value

    def _nested(self, name: str, where: str, node: Mapping[str, JSON], depth: int) -> Ref:
        if node["dispatch"] == "variable" and isinstance(node.get("variable_name"), str):
            return self._variable(name, node["variable_name"], depth)
        try:
            same = msgspec.json.encode(node, order="deterministic")
        except RecursionError:
            raise QueryError(f"{self._title()}: node {name!r}: nested more than {MAX_DEPTH} deep") from None
        except (TypeError, msgspec.EncodeError) as error:
            raise QueryError(
                f"{self._title()}: node {name!r}, field {where!r}: expected JSON: {error}"
            ) from None
        if same not in self.seen:
            inner = f"{name}.{where}" if where else name
            while inner in self.nodes:
                inner += "_"
            self.nodes[inner] = Node(inner, "constant")
            self.seen[same] = inner
            self._node(inner, node, depth)
        return Ref(self.seen[same])

    def _variable(self, name: str, variable: JSON, depth: int) -> Ref:
        if not isinstance(variable, str):
            raise self._error(name, "variable_name", "the name of a node", variable)
        if variable not in self.nodes and self.other is not None:
            found = self.other(variable)
            if found is not None:
                return self._adopt(*found)
        return Ref(variable)

    def _adopt(self, dag: Dag, target: str) -> Ref:
        """Take the node of another DAG in, with all that it needs."""
        names = {name: f"{dag.name}.{name}" for name in dag.needed([target])}
        for name, full in names.items():
            node = dag.nodes[name]
            self.nodes[full] = Node(full, node.dispatch, _renamed(node.fields, names))
        return Ref(names[target])

    def _error(self, node: str, field_name: str, expected: str, got: JSON) -> QueryError:
        where = f"node {node!r}, field {field_name!r}" if field_name else node
        came = "nothing" if got is None else repr(got)[:80]
        return QueryError(f"{self._title()}: {where}: expected {expected}, got {came}")

    def _title(self) -> str:
        return f"query {self.name!r}" if self.name else "query"


def _refs(value: JSON, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Ref):
        yield where, value.node
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _refs(item, f"{where}.{key}".strip("."))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _refs(item, f"{where}.{place}".strip("."))


def _renamed(value: JSON, names: Mapping[str, str]) -> JSON:
    if isinstance(value, Ref):
        return Ref(names[value.node])
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value
