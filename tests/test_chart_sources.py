"""What a notebook's chart asks: the answer that is computed once for all who look at it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from page_parts import class_list, send
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.errors import UnknownQueryError
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.notebook.sources import PanelSources, QuerySource
from lo_kernel.query.executor import Running
from lo_kernel.query.language import q
from lo_kernel.settings import Settings

STUDENTS = [("ann", "Ann Arbor"), ("bo", "Bo Derek"), ("cy", "Cy Young")]
IDS = [f"tc-testcase-{who}" for who, _ in STUDENTS]


@student_event_reducer(null_state={"count": 0}, module_override="sources")
async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count."""
    return {"count": state["count"] + 1}, None


@pytest.fixture
def classroom(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a class list of three."""
    return replace(settings, roster=str(class_list(tmp_path / "class.csv", STUDENTS)))


def counting(people: int) -> Parts:
    """A class with one counting reducer, and its query."""
    parts = Parts(Reducer("counter", default={"count": 0}), people=people)
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    return parts


def one_step(work: Any) -> Any:
    """What a coroutine gives that doesn't have to wait: a cell that holds the loop has no more of it."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    return ended.value.value


async def test_a_chart_computes_nothing_that_is_computed_already(classroom: Settings) -> None:
    """A change costs what is new in the answer, once, with two charts and a page of it open."""
    async with running_app(classroom) as runtime:
        await runtime.add_reducer("count", count, module="sources").ready()
        await send(runtime, "ann", "bo", "cy")
        ran: list[int] = []

        @runtime.functions.publish("noted")
        def noted(counted: int) -> int:
            ran.append(counted)
            return counted

        runtime.catalog.add("noted", {"all": q.map("noted", q.latest("count"), value_path="count")})
        charts = [QuerySource(runtime, "noted.all", {}) for _ in range(2)]
        woken = [asyncio.Event() for _ in charts]
        ends = [chart.subscribe(each.set) for chart, each in zip(charts, woken, strict=True)]
        for chart in charts:
            assert [row["output"] for row in await chart.rows()] == [1, 1, 1]
        assert ran == [1, 1, 1]
        for each in woken:
            each.clear()
        await send(runtime, "bo")
        for chart, each in zip(charts, woken, strict=True):
            await asyncio.wait_for(each.wait(), 5)
            assert [row["output"] for row in await chart.rows()] == [1, 2, 1]
        assert ran == [1, 1, 1, 2]
        for end in ends:
            end()
        assert len(runtime.live) == 0


async def test_a_chart_calls_learners_what_the_notebook_calls_them(classroom: Settings) -> None:
    """Made-up names before and after it is subscribed, also in rows that are the roster's; none is real."""
    async with running_app(classroom) as runtime:
        await runtime.add_reducer("count", count, module="sources").ready()
        await send(runtime, "ann", "bo", "cy")

        @runtime.functions.publish("called")
        def called(members: list[dict[str, Any]]) -> list[str]:
            return [each["profile"]["name"]["full_name"] for each in members]

        runtime.catalog.add("members", {"all": q.call("called")(q.roster())})
        chart, members = QuerySource(runtime, "count", {}), QuerySource(runtime, "members.all", {})
        made_up = runtime.made_up.of(IDS)

        async def shown() -> tuple[list[str], list[str]]:
            named = [row["value"] for row in await members.rows()]
            return [row["student"] for row in await chart.rows()], named

        wanted = [made_up[who] for who in IDS]
        assert await shown() == (wanted, wanted)
        woken = asyncio.Event()
        ends = [chart.subscribe(woken.set), members.subscribe(woken.set)]
        assert await shown() == (wanted, wanted)
        woken.clear()
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        await lo.reveal(reason="a test")
        await asyncio.wait_for(woken.wait(), 5)
        real = [name for _, name in STUDENTS]
        assert await shown() == (real, real)
        for end in ends:
            end()


async def test_a_cell_that_holds_the_loop_has_what_came_before_it() -> None:
    """Shown again while a change is on its way into the open answer, a chart has that change at once."""
    parts = counting(people=2)
    source = parts.live.source("counter")
    woken = asyncio.Event()
    end = source.subscribe(woken.set)
    await asyncio.wait_for(woken.wait(), 5)
    await source.rows()
    assert one_step(source.now()) == [{"student": f"tc-u{n}", "count": 0} for n in range(2)]
    parts.set("counter", "tc-u1", {"count": 5})
    await asyncio.sleep(0)  # the live query was told, and hasn't looked
    assert await source.now() == [{"student": "tc-u0", "count": 0}, {"student": "tc-u1", "count": 5}]
    end()


async def test_numbers_that_json_has_not_are_blank(settings: Settings) -> None:
    """A mean of nothing is drawn as no value, in the notebook as in the page."""
    async with running_app(settings) as runtime:
        numbers = [math.nan, math.inf, -math.inf, 1.5]
        runtime.functions.publish("numbers")(lambda: [{"n": each} for each in numbers])
        rows = await QuerySource(runtime, q.call("numbers")(), {}).rows()
        assert [row["n"] for row in rows] == [None, None, None, 1.5]


async def test_panels_that_can_not_all_be_had_leave_nothing_open(settings: Settings) -> None:
    """Where one of several answers is none, those before it are not computed for nobody."""
    async with running_app(settings) as runtime:
        runtime.catalog.add("there", {"all": "yes"})
        runtime.catalog.add("gone", {"all": "no"})
        panels = PanelSources([QuerySource(runtime, f"{name}.all", {}) for name in ("there", "gone")])
        runtime.catalog.remove("gone")
        with pytest.raises(UnknownQueryError):
            panels.subscribe(lambda: None)
        assert len(runtime.live) == 0
        runtime.catalog.add("gone", {"all": "again"})
        end = panels.subscribe(lambda: None)
        assert len(runtime.live) == 2
        end()
        assert len(runtime.live) == 0


async def test_rows_are_in_the_answers_order() -> None:
    """Rows that change places are given as the answer has them now, to charts that are open, too."""
    parts = counting(people=3)

    @parts.functions.publish("ranked")
    def ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: -row["count"])

    parts.catalog.add("ranked", {"all": q.call("ranked")(q.latest("counter"))})
    source = parts.live.source("ranked.all")
    end = source.subscribe(lambda: None)
    assert [row["student"] for row in await source.rows()] == ["tc-u0", "tc-u1", "tc-u2"]
    parts.set("counter", "tc-u2", {"count": 5})
    await asyncio.sleep(0)
    assert [row["student"] for row in await source.rows()] == ["tc-u2", "tc-u0", "tc-u1"]
    end()


async def test_an_answer_that_can_not_be_had_is_said_and_comes_back() -> None:
    """An open chart whose store is away has the error in its row; one whose query is gone raises it."""
    parts = counting(people=1)
    woken = asyncio.Event()
    source = parts.live.source("counter")
    end = source.subscribe(woken.set)
    await asyncio.wait_for(woken.wait(), 5)
    parts.states.fails = 3
    parts.set("counter", "tc-u0", {"count": 1})
    await auntil(lambda: parts.states.fails < 3)
    (row,) = await source.rows()
    assert "out of reach" in row["error"]
    parts.states.fails = 0
    assert await source.rows() == [{"student": "tc-u0", "count": 1}]

    parts.catalog.remove("m")
    with pytest.raises(UnknownQueryError, match="there is no query 'counter'"):
        await source.rows()
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    assert await source.rows() == [{"student": "tc-u0", "count": 1}]
    end()


async def test_nothing_that_was_laid_out_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was prepared to look a query up, to check it or to run it once is let go of."""
    parts = counting(people=2)
    laid_out: list[Running] = []
    prepare = parts.executor.prepare

    def kept(*given: Any, **named: Any) -> Running:
        laid_out.append(prepare(*given, **named))
        return laid_out[-1]

    monkeypatch.setattr(parts.executor, "prepare", kept)
    source = parts.live.source("counter")
    await source.rows()
    await source.now()
    async with parts.live.subscribe("counter", strict=True), parts.live.subscribe("counter") as other:
        await source.rows()
        watching = parts.live.watch("counter")
        await asyncio.wait_for(anext(watching), 5)
        await watching.aclose()  # type: ignore[attr-defined]
        assert [each for each in laid_out if each.steps] == [other.running]
    assert not any(each.steps for each in laid_out)
    assert len(laid_out) > 5


async def test_reads_of_a_chart_are_on_record_once(classroom: Settings) -> None:
    """Its updates add nothing to the record as long as the same learners are in it."""
    parts = counting(people=2)
    source = parts.live.source("counter")
    woken = asyncio.Event()
    end = source.subscribe(woken.set)
    for turn in range(3):
        await asyncio.wait_for(woken.wait(), 5)
        woken.clear()
        await source.rows()
        parts.set("counter", "tc-u0", {"count": turn + 1})
    end()
    assert Counter(what for _, what, _ in parts.reads.records) == {"m: counter": 1}
    assert parts.reads.records[0][2] == ["tc-u0", "tc-u1"]
