"""Checking a query before it runs: an error names node, field and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.dag import Dag, Node, Ref
from lo_kernel.query.functions import Function, Functions
from lo_kernel.query.ports import JSON, Reducers
from lo_kernel.query.relational import dimensions, find_reducer

__all__ = ["check"]

Schema = Mapping[str, Any] | None
"""Columns that are known: name to the columns inside, ``None`` where nothing is known."""

_FIELDS: Final = {
    "call": {"function_name", "args", "kwargs"},
    "select": {"keys", "fields"},
    "join": {"left", "right", "left_on", "right_on"},
    "map": {"function_name", "values", "value_path", "func_kwargs", "parallel"},
}


def check(
    dag: Dag,
    exports: Sequence[str],
    functions: Functions,
    reducers: Reducers,
    parameters: Mapping[str, JSON],
    *,
    strict: bool = False,
    paths: bool = True,
) -> None:
    """Raise :class:`QueryError` for the first thing that is wrong with a query.

    Unknown nodes and cycles, functions and reducers that aren't there, arguments and scope fields that
    don't fit, parameters missing (with ``strict``: unknown), and, with ``paths``, paths into rows whose
    columns are known.
    """
    targets = [dag.export(name) for name in exports]
    known = {parameter.name: parameter for export in targets for parameter in export.parameters}
    absent = [
        name for name, parameter in known.items() if parameter.required and parameters.get(name) is None
    ]
    if absent:
        raise QueryError(
            f"{_title(dag)}: expected a value for parameter {', '.join(map(repr, absent))}, got none; "
            f"give it as {absent[0]}=..."
        )
    if strict:
        unknown = [name for name in parameters if name not in known]
        if unknown:
            raise QueryError(
                f"{_title(dag)}: there is no parameter {', '.join(map(repr, unknown))}; "
                f"there are: {', '.join(known) or 'none'}"
            )
    schemas: dict[str, Schema] = {}
    for name in dag.needed(export.returns for export in targets):
        try:
            schemas[name] = _node(dag.nodes[name], schemas if paths else {}, functions, reducers)
        except QueryError as error:
            raise QueryError(f"{_title(dag)}: {error}") from None


def _node(node: Node, schemas: Mapping[str, Schema], functions: Functions, reducers: Reducers) -> Schema:
    allowed = _FIELDS.get(node.dispatch)
    if allowed is not None:
        unknown = sorted(set(node.fields) - allowed)
        if unknown:
            raise _error(node, unknown[0], "one of " + ", ".join(sorted(allowed)), unknown[0])
    if node.dispatch in ("variable", "constant"):
        return _schema(node.fields.get("value"), schemas)
    if node.dispatch == "call":
        function = _function(node, functions)
        wrong = function.check(node.fields.get("args") or [], node.fields.get("kwargs") or {})
        if wrong:
            raise QueryError(f"node {node.name!r}, field 'kwargs': {node.fields['function_name']}: {wrong}")
        return dict.fromkeys(function.columns) if function.columns else None
    if node.dispatch == "keys":
        return _keys(node, schemas, reducers)
    if node.dispatch == "select":
        return _select(node, schemas)
    if node.dispatch == "join":
        for side in ("left", "right"):
            _path(node, f"{side}_on", node.fields[f"{side}_on"], _schema(node.fields[side], schemas))
        left, right = _schema(node.fields["left"], schemas), _schema(node.fields["right"], schemas)
        return None if left is None or right is None else {**right, **left}
    if node.dispatch == "map":
        _function(node, functions)
        path = node.fields.get("value_path")
        if path is not None:
            _path(node, "value_path", path, _schema(node.fields["values"], schemas))
    return None


def _function(node: Node, functions: Functions) -> Function:
    name = node.fields["function_name"]
    if name not in functions:
        there = ", ".join(function.name for function in functions) or "none"
        raise QueryError(
            f"node {node.name!r}, field 'function_name': there is no published function {name!r}; "
            f"there are: {there}"
        )
    return functions.get(name)


def _keys(node: Node, schemas: Mapping[str, Schema], reducers: Reducers) -> Schema:
    function = node.fields["function"]
    if not isinstance(function, str):
        raise _error(node, "function", "the id of a reducer", function)
    try:
        registration = find_reducer(reducers, function)
    except LOError as error:
        raise QueryError(f"node {node.name!r}, field 'function': {error}") from None
    inside: dict[str, Any] = {}
    for one in dimensions(node, registration):
        columns = _schema(one.values, schemas) if one.given else {one.id_name: None}
        if one.path is not None:
            name = {"STUDENT": "STUDENTS", "RESOURCE": "RESOURCES"}.get(one.label, one.label)
            _path(node, f"{name}_path", one.path, columns)
        inside[one.label] = None if columns is None or "provenance" in columns else {"value": columns}
        if inside[one.label] is not None:
            inside[one.label] |= {one.id_name: None, **({one.path: None} if one.path else {})}
    return {"key": None, "default": None, "provenance": inside}


def _select(node: Node, schemas: Mapping[str, Schema]) -> Schema:
    keys = _schema(node.fields["keys"], schemas)
    if keys is not None and "key" not in keys:
        raise _error(node, "keys", "the keys of a 'keys' node", "rows with " + ", ".join(keys))
    fields = node.fields.get("fields")
    if isinstance(fields, Ref):
        return None
    if isinstance(fields, str) and fields not in ("All", "Missing"):
        raise _error(node, "fields", "{path: name}, 'All' or 'Missing'", fields)
    if isinstance(fields, dict):
        wrong = next((name for name in fields.values() if not isinstance(name, str | Ref)), None)
        if wrong is not None:
            raise _error(node, "fields", "a name for each path", wrong)
    elif fields is not None and not isinstance(fields, str):
        raise _error(node, "fields", "{path: name}, 'All' or 'Missing'", fields)
    if fields == "All":
        return None
    names = fields.values() if isinstance(fields, dict) else ()
    provenance = {"key": None, "provenance": keys["provenance"] if keys else None}
    return {"provenance": provenance, **dict.fromkeys(name for name in names if isinstance(name, str))}


def _schema(value: JSON, schemas: Mapping[str, Schema]) -> Schema:
    return schemas.get(value.node) if isinstance(value, Ref) else None


def _path(node: Node, field: str, path: JSON, schema: Schema) -> None:
    """Follow a path as far as the columns are known."""
    if isinstance(path, Ref):
        return
    if not isinstance(path, str) or not path:
        raise _error(node, field, "a dotted path", path)
    here: Any = schema
    walked: list[str] = []
    parts = path.split(".")
    for place, part in enumerate(parts):
        if here is None or ".".join(parts[place:]) in here:
            return
        if part not in here:
            where = f" at {'.'.join(walked)!r}" if walked else ""
            raise _error(node, field, f"a path to one of {', '.join(here)}{where}", path)
        here = here[part]
        walked.append(part)


def _error(node: Node, field: str, expected: str, got: JSON) -> QueryError:
    return QueryError(f"node {node.name!r}, field {field!r}: expected {expected}, got {got!r:.80}")


def _title(dag: Dag) -> str:
    return f"query {dag.name!r}" if dag.name else "query"
