"""Pages in a real browser: that an answer is behind, whom the numbers at the top count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from apps import running_app
from page_parts import barriers, class_list, send
from test_dashboard_page import ANN, BO, CY, add_board, count, holds, opened, shows, state

from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser

    OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]

pytestmark = pytest.mark.browser

LINE = "document.getElementById('behind').hidden ? '' : document.getElementById('behind').textContent"
FACTS = "document.getElementById('facts').textContent"


@pytest.fixture
def classroom(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a class list of three."""
    return replace(settings, roster=str(class_list(tmp_path / "class.csv", [ANN, BO, CY])))


async def test_pages_say_that_a_reducer_is_paused_until_it_goes_on(
    workspace: Path, open_browser: OpenBrowser
) -> None:
    """After a restart both pages say how far its states are, as an answer in a notebook does."""
    settings = Settings(workspace=str(workspace), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="page_tests").ready()
        await send(runtime, "ann", "bo")
    async with running_app(settings) as runtime:
        runtime.dashboards.add(Dashboard("board", "My board", (Panel("count"),)))
        async with (
            opened(open_browser, runtime) as board,
            opened(open_browser, runtime, "queries") as queries,
        ):
            await queries.wait_for_selector("#drawing svg .node.answer")
            assert "count is paused" in await queries.inner_text("#reducers")
            await queries.check("#live")
            for page in (board, queries):
                await state(page, "behind")
                await holds(
                    page, f"({LINE}).startsWith('The reducer count is paused, with all events so far')"
                )
                assert await barriers(page) == []
            await send(runtime, "ann")
            for page in (board, queries):
                await holds(
                    page, f"({LINE}).includes('is paused: newer events aren\\'t in this answer until')"
                )
            await shows(board, 1, ["1", "1"])
            await holds(queries, "document.getElementById('reducers').hidden")  # it is said once
            await runtime.add_reducer("count", count, module="page_tests").ready()
            for page in (board, queries):
                await state(page, "live")
                await holds(page, f"({LINE}) === ''")
            await shows(board, 1, ["2", "1"])


async def test_pages_say_that_the_code_before_answers(settings: Settings, open_browser: OpenBrowser) -> None:
    """While new code goes through the past, both say whose answer it is; one that was asked once keeps it."""
    gate = asyncio.Event()

    @student_event_reducer(null_state={"count": 0}, module_override="page_tests", qualname_override="count")
    async def other(event: dict[str, Any], state: dict[str, Any]) -> Any:
        return {"count": state["count"] + 2}, None

    async def migrate(old: Any) -> Any:
        await gate.wait()
        return old

    async with running_app(settings) as runtime:
        add_board(runtime)
        await send(runtime, "ann")
        async with (
            opened(open_browser, runtime) as board,
            opened(open_browser, runtime, "queries") as queries,
        ):
            await state(board, "live")
            await queries.wait_for_selector("#drawing svg .node.answer")
            await queries.check("#live")
            await state(queries, "live")
            for page in (board, queries):
                assert await page.evaluate(LINE) == ""
            new = runtime.add_reducer("count", other, module="page_tests", migrate=migrate)
            for page in (board, queries):
                await holds(page, f"({LINE}).includes('the answer of the code before')")
            await queries.uncheck("#live")
            gate.set()
            await new.ready()
            await holds(board, f"({LINE}) === ''")
            assert "the answer of the code before" in await queries.evaluate(LINE)
            await queries.click("#run")
            await holds(queries, f"({LINE}) === ''")


async def test_the_top_counts_the_learners_of_the_course_that_is_shown(
    settings: Settings, open_browser: OpenBrowser, tmp_path: Path
) -> None:
    """With one course chosen, the numbers at the top are its learners, and all who were seen beside them."""
    path = class_list(tmp_path / "class.csv", [ANN, BO], "c1")
    path.write_text(path.read_text() + "tc-testcase-cy,c2,Course c2,Cy Young\n")
    async with running_app(replace(settings, roster=str(path))) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo", "cy")
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector("body[data-drawn]")
            for course, said in (
                ("c2", "1 learner shown · 3 seen in all · 3 of them active · "),
                ("c1", "2 learners shown · 3 seen in all · 3 of them active · "),
            ):
                await page.select_option("#course", course)
                await holds(page, f"said => {FACTS}.startsWith(said)", said)


async def test_the_top_counts_everybody_once_where_all_are_shown(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """A class that is shown whole, in two panels: one number for it, no second one."""
    async with running_app(classroom) as runtime:
        add_board(runtime, Panel("count"), Panel("page_tests.count", {"course_id": "c1"}))
        await send(runtime, "ann", "bo", "cy")
        async with opened(open_browser, runtime) as page:
            await state(page, "live")
            await holds(page, f"{FACTS}.startsWith('3 learners · 3 active · ')")
