"""What a client makes of all the changes it was sent is what it would get by asking anew."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from query_parts import Parts, Reducer

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.query.language import q
from lo_kernel.query.subscription import Subscription
from lo_kernel.query.updates import Update

LEARNERS = ["tc-u0", "tc-u1", "tc-u.2"]
ROSTER = {"STUDENTS": q.call("listed")(), "STUDENTS_path": "user_id"}
QUERY = {
    "execution_dag": {
        "all": q.select(q.keys("all", **ROSTER), q.ALL),
        "some": q.select(q.keys("some", **ROSTER), {"of.n": "of_some"}),
        "joined": q.join(
            q.variable("all"), q.call("listed")(), "provenance.provenance.STUDENT.user_id", "user_id"
        ),
        "mapped": q.map("mapped", q.variable("all")),
        "found": q.select(q.keys("docs"), q.ALL),
        "top": q.call("top")(q.variable("all"), "n", 2),
        "sum": q.call("sum")(q.variable("all"), "n"),
    },
    "exports": {
        name: {"returns": name} for name in ("all", "some", "joined", "mapped", "found", "top", "sum")
    },
}


def parts_of() -> tuple[Parts, list[str]]:
    """A class that is listed by hand, with two reducers of learners and one of their documents."""
    parts = Parts(
        Reducer("all", default={"n": 0}),
        Reducer("some", default={"of": {"n": None}}),
        Reducer("docs", scope=Scope([KeyField.STUDENT, EventField("doc_id")]), default={"n": 0}),
    )
    listed = list(LEARNERS)
    parts.functions.publish("listed")(lambda: [{"user_id": who, "profile": {}} for who in listed])

    @parts.functions.publish("mapped")
    def mapped(row: dict[str, Any]) -> Any:
        if row.get("n") == 2:
            raise ValueError("two")
        return {"twice": row.get("n"), "also": row.get("m")}

    return parts, listed


def merge(update: Update, into: dict[str, Any]) -> None:
    """Fields go under the path, as in the field's clients; an error takes the place of what was there."""
    for message in (message for frame in update.frames for message in json.loads(frame)):
        if message["op"] == "delete":
            into.pop(message["path"], None)
        else:
            into[message["path"]] = {**into.get(message["path"], {}), **message["value"]}


async def taken(subscription: Subscription, into: dict[str, Any]) -> dict[str, Any]:
    """All that waits for a reader."""
    while subscription.waiting:
        merge(await anext(subscription), into)
    return into


scalars = st.sampled_from([0, 1, 2, True, False, None, "", "é", 0.5, [0], [False], {"a.b": 1}, {"a.b": True}])
state_values = st.one_of(st.none(), st.dictionaries(st.sampled_from(["n", "m", "of"]), scalars, max_size=3))
steps = st.one_of(
    st.tuples(st.just("all"), st.sampled_from(LEARNERS), state_values),
    st.tuples(st.just("some"), st.sampled_from(LEARNERS), state_values),
    st.tuples(st.just("docs"), st.sampled_from(LEARNERS), state_values),
    st.tuples(st.just("listed"), st.lists(st.sampled_from(LEARNERS), max_size=4), st.none()),
    st.tuples(st.just("fails"), st.none(), st.none()),
    st.tuples(st.just("reads"), st.none(), st.none()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=12))
def test_changes_add_up(moves: list[tuple[str, Any, Any]]) -> None:
    """Whatever comes and goes, a reader who is slow and one who is quick have what a new one gets."""
    asyncio.run(asyncio.wait_for(_add_up(moves), 20))


async def _add_up(moves: list[tuple[str, Any, Any]]) -> None:
    parts, listed = parts_of()
    quick, slow = parts.live.subscribe(QUERY), parts.live.subscribe(QUERY, queue=1)
    shown: dict[str, Any] = {}
    late: dict[str, Any] = {}
    for what, who, value in moves:
        if what == "listed":
            listed[:] = who
            parts.functions.touch("listed")
        elif what == "fails":
            parts.states.fails = 1
        elif what == "reads":
            await taken(slow, late)
        elif value is None:
            more = {"doc_id": "d"} if what == "docs" else {}
            parts.set(what, who, {})
            parts.set(what, who, {"n": 1}, **more)
        else:
            parts.set(what, who, value, **({"doc_id": "d"} if what == "docs" else {}))
        await asyncio.sleep(0)
        await quick.settled()
        await taken(quick, shown)
    parts.states.fails = 0
    while not quick.shared.at_rest:
        await asyncio.sleep(0.01)
        await quick.settled()
    async with parts.live.subscribe(QUERY, None, {"unknown": 1}) as joined:
        now = await taken(joined, {})
    assert typed(await taken(quick, shown)) == typed(now)
    assert typed(await taken(slow, late)) == typed(now)
    parts.live.close()
    await quick.settled()
    async with parts.live.subscribe(QUERY) as anew:
        await anew.ready()
        fresh = await taken(anew, {})
    assert typed(fresh) == typed(now)


def typed(shown: dict[str, Any]) -> str:
    """As JSON, in which true is no number."""
    return json.dumps(shown, sort_keys=True)


async def test_a_number_that_becomes_true_is_a_change() -> None:
    """To Python ``True`` is 1; a client that showed a number is told."""
    parts = Parts(Reducer("all"))
    parts.set("all", "tc-u0", {"n": 1, "of": [0]})
    async with parts.live.subscribe(q.select(q.keys("all"), q.ALL)) as subscription:
        await anext(subscription)
        parts.set("all", "tc-u0", {"n": True, "of": [False]})
        (change,) = (await asyncio.wait_for(anext(subscription), 5)).changes
    assert change.value["n"] is True
    assert change.value["of"][0] is False
