"""Several events at once: the same as one after another, whatever a reducer does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from ingest_parts import (
    SOURCE,
    count,
    expect,
    hear,
    idle,
    key_of,
    rejected,
    running,
    say,
    talking,
    typed,
    who,
)
from waiting import auntil

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.engine.registry import Registry
from lo_kernel.engine.store.memory import MemoryStore
from lo_kernel.settings import Settings

NULL = {"n": 0, "seen": []}
DOES = ["count", "raise", "keep", "keep external", "external", "not json", "no pair", "suspend", "future"]


def sender(user: int) -> Sender:
    """One of the learners."""
    identity = identify({"user_id": f"u{user}"})
    assert identity is not None
    return Sender(identity, SOURCE)


def reducer(scope: Scope | None = None, *, swallows: bool = False) -> Any:
    """Does what each event says, and changes its state in place before it does."""

    async def does(event: Any, state: Any) -> Any:
        client = event["client"]
        state["seen"].append(client["number"])
        match client["does"]:
            case "raise":
                raise ValueError("as it was told")
            case "keep":
                return False, {"kept": client["number"]}
            case "keep external":
                state["n"] += 1
                return state, False
            case "external":
                state["n"] += 1
                return state, {"of": client["number"]}
            case "not json":
                return {"n": state["n"], "seen": [{1}]}, None
            case "no pair":
                return state
            case "suspend":
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    if not swallows:
                        raise
        state["n"] += 1
        return state, state

    @kvs_pipeline(scope=scope, null_state=NULL, module_override="tests", qualname_override="does")
    def maybe_future(event: Any, state: Any) -> Any:
        if event["client"]["does"] == "future":
            return asyncio.ensure_future(does(event, state))
        return does(event, state)

    return maybe_future


async def states(
    how: str, sizes: list[int], told: list[tuple[int, str, str]], scope: Scope | None, swallows: bool
) -> Any:
    """What the store has after events in batches of these sizes."""
    with tempfile.TemporaryDirectory() as folder:
        store, errors = MemoryStore(), ErrorLog()
        archive = Archive(Path(folder), errors)
        pipeline = Pipeline(archive, store, errors, Learners())
        registry = Registry(pipeline, store, errors)
        archive.open(writable=True)
        registration = registry.add("does", reducer(scope, swallows=swallows), context=SOURCE)
        await registration.ready()
        senders = [sender(user) for user in range(3)]
        changed: set[str] = set()
        pipeline.subscribe(changed.update)
        left = list(enumerate(told, 1))
        while left:
            size = sizes[len(left) % len(sizes)]
            part, left = left[:size], left[size:]
            if how == "array":  # as a connection sends: all of one sender
                part = [(number, (part[0][1][0], doc, does)) for number, (_, doc, does) in part]
            arrivals: list[Any] = []
            for number, (user, doc, does) in part:
                body = {"event": "k", "source": SOURCE, "number": number, "doc": doc, "does": does}
                arrivals.append((senders[user], body, json.dumps(body).encode(), 1.5, None))
            if how == "array":
                bodies, texts = [each[1] for each in arrivals], [each[2] for each in arrivals]
                pipeline.take_array(arrivals[0][0], bodies, texts, 1.5)
            elif how == "many":
                pipeline.take_many(arrivals)
            else:
                for its, body, text, time, _ in arrivals:
                    pipeline.take(its, body, text, time)
        run = registration.run
        assert run is not None
        await auntil(lambda: not run.pending)
        await pipeline.commit()
        await asyncio.sleep(0)
        keys = await store.keys(run.generation)
        texts = await store.get_many(run.generation, keys)
        lines = [(record.n, record.t, bytes(record.by), bytes(record.body)) for record in archive.read()]
        await run.stop()
        archive.close()
        learners = [(each.safe_user_id, each.events) for each in pipeline.learners.values()]
        return dict(zip(keys, texts, strict=True)), run.events, run.failures, changed, lines, learners


SCOPES = [None, Scope([KeyField.STUDENT, EventField("doc")]), Scope([EventField("doc")])]
TOLD = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from(["count"] * 12 + DOES)),
    min_size=1,
    max_size=70,
)


@pytest.mark.parametrize("how", ["many", "array"])
@given(TOLD, st.lists(st.integers(1, 60), min_size=1, max_size=3), st.sampled_from(SCOPES), st.booleans())
@tried(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_batch_is_the_same_as_its_events_one_by_one(
    how: str, told: list[tuple[int, str, str]], sizes: list[int], scope: Scope | None, swallows: bool
) -> None:
    """States, external states, counts, changes, lines and learners are those of one event after another."""
    if how == "array":  # one sender for each array: say so to the other way as well
        told = _by_array(told, sizes)
    together = asyncio.run(states(how, sizes, told, scope, swallows))
    alone = asyncio.run(states("one", sizes, told, scope, swallows))
    assert together == alone


def _by_array(told: list[tuple[int, str, str]], sizes: list[int]) -> list[tuple[int, str, str]]:
    done: list[tuple[int, str, str]] = []
    while len(done) < len(told):
        part = told[len(done) :][: sizes[(len(told) - len(done)) % len(sizes)]]
        done += [(part[0][0], doc, does) for _, doc, does in part]
    return done


class Interrupt(KeyboardInterrupt):
    """As Ctrl+C in a cell."""


@pytest.mark.parametrize("how", ["many", "array", "one"])
async def test_an_interrupted_reducer_costs_no_other_its_events(settings: Settings, how: str) -> None:
    """What came with the event at which a cell was interrupted is folded too, by this reducer and others."""
    armed = [True]

    @kvs_pipeline(null_state={"n": 0}, module_override="tests", qualname_override="breaks")
    async def breaks(event: Any, state: Any) -> Any:
        state["n"] += 1
        if event["client"]["number"] == 3 and armed.pop():
            armed.append(False)
            raise Interrupt
        return state, state

    async with running(settings) as runtime:
        runtime.add_reducer("breaks", breaks, module="tests")
        runtime.add_reducer("count", count, module="tests")
        await runtime.registry.get("breaks").ready()
        await runtime.registry.get("count").ready()
        who_, bodies = sender(0), [typed(number) for number in range(1, 8)]
        texts = [json.dumps(body).encode() for body in bodies]
        pipeline = runtime.pipeline
        if how == "one":
            for body, text in zip(bodies, texts, strict=True):
                with contextlib.suppress(Interrupt):
                    pipeline.take(who_, body, text, 1.0)
        elif how == "array":
            with pytest.raises(Interrupt):
                pipeline.take_array(who_, bodies, texts, 1.0)
        else:
            arrivals = [(who_, body, text, 1.0, None) for body, text in zip(bodies, texts, strict=True)]
            with pytest.raises(Interrupt):
                pipeline.take_many(arrivals)
        await expect(runtime, key_of("u0"), {"n": 7})
        await expect(runtime, key_of("u0", "tests.breaks"), {"n": 7})
        await idle(runtime)


async def test_elements_that_are_no_events_cost_none_of_the_others(settings: Settings) -> None:
    """In an array with anything in it each event is taken in its place, and the rest is put away."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        bad = '[{"event":"keystroke","source":"%s"},{"event":"keystroke","number":1e999},5]' % SOURCE  # noqa: UP031
        await say(ws, who("u0"), [typed(1), 5, {"event": ""}, {"no": 1}, [], typed(2)], [], [[]], bad)
        await expect(runtime, key_of("u0"), {"n": 3})
        await idle(runtime)
        reasons = [entry["reason"] for entry in rejected(runtime.workspace.path)]
        wanted = ["not_an_object", "no_event", "no_event", "not_an_object", "not_an_object"]
        assert reasons == [*wanted, "not_json", "not_an_object"]


async def test_modules_adapt_the_events_of_an_array_too(settings: Settings) -> None:
    """An adapter sees each element, as it sees an event alone in its frame."""
    async with talking(settings) as (runtime, ws):
        runtime.adapters.append(lambda event: {**event, "adapted": True})
        await say(ws, who("u0"), [typed(1), typed(2)])
        await auntil(lambda: runtime.archive.last == 3)
        await idle(runtime)
        assert all(b'"adapted":true' in bytes(record.body) for record in runtime.archive.read())


async def test_an_array_with_line_breaks_is_archived_in_lines(settings: Settings) -> None:
    """Written over several lines, each event takes one line of the archive."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0"), json.dumps([typed(1), typed(2)], indent=1))
        await auntil(lambda: runtime.archive.last == 3)
        await idle(runtime)
        assert [record.n for record in runtime.archive.read()] == [1, 2, 3]


async def test_arrays_in_a_stream_are_numbered_and_resent_ones_left_out(settings: Settings) -> None:
    """The elements count one by one, and what a crash left on disk beyond the count isn't taken twice."""
    lock = {"event": "lock_fields", "fields": {"source": SOURCE}, "ack": {"stream": "s"}}
    async with talking(settings) as (runtime, ws):
        await say(ws, lock, who("u0"), [typed(number) for number in range(150)])
        while (await hear(ws, "ack"))["n"] < 151:
            pass
        (stream,) = runtime.pipeline.streams._streams.values()
        stream.held = {153, 155}
        await say(ws, [typed(number) for number in range(150, 155)])
        while (await hear(ws, "ack"))["n"] < 156:
            pass
        numbers = [json.loads(bytes(record.body)).get("number") for record in runtime.archive.read()]
        ordinals = [record.s for record in runtime.archive.read()]
    assert numbers == [None, *range(150), 150, 152, 154]
    assert ordinals == [*range(1, 152), 152, 154, 156]


def test_events_that_came_together_have_nothing_in_common_that_a_state_may_keep() -> None:
    """A reducer may put an event's ``server`` into its state, and change its state in place."""
    bodies = [{"event": "x", "source": SOURCE, "n": n} for n in range(4)]
    log = [event["server"] for event in sender(0).events(bodies, 1.5)]
    for number, server in enumerate(log):
        server["number"] = number
    assert [server["number"] for server in log] == [0, 1, 2, 3]
