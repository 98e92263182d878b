"""Reducers: how one takes the place of another, and what becomes of its states."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from ingest_parts import (
    SOURCE,
    Faulty,
    count,
    expect,
    idle,
    key_of,
    running,
    say,
    state_of,
    talking,
    typed,
    who,
)
from waiting import auntil

from lo_kernel.engine.codehash import code_hash
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.keys import KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline, student_event_reducer
from lo_kernel.engine.store import PLAIN
from lo_kernel.errors import LOError, ReducerError, UnknownReducerError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SENDERS = [Sender(identify({"user_id": f"u{number}"}), SOURCE) for number in range(5)]  # type: ignore[arg-type]


def reducer(step: int = 1, null: Any = None, name: str = "count", scope: Any = None) -> Any:
    """A counting reducer; each step is other code."""

    async def counting(event: Any, state: Any) -> Any:
        return {"n": state["n"] + step}, None

    return kvs_pipeline(null or {"n": 0}, scope, module_override="tests", qualname_override=name)(counting)


async def send(runtime: Runtime, count: int, *, user: int = 0, **more: Any) -> None:
    """Events without a socket: what the pipeline is given by one."""
    for number in range(count):
        body = {"event": "keystroke", "number": number, **more}
        await runtime.pipeline.accept(SENDERS[user], body, json.dumps(body).encode(), 1.5)


async def test_registering_again_replaces_and_counts_nothing_twice(settings: Settings) -> None:
    """Open connections go on with the new reducer, the past goes through it, and each event counts once."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(ws, who("u0"), *[typed(number) for number in range(20)])
        await expect(runtime, key_of("u0"), {"n": 20})
        for step in (2, 3, 2):
            registration = runtime.add_reducer("count", reducer(step), module="tests")
            await say(ws, *[typed(number) for number in range(5)])
            await registration.ready()
        await expect(runtime, key_of("u0"), {"n": 36 * 2})
        await say(ws, typed())
        await expect(runtime, key_of("u0"), {"n": 37 * 2})
        assert [each.id for each in runtime.registry] == ["count"]
        assert len(list(runtime.pipeline.runs)) == 1


async def test_while_the_past_goes_through_the_old_one_answers(settings: Settings) -> None:
    """During a restream under load queries get the old states, then the new ones, and the count is exact."""
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 20_000)
        progress: list[tuple[int, int]] = []
        new = runtime.add_reducer(
            "count",
            reducer(1000),
            module="tests",
            on_progress=lambda done, total: progress.append((done, total)),
        )
        sent, old_seen = 20_000, 0
        while new.status != "live":
            await send(runtime, 10)
            sent += 10
            state = await state_of(runtime, key_of())
            old_seen += state["n"] == sent
            assert state["n"] in (sent, sent * 1000)
            await asyncio.sleep(0)
        assert old_seen > 3
        assert await state_of(runtime, key_of()) == {"n": sent * 1000}
        assert len(progress) > 3
        assert progress == sorted(progress)
        await new.ready()
        await auntil(lambda: not runtime.registry._cleaners)
        assert await runtime.store.generations() == [-1, new.run.generation]  # type: ignore[union-attr]


async def test_the_same_code_goes_on_with_its_states(settings: Settings) -> None:
    """Running a cell again without a change reads nothing from the past."""
    async with running(settings) as runtime:
        first = await runtime.add_reducer("count", reducer(), module="tests").ready()
        await send(runtime, 100)
        again = await runtime.add_reducer("count", reducer(), module="tests").ready()
        assert again.run is first.run
        await send(runtime, 1)
        assert await state_of(runtime, key_of()) == {"n": 101}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("migrate", "expected"),
    [
        ("restream", 120),
        ("drop", 20),
        ("keep", 10 + 20),
        (lambda state: {"n": state["n"] * 100}, 1000 + 20),
    ],
    ids=["restream", "drop", "keep", "function"],
)
async def test_what_becomes_of_old_states(
    settings: Settings, restart: bool, migrate: Any, expected: int
) -> None:
    """Ten events under code that counts 1, two under code that counts 10; also with a restart between."""
    settings = replace(settings, store="sqlite")
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 10)
        if not restart:
            await _go_on(runtime, migrate, expected)
    if restart:
        async with running(settings) as runtime:
            await _go_on(runtime, migrate, expected)
    async with running(settings) as runtime:  # and it lasts
        await runtime.add_reducer("count", reducer(10), module="tests", migrate=migrate).ready()
        assert await state_of(runtime, key_of()) == {"n": expected}


async def _go_on(runtime: Runtime, migrate: Any, expected: int) -> None:
    await runtime.add_reducer("count", reducer(10), module="tests", migrate=migrate).ready()
    await send(runtime, 2)
    assert await state_of(runtime, key_of()) == {"n": expected}


async def test_a_coroutine_function_converts_states_under_load(settings: Settings) -> None:
    """Events that come while old states are converted count once, by old code or by new."""

    async def convert(state: Any) -> Any:
        await asyncio.sleep(0.001)
        return {"n": state["n"], "converted": True}

    async def counting(event: Any, state: Any) -> Any:
        return {**state, "n": state["n"] + 1}, None

    new_code = student_event_reducer({"n": 0}, module_override="tests", qualname_override="count")(counting)
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        for user in range(4):
            await send(runtime, 100, user=user)
        new = runtime.add_reducer("count", new_code, module="tests", migrate=convert)
        sent = 100
        while new.status != "live":
            for user in range(5):
                await send(runtime, 1, user=user)
            sent += 1
            await asyncio.sleep(0)
        for user in range(4):
            assert await state_of(runtime, key_of(f"u{user}")) == {"n": sent, "converted": True}
        assert (await state_of(runtime, key_of("u4")))["n"] == sent - 100


@pytest.mark.parametrize(
    "migrate", [lambda state: state["nothing"], lambda state: {1, 2}], ids=["raises", "not json"]
)
async def test_a_conversion_that_fails_leaves_the_old_one(settings: Settings, migrate: Any) -> None:
    """The error names the key; the old reducer goes on, in the registry, too."""
    async with running(settings) as runtime:
        old = await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 10)
        new = runtime.add_reducer("count", reducer(10), module="tests", migrate=migrate)
        with pytest.raises(ReducerError, match="STUDENT:tc-testcase-u0"):
            await new.ready()
        assert runtime.registry.get("count") is old
        assert (new.status, old.status) == ("failed", "live")
        await send(runtime, 1)
        assert await state_of(runtime, key_of()) == {"n": 11}
        assert runtime.errors.of("reducer 'count'")


async def test_a_cancelled_restream_leaves_the_old_one(settings: Settings) -> None:
    """Its shadow is deleted, and the old reducer goes on."""
    async with running(settings) as runtime:
        old = await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 20_000)
        new = runtime.add_reducer("count", reducer(10), module="tests")
        await auntil(lambda: new.done > 0)
        new.cancel()
        with pytest.raises(ReducerError, match="cancelled"):
            await new.ready()
        await send(runtime, 1)
        assert runtime.registry.get("count") is old
        assert await state_of(runtime, key_of()) == {"n": 20_001}
        await idle(runtime)
        await auntil(lambda: not runtime.registry._cleaners)
        assert await runtime.store.generations() == [-1, 1]


async def test_replaced_while_catching_up_goes_back_to_the_first(settings: Settings) -> None:
    """Three versions in quick succession: the last one counts; where it fails, the first one goes on."""
    async with running(settings) as runtime:
        first = await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 20_000)
        second = runtime.add_reducer("count", reducer(2), module="tests")
        await auntil(lambda: second.done > 0)
        third = runtime.add_reducer("count", reducer(3), module="tests")
        assert await second.ready() is third
        assert await state_of(runtime, key_of()) == {"n": 60_000}
        fourth = runtime.add_reducer("count", reducer(4), module="tests")
        await auntil(lambda: fourth.done > 0)
        fifth = runtime.add_reducer("count", reducer(5), module="tests", migrate=lambda state: {1})
        with pytest.raises(ReducerError):
            await fifth.ready()
        assert runtime.registry.get("count") is third
        assert first.status == "replaced"
        assert await state_of(runtime, key_of()) == {"n": 60_000}


async def test_wrong_arguments_are_told_at_once(settings: Settings) -> None:
    """A mistake raises where the reducer is added, and changes nothing."""
    async with running(settings) as runtime:
        add = functools.partial(runtime.registry.add)
        await add("count", reducer()).ready()
        cases: list[tuple[Any, ...]] = [
            ("x", 5, {}, "a function"),
            ("x", lambda event: None, {}, "two arguments"),
            ("", reducer(), {}, "id"),
            ("lo_kernel.x", reducer(name="x"), {}, "id"),
            ("x", reducer(name="x"), {"context": ""}, "context"),
            ("x", reducer(name="x"), {"migrate": "merge"}, "migrate"),
            ("x", reducer(name="x"), {"default": {1, 2}}, "set"),
            ("x", reducer(name="x"), {"scope": Scope()}, "scope"),
            ("other", reducer(), {}, "qualname_override"),
            ("count", reducer(2, scope=Scope([KeyField.CLASS])), {"migrate": "keep"}, "scope"),
            ("count", reducer(2, name="c2"), {"migrate": "keep"}, "name"),
        ]
        for reducer_id, function, options, says in cases:
            with pytest.raises(LOError, match=re.escape(says)):
                add(reducer_id, function, **options)
        assert [each.id for each in runtime.registry] == ["count"]
        with pytest.raises(UnknownReducerError, match="count"):
            runtime.registry.get("cuont")


async def test_a_restart_takes_up_the_states_and_runs_the_tail(settings: Settings) -> None:
    """Until it is registered again a reducer is paused: its states answer, behind by so many events."""
    settings = replace(settings, store="sqlite")
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(), module="tests").ready()
        await send(runtime, 10)
    async with running(settings) as runtime:
        await send(runtime, 5)
        assert await state_of(runtime, key_of()) == {"n": 10}
        assert await runtime.registry.keys("Internal") == [key_of()]
        assert runtime.registry.behind("count") == 5
        assert list(runtime.registry.paused) == ["count"]
        registration = await runtime.add_reducer("count", reducer(), module="tests").ready()
        assert registration.events == 5
        assert await state_of(runtime, key_of()) == {"n": 15}
        assert (runtime.registry.paused, runtime.registry.behind("count")) == ({}, 0)


async def test_removing_takes_the_states_and_leaves_the_events(settings: Settings) -> None:
    """Also of a paused one; a reducer added later under the id sees the events anew."""
    settings = replace(settings, store="sqlite")
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(), module="tests").ready()
        await send(runtime, 10)
        await runtime.remove_reducer("count")
        assert await runtime.registry.keys() == []
        assert "count" not in runtime.registry
        with pytest.raises(UnknownReducerError):
            await runtime.registry.remove("count")
        await runtime.add_reducer("count", reducer(), module="tests").ready()
        assert await state_of(runtime, key_of()) == {"n": 10}
    async with running(settings) as runtime:
        await runtime.registry.remove("count")
        assert await runtime.store.rows() == [
            row for row in await runtime.store.rows() if row.id[:3] == "lo_"
        ]
        assert await runtime.registry.keys() == []


async def test_keys_of_ones_own_and_those_of_reducers(settings: Settings) -> None:
    """A free key can be set and read; a reducer's is read-only."""
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(), module="tests").ready()
        await runtime.registry.set("notes", {"a": 1})
        assert await state_of(runtime, "notes") == {"a": 1}
        with pytest.raises(LOError, match="read-only"):
            await runtime.registry.set(key_of(), 5)
        assert await runtime.store.keys(PLAIN) == ["notes"]


async def test_a_store_that_is_gone_during_a_swap(settings: Settings) -> None:
    """The new reducer answers all the same; old states go once the store knows of the new ones."""
    async with running(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await send(runtime, 10)
        await idle(runtime)
        store = Faulty(runtime.store)
        runtime.store = runtime.pipeline.store = runtime.registry.store = store
        for run in runtime.pipeline.runs:
            run.store = store
        store.down = True
        new = runtime.add_reducer("count", reducer(10), module="tests")
        await auntil(lambda: new.status == "live")
        assert await state_of(runtime, key_of()) == {"n": 100}
        assert await store._inner.generations() == [-1, 1]
        store.down = False
        await auntil(lambda: runtime.registry._stored["count"].generation == 2)
        await auntil(lambda: not runtime.registry._cleaners)
        assert await store._inner.generations() == [-1, 2]
        assert await state_of(runtime, key_of()) == {"n": 100}


async def test_states_go_out_to_the_store_and_come_back(settings: Settings) -> None:
    """With more learners than states in memory each count is right, live, after a restream, and restarted."""
    settings = replace(settings, store="sqlite")
    senders = [Sender(identify({"user_id": f"v{number}"}), SOURCE) for number in range(300)]  # type: ignore[arg-type]

    async def round_of(runtime: Runtime) -> None:
        for sender in senders:
            body = {"event": "keystroke"}
            await runtime.pipeline.accept(sender, body, b'{"event":"keystroke"}', 1.5)
        await idle(runtime)

    async with running(settings) as runtime:
        runtime.registry.live_states = 50
        registration = await runtime.add_reducer("count", reducer(1), module="tests").ready()
        for _ in range(4):
            await round_of(runtime)
        for _ in range(40):
            await send(runtime, 1)
            await idle(runtime)
        assert registration.run is not None
        assert len(registration.run.states.entries) < 120
        keys = [key_of(f"v{number}") for number in range(300)]
        assert await runtime.registry.read(keys) == [{"n": 4}] * 300
        assert await runtime.registry.keys("Internal") == sorted([*keys, key_of()])
        await runtime.add_reducer("count", reducer(10), module="tests").ready()
        assert await runtime.registry.read(keys) == [{"n": 40}] * 300
    async with running(settings) as runtime:
        runtime.registry.live_states = 50
        await runtime.add_reducer("count", reducer(10), module="tests").ready()
        await round_of(runtime)
        assert await runtime.registry.read(keys) == [{"n": 50}] * 300


FACTOR = 3
WORD = re.compile("a+")


def helper(value: int) -> int:
    """What a reducer reaches."""
    return value * FACTOR


def test_the_code_hash_takes_in_what_a_reducer_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed helper, constant, pattern or argument is other code; the same code again is not."""
    import sys

    module = sys.modules[__name__]

    async def counting(event: Any, state: Any) -> Any:
        return {"n": helper(state["n"]), "w": WORD.findall("a")}, None

    before = code_hash(counting)
    assert code_hash(counting) == before
    monkeypatch.setattr(module, "FACTOR", 4)
    other = code_hash(counting)
    assert other != before
    monkeypatch.setattr(module, "WORD", re.compile("b+"))
    assert code_hash(counting) not in (before, other)

    def scaled(factor: int, event: Any, state: Any) -> Any:
        return state, None

    assert code_hash(functools.partial(scaled, 1)) != code_hash(functools.partial(scaled, 2))
    assert code_hash(functools.partial(scaled, 1)) == code_hash(functools.partial(scaled, 1))

    class Scaled:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, event: Any, state: Any) -> Any:
            return state, self.factor

    assert code_hash(Scaled(1)) != code_hash(Scaled(2))
    assert code_hash(Scaled(1)) == code_hash(Scaled(1))


def test_a_global_of_the_same_name_as_an_attribute_is_not_reached() -> None:
    """`state.count` doesn't make a reducer depend on a global `count`."""
    source = "async def f(event, state):\n    return state.count, None\n"
    hashes = set()
    for value in (1, 2):
        namespace: dict[str, Any] = {"count": value, "__name__": "__main__"}
        exec(source, namespace)
        hashes.add(code_hash(namespace["f"]))
    assert len(hashes) == 1


def test_helpers_in_a_module_of_ones_own_are_reached(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reducer that calls `helpers.double(...)` is other code when that function was edited."""
    import importlib

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "my_helpers_x.py").write_text("def double(x):\n    return 2 * x\n")
    helpers = importlib.import_module("my_helpers_x")

    async def counting(event: Any, state: Any) -> Any:
        return helpers.double(state), None

    before = code_hash(counting)
    helpers.double = lambda x: 3 * x  # type: ignore[attr-defined]
    assert code_hash(counting) != before
