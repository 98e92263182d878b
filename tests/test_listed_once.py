"""Queries of a module's reducers: each is listed once, under the name by which it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.notebook.export.dags import reducer_query
from lo_kernel.query.language import q

SCOPES = [
    Scope([KeyField.STUDENT]),
    Scope([KeyField.STUDENT, EventField("doc_id")]),
    Scope([KeyField.CLASS]),
]


def module_of(dag: Any, scope: Scope = SCOPES[0], default: Any = None) -> Parts:
    """An installed module `pace_module` with a reducer `pace` and this DAG, as the loader puts them in."""
    parts = Parts(Reducer("pace_module.pace", scope, {"n": 0} if default is None else default), people=2)
    parts.catalog.add_reducer(parts.reducers.get("pace_module.pace"), "pace_module")
    if dag is not None:
        parts.catalog.add("pace_module", dag)
    return parts


def listed(parts: Parts) -> list[str]:
    """The names that a person sees."""
    return [info.name for info in parts.catalog]


@pytest.mark.parametrize("scope", SCOPES, ids=["learner", "document", "class"])
def test_the_query_of_an_exported_reducer_is_listed_once(scope: Scope) -> None:
    """An exported module brings its reducer's query under `<module>.<reducer>`; no second name is shown."""
    nodes, exports = reducer_query("pace", "pace_module", scope, {"n": 0})
    parts = module_of({"execution_dag": nodes, "exports": exports}, scope)
    assert listed(parts) == ["pace_module.pace"]
    assert "pace_module.pace_module" not in repr(parts.catalog)


def test_a_reducer_without_a_query_of_its_module_has_the_modules_name_once() -> None:
    """A module that brings no DAG: the reducer's query is called as its id is."""
    assert listed(module_of(None)) == ["pace_module.pace"]


def test_a_query_that_answers_something_else_hides_no_reducer() -> None:
    """A module's own query under its reducer's name, with another answer: both can be seen and asked."""
    parts = module_of({"pace": q.call("mean")(q.latest("pace_module.pace"), "n")})
    assert listed(parts) == ["pace_module.pace", "pace_module.pace_module.pace"]


async def test_each_listed_name_answers_and_clients_names_still_do() -> None:
    """Every name of the list runs, alone and inside a DAG; so do exports as the field's clients name them."""
    nodes, exports = reducer_query("pace", "pace_module", SCOPES[0], {"n": 0})
    for parts in (module_of({"execution_dag": nodes, "exports": exports}), module_of(None)):
        parts.set("pace_module.pace", "tc-u1", {"n": 7})
        wanted = [{"student": "tc-u0", "n": 0}, {"student": "tc-u1", "n": 7}]
        for name in (*listed(parts), "pace_module.pace_module.pace", "pace_module"):
            assert await parts.executor.rows(name) == wanted
        total = q.call("sum")(q.variable("pace_module.pace"), "n")
        assert await parts.executor.rows(total) == [{"value": 7}]
        for export in ("pace_module.pace", "pace_module.pace_export"):
            answers = await parts.executor.run("pace_module", [export])
            assert [row["n"] for row in answers[export]] == [0, 7]
