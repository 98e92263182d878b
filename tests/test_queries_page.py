"""What the page of queries is given: the list, the drawing, the check of a DAG; and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from apps import running_app
from page_parts import send
from test_dashboard_page import count

from lo_kernel.query.language import q
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

BEST = q.call("top")(q.latest("count"), "count", q.parameter("n", required=True))
MODULE = {
    "execution_dag": {"best": BEST, "mean": q.call("mean")(q.latest("count"), "count")},
    "exports": {
        "best": {
            "returns": "best",
            "description": "Who sent most.",
            "sample": [{"user_id": "tc-u", "count": 3}],
        },
        "mean": {"returns": "mean"},
    },
}


def add_queries(runtime: Runtime) -> None:
    """A reducer with its query, and a module with two."""
    runtime.add_reducer("count", count, module="page_tests")
    runtime.catalog.add("my_module", MODULE)


@asynccontextmanager
async def asking(
    settings: Settings, kind: str = "read"
) -> AsyncIterator[tuple[Runtime, aiohttp.ClientSession]]:
    """The app with queries, and a client with a token of this kind."""
    async with running_app(settings) as runtime:
        add_queries(runtime)
        headers = {"Authorization": f"Bearer {runtime.security.tokens[kind]}"}
        async with aiohttp.ClientSession(runtime.url, headers=headers) as client:
            yield runtime, client


async def _check(client: aiohttp.ClientSession, dag: Any) -> tuple[int, dict[str, Any]]:
    async with client.post("/queries/check", json=dag) as answer:
        return answer.status, await answer.json()


async def test_every_query_is_listed_with_what_it_takes_and_gives(settings: Settings) -> None:
    """The list has each export with its description, its sample, and each parameter's type and need."""
    async with asking(settings) as (_, client), client.get("/queries.json") as answer:
        listed = {query["name"]: query for query in (await answer.json())["queries"]}
    assert set(listed) == {"page_tests.count", "my_module.best", "my_module.mean"}
    best = listed["my_module.best"]
    assert best["description"] == "Who sent most."
    assert best["sample"] == [{"user_id": "tc-u", "count": 3}]
    assert best["parameters"] == [
        {"name": "course_id", "required": False, "default": None, "type": "text", "offer": "courses"},
        {"name": "n", "required": True, "default": None, "type": "number", "offer": ""},
    ]


async def test_a_query_is_drawn_with_the_times_of_its_last_run(settings: Settings) -> None:
    """The drawing is the one of lo.explain; before a run it has no times, after it those of that export."""
    async with asking(settings) as (runtime, client):
        path = "/queries/drawing?query=my_module.mean"
        async with client.get(path) as answer:
            before = await answer.json()
        await runtime.executor.run("my_module", ["mean"])
        await runtime.executor.run("my_module", ["best"], {"n": 1})
        async with client.get(path) as answer:
            after = await answer.json()
        assert after["svg"] == runtime.executor.explain("my_module", ["mean"]).svg()
        assert after["dag"] == runtime.catalog.get("my_module").to_json()
    assert before["seconds"] is None
    assert after["seconds"] > 0
    assert all(node["seconds"] is not None for node in after["nodes"])
    assert [node["node"] for node in after["nodes"] if node["answer"]] == ["mean"]
    assert "best" not in {node["node"] for node in after["nodes"]}


async def test_a_paused_reducer_is_said_to_be_one(settings: Settings) -> None:
    """The drawing comes with how the reducers do that the query reads: a paused one has old states."""
    kept = replace(settings, store="sqlite")
    async with asking(kept) as (runtime, _):
        await runtime.registry.get("count").ready()
        await send(runtime, "ann")
        await runtime.pipeline.commit()
    async with running_app(kept) as runtime:
        headers = {"Authorization": f"Bearer {runtime.security.tokens['read']}"}
        async with (
            aiohttp.ClientSession(runtime.url, headers=headers) as client,
            client.get("/queries/drawing?query=page_tests.count") as answer,
        ):
            reducers = (await answer.json())["reducers"]
    assert [(one["id"], one["status"]) for one in reducers] == [("count", "paused")]


async def test_a_query_that_is_not_there_is_an_error_that_lists_what_is(settings: Settings) -> None:
    """The drawing of an unknown query is refused with the names of those that are there."""
    async with asking(settings) as (_, client), client.get("/queries/drawing?query=nope") as answer:
        assert answer.status == 404
        assert "my_module.best" in (await answer.json())["error"]


async def test_a_dag_is_built_for_who_holds_the_notebooks_token(settings: Settings) -> None:
    """A DAG that can run comes back with its answers, their parameters, and the drawing."""
    async with asking(settings, "notebook") as (_, client):
        status, found = await _check(client, {"execution_dag": {"best": BEST}})
    assert status == 200
    assert [one["export"] for one in found["exports"]] == ["best"]
    assert [one["name"] for one in found["exports"][0]["parameters"]] == ["course_id", "n"]
    assert found["drawing"]["svg"].startswith("<svg")


async def test_a_mistake_in_a_dag_names_node_and_field(settings: Settings) -> None:
    """The check says which node and field is wrong and what was expected, for every kind of mistake."""
    wrong: dict[str, Any] = {
        "field 'STUDENTS_path'": q.select(q.keys("count", STUDENTS=q.roster(), STUDENTS_path="id"), q.ALL),
        "node 'a', field 'function_name'": {"a": {"dispatch": "call", "function_name": "nope"}},
        "there is no published function 'nope'": {"a": {"dispatch": "call", "function_name": "nope"}},
        "node 'a', field 'dispatch'": {"a": {"dispatch": "nope"}},
        "a cycle": {"a": q.variable("b"), "b": q.variable("a")},
        "which isn't there": {"a": q.variable("b")},
        "expected a JSON object": [1],
    }
    async with asking(settings, "notebook") as (_, client):
        for text, dag in wrong.items():
            status, found = await _check(client, dag)
            assert (status, text in found["error"]) == (400, True), found
        async with client.post("/queries/check", data=b"{nope") as answer:
            assert "expected JSON" in (await answer.json())["error"]


async def test_a_dag_of_ones_own_is_refused_to_a_token_that_only_reads(settings: Settings) -> None:
    """With a read token the check is refused, and the page isn't told that it may write."""
    async with asking(settings) as (runtime, client):
        status, found = await _check(client, {"a": 1})
        assert status == 403
        assert "not good for this" in found["error"]
        async with client.get("/queries") as answer:
            assert '"open":false' in await answer.text()
        async with client.get(f"/queries?token={runtime.workspace.tokens['notebook']}") as answer:
            assert '"open":true' in await answer.text()
        async with client.get(f"/queries?token={runtime.workspace.tokens['ingest']}") as answer:
            assert answer.status == 403


async def test_the_page_has_the_policy_of_the_others_and_nothing_of_its_own_in_it(settings: Settings) -> None:
    """No inline script or style, no other site, and text of a query that could end an element doesn't."""
    async with asking(settings) as (runtime, client):
        runtime.catalog.add("evil", {"a": {"dispatch": "call", "function_name": "count", "args": [[]]}})
        source = {"execution_dag": {"</script><b>": 1}, "exports": {"</script>": {"returns": "</script><b>"}}}
        runtime.catalog.add("evil", source)
        async with client.get("/queries") as answer:
            page = await answer.text()
            policy = answer.headers["Content-Security-Policy"]
        async with client.get("/") as home:
            assert home.headers["Content-Security-Policy"] == policy
            assert 'href="./queries"' in await home.text()
        async with client.get("/queries/drawing?query=evil") as answer:
            svg = (await answer.json())["svg"]
    assert "</script><b>" not in page
    assert "<b>" not in svg
    assert "http" not in page
    assert "<style" not in page
    assert " style=" not in page


async def test_a_reading_through_the_page_is_on_record(settings: Settings) -> None:
    """Neither the list nor the drawing reads anybody's data; what the page asks for is recorded as ever."""
    async with asking(settings) as (runtime, client):
        records: list[tuple[str, list[str]]] = []
        reads = runtime.executor.reads
        assert reads is not None
        reads.record = lambda kind, what, learners: records.append((what, list(learners)))  # type: ignore[method-assign]
        await send(runtime, "ann")
        for path in ("/queries", "/queries.json", "/queries/drawing?query=my_module.mean"):
            async with client.get(path) as answer:
                assert answer.status == 200
        assert not records
        async with client.ws_connect("/wsapi/communication_protocol") as ws:
            query = {
                "execution_dag": "my_module",
                "target_exports": ["mean"],
                "kwargs": {"rerun_dag_delay": -1},
            }
            await ws.send_json({"q": query})
            await ws.receive_json(timeout=5)
        assert records == [("my_module: mean", ["tc-testcase-ann"])]
