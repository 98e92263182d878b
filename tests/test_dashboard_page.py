"""The page of a dashboard, in a real browser: each state it can be in, and what a teacher does with it."""

from __future__ import annotations

import asyncio
import csv
import io
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
from waiting import auntil

from lo_kernel.app.charts import Chart
from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.overview import add_overview
from lo_kernel.app.typists import typists
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.modules.module import Module
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]

pytestmark = pytest.mark.browser

_CELLS = """n => [...document.querySelectorAll('#lines tbody tr[data-key]')]
    .map(row => row.children[n]?.textContent ?? '')"""
_LINE = """async spec => {
    const holder = document.createElement('div')
    const { usermeta, ...drawing } = spec  // it is JupyterLab's
    const asThePage = { ast: true, actions: false, defaultStyle: false, tooltip: false, logLevel: 1 }
    await vegaEmbed(holder, drawing, { ...asThePage, renderer: 'svg' })
    return [...holder.querySelectorAll('.mark-line path')].map(path => path.getAttribute('d'))
}"""
_FIRST = [
    "Ada", "Ben", "Chloe", "Dario", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kemi",
    "Luca", "Mina", "Noah", "Olga", "Pablo", "Quinn", "Rosa", "Samir", "Tara", "Umar", "Vera",
    "Wim", "Xenia", "Yusuf", "Zoe", "Amir", "Bea", "Carl", "Dina",
]  # fmt: skip
_LAST = ["Okafor", "Martin", "Rossi", "Schmidt", "Haddad", "Kim", "Silva", "Novak", "Larsen", "Lovelace"]
ANN, BO, CY = ("ann", "Ann Arbor"), ("bo", "Bo Derek"), ("cy", "Cy Young")
DRAWN = "body[data-drawn]"


@student_event_reducer(null_state={"count": 0, "word": ""}, module_override="page_tests")
async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count, and keep the last word; one word is more than it can take."""
    word = event["client"].get("word", "")
    if word == "boom":
        raise ValueError("that word again")
    return {"count": state["count"] + 1, "word": word}, None


def add_board(runtime: Runtime, *panels: Panel, **more: Any) -> Dashboard:
    """A reducer, and a dashboard of it."""
    if "count" not in runtime.registry:
        runtime.add_reducer("count", count, module="page_tests")
    return runtime.dashboards.add(Dashboard("board", "My board", panels or (Panel("count"),), **more))


@asynccontextmanager
async def opened(
    open_browser: OpenBrowser, runtime: Runtime, path: str = "dashboards/board", **context: Any
) -> AsyncIterator[Page]:
    """The page, in a window of its own; anything that it complains of fails the test."""
    complaints: list[str] = []
    async with open_browser() as browser:
        window = await browser.new_context(viewport={"width": 1300, "height": 900}, **context)
        page = await window.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error"
                and "Failed to load resource" not in message.text
                and "WebSocket connection" not in message.text
                else None
            ),
        )
        await page.goto(f"{runtime.url}{path}?token={runtime.security.tokens['read']}")
        yield page
        assert not complaints


def state(page: Page, name: str) -> Any:
    """Wait until the page is in this state."""
    return page.wait_for_selector(f"body[data-state='{name}']")


async def cells(page: Page, column: int) -> list[str]:
    """What the learners' list shows in a column; the first has the names."""
    found: list[str] = await page.evaluate(_CELLS, column)
    return found


async def holds(page: Page, expression: str, *given: Any) -> None:
    """Wait until this is true in the page, whose policy lets nothing wait inside it."""
    await auntil(lambda: page.evaluate(expression, *given), what=expression)


async def shows(page: Page, column: int, wanted: list[str]) -> None:
    """Wait until the list shows these in a column."""
    await auntil(
        lambda: page.evaluate(
            f"given => JSON.stringify(({_CELLS})(given[0])) === given[1]", [column, _json(wanted)]
        ),
        what=f"column {column} to be {wanted}, it is {await cells(page, column)}",
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@pytest.fixture
def classroom(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a class list of three."""
    return replace(settings, roster=str(class_list(tmp_path / "class.csv", [ANN, BO, CY])))


async def test_learners_are_shown_by_name_and_their_values_change_as_events_come(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """The list has the roster's names; an event changes the number beside one, and the chart."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "ann", "bo")
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector(DRAWN)
            await state(page, "live")
            await shows(page, 0, [name for _, name in (ANN, BO, CY)])
            await shows(page, 1, ["2", "1", "0"])
            await send(runtime, "cy", "cy", "cy")
            await shows(page, 1, ["2", "1", "3"])
            await holds(
                page,
                "[...document.querySelectorAll('.plot svg [aria-label]')]"
                ".some(mark => /Cy Young.*3|3.*Cy Young/.test(mark.getAttribute('aria-label')))",
            )
            assert "learners" in await page.inner_text("#facts")


async def test_the_largest_bar_is_on_top(classroom: Settings, open_browser: OpenBrowser) -> None:
    """Bars are in the order of their numbers from the first picture on."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "bo", "bo", "bo", "cy", "cy", "ann")
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector(".plot svg")
            names = "[...document.querySelectorAll('.plot .role-axis-label text')].map(e => e.textContent)"
            shown = [name for name in await page.evaluate(names) if " " in name]
            assert shown == ["Bo Derek", "Cy Young", "Ann Arbor"]


async def test_the_token_leaves_the_address_bar(settings: Settings, open_browser: OpenBrowser) -> None:
    """Where the cookie works, the page's address holds no token, and a reload still gets in."""
    async with running_app(settings) as runtime:
        add_board(runtime)
        async with opened(open_browser, runtime) as page:
            await state(page, "empty")
            assert "token" not in page.url
            await page.reload()
            await state(page, "empty")


async def test_a_class_without_learners_says_so(settings: Settings, open_browser: OpenBrowser) -> None:
    """Before anybody was seen the page says that there are no learners yet; the first one ends that."""
    async with running_app(settings) as runtime:
        add_board(runtime)
        async with opened(open_browser, runtime) as page:
            await state(page, "empty")
            assert "No learners yet" in await page.inner_text("#notice")
            await send(runtime, "ann")
            await state(page, "live")
            await shows(page, 0, ["ann"])


async def test_learners_without_events_for_this_dashboard_are_waited_for(
    settings: Settings, open_browser: OpenBrowser
) -> None:
    """Where learners are there, and nothing that the dashboard is about, it says that it waits."""
    async with running_app(settings) as runtime:

        @student_event_reducer(null_state=None, module_override="page_tests")
        async def last_word(event: dict[str, Any], _: Any) -> Any:
            return {"word": event["client"]["word"]}, None

        runtime.add_reducer("last_word", last_word, module="page_tests")
        runtime.dashboards.add(Dashboard("board", "Words", (Panel("last_word"),)))
        await send(runtime, "ann", source="somewhere.else")
        async with opened(open_browser, runtime) as page:
            await state(page, "waiting")
            await send(runtime, "ann", word="hello")
            await state(page, "live")


async def test_a_reducer_that_fails_is_named_with_its_error(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """The page names the reducer and what it failed with; the other learners' values are there."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", word="fine")
        await send(runtime, "bo", word="boom")
        async with opened(open_browser, runtime) as page:
            await state(page, "error")
            notice = await page.inner_text("#notice")
            assert "count" in notice
            assert "that word again" in notice
            await shows(page, 1, ["1", "0", "0"])


async def test_a_query_that_can_not_run_any_more_says_why(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """When its reducer is taken away, the page says so, and comes back with it."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann")
        await runtime.remove_reducer("count")
        async with opened(open_browser, runtime) as page:
            await state(page, "error")
            assert "The answer failed" in await page.inner_text("#notice")


async def test_a_reducer_that_reads_the_past_shows_how_far_it_is(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """While a reducer goes through the past, the page says so; after it, the answer is there."""
    async with running_app(classroom) as runtime:
        await send(runtime, "ann", "bo", "cy")
        gate = asyncio.Event()

        @student_event_reducer(null_state={"n": 0}, module_override="page_tests")
        async def slow(_: dict[str, Any], held: dict[str, int]) -> Any:
            await gate.wait()
            return {"n": held["n"] + 1}, None

        runtime.add_reducer("slow", slow, module="page_tests")
        runtime.dashboards.add(Dashboard("board", "Slow", (Panel("slow"),)))
        async with opened(open_browser, runtime) as page:
            await state(page, "past")
            gate.set()
            await state(page, "live")
            await shows(page, 1, ["1", "1", "1"])


async def test_it_comes_back_with_a_fresh_snapshot_after_the_app_was_gone(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """Without the app the page says so and keeps what it showed; then it shows the new."""
    async with open_browser() as browser:
        page = await browser.new_page()
        async with running_app(classroom) as runtime:
            add_board(runtime)
            await send(runtime, "ann", "bo")
            port = runtime.port
            await page.goto(f"{runtime.url}dashboards/board?token={runtime.security.tokens['read']}")
            await shows(page, 1, ["1", "1", "0"])
        await state(page, "disconnected")
        assert "No connection" in await page.inner_text("#notice")
        await shows(page, 1, ["1", "1", "0"])
        async with running_app(replace(classroom, port=port)) as runtime:
            add_board(runtime)
            await send(runtime, "cy", "cy")
            await state(page, "live")
            await shows(page, 1, ["1", "1", "2"])


async def test_who_may_not_come_in_any_more_is_told(classroom: Settings, open_browser: OpenBrowser) -> None:
    """When its ticket isn't good any more, the page says how to get in again."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        async with open_browser() as browser:
            page = await browser.new_page()
            await page.goto(f"{runtime.url}dashboards/board?token={runtime.security.ticket()}")
            await page.wait_for_selector("#lines tr[data-key]")
            runtime.security._tickets.clear()
            await state(page, "expired")
            assert "Open it again" in await page.inner_text("#notice")


async def test_pause_holds_the_page_still(classroom: Settings, open_browser: OpenBrowser) -> None:
    """While it is paused nothing changes, and the page counts what waits; then all of it is there."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann")
        async with opened(open_browser, runtime) as page:
            await shows(page, 1, ["1", "0", "0"])
            await page.click("#pause")
            await state(page, "paused")
            await send(runtime, "bo")
            await holds(page, "document.getElementById('notice').textContent.includes('1 change')")
            assert await cells(page, 1) == ["1", "0", "0"]
            await page.click("#pause")
            await shows(page, 1, ["1", "1", "0"])


async def test_all_lines_that_fit_are_there(settings: Settings, open_browser: OpenBrowser) -> None:
    """A class of twenty-five is shown whole in a tall window, without any further event."""
    async with running_app(settings) as runtime:
        add_board(runtime)
        await send(runtime, *(f"s{number:02d}" for number in range(25)))
        async with open_browser() as browser:
            page = await browser.new_page(viewport={"width": 1300, "height": 2000})
            await page.goto(f"{runtime.url}dashboards/board?token={runtime.security.ticket()}")
            await page.wait_for_selector(DRAWN)
            await shows(page, 1, ["1"] * 25)
            await page.fill("#filter", "s07")
            await shows(page, 1, ["1"])
            await page.fill("#filter", "")
            await shows(page, 1, ["1"] * 25)


async def test_filter_and_sort(classroom: Settings, open_browser: OpenBrowser) -> None:
    """Typing filters by name; a heading sorts, numbers from the largest, and says which way."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo", "bo", "cy", "cy", "cy")
        async with opened(open_browser, runtime) as page:
            await shows(page, 1, ["1", "2", "3"])
            await page.click("#lines th[data-path='count'] button")
            await shows(page, 1, ["3", "2", "1"])
            assert await page.get_attribute("#lines th[data-path='count']", "aria-sort") == "descending"
            await page.click("#lines th[data-path='count'] button")
            await shows(page, 1, ["1", "2", "3"])
            await page.fill("#filter", "derek")
            await shows(page, 0, ["Bo Derek"])
            assert await page.inner_text("#count") == "1 of 3"


async def test_the_keyboard_is_enough(classroom: Settings, open_browser: OpenBrowser) -> None:
    """Arrow keys go through the list, Enter opens a learner, Escape closes and goes back to the name."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo", "cy")
        async with opened(open_browser, runtime) as page:
            await shows(page, 1, ["1", "1", "1"])
            await page.focus("#lines .name")
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("End")
            await page.keyboard.press("ArrowUp")
            focused = "document.activeElement.textContent"
            assert await page.evaluate(focused) == "Bo Derek"
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#detail[open] .events li")
            assert await page.inner_text("#detail h2") == "Bo Derek"
            await page.keyboard.press("Escape")
            await page.wait_for_selector("#detail:not([open])", state="attached")
            assert await page.evaluate(focused) == "Bo Derek"


async def test_one_learner_with_recent_events_which_go_on_coming(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """A learner's detail shows values and newest events; one that comes in is put on top."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", word="first <b>")
        await send(runtime, "bo", word="of another")
        async with opened(open_browser, runtime) as page:
            await shows(page, 1, ["1", "1", "0"])
            await page.click("#lines .name")
            await page.wait_for_selector("#detail .events li")
            assert "first <b>" in await page.inner_text("#detail .events")
            assert "of another" not in await page.inner_text("#detail .events")
            await send(runtime, "ann", word="second")
            await page.wait_for_selector("#detail .events li:nth-child(2)")
            assert "second" in await page.inner_text("#detail .events li:first-child")
            await holds(page, "document.querySelector('#detail .values dd').textContent === '2'")


async def test_downloads(classroom: Settings, open_browser: OpenBrowser) -> None:
    """The list comes as CSV, in its order and with nothing that a spreadsheet runs; charts as PNG and SVG."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", word="=HYPERLINK(1)")
        await send(runtime, "bo", word='with "quotes", and\nlines')
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector(".plot svg")
            await shows(page, 1, ["1", "1", "0"])

            async def downloaded(selector: str) -> bytes:
                async with page.expect_download() as waiting:
                    await page.click(selector)
                return await asyncio.to_thread(Path(await (await waiting.value).path()).read_bytes)

            rows = list(csv.reader(io.StringIO((await downloaded("#csv")).decode("utf-8-sig"))))
            assert rows[0] == ["student", "name", "count", "word"]
            assert rows[1] == ["tc-testcase-ann", "Ann Arbor", "1", "'=HYPERLINK(1)"]
            assert rows[2][3] == 'with "quotes", and\nlines'
            assert (await downloaded(".panel .tools button >> text=PNG")).startswith(b"\x89PNG")
            picture = (await downloaded(".panel .tools button >> text=SVG")).decode()
            assert picture.startswith("<svg")
            assert "Ann Arbor" in picture


async def test_dark_and_light(classroom: Settings, open_browser: OpenBrowser) -> None:
    """The page follows the system, charts included; the button changes it, and a reload keeps that."""
    ground = "getComputedStyle(document.querySelector('.panel')).backgroundColor"
    chart = "getComputedStyle(document.querySelector('.plot svg')).backgroundColor"
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann")
        async with opened(open_browser, runtime, color_scheme="dark") as page:
            await page.wait_for_selector(".plot svg")
            assert await page.evaluate(ground) == "rgb(22, 33, 41)"
            assert await page.evaluate(chart) == "rgb(22, 33, 41)"
            await page.click("#theme")
            await holds(page, f"{chart} === 'rgb(255, 255, 255)'")
            await page.reload()
            await page.wait_for_selector(".plot svg")
            assert await page.evaluate(chart) == "rgb(255, 255, 255)"


async def test_a_phone_shows_it_without_scrolling_sideways(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """On a phone nothing sticks out, texts are not small, and what is touched is large enough."""
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    async with running_app(classroom) as runtime:
        add_overview(runtime)
        await send(runtime, "ann", "bo")
        async with open_browser() as browser:
            page = await (await browser.new_context(**phone)).new_page()  # type: ignore[arg-type]
            token = runtime.security.tokens["read"]
            await page.goto(f"{runtime.url}dashboards/overview?token={token}")
            await page.wait_for_selector(".plot svg")
            await page.wait_for_selector("#lines tr[data-key]")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            small = "e => e.offsetParent && e.getBoundingClientRect().height < 34"
            assert (
                await page.evaluate(f"[...document.querySelectorAll('button')].filter({small}).length") == 0
            )
            assert await barriers(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_serious_stands_in_anybodys_way(
    classroom: Settings, open_browser: OpenBrowser, scheme: str
) -> None:
    """axe-core finds nothing serious: not on the dashboard, not with a learner open, not on the home page."""
    async with running_app(classroom) as runtime:
        add_overview(runtime)
        add_board(
            runtime,
            Panel("count", chart="table"),
            Panel("count", chart="text"),
            Panel("count", chart="number"),
        )
        await send(runtime, "ann", "bo", word="boom")
        await send(runtime, "ann", word="fine")
        async with opened(open_browser, runtime, "dashboards/overview", color_scheme=scheme) as page:
            await page.wait_for_selector(".plot svg")
            await page.wait_for_selector("#lines tr[data-key]")
            assert await barriers(page) == []
            await page.click("#lines .name")
            await page.wait_for_selector("#detail .events li")
            assert await barriers(page) == []
            await page.goto(f"{runtime.url}dashboards/board")
            await state(page, "error")
            await page.wait_for_selector(".big")
            assert await barriers(page) == []
            await page.goto(runtime.url)
            assert await barriers(page) == []


async def test_each_kind_of_chart_is_drawn(settings: Settings, open_browser: OpenBrowser) -> None:
    """Every name of a chart, and a specification of one's own, gives a drawing with the rows in it."""
    kinds: list[Any] = ["bar", "line", "heatmap", "table", "number", "text", "histogram", "categories"]
    own = {"mark": "point", "encoding": {"x": {"field": "characters", "type": "quantitative"}}}
    async with running_app(settings) as runtime:
        add_overview(runtime)
        await send(runtime, *(f"s{number}" for number in range(12)))
        panels = tuple(Panel("overview.class", chart=kind) for kind in [*kinds, own])
        runtime.dashboards.add(Dashboard("board", "All", panels))
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector(DRAWN)
            drawn = "[...document.querySelectorAll('.chart')].map(e => e.dataset.kind)"
            assert await page.evaluate(drawn) == [*kinds, "template"]
            await holds(
                page,
                "[...document.querySelectorAll('.chart')]"
                ".every(chart => chart.querySelector('.plot svg, .plot canvas, table, .big, .texts'))",
            )
            assert not await page.query_selector(".problem")


async def test_a_class_of_many_is_drawn_as_one(settings: Settings, open_browser: OpenBrowser) -> None:
    """Above 60 learners, activity is how many are where, and the class over time their middle."""
    async with running_app(settings) as runtime:
        for registration in add_overview(runtime)[1]:
            await registration.ready()
        await send(runtime, *(f"s{number:02d}" for number in range(61)))
        async with opened(open_browser, runtime, "dashboards/overview") as page:
            await page.wait_for_selector(DRAWN)
            drawn = "[...document.querySelectorAll('.chart')].map(e => e.dataset.kind)"
            assert await page.evaluate(drawn) == ["categories", "line", "spread", "histogram", "histogram"]
            await holds(
                page,
                "[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg, canvas'))",
            )
            # a few who were there long before the others aren't the middle of the class
            class_ = [{"start": 1_700_000_600, "step": 60, "values": [1, 2, 1]}] * 55
            first = [{"start": 1_700_000_000, "step": 60, "values": [1] * 13}] * 5
            rows = [{"student": f"s{n}", "recent": recent} for n, recent in enumerate(class_ + first)]
            line = await page.evaluate(_LINE, Chart("x", "line", "recent").spec(rows))
            assert [len(line), line[0].count("C") + line[0].count("L")] == [1, 2], line


async def test_panels_fill_the_width(settings: Settings, open_browser: OpenBrowser) -> None:
    """However many panels there are, each line of them is as wide as the page, and its panels as high."""
    async with running_app(settings) as runtime:
        add_board(runtime)
        async with opened(open_browser, runtime) as page:
            for many, lines in ((2, 1), (3, 1), (4, 2), (5, 2)):
                runtime.dashboards.add(Dashboard(f"board-{many}", "Many", (Panel("count"),) * many))
                await page.goto(f"{runtime.url}dashboards/board-{many}")
                await page.wait_for_selector("#panels .panel")
                panels = await page.evaluate(
                    "[...document.querySelectorAll('.panel, #learners')].map(e => e.getBoundingClientRect())"
                    ".map(({left, right, top, bottom}) => [left, right, top, bottom].map(Math.round))"
                )
                left, right, _, _ = panels.pop()
                tops = {box[2]: [each for each in panels if each[2] == box[2]] for box in panels}
                assert (len(panels), len(tops)) == (many, lines)
                for line in tops.values():
                    assert (line[0][0], line[-1][1]) == (left, right)
                    assert len({box[3] for box in line}) == 1


async def test_an_overview_of_what_nobody_sends_waits(settings: Settings, open_browser: OpenBrowser) -> None:
    """Learners who are active elsewhere don't make it live; nothing is drawn in the place of activity."""
    async with running_app(settings) as runtime:
        for registration in add_overview(runtime, context="nowhere")[1]:
            await registration.ready()
        await send(runtime, "ann", "bo")
        async with opened(open_browser, runtime, "dashboards/overview") as page:
            await state(page, "waiting")
            kinds = "[...document.querySelectorAll('.chart')].map(e => e.dataset.kind)"
            assert await page.evaluate(kinds) == ["categories", "waiting", "waiting", "bar", "bar"]
            await send(runtime, "ann", source="nowhere")
            await state(page, "live")
            await holds(page, f"{kinds}[2] === 'heatmap'")


async def test_a_course_is_chosen(settings: Settings, open_browser: OpenBrowser, tmp_path: Path) -> None:
    """With several courses, one is chosen from a list, and its learners are shown."""
    roster = class_list(tmp_path / "a.csv", [ANN, BO])
    second = class_list(tmp_path / "b.csv", [CY], "c2").read_text().splitlines()[1:]
    roster.write_text(roster.read_text() + "\n".join(second) + "\n")
    async with running_app(replace(settings, roster=str(roster))) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo", "cy")
        async with opened(open_browser, runtime) as page:
            await page.select_option("#course", "c2")
            await shows(page, 0, ["Cy Young"])
            await page.select_option("#course", "c1")
            await shows(page, 0, ["Ann Arbor", "Bo Derek"])


async def test_it_works_behind_a_proxy_with_a_prefix(classroom: Settings, open_browser: OpenBrowser) -> None:
    """Scripts, answers, sockets and links, of home too, stay below the prefix that a proxy puts before it."""
    async with running_app(classroom) as runtime, proxied(runtime, "/user/ann/proxy/9999/") as address:
        add_board(runtime)
        runtime.modules.add(Module("ours", "Ours", "1.0", reducers=["count"], queries=["counts"]))
        await send(runtime, "ann", "bo", "cy")
        async with open_browser() as browser:
            page = await browser.new_page()
            await page.goto(f"{address}dashboards/board?token={runtime.security.tokens['read']}")
            await shows(page, 1, ["1", "1", "1"])
            await page.wait_for_selector(".plot svg")
            await page.click("a.home")
            await page.wait_for_selector("#dashboards a")
            assert page.url == address
            assert await page.inner_text("#dashboards span") == "board, 1 panel, of the notebook"
            assert await page.inner_text("#modules span") == "ours 1.0 · 1 reducer, 1 query"
            await page.click("#dashboards a")
            await shows(page, 0, ["Ann Arbor", "Bo Derek", "Cy Young"])


async def test_inside_a_notebook_it_gets_in_by_its_ticket_alone(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """In a frame of Jupyter on localhost, where no cookie is sent, the ticket is enough."""

    async def with_frame(_: web.Request) -> web.Response:
        source = f"{runtime.url}dashboards/board?token={runtime.security.ticket()}"
        return web.Response(
            text=f"<!doctype html><iframe src='{source}' width=1200 height=800></iframe>",
            content_type="text/html",
        )

    around = web.Application()
    around.router.add_get("/", with_frame)
    async with running_app(classroom) as runtime, serving(around) as port, open_browser() as browser:
        add_board(runtime)
        await send(runtime, "ann")
        page = await browser.new_page()
        await page.goto(f"http://localhost:{port}/")
        frame = page.frame_locator("iframe")
        await frame.locator("#lines tr[data-key]").first.wait_for()
        assert await frame.locator("#lines .name").all_inner_texts() == ["Ann Arbor", "Bo Derek", "Cy Young"]
        await frame.locator(".plot svg").wait_for()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        await page.goto(f"http://elsewhere.localhost:{port}/")
        await auntil(lambda: any("frame-ancestors" in text for text in refused))


async def test_a_thousand_learners_cost_no_more_lines_than_fit(
    settings: Settings, open_browser: OpenBrowser
) -> None:
    """Of a thousand learners the page holds the lines that can be seen, and scrolling brings the others.

    No line shows through the heading.
    """
    async with running_app(settings) as runtime:
        add_board(runtime)
        await send(runtime, *(f"s{number:04d}" for number in range(1000)))
        async with opened(open_browser, runtime) as page:
            await page.wait_for_selector(DRAWN)
            await holds(page, "document.getElementById('count').textContent === '1000'")
            assert len(await cells(page, 0)) < 80
            assert await page.get_attribute("#lines", "aria-rowcount") == "1001"
            assert await page.get_attribute(".chart", "data-kind") == "histogram"
            await page.focus("#lines .name")
            await page.keyboard.press("End")
            assert await page.evaluate("document.activeElement.textContent") == "s0999"
            assert len(await cells(page, 0)) < 80
            heading = "document.querySelector('#lines thead th:first-child')"
            ground = await page.evaluate(f"getComputedStyle({heading}).backgroundColor")
            assert not ground.startswith("rgba"), ground
            await send(runtime, "s0999")
            line = '#lines tr[data-key="students.tc-testcase-s0999"]'
            await holds(page, f"document.querySelector('{line}').children[1]?.textContent === '2'")


async def test_the_documentations_pictures(
    settings: Settings, open_browser: OpenBrowser, tmp_path: Path, pictures: Path
) -> None:
    """Half an hour of a class, in light, in the dark and on a phone; `make pictures` keeps them."""
    names = [f"{first} {last}" for first, last in zip(_FIRST, _LAST * 3, strict=True)]
    students = [(f"sim-{number:02d}", name) for number, name in enumerate(names, 1)]
    roster = class_list(tmp_path / "class.csv", students, "English")
    async with running_app(replace(settings, roster=str(roster))) as runtime:
        for registration in add_overview(runtime)[1]:
            await registration.ready()
        await half_an_hour(runtime, len(students))
        runtime.meter._samples.clear()  # half an hour in a second is no pace that a page should show
        kinds: dict[str, dict[str, Any]] = {
            "dashboard": {"viewport": {"width": 1300, "height": 1920}},
            "dashboard-dark": {"viewport": {"width": 1300, "height": 1000}, "color_scheme": "dark"},
            "dashboard-phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
        }
        async with open_browser() as browser:
            for name, window in kinds.items():
                page = await (await browser.new_context(**window)).new_page()
                address = f"{runtime.url}dashboards/overview?token={runtime.security.ticket()}"
                await page.goto(address)
                await page.wait_for_selector(DRAWN)
                await holds(page, "document.querySelectorAll('.plot svg, .plot canvas').length === 5")
                await state(page, "live")
                await page.screenshot(path=pictures / f"{name}.png")
                assert (pictures / f"{name}.png").stat().st_size > 20_000


async def half_an_hour(runtime: Runtime, students: int) -> None:
    """Events of a class that types, as if the last half hour had been; two have stopped a while ago."""
    now, minutes = runtime.clock(), 30
    events = []
    for number, typist in enumerate(typists(students, seed=3)):
        stopped = 420 if number % 9 == 4 else 150 if number % 9 == 7 else 0
        late = (number * 37) % 240
        for due, event in typist.until(60 * minutes - stopped - late):
            events.append((now - 60 * minutes + late + due, typist.user_id, event))
    for when, who, event in sorted(events, key=lambda each: each[0]):
        await send(runtime, who, time=when, **event)
