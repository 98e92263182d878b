"""A running app, and clients that know the wire format alone.

`running(settings)` serves the real app on a port of its own, `connect(url)` opens a websocket to it, and
`talking(settings)` does both. Nothing here imports what it tests, besides the app's own front door.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from waiting import auntil

from lo_kernel.app.application import create_app
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.errors import StoreError
from lo_kernel.kernel.host import bind_first
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"

Event = dict[str, Any]


@asynccontextmanager
async def running(
    settings: Settings, prepare: Callable[[Runtime], None] | None = None
) -> AsyncIterator[Runtime]:
    """The app, answering on a free port; it is ended in an orderly way."""
    runtime = Runtime(settings)
    sock = bind_first("127.0.0.1", ())
    runtime.bind("127.0.0.1", sock.getsockname()[1])
    if prepare is not None:
        prepare(runtime)
    runner = web.AppRunner(create_app(runtime), shutdown_timeout=0.4)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield runtime
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A websocket, as any client has one."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:
        yield ws


@asynccontextmanager
async def talking(
    settings: Settings, prepare: Callable[[Runtime], None] | None = None
) -> AsyncIterator[tuple[Runtime, aiohttp.ClientWebSocketResponse]]:
    """:func:`running`, and a websocket that is open to it."""
    async with running(settings, prepare) as runtime, connect(runtime.ingest_url) as ws:
        yield runtime, ws


async def say(ws: aiohttp.ClientWebSocketResponse, *messages: Any) -> None:
    """Send JSON values, one a frame; a text is sent as it is."""
    for message in messages:
        await ws.send_str(message if isinstance(message, str) else json.dumps(message))


async def hear(ws: aiohttp.ClientWebSocketResponse, status: str, *, timeout: float = 5.0) -> dict[str, Any]:
    """The next message with this status; others are passed over."""
    async with asyncio.timeout(timeout):
        while True:
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.TEXT, f"waited for {status!r}, got {message!r}"
            data = json.loads(message.data)
            if data.get("status") == status:
                return dict(data)


def who(user: str = "u0", **more: Any) -> Event:
    """The identifying event of a test client."""
    return {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": user, **more}


def typed(number: int = 0, **more: Any) -> Event:
    """An event."""
    return {"event": "keystroke", "source": SOURCE, "number": number, **more}


def key_of(user: str = "u0", name: str = "tests.count") -> str:
    """Where the state of a test client's learner is."""
    return f"Internal,{name},STUDENT:tc-testcase-{user}"


@kvs_pipeline(null_state={"n": 0}, module_override="tests", qualname_override="count")
async def count(event: Event, state: Any) -> tuple[Any, Any]:
    """How many keystrokes."""
    if event["client"]["event"] == "keystroke":
        state["n"] += 1
    return state, state


async def state_of(runtime: Runtime, key: str) -> Any:
    """One state, as queries read it."""
    return (await runtime.registry.read([key]))[0]


async def expect(runtime: Runtime, key: str, value: Any, *, timeout: float = 5.0) -> None:
    """Wait until a state is what it should be."""

    deadline = asyncio.get_running_loop().time() + timeout
    while (found := await state_of(runtime, key)) != value:
        assert asyncio.get_running_loop().time() < deadline, f"{key}: expected {value!r}, got {found!r}"
        await asyncio.sleep(0.005)


async def idle(runtime: Runtime) -> None:
    """Wait until all that came is folded and committed."""
    await auntil(runtime.pipeline.is_idle, what="the pipeline to be idle")
    await runtime.pipeline.commit()


def rejected(workspace: Path) -> list[dict[str, Any]]:
    """What lies under `rejected/`."""
    path = workspace / "rejected" / "rejected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bodies(runtime: Runtime) -> list[dict[str, Any]]:
    """The events of the archive, as they were received."""
    return [json.loads(bytes(record.body)) for record in runtime.archive.read()]


class Faulty:
    """A store that can be taken away: while ``down`` is set it answers with errors."""

    def __init__(self, store: Any) -> None:
        self._inner = store
        self.down = False
        self.name = store.name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name in ("open", "close", "size"):
            return found
        if name == "get_now":

            def now(*args: Any) -> Any:
                self._check()
                return found(*args)

            return now

        async def call(*args: Any) -> Any:
            self._check()
            result: Awaitable[Any] = found(*args)
            return await result

        return call

    def _check(self) -> None:
        if self.down:
            raise StoreError("the store is gone for a while")
