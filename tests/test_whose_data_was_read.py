"""Whose data a query has read goes on record, by whichever way it came to them."""

from __future__ import annotations

from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.query.language import PROVENANCE_STUDENT, q

KEY = {"key": "Internal,m.a,STUDENT:tc-u0", "provenance": {}}


def one_learner() -> Parts:
    """A learner with a state."""
    parts = Parts(Reducer("a"), people=1)
    parts.set("a", "tc-u0", {"n": 5})
    return parts


async def test_who_comes_into_a_list_of_all_states_is_on_record() -> None:
    """Somebody new in an open query of all states is on record before the row goes out."""
    parts = one_learner()
    async with parts.live.subscribe(q.select(q.keys("a"), q.ALL)) as subscription:
        await anext(subscription)
        subscription.on_push = lambda: seen.append(parts.reads.records[-1][2])
        seen: list[list[str]] = []
        parts.set("a", "tc-u0", {"n": 6})
        await anext(subscription)
        assert len(parts.reads.records) == 1
        parts.set("a", "tc-new", {"n": 1})
        update = await anext(subscription)
    assert [change.path for change in update.changes] == ["students.tc-new"]
    assert seen[-1] == ["tc-new", "tc-u0"]


@pytest.mark.parametrize(
    "keys", [[KEY], q.call("keys")(), q.variable("mine")], ids=["written", "made", "named"]
)
async def test_a_state_by_its_key_is_on_record(keys: Any) -> None:
    """Keys that no ``keys`` node made are read like others, and it is on record whose they are."""
    parts = one_learner()
    parts.functions.publish("keys")(lambda: [dict(KEY)])
    dag = {
        "execution_dag": {"mine": q.call("keys")(), "it": q.select(keys, q.ALL)},
        "exports": {"it": {"returns": "it"}},
    }
    assert [row["n"] for row in await parts.executor.rows(dag)] == [5]
    assert parts.reads.records == [("query", "an open query: it", ["tc-u0"])]


async def test_a_roster_beside_some_states_is_on_record() -> None:
    """Who is in the answer by the roster alone is on record with those whose states were read."""
    parts = one_learner()
    states = q.select(q.keys("a", STUDENTS=["tc-else"]), q.ALL)
    rows = await parts.executor.rows(q.join(q.roster(), states, "user_id", PROVENANCE_STUDENT))
    assert [row["student"] for row in rows] == ["tc-u0"]
    assert parts.reads.records[-1][2] == ["tc-else", "tc-u0"]


async def test_a_function_that_gives_one_learner_is_on_record() -> None:
    """A row that is an answer by itself is as much on record as one of many."""
    parts = one_learner()
    parts.functions.publish("first")(lambda: {"user_id": "tc-u0", "n": 1})
    await parts.executor.rows(q.call("first")())
    assert parts.reads.records[-1][2] == ["tc-u0"]
