"""Queries and dashboards under the names that they have in the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.engine.keys import KeyField, Scope
from lo_kernel.errors import ExportError
from lo_kernel.query.dag import Dag
from lo_kernel.query.language import PROVENANCE_STUDENT, q

__all__ = ["Names", "dag_of", "normal", "panel_query", "reducer_query", "renamed_dashboard"]


@dataclass
class Names:
    """What is called how: of the package, by the names of the notebook."""

    module: str
    reducers: dict[str, str] = field(default_factory=dict)
    """Names of functions, by id."""
    dags: set[str] = field(default_factory=set)
    """Names of the DAGs that reducers of the notebook are in, such as ``jupyter-helper``."""
    queries: dict[str, str] = field(default_factory=dict)
    """Exports, by the name that a notebook asks for."""
    dags_of_queries: dict[str, Any] = field(default_factory=dict)
    """Exported queries as :func:`normal` has them, by name."""
    functions: dict[str, str] = field(default_factory=dict)
    """Published functions, by name."""

    def reducer(self, old: str) -> str | None:
        """The new id of a reducer."""
        name = self.reducers.get(old)
        return f"{self.module}.{name}" if name is not None else None

    def query(self, old: str) -> str | None:
        """The new name of a query."""
        if old in self.queries:
            return f"{self.module}.{self.queries[old]}"
        dag, _, export = old.rpartition(".")
        wanted = (export if dag in self.dags else old).removesuffix("_export")
        return self.reducer(wanted) or self.reducer(old)


def reducer_query(name: str, module: str, scope: Scope, sample: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Nodes and export of a reducer's own query: the class with each learner's state."""
    keys = f"{module}.{name}"
    if KeyField.STUDENT not in scope:
        nodes = {name: q.select(q.keys(keys), q.ALL)}
        return nodes, {name: {"returns": name, "parameters": [], "description": f"The states of {name}."}}
    joined = f"{name}_join_roster"
    nodes = {
        "roster": q.roster(),
        name: q.select(q.keys(keys, STUDENTS=q.variable("roster"), STUDENTS_path="user_id"), q.ALL),
        joined: q.join(q.variable(name), q.variable("roster"), PROVENANCE_STUDENT, "user_id"),
    }
    row = dict(sample) if isinstance(sample, dict) else {}
    export = {
        "returns": joined,
        "parameters": ["course_id"],
        "description": f"The latest state of {name} for each learner of a class.",
        "output": [{**row, "user_id": "tc-testcase-s1"}],
    }
    return nodes, {name: export}


def dag_of(
    names: Names, own: Iterable[tuple[dict[str, Any], dict[str, Any]]], queries: Mapping[str, Any]
) -> dict[str, Any]:
    """The package's ``EXECUTION_DAG``: reducers' own queries, and those of the notebook (DAGs by new
    name).
    """
    nodes: dict[str, Any] = {}
    exports: dict[str, Any] = {}
    for some_nodes, some_exports in own:
        nodes.update(some_nodes)
        exports.update(some_exports)
    for name, dag in queries.items():
        more, returns, about = _parts(name, dag)
        if returns == "result" and name not in more:  # what a single node is called by itself
            more = {name if old == returns else old: node for old, node in more.items()}
            returns = name
        taken = {old: old if nodes.get(old, node) == node else f"{name}_{old}" for old, node in more.items()}
        for old, node in more.items():
            nodes[taken[old]] = _renamed(node, names, taken, f"the query {name!r}")
        exports[name] = {**about, "returns": taken[returns]}
    if "roster" not in nodes and any("roster" in set(_variables(node)) for node in nodes.values()):
        nodes = {"roster": q.roster(), **nodes}
    return {"execution_dag": nodes, "exports": exports}


def _parts(name: str, dag: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Nodes, the node that is the answer, and what else is said of it."""
    if "dispatch" in dag:
        return {name: dag}, name, {}
    if "execution_dag" in dag:
        exports = dag.get("exports") or {}
        chosen = name if name in exports else next(iter(exports), None)
        if chosen is None or (name not in exports and len(exports) > 1):
            raise ExportError(f"the query {name!r}: expected a DAG with one export, got {sorted(exports)}")
        about = {key: value for key, value in exports[chosen].items() if key != "returns"}
        returns = exports[chosen]["returns"]
        return _needed(dag["execution_dag"], returns), returns, about
    used = {value for node in dag.values() for value in _variables(node)}
    ends = [each for each in dag if each not in used]
    if len(ends) != 1:
        raise ExportError(f"the query {name!r}: expected nodes of which one is the answer, got {sorted(dag)}")
    return dict(dag), ends[0], {}


def _needed(nodes: Mapping[str, Any], returns: str) -> dict[str, Any]:
    """Of a DAG's nodes those that an answer needs, in their order."""
    needed: set[str] = set()
    waiting = [returns]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            waiting += _variables(nodes[name])
    return {name: node for name, node in nodes.items() if name in needed}


def _variables(node: Any) -> Iterable[str]:
    if isinstance(node, Mapping):
        if node.get("dispatch") == "variable":
            yield node["variable_name"]
        for value in node.values():
            yield from _variables(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _variables(value)


def _renamed(node: Any, names: Names, local: Mapping[str, str], where: str) -> Any:
    if isinstance(node, list | tuple):
        return [_renamed(each, names, local, where) for each in node]
    if not isinstance(node, Mapping):
        return node
    if node == q.roster() and "roster" not in local:
        return q.variable("roster")
    new = {key: _renamed(value, names, local, where) for key, value in node.items()}
    dispatch = node.get("dispatch")
    if dispatch == "keys":
        found = names.reducer(node["function"])
        if found is None:
            raise ExportError(
                f"{where} reads the states of {node['function']!r}, which isn't exported: name it in "
                "reducers=[...]"
            )
        new["function"] = found
    elif dispatch in ("call", "map"):
        new["function_name"] = names.functions.get(node["function_name"], node["function_name"])
    elif dispatch == "variable":
        old = node["variable_name"]
        if old in local:
            new["variable_name"] = local[old]
        else:
            found = names.query(old)
            if found is None:
                raise ExportError(f"{where} needs {old!r} of another query: name that in queries=[...], too")
            new["variable_name"] = _answer_of(found.removeprefix(f"{names.module}."), names)
    return new


def _answer_of(export: str, names: Names) -> str:
    return f"{export}_join_roster" if export in names.reducers.values() else export


def renamed_dashboard(board: Dashboard, names: Names) -> dict[str, Any]:
    """A dashboard as JSON, its queries under their new names."""
    data = board.to_json()
    for number, panel in enumerate(data["panels"], 1):
        query = panel["query"]
        if isinstance(query, str):
            found = names.query(query)
            if found is None:
                raise ExportError(
                    f"the dashboard {board.id!r} shows {query!r}, which isn't exported: name it in "
                    "reducers=[...] or queries=[...], or leave the dashboard out"
                )
            panel["query"] = found
            panel.setdefault("title", query)
        else:
            name = panel_query(board.id, number)
            same = next((each for each, dag in names.dags_of_queries.items() if dag == normal(query)), name)
            panel["query"] = f"{names.module}.{same}"
    return data


def normal(dag: Any) -> Any:
    """A query in the form in which equal ones are equal."""
    return Dag.read(dag).to_json()


def panel_query(board: str, number: int) -> str:
    """What the query of a panel is called that is a DAG of its own."""
    return f"{board}_{number}".replace("-", "_")
