"""Queries that no query should be: each is an error that says where, and never one of Python's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.app.protocol import QueryConnection
from lo_kernel.errors import LOError, QueryError
from lo_kernel.query.language import PROVENANCE_STUDENT, q

WRONG: tuple[Any, ...] = (
    None,
    5,
    [],
    ["x"],
    {},
    "",
    "no such",
    [1],
    [{}],
    (1,),
    {5},
    {1: 2},
    b"x",
    object(),
    "\ud83d",
    float("nan"),
    {"dispatch": []},
    {"dispatch": "parameter", "parameter_name": "p"},
    {"dispatch": "variable", "variable_name": "r"},
)


def small() -> Parts:
    """Two learners and a counting reducer."""
    return Parts(Reducer("counter", default={"n": 0}), people=2)


def whole() -> dict[str, Any]:
    """A query with every kind of node."""
    nodes = {
        "r": q.roster(q.parameter("course_id")),
        "k": q.keys("counter", STUDENTS=q.variable("r"), STUDENTS_path="user_id"),
        "s": q.select(q.variable("k"), {"n": "n"}),
        "j": q.join(q.variable("s"), q.variable("r"), PROVENANCE_STUDENT, "user_id"),
        "m": q.map("count", q.variable("j"), value_path="n", func_kwargs={"path": "x"}),
        "c": q.call("top")(q.variable("j"), "n", q.parameter("many", default=2)),
    }
    return {"execution_dag": nodes, "exports": {"a": {"returns": "m"}, "b": {"returns": "c"}}}


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*where, name))


def spoiled() -> Iterator[Any]:
    """The whole query with one thing in it that doesn't belong there."""
    for where in places(whole()):
        for wrong in WRONG:
            dag: Any = whole()
            if not where:
                yield wrong
                continue
            here = dag
            for name in where[:-1]:
                here = here[name]
            here[where[-1]] = copy.deepcopy(wrong) if type(wrong) is not object else wrong
            yield dag


async def test_whatever_is_wrong_with_a_query_is_an_error_of_ours() -> None:
    """Anything in any place of a query either runs, or is refused by an error that was written for it."""
    parts = small()
    refused = 0
    for dag in spoiled():
        for work in (parts.executor.run, parts.executor.rows):
            try:
                await work(dag)
            except LOError:
                refused += 1
        try:
            parts.executor.explain(dag)
        except LOError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("dag", "said"),
    [
        ({"dispatch": []}, r"node 'result', field 'dispatch': expected one of parameter, .*, got \[\]"),
        (
            {"dispatch": "parameter", "parameter_name": ["x"]},
            r"node 'result', field 'parameter_name': expected a name, got \['x'\]",
        ),
        (
            {"dispatch": "call", "function_name": ["x"]},
            r"node 'result', field 'function_name': expected a name, got \['x'\]",
        ),
        (
            {"dispatch": "call", "function_name": "count", "kwargs": [1]},
            r"node 'result', field 'kwargs': expected an object of values by name, got \[1\]",
        ),
        (
            {"dispatch": "call", "function_name": "count", "args": 5},
            r"node 'result', field 'args': expected a list of values, got 5",
        ),
        (
            {"execution_dag": {"a": 5}, "exports": {}},
            r"expected an export to answer, got none; there are",
        ),
        (
            {"dispatch": "call", "function_name": "count", "args": [[{"a": "\ud83d"}]]},
            r"query: at 'args.0.0.a': expected text, got half of a character: '\\ud83d'",
        ),
        ({"execution_dag": {5: 1}}, r"at 'execution_dag': expected names that are text, got 5"),
    ],
)
def test_a_malformed_node_names_itself_field_and_what_was_expected(dag: Any, said: str) -> None:
    """What is wrong is said in the query's own words, before anything runs."""
    with pytest.raises(QueryError, match=said):
        small().executor.prepare_one(dag)


async def test_a_parameter_that_is_half_a_character_is_refused_by_its_name() -> None:
    """A value that no key can hold is an error, and not a row of errors."""
    with pytest.raises(QueryError, match="parameters: at 'course_id': expected text, got half"):
        await small().executor.rows(q.latest("counter"), {"course_id": "\ud83d"})


async def test_a_client_hears_what_is_wrong_with_its_query() -> None:
    """Over the wire a malformed query, and one that asks for nothing, is an error under its own name."""
    parts = small()
    parts.catalog.add("m", whole())
    frames: list[Any] = []

    async def send(frame: bytes) -> None:
        frames.extend(json.loads(frame))

    connection = QueryConnection(parts.live, send, open_queries=True)
    for query, said in (
        ({"execution_dag": {"dispatch": []}}, "field 'dispatch': expected one of"),
        (
            {"execution_dag": "m", "target_exports": []},
            "expected at least one name",
        ),
        (
            {"execution_dag": {"dispatch": "call", "function_name": "count", "args": 5}},
            "field 'args'",
        ),
        (
            {"execution_dag": {"execution_dag": {"a": 5}, "exports": {}}},
            "expected an export to answer, got none",
        ),
    ):
        await connection.receive(json.dumps({"q": query}))
        while connection._tasks:
            await next(iter(connection._tasks))
        (message,) = frames
        assert (message["op"], message["path"]) == ("error", "q")
        assert said in message["value"]["error"]
        frames.clear()
    assert not parts.errors
    await connection.close()
