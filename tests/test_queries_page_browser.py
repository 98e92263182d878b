"""The page of queries in a real browser: choose, run, keep live, see how it is built, write one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from apps import running_app
from page_parts import barriers, class_list, proxied, send, serving
from test_dashboard_page import _FIRST, _LAST, ANN, BO, CY, holds, opened, state
from test_queries_page import add_queries
from waiting import auntil

from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.overview import add_overview
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.query.language import q
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]

pytestmark = pytest.mark.browser

_ROWS = "[...document.querySelectorAll('#rows tbody tr')].map(row => [...row.children].map(c => c.innerText))"
DRAWN = "#drawing svg .node.answer"


@pytest.fixture
def classroom(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a class list of three."""
    return replace(settings, roster=str(class_list(tmp_path / "class.csv", [ANN, BO, CY])))


@asynccontextmanager
async def page_of(
    open_browser: OpenBrowser, settings: Settings, query: str, **context: Any
) -> AsyncIterator[tuple[Runtime, Page]]:
    """The page with one query chosen, in a class of three of whom two have sent events."""
    async with running_app(settings) as runtime:
        add_queries(runtime)
        await send(runtime, "ann", "ann", "bo")
        async with opened(open_browser, runtime, "queries", **context) as page:
            await page.goto(f"{runtime.url}queries#{query}")
            await page.wait_for_selector(DRAWN)
            yield runtime, page


async def rows(page: Page, wanted: list[list[str]]) -> None:
    """Wait until the answer shows these rows."""

    given = json.dumps(wanted, separators=(",", ":"), ensure_ascii=False)
    same = f"given => JSON.stringify({_ROWS}) === given"
    await auntil(
        lambda: page.evaluate(same, given),
        what=f"the answer to be {wanted}, it is {await page.evaluate(_ROWS)}",
    )


def _who(who: tuple[str, str]) -> str:
    return f"{who[1]}\ntc-testcase-{who[0]}"


async def test_a_query_is_chosen_and_run(classroom: Settings, open_browser: OpenBrowser) -> None:
    """The list leads to a query; run, its answer is a table with the roster's names and how long it took."""
    async with page_of(open_browser, classroom, "my_module.mean") as (_, page):
        assert "3 queries" in await page.inner_text("#facts")
        await page.click("#names a:has-text('page_tests.count')")
        await holds(page, "document.getElementById('name').textContent === 'page_tests.count'")
        assert "page_tests.count" in page.url
        assert "latest state" in await page.inner_text("#description")
        await page.click("#run")
        await rows(page, [[_who(ANN), "2", ""], [_who(BO), "1", ""], [_who(CY), "0", ""]])
        assert (await page.inner_text("#said")).startswith("3 rows, all there after ")
        await state(page, "ready")
        await holds(page, "document.getElementById('took').textContent.startsWith('The last run took')")
        await holds(page, "document.querySelector('#drawing .answer .note').textContent.includes(' ms')")


async def test_one_number_and_rows_in_an_order(classroom: Settings, open_browser: OpenBrowser) -> None:
    """An aggregate is shown as what it is; a heading sorts rows, and again the other way."""
    async with page_of(open_browser, classroom, "my_module.mean") as (_, page):
        await page.click("#run")
        await rows(page, [["1"]])
        await page.click("#names a:has-text('page_tests.count')")
        await page.click("#run")
        await page.click("#rows th:has-text('count') button")
        assert await page.get_attribute("#rows th:has-text('count')", "aria-sort") == "descending"
        await page.click("#rows th:has-text('count') button")
        await rows(page, [[_who(CY), "0", ""], [_who(BO), "1", ""], [_who(ANN), "2", ""]])


async def test_parameters_are_asked_for(classroom: Settings, open_browser: OpenBrowser) -> None:
    """A required one that is missing, or isn't a number, is said at its field; courses are offered."""
    async with page_of(open_browser, classroom, "my_module.best") as (_, page):
        field = "#fields input[name=n]"
        assert "required" in await page.inner_text("#fields")
        assert await page.locator("#fields select option").all_inner_texts() == ["All courses", "Course c1"]
        await page.click("#run")
        assert "expected a value" in await page.inner_text("#fields .problem:not(:empty)")
        await page.fill(field, "some")
        await page.click("#run")
        assert "expected a number, got “some”" in await page.inner_text("#fields .problem:not(:empty)")
        assert await page.get_attribute(field, "aria-invalid") == "true"
        await page.fill(field, "1")
        await page.press(field, "Enter")
        await rows(page, [[_who(ANN), "2", ""]])
        assert "n=1" in await page.inner_text("#notebook")


async def test_a_wrong_parameter_is_an_error_in_the_page(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """What the app says of a value that it can't take stands in the page, and the next run ends it."""
    async with page_of(open_browser, classroom, "my_module.best") as (_, page):
        await page.fill("#fields input[name=n]", "-1")
        await page.click("#run")
        await state(page, "error")
        assert "expected how many rows, got -1" in await page.inner_text("#wrong")
        await page.fill("#fields input[name=n]", "1")
        await page.click("#run")
        await rows(page, [[_who(ANN), "2", ""]])
        assert await page.inner_text("#wrong") == ""


async def test_an_answer_is_kept_live(classroom: Settings, open_browser: OpenBrowser) -> None:
    """With "keep it live" an event changes the row; switched off, the answer stays and nobody is told."""
    async with page_of(open_browser, classroom, "page_tests.count") as (runtime, page):
        await page.check("#live")
        await state(page, "live")
        await rows(page, [[_who(ANN), "2", ""], [_who(BO), "1", ""], [_who(CY), "0", ""]])
        await send(runtime, "cy", word="new")
        await rows(page, [[_who(ANN), "2", ""], [_who(BO), "1", ""], [_who(CY), "1", "new"]])
        await holds(page, "document.getElementById('changed').textContent.startsWith('Last change')")
        assert await page.inner_text("#said") == "3 rows, kept live."
        await page.uncheck("#live")
        await state(page, "ready")
        await auntil(lambda: runtime.live.readers == 0)
        await rows(page, [[_who(ANN), "2", ""], [_who(BO), "1", ""], [_who(CY), "1", "new"]])


async def test_an_error_in_a_value_stands_in_its_place(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """A row whose function failed says so; the others have nested values that unfold, and names."""
    async with page_of(open_browser, classroom, "my_module.mean") as (runtime, page):

        @runtime.functions.publish("grade")
        def grade(count: int) -> dict[str, Any]:
            if count == 1:
                raise ValueError("one is not enough")
            return {"grade": count, "why": {"text": "x" * 100, "list": [1, {"a": 2}]}}

        runtime.catalog.add("graded", {"all": q.map("grade", q.latest("count"), value_path="count")})
        await page.reload()  # the list looks for new ones by itself, but not often
        await page.click("#names a:has-text('graded.all')")
        await page.click("#run")
        await rows(
            page,
            [
                [_who(ANN), "2", "2 fields"],
                [_who(BO), "error: grade: ValueError: one is not enough"],
                [_who(CY), "0", "2 fields"],
            ],
        )
        await page.click("#rows summary >> nth=0")
        assert '"a": 2' in await page.inner_text("#rows pre >> nth=0")


async def test_a_script_in_a_value_is_a_text(classroom: Settings, open_browser: OpenBrowser) -> None:
    """Markup in a value, a name, a description or a node's name is shown as text and does nothing."""
    evil = '<img src=x onerror="window.hit = 1"><script>window.hit = 1</script>'
    async with page_of(open_browser, classroom, "page_tests.count") as (runtime, page):
        source = {
            "execution_dag": {evil: q.latest("count")},
            "exports": {"evil": {"returns": evil, "description": evil, "sample": [{evil: evil}]}},
        }
        runtime.catalog.add("evil", source)
        await send(runtime, "ann", word=evil)
        await page.reload()
        await page.click("#names a:has-text('evil.evil')")
        await holds(page, "document.querySelector('#drawing title').textContent.includes('evil')")
        assert evil in await page.inner_text("#description")
        assert evil in await page.inner_text("#sample")
        await page.click("#run")
        await holds(page, "document.querySelector('#rows td:last-child')?.textContent.includes('<script>')")
        assert await page.evaluate("window.hit === undefined && !document.querySelector('main img')")


async def test_a_big_answer_is_shown_in_parts(settings: Settings, open_browser: OpenBrowser) -> None:
    """Of five hundred rows two hundred are in the page at first, it says so, and gives the others."""
    async with running_app(settings) as runtime:
        add_queries(runtime)
        await send(runtime, *(f"s{number:03d}" for number in range(500)))
        async with opened(open_browser, runtime, "queries") as page:
            await page.click("#names a:has-text('page_tests.count')")
            await page.click("#run")
            await holds(page, "document.querySelectorAll('#rows tbody tr').length === 200")
            assert (await page.inner_text("#more")).startswith("200 of 500 rows are shown")
            await page.click("#more")
            await page.click("#more")
            await holds(page, "document.querySelectorAll('#rows tbody tr').length === 500")
            assert await page.is_hidden("#more")


async def test_one_is_written_with_the_notebooks_token(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """A copy is changed; a mistake is named with its node and field; put right, it is drawn and runs."""
    async with running_app(classroom) as runtime:
        add_queries(runtime)
        await send(runtime, "ann", "ann", "bo")
        async with opened(open_browser, runtime, "queries") as page:
            assert await page.locator("#names a:has-text('Write a query')").count() == 0
            await page.goto(f"{runtime.url}queries?token={runtime.workspace.tokens['notebook']}")
            await page.click("#names a:has-text('my_module.mean')")
            await page.wait_for_selector(DRAWN)
            await page.click("#built summary:has-text('As JSON')")
            await page.click("text=Change a copy")
            await page.wait_for_selector("#dag")
            text = await page.input_value("#dag")
            await page.fill("#dag", text.replace('"mean"', '"nope"', 1).replace("mean", "nope"))
            await page.click("text=Check and draw")
            await page.wait_for_selector("#wrong:not(:empty)")
            assert await page.get_attribute("body", "data-state") == "error"
            assert "there is no published function 'nope'" in await page.inner_text("#wrong")
            assert "field 'function_name'" in await page.inner_text("#wrong")
            await page.fill("#dag", text.replace('"function_name": "mean"', '"function_name": "max"'))
            await page.click("text=Check and draw")
            await page.wait_for_selector(DRAWN)
            assert await page.get_attribute("body", "data-state") == "ready"
            await page.select_option("#export", "mean")
            await page.click("#run")
            await rows(page, [["2"]])


async def test_a_reducer_that_reads_the_past_is_waited_for(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """While the reducer goes through the past, the page says how far it is; then the answer is there."""
    gate = asyncio.Event()

    @student_event_reducer(null_state={"n": 0}, module_override="page_tests")
    async def slow(_: dict[str, Any], held: dict[str, int]) -> Any:
        await gate.wait()
        return {"n": held["n"] + 1}, None

    async with page_of(open_browser, classroom, "my_module.mean") as (runtime, page):
        runtime.add_reducer("slow", slow, module="page_tests")
        await page.click("#names a:has-text('page_tests.slow')")
        await page.click("#run")
        await state(page, "past")
        assert "goes through past events" in await page.inner_text("#notice")
        gate.set()
        await rows(page, [[_who(ANN), "2"], [_who(BO), "1"], [_who(CY), "0"]])


async def test_other_pages_lead_to_it_and_it_leads_home(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """Home and a dashboard have a link to the queries, which has one back; so too behind a proxy's path."""
    async with running_app(classroom) as runtime:
        add_queries(runtime)
        runtime.dashboards.add(Dashboard("board", "Board", (Panel("page_tests.count"),)))
        async with proxied(runtime, "/user/ann/proxy/9999/") as address, open_browser() as browser:
            page = await browser.new_page()
            await page.goto(f"{address}dashboards/board?token={runtime.security.tokens['read']}")
            await page.click("nav >> text=Queries")
            assert page.url.startswith(f"{address}queries")
            await page.click("#names a:has-text('page_tests.count')")
            await page.wait_for_selector(DRAWN)
            await page.click("#run")
            await page.wait_for_selector("#rows tbody tr")
            await page.click("nav >> text=Home")
            await page.click("nav >> text=Queries")
            await page.wait_for_selector(DRAWN)


async def test_inside_a_notebook_it_gets_in_by_its_ticket_alone(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """In a frame of another page, where no cookie is sent, the ticket is enough to list, run and draw."""

    async def with_frame(_: web.Request) -> web.Response:
        source = f"{runtime.url}queries?token={runtime.security.ticket()}#page_tests.count"
        text = f"<!doctype html><iframe src='{source}' width=1200 height=800></iframe>"
        return web.Response(text=text, content_type="text/html")

    around = web.Application()
    around.router.add_get("/", with_frame)
    async with running_app(classroom) as runtime, serving(around) as port, open_browser() as browser:
        add_queries(runtime)
        await send(runtime, "ann")
        page = await browser.new_page()
        await page.goto(f"http://localhost:{port}/")
        frame = page.frame_locator("iframe")
        await frame.locator(DRAWN).wait_for()
        await frame.locator("#run").click()
        await frame.locator("#rows tbody tr").first.wait_for()
        assert "Ann Arbor" in await frame.locator("#rows").inner_text()
        await frame.locator("nav >> text=Home").click()
        await frame.locator("#tiles div").first.wait_for()
        await frame.locator("nav >> text=Queries").click()
        await frame.locator(DRAWN).wait_for()


async def test_it_can_be_used_by_keyboard_and_read_aloud(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """No barrier in light or dark, before and after a run; the tab key gets to the list and to "Run"."""
    async with page_of(open_browser, classroom, "page_tests.count") as (_, page):
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.reload()
            await page.wait_for_selector(DRAWN)
            assert await barriers(page) == []
            await page.click("#run")
            await page.wait_for_selector("#rows tbody tr")
            await page.click("#built summary:has-text('As a list')")
            assert await barriers(page) == []
            await page.focus("#filter")
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.closest('#names') !== null")
            await page.focus("#live")
            await page.keyboard.press("Shift+Tab")
            assert await page.evaluate("document.activeElement.id") == "run"


async def test_nothing_sticks_out_on_a_phone(classroom: Settings, open_browser: OpenBrowser) -> None:
    """On a narrow screen the page is as wide as the screen; table and drawing scroll inside it."""
    small = {"width": 390, "height": 844}
    async with page_of(open_browser, classroom, "page_tests.count") as (_, page):
        await page.set_viewport_size(small)  # type: ignore[arg-type]
        await page.click("#run")
        await page.wait_for_selector("#rows tbody tr")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        heights = "[...document.querySelectorAll('button')].map(b => b.offsetHeight).filter(h => h)"
        assert min(await page.evaluate(heights)) >= 34


async def test_the_documentations_picture(
    settings: Settings, open_browser: OpenBrowser, tmp_path: Path, pictures: Path
) -> None:
    """A query of a class, kept live, with its drawing; `make pictures` keeps it."""
    people = [(f"s{n}", f"{first} {_LAST[n % len(_LAST)]}") for n, first in enumerate(_FIRST[:10])]
    kept = replace(settings, roster=str(class_list(tmp_path / "ten.csv", people, course="Grade 8")))
    async with running_app(kept) as runtime:
        add_overview(runtime)
        now = runtime.clock()
        for place, (who, _) in enumerate(people):
            for minute in range(30):
                if (minute * 7 + place * 5) % (place + 3):
                    await send(runtime, who, time=now - 60 * (30 - minute) + place)
        async with opened(open_browser, runtime, "queries") as page:
            await page.wait_for_selector(DRAWN)
            await page.check("#live")
            await state(page, "live")
            await holds(page, "document.querySelectorAll('#rows tbody tr').length === 10")
            await page.screenshot(path=pictures / "queries.png", full_page=True)
            assert (pictures / "queries.png").stat().st_size > 20_000
