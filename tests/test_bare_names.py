"""Bare names in a notebook beside the module that was made of it: its own come first."""

from __future__ import annotations

from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.app.dashboards import Dashboard, Dashboards
from lo_kernel.errors import UnknownQueryError
from lo_kernel.query.language import q
from lo_kernel.query.live import LiveQueries


def beside(module: str) -> Parts:
    """A notebook with a reducer ``n``, and the module that it was exported as, in the same environment."""
    exported = Reducer(f"{module}.n", default={"of": "module"}, module=module)
    own = Reducer("n", default={"of": "notebook"}, module="jupyter-helper")
    parts = Parts(exported, own, people=1)
    parts.catalog.add(
        module, {"execution_dag": {"n": q.latest(f"{module}.n")}, "exports": {"n": {"returns": "n"}}}
    )
    parts.catalog.add_reducer(exported, module)
    parts.catalog.add_reducer(own, "jupyter-helper")
    return parts


async def of(parts: Parts, query: Any) -> Any:
    """Whose the answer is."""
    ((row),) = await parts.executor.rows(query)
    return row["of"]


@pytest.mark.parametrize("module", ["my_module", "n"])
async def test_a_bare_name_is_the_notebooks_own(module: str) -> None:
    """The reducer that is registered under the name answers, also where the module itself is called so."""
    parts = beside(module)
    assert await of(parts, "n") == "notebook"
    assert await of(parts, "jupyter-helper.n") == "notebook"
    assert await of(parts, f"{module}.n") == "module"
    boards = Dashboards(parts.executor, parts.catalog, parts.functions)
    boards.add(Dashboard.of("n"))
    assert [query.dag for query in boards.queries("n")] == ["jupyter-helper"]


async def test_over_the_wire_a_name_is_a_dag() -> None:
    """Who names a DAG gets all its answers, whatever a reducer in a notebook is called."""
    parts = beside("n")
    assert await parts.executor.run("n") == {"n": [{"of": "module", "user_id": "tc-u0", "profile": {}}]}
    assert parts.executor.prepare("n", ["n"], {}).dag.name == "n"


async def test_without_its_reducer_the_name_is_the_modules() -> None:
    """The module answers where the notebook has none of this name; where two modules have, they are named."""
    parts = beside("my_module")
    parts.catalog.remove_reducer("n", "jupyter-helper")
    assert await of(parts, "n") == "module"
    parts.catalog.add(
        "other", {"execution_dag": {"n": q.latest("my_module.n")}, "exports": {"n": {"returns": "n"}}}
    )
    with pytest.raises(UnknownQueryError, match=r"say which: my_module\.n, other\.n"):
        parts.catalog.resolve("n")


async def test_a_full_name_is_the_modules_export() -> None:
    """A module's export answers to its full name, also where its reducer has that for its id."""
    reducer = Reducer("my_mod.activity", default={"of": "reducer"}, module="my_mod")
    parts = Parts(reducer, people=1)
    export = {"returns": "favourite"}
    favourite = {"favourite": q.select(q.keys("my_mod.activity"), q.ALL)}
    parts.catalog.add("my_mod", {"execution_dag": favourite, "exports": {"activity": export}})
    parts.catalog.add_reducer(reducer, "my_mod")
    for dags_first in (False, True):
        dag, exports = parts.catalog.resolve("my_mod.activity", dags_first=dags_first)
        assert (dag.name, exports) == ("my_mod", ["activity"])
        dag, exports = parts.catalog.resolve("my_mod.my_mod.activity", dags_first=dags_first)
        assert (dag.name, exports) == ("my_mod", ["my_mod.activity"])
    boards = Dashboards(parts.executor, parts.catalog, parts.functions)
    boards.add(Dashboard.of("my_mod.activity"))
    assert [(query.dag, query.export) for query in boards.queries("my-mod-activity")] == [
        ("my_mod", "activity")
    ]
    assert "my_mod.activity" in [info.name for info in parts.catalog]


async def test_a_chart_finds_the_computation_of_its_own_query() -> None:
    """Who looks at a module's answer computes nothing for the reducer that is called as the module is."""
    parts = beside("n")
    live = LiveQueries(parts.executor, parts.states)
    async with live.subscribe("n.n", strict=True) as looking:
        await anext(aiter(looking))
        source = live.source("n")
        assert [row["of"] for row in await source.now()] == ["notebook"]
        assert [row["of"] for row in await source.rows()] == ["notebook"]
        assert live.find("n") is None
        assert live.find("n.n") is looking.shared
    live.close()


async def test_a_name_is_looked_up_while_others_come() -> None:
    """A DAG that is added on another thread meanwhile doesn't end the search."""
    parts = beside("my_module")

    class Added(str):
        """A name that adds a DAG when it is compared."""

        __slots__ = ()

        def startswith(self, *given: Any) -> bool:
            """As of a text, and one DAG more."""
            name = f"added{len(parts.catalog)}"
            parts.catalog.add(name, {"execution_dag": {"x": 1}, "exports": {"x": {"returns": "x"}}})
            return super().startswith(*given)

    assert parts.catalog.resolve(Added("jupyter-helper.n"))[0].name == "jupyter-helper"
    assert parts.catalog.node_of(Added("jupyter-helper.n")) is not None
