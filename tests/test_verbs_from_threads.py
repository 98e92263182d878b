"""Verbs of `lo` called from a thread that isn't the app's: what they do happens on the app's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from apps import running_app
from page_parts import send
from waiting import auntil

from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.overview import add_overview
from lo_kernel.bridge import LoopBridge
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.query.language import q
from lo_kernel.settings import Settings


def plainly(work: Callable[[], Any]) -> Any:
    """As a thread without a loop calls it."""
    return work()


def on_a_loop(work: Callable[[], Any]) -> Any:
    """As a cell calls it, on a loop that isn't the app's."""

    async def cell() -> Any:
        found = work()
        await asyncio.sleep(0)  # what was started on this loop would run now
        return found

    return asyncio.run(cell())


WAYS = pytest.mark.parametrize("way", [plainly, on_a_loop])


@WAYS
async def test_a_function_published_again_runs_on_the_apps_loop(
    settings: Settings, way: Callable[[Callable[[], Any]], Any]
) -> None:
    """An open query calls the new function where it called the old one: on the thread of the app."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        ran: list[tuple[str, threading.Thread]] = []

        def version(name: str) -> Callable[[], str]:
            def function() -> str:
                ran.append((name, threading.current_thread()))
                return name

            return function

        lo.publish("version")(version("old"))
        async with runtime.live.subscribe(q.call("version")()) as subscription:
            await asyncio.wait_for(anext(subscription), 5)
            await asyncio.to_thread(way, lambda: lo.publish("version")(version("new")))
            update = await asyncio.wait_for(anext(subscription), 5)
            assert [row["value"] for row in update.rows()] == ["new"]
        assert ran == [("old", threading.current_thread()), ("new", threading.current_thread())]


@WAYS
async def test_a_warning_of_a_function_is_the_callers(
    settings: Settings, way: Callable[[Callable[[], Any]], Any]
) -> None:
    """That a function takes a built-in one's place is said in the thread, and at the line, that does it."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        with pytest.warns(UserWarning, match="replaces the function of this name") as warned:
            await asyncio.to_thread(way, lambda: lo.publish("learning_observer.courseroster")(plainly))
        assert [each.filename for each in warned] == [__file__]


@WAYS
async def test_a_dashboard_is_taken_away_on_the_apps_loop(
    settings: Settings, way: Callable[[Callable[[], Any]], Any]
) -> None:
    """A dashboard whose page is open is taken away from another thread, and who looks hears of it."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        add_overview(runtime)
        await send(runtime, "ann")
        dag = q.call("learning_observer.courseroster")()
        runtime.dashboards.add(Dashboard("mine", "Mine", (Panel(dag),)))
        told: list[threading.Thread] = []
        runtime.dashboards.subscribe(lambda _: told.append(threading.current_thread()))
        async with runtime.live.subscribe("dashboard_mine_1") as subscription:
            await asyncio.wait_for(anext(subscription), 5)
            await asyncio.to_thread(way, lambda: lo.dashboards.remove("mine"))
            await auntil(lambda: subscription.waiting)
        assert told == [threading.current_thread()]
        assert "mine" not in runtime.dashboards


@WAYS
async def test_a_picture_of_a_query_is_made_on_the_apps_loop(
    settings: Settings, way: Callable[[Callable[[], Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lo.explain` looks at times that the app's loop writes: it does so there."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        explain, where = runtime.executor.explain, []

        def watched(query: Any) -> Any:
            where.append(threading.current_thread())
            return explain(query)

        monkeypatch.setattr(runtime.executor, "explain", watched)
        picture = await asyncio.to_thread(way, lambda: lo.explain(q.call("learning_observer.courseroster")()))
        assert "courseroster" in repr(picture)
        assert where == [threading.current_thread()]
