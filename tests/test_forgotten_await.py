"""What was forgotten to be awaited, or called, says what to write."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError, QueryError
from lo_kernel.notebook.chart_verbs import ChartVerbs
from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.store_view import KeyValueStore
from lo_kernel.query.language import q
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


async def test_a_job_says_that_its_result_is_awaited() -> None:
    """Items and attributes of a result, asked of the job, are errors that say how to have the result."""

    async def work() -> list[int]:
        return [7]

    job: Any = Job("query chars", work(), LoopBridge(asyncio.get_running_loop()))
    with pytest.raises(TypeError, match=r"write \(await \.\.\.\)\[0\], as in rows = await lo\.query"):
        job[0]
    for through in (list, lambda rows: [*rows], lambda rows: 7 in rows):
        with pytest.raises(TypeError, match=r"write .*\.\.\. in await \.\.\., or rows = await lo\.query"):
            through(job)
    with pytest.raises(AttributeError, match=r"write \(await \.\.\.\)\.to_frame, as in rows = await"):
        job.to_frame()
    assert not hasattr(job, "_repr_html_")
    assert job
    assert (await job)[0] == 7


async def test_what_is_read_from_the_store_is_read_when_it_is_awaited(workspace: Path) -> None:
    """Shown, it says that it isn't read yet, and nothing complains that it was never awaited."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"))
    runtime.bind("127.0.0.1", 0)
    await runtime.start()
    try:
        kvs: Any = KeyValueStore(runtime, LoopBridge(asyncio.get_running_loop()))
        assert repr(kvs["x"]) == "<not read yet: write await lo.kvs['x']>"
        assert repr(kvs.keys()) == "<not read yet: write await lo.kvs.keys('')>"
        with pytest.raises(TypeError, match=r"write \(await lo\.kvs\['x'\]\)\['n'\]"):
            kvs["x"]["n"]
        reading = kvs["x"]
        assert await reading is None
        await kvs.set("x", {"n": 1})
        assert await reading == {"n": 1}
        both: Any = await asyncio.gather(kvs["x"], kvs.keys("x"))
        assert both == [{"n": 1}, ["x"]]
        with pytest.raises(TypeError, match=r"write for \.\.\. in await lo\.kvs\.keys\(''\)"):
            list(kvs.keys())
        with pytest.raises(TypeError, match=r"write 'x' in await lo\.kvs\.keys\(''\)"):
            "x" in kvs.keys()  # noqa: B015, SIM118
    finally:
        await runtime.stop()


async def test_what_is_read_from_the_store_is_a_coroutine(workspace: Path) -> None:
    """What takes coroutines alone takes it, on any loop: to run it, to make a task of it, to cancel that."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"))
    runtime.bind("127.0.0.1", 0)
    await runtime.start()
    try:
        loop = asyncio.get_running_loop()
        kvs = KeyValueStore(runtime, LoopBridge(loop))
        await kvs.set("x", {"n": 1})
        assert await asyncio.to_thread(asyncio.run, kvs["x"]) == {"n": 1}
        assert await asyncio.to_thread(asyncio.run, kvs.keys("x")) == ["x"]
        future = asyncio.run_coroutine_threadsafe(kvs["x"], loop)
        assert await asyncio.wrap_future(future) == {"n": 1}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(kvs["x"]), asyncio.create_task(kvs["x"], name="reading")]
            assert "reading" in repr(tasks[1])
        assert [task.result() for task in tasks] == [{"n": 1}] * 2
        assert await asyncio.wait_for(kvs["x"], 5) == {"n": 1}
        reading = kvs["x"]
        for _ in range(2):
            assert await asyncio.create_task(reading) == {"n": 1}

        held: list[asyncio.Future[None]] = []

        async def read(keys: list[str]) -> list[Any]:
            held.append(loop.create_future())
            await held[-1]
            return [7]

        runtime.registry.read = read  # type: ignore[method-assign, assignment]
        for begun in (False, True):
            task = asyncio.create_task(reading)
            if begun:
                await auntil(lambda: held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert held[0].cancelled()
        task = asyncio.create_task(reading)
        await auntil(lambda: len(held) == 2)
        held[1].set_result(None)
        assert await task == 7
        reading.send(None)
        reading.close()
        reading.close()
        held[2].cancel()
        with pytest.raises(KeyError, match="none"):
            reading.throw(KeyError("none"))
    finally:
        await runtime.stop()


async def test_a_dashboard_of_what_is_no_query_says_what_to_give(workspace: Path) -> None:
    """A call that isn't called yet isn't taken for a reducer that isn't registered; nor is an answer."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"))
    runtime.bind("127.0.0.1", 0)
    await runtime.start()
    try:
        bridge = LoopBridge(asyncio.get_running_loop())
        verbs, job = ChartVerbs(runtime, bridge), Job("query n", asyncio.sleep(0), bridge)
        with pytest.raises(LOError, match=r"it isn't called yet: write q\.call\('mean'\)\(\.\.\.\)"):
            verbs.dashboard(q.call("mean"), embed="page")
        with pytest.raises(QueryError, match="got Job; that is an answer on its way"):
            verbs.dashboard(job, embed="page")
        await job
    finally:
        await runtime.stop()


@pytest.mark.parametrize("place", ["alone", "inside"])
async def test_what_is_given_for_a_query_says_what_to_give(place: str) -> None:
    """An answer that isn't there yet, a call that isn't called, and a function are no queries."""
    parts = Parts(Reducer("chars"), people=1)

    async def work() -> None:
        return None

    def grade(row: Any) -> Any:
        return row

    parts.functions.publish("grade")(grade)
    job = Job("query chars", work(), LoopBridge(asyncio.get_running_loop()))
    for given, said in (
        (job, "got .*; that is an answer on its way: give the query itself"),
        (q.call("mean"), r"write q\.call\('mean'\)\(\.\.\.\)"),
        (grade, r"write q\.call\('grade'\)\(\.\.\.\)"),
        (q.latest, "a function goes by a name"),
    ):
        with pytest.raises(QueryError, match=said):
            parts.executor.prepare_one(given if place == "alone" else q.call("mean")(given, "n"))
    with pytest.raises(QueryError, match=r"a JSON object, got int$"):
        parts.executor.prepare_one(5)
    await job
