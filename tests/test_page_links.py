"""Links of the pages, and what charts are drawn with, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from apps import running_app
from page_parts import proxied, send, serving
from test_dashboard_page import add_board, opened

from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser, FrameLocator, Route

    OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]

pytestmark = pytest.mark.browser


def around(runtime: Runtime, home: Callable[[], str]) -> web.Application:
    """Another server's page with the home page in a frame, let in by a ticket."""

    async def with_frame(_: web.Request) -> web.Response:
        source = f"{home()}?token={runtime.security.ticket()}"
        return web.Response(
            text=f"<!doctype html><iframe src='{source}' width=1200 height=800></iframe>",
            content_type="text/html",
        )

    app = web.Application()
    app.router.add_get("/", with_frame)
    return app


async def hrefs(frame: FrameLocator) -> dict[str, str]:
    """Where the dashboards' list leads to, by title."""
    await frame.locator("#dashboards a").first.wait_for()
    links = await frame.locator("#dashboards a").all()
    return {await each.inner_text(): await each.get_attribute("href") or "" for each in links}


@pytest.mark.parametrize("prefix", ["", "/user/ann/proxy/9999/"])
async def test_a_ticket_goes_to_the_app_alone(
    settings: Settings, open_browser: OpenBrowser, prefix: str
) -> None:
    """In a frame the app's links carry the ticket, once, beside what they ask; others stay as they are."""
    async with running_app(settings) as runtime, proxied(runtime, prefix or "/") as proxy:
        home = proxy if prefix else runtime.url
        add_board(runtime)
        elsewhere = "https://elsewhere.example/course?unit=1#top"
        beside = home.partition(prefix)[0] + "/lab?x=1" if prefix else "http://127.0.0.1:1/lab?x=1"
        for name, url in (
            ("Elsewhere", elsewhere),
            ("Beside", beside),
            ("Ours", "/my_module/page.html?unit=1#top"),
            ("Broken", "https://"),
        ):
            runtime.dashboards.course_links.append({"name": name, "url": url, "module": "my_module"})
        async with serving(around(runtime, lambda: home)) as port, open_browser() as browser:
            page = await browser.new_page()
            await page.goto(f"http://localhost:{port}/")
            frame = page.frame_locator("iframe")
            found = await hrefs(frame)
            assert (found["Elsewhere"], found["Beside"]) == (elsewhere, beside)
            assert found["Broken"] == "https://"
            assert found["My board"].startswith(f"{home}dashboards/board?token=t-")
            assert found["Ours"].startswith(f"{home}my_module/page.html?unit=1&token=t-")
            assert found["Ours"].endswith("#top")
            await frame.locator("#dashboards a >> text=My board").click()
            await frame.locator("h1 >> text=My board").wait_for()


async def test_charts_come_once_what_draws_them_can_be_loaded(
    settings: Settings, open_browser: OpenBrowser
) -> None:
    """A script that could not be loaded is asked for again by the next drawing; the page says so."""
    refused: list[str] = []

    async def refuse(route: Route) -> None:
        refused.append(route.request.url)
        await route.abort()

    async with running_app(settings) as runtime:
        add_board(runtime)
        async with opened(open_browser, runtime) as page:
            await page.route("**/vega-lite*.js", refuse)
            await page.reload()
            await send(runtime, "ann")
            await page.locator(".problem >> text=asked again").wait_for()
            assert refused
            await page.unroute("**/vega-lite*.js")
            await send(runtime, "ann")
            await page.locator(".plot svg").wait_for()
            assert await page.locator(".problem").count() == 0
            loaded = "document.querySelectorAll(\"script[src*='vega.min']\").length"
            assert await page.evaluate(loaded) == 1
