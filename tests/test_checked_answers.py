"""`lo.dashboard` looks at an answer before it changes anything, and shows the one it has looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from apps import running_app
from page_parts import send
from test_charts import Paper
from waiting import auntil

from lo_kernel.app.overview import add_overview
from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import DashboardError
from lo_kernel.notebook import live_display
from lo_kernel.notebook.live_display import LiveDisplays
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.query.language import q
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

ROWS = [{"student": "a", "n": 1}, {"student": "b", "n": 2}]


def notebook(runtime: Runtime) -> tuple[LearningObserver, Paper]:
    """A notebook's `lo` beside the app, and what it shows."""
    bridge, paper = LoopBridge(asyncio.get_running_loop()), Paper()
    lo = LearningObserver(runtime, bridge)
    lo._displays = LiveDisplays(paper, bridge)
    return lo, paper


async def on_the_loop(work: Callable[[], Any]) -> Any:
    """As a cell on the app's own loop."""
    return work()


@pytest.mark.parametrize("cell", [on_the_loop, asyncio.to_thread])
async def test_what_was_checked_is_shown(settings: Settings, cell: Callable[..., Any]) -> None:
    """A cell computes its answer once; the second time is the live query's, for all changes to come."""
    async with running_app(settings) as runtime:
        lo, paper = notebook(runtime)
        ran: list[int] = []

        @lo.publish("ticked")
        def ticked() -> list[dict[str, Any]]:
            ran.append(len(paper.first))
            return ROWS

        chart = await cell(lambda: lo.dashboard(q.call("ticked")(), "table"))
        await cell(chart.show)
        assert "2" in paper.first[0]["text/plain"]
        await auntil(lambda: any(shared.at_rest for shared in runtime.live._shared.values()))
        assert ran == [0, 1]
        await cell(chart.show)  # a second time, perhaps much later: the answer as it is then
        assert len(paper.first) == 2
        chart.stop()


async def test_an_old_answer_is_asked_for_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart that is shown a while after it was made has the answer of then."""
    monkeypatch.setattr(live_display, "_FRESH", -1.0)
    async with running_app(settings) as runtime:
        lo, paper = notebook(runtime)
        rows = ROWS[:1]
        lo.publish("grown")(lambda: list(rows))
        chart: Any = lo.dashboard(q.call("grown")(), "table")
        rows.append(ROWS[1])
        chart.show()
        assert "b" in paper.first[0]["text/plain"].split()
        chart.stop()


async def test_a_slow_answer_that_cannot_be_drawn_changes_no_dashboard(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a thread the check waits as long as showing would, so that the one that was there stays."""
    monkeypatch.setattr(live_display, "_PATIENCE", 30.0)
    async with running_app(settings) as runtime:
        lo, paper = notebook(runtime)
        add_overview(runtime)
        await send(runtime, "ann")

        @lo.publish("slow")
        async def slow() -> list[dict[str, Any]]:
            await asyncio.sleep(0.6)
            return ROWS

        await asyncio.to_thread(lo.dashboard, "overview.class", id="k")
        good = lo.dashboards["k"]
        with pytest.raises(DashboardError, match="there is no column 'zz'; there are: n"):
            await asyncio.to_thread(lo.dashboard, q.call("slow")(), id="k", field="zz")
        assert lo.dashboards["k"] is good
        assert not paper.first


async def test_an_answer_that_takes_too_long_is_drawn_when_it_comes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell waits for it once, and the chart goes on without it; what is wrong with it is told there."""
    monkeypatch.setattr(live_display, "_PATIENCE", 0.02)
    async with running_app(settings) as runtime:
        lo, paper = notebook(runtime)
        gate, ran = asyncio.Event(), list[int]()

        @lo.publish("gated")
        async def gated() -> list[dict[str, Any]]:
            ran.append(len(paper.first))
            await gate.wait()
            return ROWS

        chart: Any = await asyncio.to_thread(lo.dashboard, q.call("gated")(), field="zz")
        await asyncio.to_thread(chart.show)
        assert len(paper.first) == 1
        gate.set()
        await auntil(lambda: paper.later)
        assert "there is no column 'zz'" in paper.last["text/plain"]
        assert ran == [0, 1]
        chart.stop()
