"""Live queries: what is pushed, to whom, when; and that the short way gives what the long way gives."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from query_parts import Parts, Reducer, bare, naive
from waiting import auntil

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.errors import QueryError
from lo_kernel.query.language import PROVENANCE_STUDENT, q
from lo_kernel.query.live import QUEUE_UPDATES
from lo_kernel.query.rows import Rows
from lo_kernel.query.subscription import Subscription
from lo_kernel.query.updates import Update

LEARNERS = 4


def sent(update: Update) -> list[dict[str, Any]]:
    """The messages of an update, as a client reads them."""
    return [message for frame in update.frames for message in json.loads(frame)]


def merged(update: Update, into: dict[str, Any]) -> dict[str, Any]:
    """What a client of the field makes of an update: fields merged under the path."""
    for message in sent(update):
        if message["op"] == "delete":
            into.pop(message["path"], None)
        else:
            into[message["path"]] = {**into.get(message["path"], {}), **message["value"]}
    return into


async def soon(subscription: Subscription) -> Update:
    """The next update, within a time limit."""
    return await asyncio.wait_for(anext(subscription), 5)


def counting(people: int = LEARNERS) -> Parts:
    """A class with one counting reducer, and its query."""
    parts = Parts(Reducer("counter", default={"count": 0}), people=people)
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    return parts


async def test_everything_first_then_only_what_changed() -> None:
    """The first update has every learner; an event makes one of one row with the field that changed."""
    parts = counting()
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        first = sent(await soon(subscription))
        assert [message["path"] for message in first] == [f"students.tc-u{n}" for n in range(LEARNERS)]
        assert first[0]["value"] == {"count": 0, "user_id": "tc-u0", "profile": {}}
        parts.set("counter", "tc-u2", {"count": 1})
        assert sent(await soon(subscription)) == [
            {"op": "update", "path": "students.tc-u2", "value": {"count": 1}}
        ]


async def test_an_event_wakes_only_the_queries_that_read_it() -> None:
    """A change of a key that a query doesn't read makes it neither read nor send anything."""
    parts = Parts(Reducer("a", default={"n": 0}), Reducer("b", default={"n": 0}), people=3)
    async with (
        parts.live.subscribe(q.latest("a")) as of_a,
        parts.live.subscribe(q.latest("b")) as of_b,
    ):
        await soon(of_a)
        await soon(of_b)
        parts.states.reads.clear()
        parts.set("a", "tc-u1", {"n": 5})
        await soon(of_a)
        assert parts.states.reads == [["Internal,m.a,STUDENT:tc-u1"]]
        assert of_b.waiting == 0
        parts.set("a", "tc-stranger", {"n": 5})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(parts.states.reads) == 1


async def test_the_first_change_goes_at_once_and_the_next_together() -> None:
    """After a change the next ones wait for the frame; one update brings the newest of each row."""
    parts = counting()
    loop = asyncio.get_running_loop()
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        await soon(subscription)
        await asyncio.sleep(0.06)  # the frame of the first answer is over
        since = loop.time()
        parts.set("counter", "tc-u0", {"count": 1})
        await soon(subscription)
        assert loop.time() - since < 0.04
        for count in range(2, 30):
            parts.set("counter", "tc-u0", {"count": count})
            parts.set("counter", "tc-u1", {"count": count})
            await asyncio.sleep(0)
        update = sent(await soon(subscription))
        assert loop.time() - since >= 0.045
        assert update == [
            {"op": "update", "path": "students.tc-u0", "value": {"count": 29}},
            {"op": "update", "path": "students.tc-u1", "value": {"count": 29}},
        ]


async def test_all_who_ask_the_same_share_one_computation_and_one_encoding() -> None:
    """A hundred readers of one query cost one read of the store, and get the very same bytes."""
    parts = counting()
    subscriptions = [parts.live.subscribe("m", ["counter"], {"unused": n}) for n in range(100)]
    firsts = [await soon(subscription) for subscription in subscriptions]
    assert len(parts.live) == 1
    assert len(parts.states.reads) == 1
    assert all(first.frames is firsts[0].frames for first in firsts)
    parts.set("counter", "tc-u0", {"count": 1})
    updates = [await soon(subscription) for subscription in subscriptions]
    assert len(parts.states.reads) == 2
    assert all(update.frames is updates[0].frames for update in updates)
    for subscription in subscriptions:
        subscription.close()
    assert len(parts.live) == 0


async def test_other_parameters_and_names_are_not_shared() -> None:
    """Who may see names and who asks for another course never get each other's answers."""
    parts = counting()
    with_names = parts.live.subscribe("m", ["counter"], names=True)
    without = parts.live.subscribe("m", ["counter"])
    other = parts.live.subscribe("m", ["counter"], {"course_id": "2"})
    assert len(parts.live) == 3
    assert sent(await soon(with_names))[0]["value"]["profile"] == {"name": {"full_name": "u0"}}
    assert sent(await soon(without))[0]["value"]["profile"] == {}
    for subscription in (with_names, without, other):
        subscription.close()


async def test_a_slow_reader_gets_the_newest_state_when_it_returns() -> None:
    """Beyond its queue a slow reader gets each row once, as it is then, and the others lose nothing."""
    parts = counting()
    slow = parts.live.subscribe("m", ["counter"], queue=2)
    quick = parts.live.subscribe("m", ["counter"])
    seen = merged(await soon(quick), {})
    for count in range(1, 6):
        parts.set("counter", "tc-u1", {"count": count, f"only_{count}": True})
        merged(await soon(quick), seen)
    assert slow.waiting == 1
    caught_up = merged(await soon(slow), {"students.tc-u1": {"old": 1}})
    assert caught_up == seen
    assert caught_up["students.tc-u1"] == {"count": 5, "only_5": True, "user_id": "tc-u1", "profile": {}}
    parts.set("counter", "tc-u1", {"count": 6})
    assert merged(await soon(slow), caught_up)["students.tc-u1"]["count"] == 6
    slow.close()
    quick.close()


async def test_a_reader_who_never_reads_holds_no_more_than_its_queue() -> None:
    """What waits for a reader is bounded, however long it stays away."""
    parts = counting()
    slow = parts.live.subscribe("m", ["counter"], queue=1)
    quick = parts.live.subscribe("m", ["counter"])
    await soon(quick)
    for count in range(QUEUE_UPDATES):
        parts.set("counter", "tc-u0", {"count": count + 1})
        await soon(quick)
        assert slow.waiting <= 1
    slow.close()
    quick.close()


async def test_someone_new_appears_and_someone_erased_goes() -> None:
    """A learner who joins the class becomes a row of its own; one who is taken out is deleted."""
    parts = counting(people=2)
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        await soon(subscription)
        parts.people.add("tc-u9")
        assert [message["path"] for message in sent(await soon(subscription))] == ["students.tc-u9"]
        parts.set("counter", "tc-u9", {"count": 3})
        assert sent(await soon(subscription))[0]["value"] == {"count": 3}
        parts.people.remove("tc-u0")
        gone = await soon(subscription)
        assert gone.gone == ["students.tc-u0"]
        assert [message["op"] for message in sent(gone)] == ["delete"]


async def test_a_document_that_is_new_becomes_a_row() -> None:
    """With documents in the scope, the first event in a new one adds a row under the learner."""
    scope = Scope([KeyField.STUDENT, EventField("doc_id")])
    parts = Parts(Reducer("docs", scope=scope, default={"n": 0}), people=2)
    parts.catalog.add_reducer(parts.reducers.get("docs"), "m")
    parts.set("docs", "tc-u0", {"n": 1}, doc_id="essay")
    async with parts.live.subscribe("m", ["docs"]) as subscription:
        paths = [message["path"] for message in sent(await soon(subscription))]
        assert paths == ["students.tc-u0.documents.essay"]
        parts.set("docs", "tc-u1", {"n": 4}, doc_id="a.b")
        assert sent(await soon(subscription)) == [
            {
                "op": "update",
                "path": "students.tc-u1.documents.a%2Eb",
                "value": {"n": 4, "user_id": "tc-u1", "profile": {}},
            }
        ]


async def test_publishing_again_reruns_open_queries() -> None:
    """A function that is replaced in a notebook shows in the dashboards that use it."""
    parts = counting(people=1)

    @parts.functions.publish("scale")
    def scale(count: int) -> int:
        return count * 10

    parts.set("counter", "tc-u0", {"count": 2})
    async with parts.live.subscribe(q.map(scale, q.latest("counter"), value_path="count")) as subscription:
        assert sent(await soon(subscription))[0]["value"] == {"output": 20}

        @parts.functions.publish("scale")
        async def scale_again(count: int) -> int:
            return count * 100

        assert sent(await soon(subscription))[0]["value"] == {"output": 200}


async def test_a_dag_that_is_replaced_reaches_its_readers() -> None:
    """Readers of a named query get the new query's answer when its DAG is replaced."""
    parts = counting(people=1)
    roster = q.roster()
    keys = q.keys("counter", STUDENTS=roster, STUDENTS_path="user_id")
    parts.catalog.add("mine", {"answer": q.select(keys, {"count": "n"})})
    async with parts.live.subscribe("mine") as subscription:
        assert sent(await soon(subscription))[0]["value"] == {"n": 0}
        parts.catalog.add("mine", {"answer": q.select(keys, {"count": "m"})})
        messages = sent(await soon(subscription))
        assert messages[-1]["value"] == {"m": 0}
        assert messages[0]["op"] == "delete"


async def test_a_query_waits_for_a_reducer_that_goes_through_the_past() -> None:
    """Nothing is answered before the reducer is ready; then all of it is."""
    parts = Parts(Reducer("late", default={"n": 0}, gate=asyncio.Event()), people=1)
    subscription = parts.live.subscribe(q.latest("late"))
    await asyncio.sleep(0.01)
    assert not subscription.started
    parts.set("late", "tc-u0", {"n": 7})
    gate = parts.reducers.get("late").gate
    assert gate is not None
    gate.set()
    assert sent(await soon(subscription))[0]["value"]["n"] == 7
    subscription.close()


async def test_a_store_that_fails_is_told_and_read_again() -> None:
    """Readers are told that the store is out of reach, and get the answer when it is back."""
    parts = counting(people=1)
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        await soon(subscription)
        parts.states.fails = 1
        parts.set("counter", "tc-u0", {"count": 1})
        told = sent(await soon(subscription))
        assert [message["op"] for message in told] == ["error"]
        assert "OSError: the store is out of reach" in told[0]["value"]["error"]
        assert parts.errors == ["the store is out of reach"]
        back: dict[str, Any] = {}
        while "students.tc-u0" not in back:
            merged(await soon(subscription), back)
        assert back["students.tc-u0"]["count"] == 1


async def test_a_store_that_is_away_at_first_is_read_again() -> None:
    """A reader who comes while the store is out of reach is told, and gets everything when it is back."""
    parts = counting(people=2)
    parts.states.fails = 1
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        told = sent(await soon(subscription))
        assert [(message["op"], message["path"]) for message in told] == [("error", "counter")]
        whole = sent(await soon(subscription))
        assert [(message["op"], message["path"]) for message in whole] == [
            ("delete", "counter"),
            ("update", "students.tc-u0"),
            ("update", "students.tc-u1"),
        ]
        parts.set("counter", "tc-u0", {"count": 1})
        assert [message["value"] for message in sent(await soon(subscription))] == [{"count": 1}]


async def test_a_query_that_cannot_run_says_so_at_once() -> None:
    """A mistake in a query raises where it is asked, and nothing is left running."""
    parts = counting()
    with pytest.raises(QueryError, match="there is no export 'nope'"):
        parts.live.subscribe("m", ["nope"])
    assert len(parts.live) == 0


async def test_watch_gives_all_rows_then_changes() -> None:
    """`watch` is an async iterator of flat rows: all first, then those that changed."""
    parts = counting(people=2)
    changes = parts.live.watch("counter")
    first = await anext(changes)
    assert isinstance(first, Rows)
    assert first == [{"student": "tc-u0", "count": 0}, {"student": "tc-u1", "count": 0}]
    parts.set("counter", "tc-u1", {"count": 3})
    assert await anext(changes) == [{"student": "tc-u1", "count": 3}]
    await changes.aclose()  # type: ignore[attr-defined]
    assert len(parts.live) == 0


async def test_a_source_says_when_and_gives_the_rows_of_now() -> None:
    """What a chart uses: a call at each change, and rows that have all that happened before."""
    parts = counting(people=1)
    calls: list[int] = []
    source = parts.live.source("counter")
    end = source.subscribe(lambda: calls.append(1))
    await auntil(lambda: calls)
    for count in range(1, 4):
        parts.set("counter", "tc-u0", {"count": count})
        await asyncio.sleep(0)
    assert await source.rows() == [{"student": "tc-u0", "count": 3}]
    end()
    assert len(parts.live) == 0


async def test_reads_are_on_record_once_per_learner() -> None:
    """Who was read is put on record at the first answer, and again when somebody is new."""
    parts = counting(people=1)
    async with parts.live.subscribe("m", ["counter"]) as subscription:
        await soon(subscription)
        parts.set("counter", "tc-u0", {"count": 1})
        await soon(subscription)
        parts.people.add("tc-u1")
        await soon(subscription)
    assert parts.reads.records == [
        ("query", "m: counter", ["tc-u0"]),
        ("query", "m: counter", ["tc-u0", "tc-u1"]),
    ]


async def test_each_reader_of_a_shared_query_is_on_record() -> None:
    """Whoever joins a query that runs for another is on record too, in the context of who asked."""
    parts = counting(people=1)
    asking: ContextVar[str] = ContextVar("asking", default="nobody")
    seen: list[str] = []
    record = parts.reads.record

    def noted(kind: str, what: str, learners: Iterable[str]) -> None:
        seen.append(asking.get())
        record(kind, what, learners)

    parts.reads.record = noted  # type: ignore[method-assign]
    asking.set("first")
    async with parts.live.subscribe("m", ["counter"]) as first:
        await soon(first)
        asking.set("second")
        async with parts.live.subscribe("m", ["counter"]) as second:
            await soon(second)
            asking.set("nobody")
            parts.people.add("tc-u1")
            await soon(first)
    assert seen == ["first", "second", "first", "second"]


async def test_rows_beyond_the_first_of_a_learner_keep_a_path_of_their_own() -> None:
    """Several rows of one learner don't hide each other on the wire."""
    parts = Parts(Reducer("words", default={"words": []}), people=1)
    parts.set("words", "tc-u0", {"words": ["a", "b"]})
    states = q.select(q.keys("words", STUDENTS=q.roster(), STUDENTS_path="user_id"), q.ALL)
    async with parts.live.subscribe(q.call("unwind")(states, "words", "word")) as subscription:
        assert merged(await soon(subscription), {}) == {
            "students.tc-u0": {"word": "a"},
            "students.tc-u0.rows.1": {"word": "b"},
        }
        parts.set("words", "tc-u0", {"words": ["a"]})
        assert (await soon(subscription)).gone == ["students.tc-u0.rows.1"]


async def test_an_answer_that_is_no_rows_goes_under_its_export() -> None:
    """A number is pushed as `output` under the export's name, and only when it changes."""
    parts = counting(people=2)
    query = {"total": q.call("sum")(q.latest("counter"), "count")}
    async with parts.live.subscribe(query) as subscription:
        assert sent(await soon(subscription)) == [{"op": "update", "path": "total", "value": {"output": 0}}]
        parts.set("counter", "tc-u1", {"count": 2, "else": 1})
        assert sent(await soon(subscription))[0]["value"] == {"output": 2}


async def test_what_is_no_json_is_an_error_in_its_place() -> None:
    """A function whose answer can't be sent makes one error, and not the end of the query."""
    parts = counting(people=1)
    parts.functions.publish("odd")(lambda count: {"it": object()})
    async with parts.live.subscribe(q.map("odd", q.latest("counter"), value_path="count")) as subscription:
        (message,) = sent(await soon(subscription))
        assert (message["op"], message["path"]) == ("error", "students.tc-u0")
        assert "can't be written as JSON" in message["value"]["error"]


async def test_days_of_changes_leave_nothing_behind() -> None:
    """Ten thousand changes and a hundred readers who came and went leave no task, timer or object behind."""
    parts = counting(people=3)
    keeper = parts.live.subscribe("m", ["counter"])
    await soon(keeper)

    async def a_while() -> None:
        for number in range(50):
            async with parts.live.subscribe("m", ["counter"], {"course_id": str(number)}) as subscription:
                await soon(subscription)
            for _ in range(100):
                parts.set("counter", f"tc-u{number % 3}", {"count": number})
                await asyncio.sleep(0)
        while keeper.waiting:
            await soon(keeper)

    await a_while()
    gc.collect()
    before = len(gc.get_objects())
    await a_while()
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    keeper.close()

    called = asyncio.Event()

    async def waits(count: int) -> None:
        called.set()
        await asyncio.Event().wait()

    def tasks() -> list[str]:
        return [repr(task) for task in asyncio.all_tasks() if "Shared._" in repr(task)]

    parts.functions.publish("waits")(waits)
    held = parts.live.subscribe(q.map("waits", q.latest("counter"), value_path="count"))
    await asyncio.wait_for(called.wait(), 10)
    assert len(tasks()) == 1
    held.close()
    await auntil(lambda: not tasks())


# -- the short way gives what the long way gives --------------------------------------------------

_STATES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"count": st.integers(0, 3)},
        optional={"text": st.sampled_from(["a", "b", "boom"]), "doc": st.just("d")},
    ),
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("a"), st.integers(0, 5), _STATES),
        st.tuples(st.just("b"), st.integers(0, 5), _STATES),
        st.tuples(st.just("join"), st.integers(2, 5), st.none()),
        st.tuples(st.just("leave"), st.integers(0, 5), st.none()),
        st.tuples(st.just("docs"), st.integers(0, 5), _STATES),
    ),
    max_size=12,
)


def _dag() -> dict[str, Any]:
    """A DAG with every dispatch, and joins in both directions."""
    roster = q.variable("roster")
    return {
        "roster": q.roster(),
        "a": q.select(q.keys("a", STUDENTS=roster, STUDENTS_path="user_id"), {"count": "n", "text": "text"}),
        "all_b": q.select(q.keys("b", STUDENTS=roster, STUDENTS_path="user_id"), q.ALL),
        "docs": q.select(
            q.keys(
                "docs",
                STUDENTS=roster,
                STUDENTS_path="user_id",
                RESOURCES=q.variable("last"),
                RESOURCES_path="doc",
            ),
            {"count": "in_doc"},
        ),
        "last": q.select(q.keys("b", STUDENTS=roster, STUDENTS_path="user_id"), {"doc": "doc"}),
        "a_with_roster": q.join(q.variable("a"), roster, PROVENANCE_STUDENT, "user_id"),
        "roster_with_b": q.join(roster, q.variable("all_b"), "user_id", PROVENANCE_STUDENT),
        "by_number": q.join(q.variable("a"), q.variable("all_b"), "n", "count"),
        "shouted": q.map("shout", q.variable("a_with_roster"), value_path="text"),
        "again": q.map("twice", q.variable("shouted"), parallel=True),
        "total": q.call("sum")(q.variable("a"), "n"),
        "groups": q.call("group_by")(q.variable("a"), "n"),
        "alias": q.variable("a_with_roster"),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS, pauses=st.lists(st.booleans(), min_size=12, max_size=12))
def test_kept_up_to_date_is_the_same_as_asked_anew(
    steps: list[tuple[str, int, Any]], pauses: list[bool]
) -> None:
    """After any changes, what a reader has put together is what a naive evaluator answers now."""

    async def check() -> None:
        scope = Scope([KeyField.STUDENT, EventField("doc_id")])
        parts = Parts(
            Reducer("a", default={"count": 0}), Reducer("b"), Reducer("docs", scope=scope), people=2
        )

        def shout(text: str) -> str:
            if text == "boom":
                raise ValueError(text)
            return text.upper()

        async def twice(row: dict[str, Any]) -> dict[str, Any]:
            return {"twice": [row["output"], row["output"]]}

        parts.functions.publish("shout")(shout)
        parts.functions.publish("twice")(twice)
        nodes = _dag()
        exports = {name: {"returns": name} for name in nodes}
        query = {"execution_dag": nodes, "exports": exports}
        subscriptions = {name: parts.live.subscribe(query, [name]) for name in nodes}
        told: dict[str, dict[str, Any]] = {name: {} for name in nodes}
        for name, subscription in subscriptions.items():
            merged(await soon(subscription), told[name])
        for (what, number, state), pause in zip(steps, pauses, strict=False):
            who = f"tc-u{number}"
            if what == "join" and who not in parts.people.people:
                parts.people.add(who)
            elif what == "leave" and who in parts.people.people:
                parts.people.remove(who)
            elif what == "docs":
                parts.set("docs", who, state, doc_id="d")
            elif what in ("a", "b"):
                parts.set(what, who, state)
            if pause:
                await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        for name, subscription in subscriptions.items():
            await subscription.settled()
            while subscription.waiting:
                merged(await soon(subscription), told[name])
            answer = await naive(parts, nodes, nodes[name])
            assert bare(subscription.running.answer(name)) == bare(answer), name
            fresh = parts.live.executor.prepare(query, [name])
            await fresh.run()
            assert bare(fresh.answer(name)) == bare(answer), name
            if isinstance(answer, list):
                rows = [row if isinstance(row, dict) else {"output": row} for row in answer]
                assert _sorted(told[name].values()) == _sorted(bare(rows)), name
            subscription.close()

    asyncio.run(check())


def _sorted(rows: Any) -> list[str]:
    return sorted(json.dumps(bare(row), sort_keys=True) for row in rows)
