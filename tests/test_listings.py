"""Lists of all states, and aggregates over rows with gaps: what is shown is what would be answered anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.query.language import q


async def test_an_error_that_becomes_another_is_told() -> None:
    """A row without an id says what it has instead, also when that changes while the query is open."""
    parts = Parts(Reducer("docs", scope=Scope([KeyField.STUDENT, EventField("doc_id")])))
    rows = [{"user_id": "tc-u0"}, {"name": 1}]
    parts.functions.publish("listed")(lambda: rows)
    parts.set("docs", "tc-u0", {"n": 1}, doc_id="d")
    query = q.select(q.keys("docs", STUDENTS=q.call("listed")(), STUDENTS_path="user_id"), q.ALL)
    async with parts.live.subscribe(query) as subscription:
        assert "got name" in (await anext(subscription)).changes[1].value["error"]
        rows[1] = {"other": 1}
        parts.functions.touch("listed")
        (change,) = (await anext(subscription)).changes
        assert change.path == "result.1"
        assert "got other" in change.value["error"]


@pytest.mark.parametrize(
    ("name", "more", "answer"),
    [
        ("top", [2], [{"n": 3}, {"n": 2}]),
        ("mean", [], 2),
        ("median", [], 2),
        ("sum", [], 6),
        ("count", [], 3),
        ("min", [], 1),
        ("max", [], 3),
    ],
)
async def test_what_is_no_number_does_not_count(name: str, more: list[Any], answer: Any) -> None:
    """NaN goes to a client as null, and is no more a value than that, wherever it stands among the rows."""
    parts = Parts()
    for place in range(4):
        rows = [{"n": 3}, {"n": 1}, {"n": 2}]
        rows.insert(place, {"n": math.nan})  # type: ignore[dict-item]
        assert parts.functions.get(name).function(rows, "n", *more) == answer
