"""What asks: ``communication_protocol`` and its modules, ``queries``, ``rosters``, ``runtime``."""

from __future__ import annotations

import copy
import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import QueryError
from lo_kernel.query.dag import DISPATCHES, Dag
from lo_kernel.query.language import PROVENANCE_STUDENT, q

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["Answer", "exception", "executor", "integration", "queries", "query", "rosters", "runtime", "util"]


class SelectFields(enum.StrEnum):
    """Which fields a ``select`` gives."""

    Missing = "Missing"
    All = "All"


class DispatchModes:
    """The kinds of nodes, by name."""

    CALL = "call"
    JOIN = "join"
    KEYS = "keys"
    MAP = "map"
    PARAMETER = "parameter"
    SELECT = "select"
    VARIABLE = "variable"


class Answer(list[Any]):
    """The rows of one node. The field's older code reads them as a list, the newer one by ``async for``."""

    async def _each(self) -> AsyncIterator[Any]:
        for row in self:
            yield row

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._each()


class _Request:
    """What is handed to a query in the place of a web request."""

    def __init__(self, request: Any = None) -> None:
        self._request = request

    def get_request(self) -> Any:
        """What it was made with."""
        return self._request


def query(field: Field) -> dict[str, Any]:
    """``communication_protocol.query``: the builders, as functions of a module."""
    return {
        "DISPATCH_MODES": DispatchModes,
        "SelectFields": SelectFields,
        "dispatch": "dispatch",
        "dispatch_modes": list(DISPATCHES),
        "call": q.call,
        "join": _join,
        "keys": q.keys,
        "map": q.map,
        "parameter": q.parameter,
        "select": _select,
        "variable": q.variable,
    }


def util(field: Field) -> dict[str, Any]:
    """``communication_protocol.util``."""
    return {
        "dispatch": "dispatch",
        "flatten": _flatten,
        "generate_base_dag_for_student_reducer": _query_of_reducer,
    }


def integration(field: Field) -> dict[str, Any]:
    """``communication_protocol.integration``: functions for queries, and queries as functions."""

    def publish_function(name: str) -> Callable[[Any], Any]:
        """Make a function usable in queries; again under the same name, it is replaced."""

        def publish(function: Any) -> Any:
            field.bridge.call(lambda: field.runtime.functions.publish(name)(function))
            return function

        return publish

    def prepare_dag_execution(query: Any, targets: Sequence[str]) -> Callable[..., Any]:
        """A coroutine function of the query's parameters; it gives ``{node: rows}``."""
        wanted = copy.deepcopy(query)

        async def run(**parameters: Any) -> dict[str, Answer]:
            return await field.bridge.run(_answers(field, wanted, targets, parameters))

        return run

    def add_exports_to_module(execution_dag: Any, module: Any) -> None:
        """Give ``module`` a coroutine function for each export."""
        for name in execution_dag["exports"]:
            if hasattr(module, name):
                raise AttributeError(f"{module!r} has an attribute {name!r} already")
            setattr(module, name, prepare_dag_execution(execution_dag, [name]))

    return {
        "FUNCTIONS": _Published(field),
        "add_exports_to_module": add_exports_to_module,
        "prepare_dag_execution": prepare_dag_execution,
        "publish_function": publish_function,
    }


def executor(field: Field) -> dict[str, Any]:
    """``communication_protocol.executor``."""

    async def execute_dag(
        endpoint: Any, parameters: Mapping[str, Any], functions: Any, target_exports: Sequence[str]
    ) -> dict[str, Answer]:
        """Run a query; ``functions`` are those that are published, whatever is given."""
        return await field.bridge.run(_answers(field, endpoint, target_exports, parameters))

    return {"execute_dag": execute_dag}


def exception(field: Field) -> dict[str, Any]:
    """``communication_protocol.exception``."""
    return {"DAGExecutionException": QueryError}


def queries(field: Field) -> dict[str, Any]:
    """``queries``: ``await learning_observer.queries.my_module.my_export(course_id=...)``."""

    def find(name: str) -> Any:
        if name.startswith("__") or name not in field.runtime.catalog:
            raise AttributeError(f"there is no query {name!r}")
        return _Queries(field, name)

    return {"__getattr__": find}


def rosters(field: Field) -> dict[str, Any]:
    """``rosters``. Profiles are empty: names stay out of notebooks."""

    async def courselist(request: Any = None) -> list[Any]:
        """The courses."""
        return field.runtime.rosters.courses()

    async def courseroster(request: Any = None, course_id: Any = None) -> list[Any]:
        """The learners of a course."""
        return await field.bridge.run(_roster(field, None if course_id is None else str(course_id)))

    def init() -> None:
        """Do nothing: rosters are there."""

    return {"courselist": courselist, "courseroster": courseroster, "init": init}


def runtime(field: Field) -> dict[str, Any]:
    """``runtime``."""
    return {"Runtime": _Request}


class _Published(Mapping[str, Any]):
    """The published functions by name."""

    def __init__(self, field: Field) -> None:
        self._functions = field.runtime.functions

    def __getitem__(self, name: str) -> Any:
        if name not in self._functions:
            raise KeyError(name)
        return self._functions.get(name).function

    def __iter__(self) -> Any:
        return iter([function.name for function in self._functions])

    def __len__(self) -> int:
        return len(self._functions)


class _Queries:
    """The exports of a named query."""

    def __init__(self, field: Field, name: str) -> None:
        self._field = field
        self._name = name

    def __getattr__(self, export: str) -> Any:
        if export not in self._field.runtime.catalog.get(self._name).exports:
            raise AttributeError(f"the query {self._name!r} has no export {export!r}")

        async def run(**parameters: Any) -> dict[str, Answer]:
            return await self._field.bridge.run(_answers(self._field, self._name, [export], parameters))

        return run


async def _answers(
    field: Field, query: Any, targets: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, Answer]:
    """The answers by the node that each export returns, with provenance, as the field has them."""
    executor = field.runtime.executor
    found = await executor.run(query, targets, parameters, provenance=True)
    dag, _ = field.runtime.catalog.resolve(query, targets)
    return {dag.export(name).returns: _rows(value) for name, value in found.items()}


async def _roster(field: Field, course: str | None) -> list[Any]:
    """The learners of a course; it goes on record, as it does where a page asks for them."""
    rows = await field.runtime.rosters.roster(course)
    field.runtime.reads.record("roster", "the roster of a course", [str(row["user_id"]) for row in rows])
    return rows


def _rows(value: Any) -> Answer:
    return Answer(value if isinstance(value, list) else [value])


def _select(keys: Any, fields: Any = None) -> Any:
    return q.select(keys, str(fields) if isinstance(fields, SelectFields) else fields)


def _join(LEFT: Any, RIGHT: Any, LEFT_ON: Any = None, RIGHT_ON: Any = None) -> Any:
    return q.join(LEFT, RIGHT, LEFT_ON, RIGHT_ON)


def _flatten(endpoint: Any) -> Any:
    """A query whose nodes are all at the top: each nested one under the name of its place."""
    dag = Dag.read(endpoint)
    nodes = endpoint["execution_dag"]
    for name in list(nodes):
        nodes[name] = _outer(nodes, nodes[name], f"impl.{name}")
    assert set(dag.exports) <= set(endpoint.get("exports") or dag.exports)
    return endpoint


def _outer(nodes: dict[str, Any], value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        return value
    flat = {}
    for name, item in value.items():
        inner = f"{place}.{name}"
        if isinstance(item, dict) and "dispatch" in item and item["dispatch"] != "variable":
            nodes[inner] = _outer(nodes, item, inner)
            item = q.variable(inner)
        elif isinstance(item, dict) and "dispatch" not in item:
            item = _outer(nodes, item, inner)
        flat[name] = item
    return flat


def _query_of_reducer(reducer: str, module: str) -> dict[str, Any]:
    """The latest state of a reducer for each learner of a course, as the export ``<reducer>_export``."""
    keys, states, joined = f"{reducer}_keys", f"{reducer}_output", f"{reducer}_join_roster"
    course = q.parameter("course_id", required=True)
    nodes = {
        "roster": q.roster(course),
        keys: q.keys(f"{module}.{reducer}", STUDENTS=q.variable("roster"), STUDENTS_path="user_id"),
        states: q.select(q.variable(keys), q.ALL),
        joined: q.join(q.variable(states), q.variable("roster"), PROVENANCE_STUDENT, "user_id"),
    }
    export = {"returns": joined, "parameters": ["course_id"]}
    return {"execution_dag": nodes, "exports": {f"{reducer}_export": export}}
