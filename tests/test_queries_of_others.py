"""Queries that use nodes of another DAG, or whose DAG gives way to another, answer as things are now."""

from __future__ import annotations

from typing import Any

import pytest
from query_parts import Parts

from lo_kernel.errors import QueryError
from lo_kernel.query.language import q
from lo_kernel.query.subscription import Subscription


def dag_of(name: str, node: Any) -> dict[str, Any]:
    """A DAG of one export."""
    return {"execution_dag": {name: node}, "exports": {name: {"returns": name}}}


async def value(subscription: Subscription) -> Any:
    """What the next update says."""
    return [change.value["output"] for change in (await anext(subscription)).changes]


async def test_a_dag_follows_what_it_uses() -> None:
    """Where a DAG is replaced, those that use it answer anew, also over a third, and open ones are told."""
    parts = Parts()
    parts.catalog.add("base", dag_of("n", "one"))
    parts.catalog.add("user", dag_of("x", q.variable("base.n")))
    parts.catalog.add("third", dag_of("y", q.variable("user.x")))
    third = q.variable("third.y")
    async with parts.live.subscribe("third", ["y"]) as named, parts.live.subscribe(third) as written:
        assert await value(named) == await value(written) == ["one"]
        parts.catalog.add("base", dag_of("n", "two"))
        assert await parts.executor.run("third") == {"y": "two"}
        assert await value(named) == await value(written) == ["two"]
        async with parts.live.subscribe(third) as later:
            assert await value(later) == ["two"]


async def test_a_dag_outlives_what_it_used() -> None:
    """Where a DAG is taken away, those that use it answer as before, until it is there again."""
    parts = Parts()
    parts.catalog.add("base", dag_of("n", "one"))
    parts.catalog.add("user", dag_of("x", q.variable("base.n")))
    parts.catalog.remove("base")
    assert await parts.executor.run("user") == {"x": "one"}
    parts.catalog.add("base", dag_of("n", "two"))
    assert await parts.executor.run("user") == {"x": "two"}


async def test_who_asks_for_a_dag_has_that_one() -> None:
    """An open query that went over to another DAG of its export's name isn't the answer of its first one."""
    parts = Parts()
    parts.catalog.add("a", dag_of("c", "of a"))
    async with parts.live.subscribe("c") as moved:
        assert await value(moved) == ["of a"]
        parts.catalog.add("b", dag_of("c", "of b"))
        parts.catalog.remove("a")
        assert await value(moved) == ["of b"]
        parts.catalog.add("a", dag_of("c", "of a again"))
        async with parts.live.subscribe("a.c") as asked:
            assert await value(asked) == ["of a again"]
            assert len(parts.live) == 2
    assert len(parts.live) == 0


async def test_a_new_parameter_parts_those_who_gave_different_ones() -> None:
    """Who shared an answer gets nobody else's when the query has a parameter of which they gave others."""
    parts = Parts()
    parts.catalog.add("a", dag_of("c", "for all"))
    first = parts.live.subscribe("a", ["c"], {"course_id": "1"})
    same = parts.live.subscribe("a", ["c"], {"course_id": "1"})
    other = parts.live.subscribe("a", ["c"], {"course_id": "2"})
    assert len(parts.live) == 1
    assert [await value(each) for each in (first, same, other)] == [["for all"]] * 3
    parts.catalog.add("a", dag_of("c", q.parameter("course_id")))
    assert await value(first) == await value(same) == ["1"]
    with pytest.raises(QueryError, match="the parameter 'course_id': ask again"):
        await anext(other)
    async with parts.live.subscribe("a", ["c"], {"course_id": "2"}) as again:
        assert await value(again) == ["2"]
    for each in (first, same, other):
        each.close()
    assert len(parts.live) == 0
