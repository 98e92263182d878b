"""What is to be exported: reducers, queries and dashboards, under the names that they get."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.engine.keys import EventField, Scope
from lo_kernel.errors import ExportError
from lo_kernel.notebook.export.dags import (
    Names,
    dag_of,
    normal,
    panel_query,
    reducer_query,
    renamed_dashboard,
)
from lo_kernel.notebook.export.reach import Problem, Reach, Reached
from lo_kernel.notebook.export.shipping import check_memory, check_source

__all__ = ["Plan", "Wanted", "check_name", "make_plan", "raise_problems", "scope_code"]


@dataclass
class Wanted:
    """A reducer to be exported: the name its function has, and how it is registered."""

    name: str
    id: str
    context: str | None
    scope: Scope
    null_state: Any = None
    default: Any = None
    function: Any = None
    module: str = "jupyter-helper"


@dataclass
class Plan:
    """Everything that the files are written from."""

    name: str
    reach: Reach
    reducers: list[Wanted]
    functions: dict[str, str]
    """Functions by the name under which they are published in the package."""
    dag: dict[str, Any]
    dashboards: list[dict[str, Any]]
    code: Reached
    """What the reducers reach."""
    more: Reached
    """What the published functions reach besides."""
    notes: list[str] = field(default_factory=list)


def check_name(name: object) -> None:
    """Raise :class:`ExportError` for what can't be a package's name."""
    from lo_kernel.modules.names import whose_name

    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or iskeyword(name):
        raise ExportError(
            f"the package's name: expected lower-case letters, digits and '_', such as 'my_module', got "
            f"{name!r}"
        )
    if taken := whose_name(name):
        raise ExportError(f"the package's name: {taken}")


def raise_problems(problems: Sequence[Problem | str]) -> None:
    """One :class:`ExportError` for all of them."""
    told = list(dict.fromkeys(map(str, problems)))
    if len(told) == 1:
        raise ExportError(told[0])
    if told:
        raise ExportError(f"{len(told)} things can't be shipped:\n" + "\n".join(f"  {each}" for each in told))


def make_plan(
    name: str,
    reach: Reach,
    reducers: Sequence[Wanted],
    queries: Mapping[str, Any],
    dashboards: Sequence[Dashboard],
    published: Mapping[str, str],
    memory: Mapping[str, Any] | None,
) -> Plan:
    """Find out what has to come along; raises :class:`ExportError` with everything that can't.

    ``queries`` are DAGs by name, ``published`` names of functions by the name they are published under.
    """
    check_name(name)
    if not reducers:
        raise ExportError(
            "there is nothing to export: no reducer of this notebook is registered. Run the cell with "
            "@lo.reducer(...) or add_reducer_to_lo(...) first, or name functions in reducers=[...]"
        )
    doubled = {each.name for each in reducers if [other.name for other in reducers].count(each.name) > 1}
    if doubled:
        raise ExportError(f"the function {doubled.pop()!r} is registered under two ids: export one of them")
    given = {query: normal(dag) for query, dag in queries.items()}
    inline = {
        panel_query(board.id, number): dag
        for board in dashboards
        for number, panel in enumerate(board.panels, 1)
        if not isinstance(panel.query, str) and (dag := normal(panel.query)) not in given.values()
    }
    wanted = {**given, **inline}
    called = {each for dag in wanted.values() for each in _called(dag)}
    for variable in sorted(called & set(published)):
        if reach.binder(published[variable]) is None:
            raise_problems(reach.collect([published[variable]]).problems)
    functions = {
        old: old if old.startswith(f"{name}.") else f"{name}.{old.rpartition('.')[2]}"
        for old in sorted(called & set(published))
    }
    names = Names(
        name,
        {each.id: each.name for each in reducers},
        {each.module for each in reducers},
        {**{each: each for each in wanted}},
        wanted,
        functions,
    )
    own = [
        reducer_query(each.name, name, each.scope, each.null_state if each.default is None else each.default)
        for each in reducers
    ]
    dag = dag_of(names, own, wanted)
    boards = [renamed_dashboard(board, names) for board in dashboards]
    for each in reducers:
        reach.declare(each.name, "" if each.scope.names == ("STUDENT",) else scope_code(each.scope))
    code = reach.collect([each.name for each in reducers])
    more = reach.collect([published[old] for old in functions])
    problems: list[Problem] = []
    for part in (code, more):
        problems += part.problems
        problems += check_source(part, reach.notebook.folder)
        if memory is not None:
            problems += check_memory(reach, part, memory)
    raise_problems(problems)
    _only_the_rest(more, code)
    return Plan(
        name,
        reach,
        list(reducers),
        {functions[old]: published[old] for old in functions},
        dag,
        boards,
        code,
        more,
        list(reach.notebook.notes),
    )


def _called(node: Any) -> set[str]:
    """Names of functions that a query calls."""
    if isinstance(node, Mapping):
        own = {node["function_name"]} if isinstance(node.get("function_name"), str) else set()
        return own.union(*(_called(value) for value in node.values()))
    if isinstance(node, list | tuple):
        return set().union(*(_called(value) for value in node)) if node else set()
    return set()


def _only_the_rest(more: Reached, code: Reached) -> None:
    """Leave out of ``more`` what ``code`` has; names used of it are then part of ``code``."""
    for unit in [unit for unit in more.units if unit in code.names and not unit.is_import]:
        code.names[unit] |= more.names[unit]
        more.units.remove(unit)


def scope_code(scope: Scope) -> str:
    """A scope as code.

    >>> from lo_kernel.engine.keys import KeyField
    >>> scope_code(Scope([KeyField.STUDENT, EventField("doc_id")]))
    'Scope([EventField("doc_id"), KeyField.STUDENT])'
    """
    fields = sorted(scope, key=lambda field: field.key_name)
    parts = [
        f'EventField("{each.event}")' if isinstance(each, EventField) else f"KeyField.{each.name}"
        for each in fields
    ]
    return f"Scope([{', '.join(parts)}])"
