"""What tests of the pages share: learners whose events come in, a class list, accessibility, a proxy."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from lo_kernel.engine.events import Sender, identify
from lo_kernel.runtime import Runtime

if TYPE_CHECKING:
    from playwright.async_api import Page

SOURCE = "org.mitros.writing_analytics"
AXE = Path(__file__).parent / "vendor" / "axe.min.js.gz"


async def send(
    runtime: Runtime, *who: str, source: str = SOURCE, time: float | None = None, **fields: Any
) -> None:
    """An event of each of these learners, as if it had come over the wire."""
    body = {"event": "keystroke", **fields}
    for name in who:
        identity = identify({"user_id": name})
        assert identity is not None
        sender = Sender(identity, source)
        now = runtime.clock() if time is None else time
        await runtime.pipeline.accept(sender, dict(body), json.dumps(body).encode(), now)


def class_list(path: Path, students: Sequence[tuple[str, str]], course: str = "c1") -> Path:
    """A roster file: user id and name of each."""
    lines = ["user_id,course_id,course_name,name"]
    lines += [f"tc-testcase-{who},{course},Course {course},{name}" for who, name in students]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@cache
def _axe() -> str:
    return gzip.decompress(AXE.read_bytes()).decode()


async def barriers(page: Page) -> list[str]:
    """What axe-core finds on a page that is serious or worse: rule, and the first element it is about."""
    await page.evaluate(_axe())  # by the debugger's way in, which the page's policy doesn't rule
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']} ({each['impact']}): {each['nodes'][0]['html'][:160]}, "
        f"{each['nodes'][0]['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@asynccontextmanager
async def serving(app: web.Application, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Another server on this loop; gives its port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    assert site._server is not None
    port: int = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxied(runtime: Runtime, prefix: str) -> AsyncIterator[str]:
    """The app behind a proxy that puts a path before it, as jupyter-server-proxy does; gives its address."""
    async with aiohttp.ClientSession(auto_decompress=False) as client:

        async def forward(request: web.Request) -> web.StreamResponse:
            target = runtime.url + request.match_info["path"]
            if request.query_string:
                target += f"?{request.query_string}"
            headers = {
                name: value
                for name, value in request.headers.items()
                if name not in ("Connection", "Upgrade") and not name.startswith("Sec-WebSocket")
            }
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _forward_socket(request, client, target, headers)
            async with client.get(target, headers=headers, allow_redirects=False) as answer:
                kept = {
                    name: value
                    for name, value in answer.headers.items()
                    if name not in ("Transfer-Encoding",)
                }
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)

        app = web.Application()
        app.router.add_get(f"{prefix}{{path:.*}}", forward)
        async with serving(app) as port:
            yield f"http://localhost:{port}{prefix}"


async def _forward_socket(
    request: web.Request, client: aiohttp.ClientSession, target: str, headers: dict[str, str]
) -> web.WebSocketResponse:
    near = web.WebSocketResponse()
    await near.prepare(request)
    async with client.ws_connect(target, headers=headers) as far:

        async def back() -> None:
            async for message in far:
                await near.send_str(message.data)
            await near.close()

        task = asyncio.create_task(back())
        async for message in near:
            await far.send_str(message.data)
        task.cancel()
    return near
