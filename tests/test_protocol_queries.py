"""The query websocket and the rosters, by clients that know only PROTOCOL.md, against the real app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel.app.protocol import QueryConnection
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"
GOLDEN = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
}


@student_event_reducer(null_state={"count": 0}, module_override="my_module")
async def student_event_counter(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count."""
    return {"count": state["count"] + 1}, None


class Client:
    """A client of the field, over the real socket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def ask(self, **queries: Any) -> None:
        """Send an object of named queries."""
        await self.ws.send_json(queries)

    async def get(self) -> list[dict[str, Any]]:
        """The next messages."""
        messages: list[dict[str, Any]] = await self.ws.receive_json(timeout=5)
        return messages


@asynccontextmanager
async def counting_app(settings: Settings) -> AsyncIterator[Runtime]:
    """The app, with one reducer."""
    async with running_app(settings) as runtime:
        registration = runtime.registry.add(
            "student_event_counter", student_event_counter, module="my_module"
        )
        runtime.catalog.add_reducer(registration, "my_module")
        yield runtime


@asynccontextmanager
async def connected(runtime: Runtime, kind: str = "read") -> AsyncIterator[Client]:
    """A client with the workspace's token of this kind."""
    token = runtime.workspace.tokens[kind]
    async with aiohttp.ClientSession() as session:
        url = f"{runtime.url}wsapi/communication_protocol?token={token}"
        async with session.ws_connect(url) as ws:
            yield Client(ws)


@asynccontextmanager
async def typing(runtime: Runtime, *names: str) -> AsyncIterator[Callable[[str], Any]]:
    """Learners that can send an event each."""
    async with aiohttp.ClientSession() as session:
        sockets = {}
        for name in names:
            ws = sockets[name] = await session.ws_connect(runtime.ingest_url)
            await ws.send_json(
                {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": name, "origin": "test"}
            )
            await ws.receive_json(timeout=5)

        async def send(name: str) -> None:
            await sockets[name].send_json({"event": "keystroke", "source": SOURCE, "doc_id": "d"})

        yield send
        for ws in sockets.values():
            await ws.close()


def counter_query(delay: float = -1, **more: Any) -> dict[str, Any]:
    """The field's example query."""
    return {
        "execution_dag": "my_module",
        "target_exports": ["student_event_counter_export"],
        "kwargs": {"course_id": "12345", "rerun_dag_delay": delay},
        **more,
    }


async def seen(runtime: Runtime, events: int) -> None:
    """Wait until so many events have been taken in."""
    await auntil(lambda: runtime.archive.last >= events)


async def test_the_example_of_the_field_is_answered(settings: Settings) -> None:
    """The field's query gets each learner's count under students.<id>, in one list of updates."""
    async with counting_app(settings) as runtime, typing(runtime, "u0", "u1") as send:
        await seen(runtime, 2)
        await send("u0")
        await seen(runtime, 3)
        async with connected(runtime) as client:
            await client.ask(q=counter_query())
            messages = await client.get()
        assert [(m["op"], m["path"], m["value"]["count"]) for m in messages] == [
            ("update", "students.tc-testcase-u0", 2),
            ("update", "students.tc-testcase-u1", 1),
        ]
        assert messages[0]["value"]["profile"] == {"name": {"full_name": "testcase-u0"}}


async def test_an_event_becomes_one_small_update(settings: Settings) -> None:
    """With a delay that is not negative, an event is pushed as the one field of the one row that changed."""
    async with counting_app(settings) as runtime, typing(runtime, "u0", "u1") as send:
        await seen(runtime, 2)
        async with connected(runtime) as client:
            await client.ask(q=counter_query(10))
            await client.get()
            await send("u1")
            assert await client.get() == [
                {"op": "update", "path": "students.tc-testcase-u1", "value": {"count": 2}}
            ]


async def test_once_is_once_and_complete_says_so(settings: Settings) -> None:
    """A negative delay gets one answer; `mark_complete` adds a last message, which others never see."""
    async with counting_app(settings) as runtime, typing(runtime, "u0") as send:
        await seen(runtime, 1)
        async with connected(runtime) as client:
            await client.ask(once=counter_query(mark_complete=True))
            assert [m["op"] for m in await client.get()] == ["update"]
            assert await client.get() == [{"op": "complete", "path": "once", "value": {}}]
            await auntil(lambda: len(runtime.live) == 0)
            await send("u0")
            await seen(runtime, 2)
            await client.ask(live=counter_query(0))
            assert (await client.get())[0]["value"]["count"] == 2


async def test_several_queries_and_the_next_message_replaces_them(settings: Settings) -> None:
    """All queries of an object are answered; the next object ends those before."""
    async with counting_app(settings) as runtime, typing(runtime, "u0"):
        await seen(runtime, 1)
        async with connected(runtime) as client:
            await client.ask(
                a=counter_query(1), b={**counter_query(1), "target_exports": ["student_event_counter"]}
            )
            assert [(await client.get())[0]["op"] for _ in range(2)] == ["update", "update"]
            assert runtime.live.readers == 2
            await client.ask(c=counter_query(1))
            await client.get()
            assert runtime.live.readers == 1
            await client.ask()
            await auntil(lambda: runtime.live.readers == 0)


@pytest.mark.parametrize(
    ("text", "path", "error"),
    [
        ("{nope", "request", "expected JSON"),
        ("[1]", "request", "expected an object of at most"),
        ('{"q": 1}', "q", "expected an object with 'execution_dag', got 1"),
        ('{"q": {}}', "q", "field 'execution_dag': expected the name of a query or a DAG, got None"),
        ('{"q": {"execution_dag": "x"}}', "q", "there is no query 'x'; there are: my_module"),
        (
            '{"q": {"execution_dag": "my_module", "target_exports": ["x"]}}',
            "q",
            "there is no export 'x'; there are: student_event_counter, student_event_counter_export",
        ),
        (
            '{"q": {"execution_dag": "my_module", "target_exports": "x"}}',
            "q",
            "field 'target_exports': expected a list of names",
        ),
        ('{"q": {"execution_dag": "my_module", "kwargs": [1]}}', "q", "field 'kwargs': expected an object"),
        (
            '{"q": {"execution_dag": "my_module", "kwargs": {"rerun_dag_delay": "soon"}}}',
            "q",
            "expected seconds, or -1 for once, got 'soon'",
        ),
        ('{"q": {"execution_dag": {"a": 1}}}', "q", "only the notebook's own token may send"),
    ],
)
async def test_a_mistake_gets_an_error_that_the_client_can_show(
    settings: Settings, text: str, path: str, error: str
) -> None:
    """A wrong message gets an error under the query's name, and the connection goes on."""
    async with counting_app(settings) as runtime, typing(runtime, "u0"):
        await seen(runtime, 1)
        async with connected(runtime) as client:
            await client.ws.send_str(text)
            (message,) = await client.get()
            assert (message["op"], message["path"]) == ("error", path)
            assert error in message["value"]["error"]
            await client.ask(q=counter_query())
            assert (await client.get())[0]["op"] == "update"


async def test_open_queries_are_for_the_notebook(settings: Settings) -> None:
    """A DAG sent by a client runs with the notebook's own token, without names."""
    node = {"dispatch": "call", "function_name": "learning_observer.courseroster", "args": [], "kwargs": {}}
    async with counting_app(settings) as runtime, typing(runtime, "u0"):
        await seen(runtime, 1)
        async with connected(runtime, "notebook") as client:
            await client.ask(q={"execution_dag": {"r": node}, "kwargs": {"rerun_dag_delay": -1}})
            assert await client.get() == [
                {
                    "op": "update",
                    "path": "students.tc-testcase-u0",
                    "value": {"user_id": "tc-testcase-u0", "profile": {}},
                }
            ]


async def test_progress_is_for_who_asks(settings: Settings) -> None:
    """A query of a reducer that goes through the past tells who asks how far it is, then answers."""
    parts = Parts(Reducer("late", default={"n": 0}, gate=asyncio.Event()), people=1)
    parts.catalog.add_reducer(parts.reducers.get("late"), "m")
    frames: list[Any] = []

    async def send(frame: bytes) -> None:
        frames.extend(json.loads(frame))

    connection = QueryConnection(parts.live, send)
    await connection.receive('{"q": {"execution_dag": "m", "progress": true}}')
    await auntil(lambda: frames)
    assert frames[0] == {
        "op": "progress",
        "path": "q",
        "value": {"reducer": "late", "done": None, "total": None},
    }
    gate = parts.reducers.get("late").gate
    assert gate is not None
    gate.set()
    await auntil(lambda: frames[-1]["op"] == "update")
    await connection.close()
    assert len(parts.live) == 0


async def test_a_reader_who_takes_nothing_is_cut_off(settings: Settings) -> None:
    """A client that doesn't read is closed past the limit; the other readers never wait for it."""
    from aiohttp import web

    from lo_kernel.app import protocol

    parts = Parts(Reducer("big", default={"text": ""}), people=20)
    parts.catalog.add_reducer(parts.reducers.get("big"), "m")
    app = web.Application()
    app.add_routes(protocol.routes(parts, stalled=0.3))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(
        b"GET /wsapi/communication_protocol HTTP/1.1\r\nHost: x\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    text = b'{"q":{"execution_dag":"m"}}'
    writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    await reader.readuntil(b"\r\n\r\n")
    await auntil(lambda: parts.live.readers == 1)
    count = 0
    while parts.live.readers and count < 2000:
        count += 1
        for number in range(20):
            parts.set("big", f"tc-u{number}", {"text": f"{count}" + "x" * 50_000})
        await asyncio.sleep(0.01)
    assert parts.live.readers == 0
    writer.close()
    await runner.cleanup()


async def test_courses_and_rosters_over_http(settings: Settings, tmp_path: Path) -> None:
    """`/webapi/courselist/` and `/webapi/courseroster/{id}` give courses and learners, names included."""
    file = tmp_path / "roster.csv"
    file.write_text(
        "course_id,course_name,user_id,name\n1,English,tc-testcase-u0,Ada\n2,Art,tc-testcase-u1,Bo\n"
    )
    async with counting_app(settings) as runtime, aiohttp.ClientSession() as session:
        token = {"token": runtime.security.ticket()}

        async def get(path: str) -> tuple[int, Any]:
            async with session.get(f"{runtime.url}webapi/{path}", params=token) as response:
                return response.status, await response.json()

        assert await get("courselist/") == (200, [{"id": "everyone", "name": "Everyone seen"}])
        await runtime.rosters.load(file)
        assert await get("courselist/") == (200, [{"id": "1", "name": "English"}, {"id": "2", "name": "Art"}])
        assert await get("courseroster/2") == (
            200,
            [{"user_id": "tc-testcase-u1", "profile": {"name": {"full_name": "Bo"}}}],
        )
        status, answer = await get("courseroster/9")
        assert status == 404
        assert answer["error"] == "there is no course '9' in the roster; there are: 1, 2"


# -- golden -------------------------------------------------------------------------------------------


def divide(divisor: float, dividend: float) -> float:
    """The function that the golden queries call."""
    return dividend / divisor


def _scope(names: list[str]) -> Scope:
    return Scope([EventField(n.partition(".")[2]) if "." in n else KeyField(n) for n in names])


def _errors_marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with every error value replaced by what the golden files write for one."""

    def marked(value: Any) -> Any:
        if isinstance(value, dict):
            if "error" in value and "function" in value:
                return {"error": True}
            return {key: marked(item) for key, item in value.items()}
        return value

    return [{**message, "value": marked(message["value"])} for message in messages]


@pytest.mark.parametrize("name", GOLDEN)
async def test_golden(name: str) -> None:
    """A query written from PROTOCOL.md gets the messages written from PROTOCOL.md, and so do its changes."""
    golden = GOLDEN[name]
    reducers = [
        Reducer(r["id"], scope=_scope(r["scope"]), default=r["default"], qualname=r["key_name"])
        for r in golden["reducers"]
    ]
    parts = Parts(*reducers)
    for learner in golden["learners"]:
        parts.people.add(learner)
    parts.functions.publish("golden.divide", mark=False)(divide)
    parts.catalog.add("golden", golden["dag"])
    _put(parts, golden["states"])
    await asyncio.sleep(0)
    frames: list[dict[str, Any]] = []

    async def send(frame: bytes) -> None:
        frames.extend(json.loads(frame))

    connection = QueryConnection(parts.live, send)
    query = {
        "execution_dag": "golden",
        "target_exports": golden["target_exports"],
        "kwargs": {**golden["kwargs"], "rerun_dag_delay": 10},
    }
    await connection.receive(json.dumps({"q": query}))
    await auntil(lambda: len(frames) >= len(golden["answer"]))
    assert _errors_marked(frames) == golden["answer"]
    for change in golden["changes"]:
        frames.clear()
        _put(parts, change["states"])
        await auntil(lambda change=change: len(frames) >= len(change["answer"]))
        assert _errors_marked(frames) == change["answer"]
    await connection.close()


def _put(parts: Parts, states: list[Any]) -> None:
    for reducer, who, state in states:
        qualname = parts.reducers.get(reducer).qualname
        parts.states.set(f"Internal,{qualname}," + ",".join(f"{k}:{who[k]}" for k in sorted(who)), state)
