"""A class that types: what its learners write, and how they send it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from harness import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import auntil

from lo_kernel.app.prose import TOPICS, essay
from lo_kernel.app.simulate import SimulationProgress, simulate_class
from lo_kernel.app.typists import STYLES, Style, Typist, apply_commands, typists
from lo_kernel.errors import AccessError, LOError

Events = list[tuple[float, dict[str, Any]]]


def texts(events: list[dict[str, Any]]) -> dict[str, str]:
    """Each document of the events, typed again."""
    documents: dict[str, str] = {}
    for event in events:
        for bundle in event["bundles"]:
            text = documents.get(event["doc_id"], "")
            documents[event["doc_id"]] = apply_commands(text, bundle["commands"])
    return documents


class Server:
    """An ingest endpoint that knows only PROTOCOL.md, and keeps what each connection sent."""

    def __init__(self) -> None:
        self.connections: list[list[dict[str, Any]]] = []
        self.open: set[web.WebSocketResponse] = set()
        self.refuse = False
        self.block = False

    @property
    def saves(self) -> dict[str, list[dict[str, Any]]]:
        """The `google_docs_save` events of each user."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for frames in filter(None, self.connections):
            found[frames[0]["user_id"]] += [f for f in frames if f["event"] == "google_docs_save"]
        return found

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection, to its end."""
        if self.refuse or request.query.get("token") != "t":
            raise web.HTTPForbidden
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        frames: list[dict[str, Any]] = []
        self.connections.append(frames)
        self.open.add(websocket)
        async for message in websocket:
            assert message.type is WSMsgType.TEXT
            frames.append(json.loads(message.data))
            if frames[-1]["event"] == "test_framework_fake_identity":
                user = f"testcase-{frames[-1]['user_id']}"
                await websocket.send_json({"status": "auth", "user_id": user})
                if self.block:
                    await websocket.send_json({"status": "blocklist", "action": "deny", "message": "not you"})
                    break
            if frames[-1]["event"] == "terminate":
                break
        self.open.discard(websocket)
        await websocket.close()
        return websocket


@asynccontextmanager
async def serving(server: Server, port: int) -> AsyncIterator[str]:
    """The server on a port; gives the address."""
    app = web.Application()
    app.router.add_get("/wsapi/in/", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"ws://127.0.0.1:{port}/wsapi/in/?token=t"
    finally:
        for websocket in list(server.open):
            await websocket.close(code=1001)
        await runner.cleanup()


@given(seed=st.integers(), style=st.sampled_from(STYLES), number=st.integers(1, 250))
@settings(max_examples=60, deadline=None)
def test_commands_replay_to_text(seed: int, style: Style, number: int) -> None:
    """Replaying the commands never leaves the text, and time only goes on."""
    stream: Events = list(islice(Typist(user_id="a", seed=str(seed), style=style).events(), number))
    assert all(delay >= 0 for delay, _ in stream)
    assert all(event["bundles"][0]["commands"] for _, event in stream)
    documents = texts([event for _, event in stream])  # raises where a command reaches outside the text
    assert all(text.isprintable() for text in "".join(documents.values()).splitlines())


@given(seed=st.integers(), style=st.sampled_from(STYLES))
@settings(max_examples=30, deadline=None)
def test_a_finished_document_is_an_essay(seed: int, style: Style) -> None:
    """Once a learner goes on to the next document, the one before has no slip left in it."""
    events = []
    for _, event in Typist(user_id="a", seed=str(seed), style=style).events():
        if event["doc_id"] == f"a-essay-{seed}-2":
            break
        events.append(event)
    text = texts(events)[f"a-essay-{seed}-1"]
    assert any(text.startswith(topic.openings) and text.endswith(topic.closings) for topic in TOPICS), (
        f"no essay of the corpus: {text!r}"
    )
    rng = random.Random(str(seed))
    rng.uniform(0.1, 1.5)
    assert text == "".join(essay(rng))


def test_corrections_are_made() -> None:
    """Learners delete and come back to earlier places, not only append."""
    kinds = set()
    for typist in typists(10, seed=3):
        length = 0
        for _, event in islice(typist.events(), 150):
            for command in event["bundles"][0]["commands"]:
                kinds.add(command["ty"])
                if command["ty"] == "is" and command["ibi"] <= length:
                    kinds.add("in the middle")
                length = 0 if event["doc_id"] != f"{typist.user_id}-essay-3-1" else length
                length += len(command["s"]) if command["ty"] == "is" else command["si"] - command["ei"] - 1
    assert kinds == {"is", "ds", "in the middle"}


def test_the_same_seed_is_the_same_class() -> None:
    """A seed fixes content and rhythm, per learner; another seed is another class."""

    def first(seed: int, students: int) -> list[Events]:
        return [list(islice(typist.events(), 40)) for typist in typists(students, seed)]

    assert first(7, 12) == first(7, 12)
    assert first(7, 12) != first(8, 12)
    assert first(7, 6) == first(7, 12)[:6], "a larger class has the same learners first"


def test_learners_differ() -> None:
    """After ten minutes the busiest of thirty has written several times what the idlest has."""
    written = []
    for typist in typists(30, seed=1):
        documents = texts([event for _, event in typist.until(600)])
        written.append(sum(map(len, documents.values())))
    assert max(written) > 4 * min(written) > 0
    assert len({typist.style.name for typist in typists(5, seed=1)}) == len(STYLES)


async def test_frames_are_those_of_the_protocol() -> None:
    """Each connection identifies itself, says that this is all, sends saves in order, and terminates."""
    server, seen = Server(), list[SimulationProgress]()
    async with serving(server, free_port()) as url:
        result = await simulate_class(
            url, students=5, seconds=0.6, seed=5, speed=20, source="s", on_progress=seen.append
        )
    assert len(server.connections) == result.students == 5
    for frames in server.connections:
        assert [frame["event"] for frame in frames[:2]] == [
            "test_framework_fake_identity",
            "metadata_finished",
        ]
        assert frames[-1]["event"] == "terminate"
        assert {frame["source"] for frame in frames} == {"s"}
        stamps = [frame["timestamp"] for frame in frames[2:-1]]
        assert stamps == sorted(stamps)
        assert all(isinstance(stamp, int) for stamp in stamps)
        assert set(frames[2]) == {"bundles", "event", "source", "doc_id", "origin", "timestamp"}
    due = {typist.user_id: [event for _, event in typist.until(12)] for typist in typists(5, seed=5)}
    assert result.events_per_learner == {user: len(events) for user, events in due.items()}
    assert result.events == sum(result.events_per_learner.values()) > 20
    assert {user: texts(saves) for user, saves in server.saves.items()} == {
        user: texts(events) for user, events in due.items()
    }
    assert (seen[0].events, seen[-1].events) == (0, result.events)
    assert (seen[-1].finished, seen[-1].connected, seen[-1].students) == (5, 0, 5)
    assert (result.seed, result.unsent, result.reconnects) == (5, 0, 0)


async def test_cancel_ends_at_once() -> None:
    """A class without an end goes on until it is cancelled, and then leaves no connection behind."""
    server = Server()
    async with serving(server, free_port()) as url:
        task = asyncio.create_task(simulate_class(url, students=30, seconds=None, seed=1, speed=10))
        await auntil(lambda: sum(map(len, server.saves.values())) > 60)
        assert len(server.open) == 30
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        assert done
        assert task.cancelled()
        await auntil(lambda: not server.open)


async def test_a_server_that_restarts() -> None:
    """Learners connect again, identify themselves again, and go on where they were."""
    port, first, second = free_port(), Server(), Server()
    async with serving(first, port) as url:
        task = asyncio.create_task(simulate_class(url, students=4, seconds=2, seed=2, speed=40))
        await auntil(lambda: sum(map(len, first.saves.values())) > 8)
    async with serving(second, port):
        await auntil(lambda: len(second.open) == 4, what="all learners to come back")
        result = await task
    assert result.reconnects >= 4
    assert result.unsent == 0
    assert all(frames[0]["event"] == "test_framework_fake_identity" for frames in second.connections)
    received = sum(map(len, first.saves.values())) + sum(map(len, second.saves.values()))
    due = sum(len(list(typist.until(80))) for typist in typists(4, seed=2))
    assert result.events == due
    # Without acknowledgements, what was on its way when the server went is lost, and no more than that.
    assert due - 8 <= received <= due


async def test_errors_say_what_to_do() -> None:
    """Nobody there, a wrong token, no websocket, a blocked learner: the reason and what to do."""
    port, server = free_port(), Server()
    url = f"ws://127.0.0.1:{port}/wsapi/in/?token=t"
    with pytest.raises(
        LOError, match=rf"can't connect to ws://127.0.0.1:{port}/wsapi/in/ .*lo\.ingest_url"
    ) as e:
        await simulate_class(url, students=3, seconds=1)
    assert "token=t" not in str(e.value)
    async with serving(server, port):
        with pytest.raises(AccessError, match=r"refused the connection \(403\).*token"):
            await simulate_class(url + "x", students=3, seconds=1)
        with pytest.raises(LOError, match="status 404"):
            await simulate_class(url.replace("/in/", "/out/"), students=3, seconds=1)
        server.block = True
        with pytest.raises(AccessError, match=r"sim-0\d: not you"):
            await simulate_class(url, students=3, seconds=30)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"students": 0}, "students: expected a whole number from 1, got 0"),
        ({"students": True}, "students: expected"),
        ({"seconds": -1}, "seconds: expected a number above 0"),
        ({"speed": 0}, "speed: expected a number above 0"),
    ],
)
def test_wrong_arguments_raise_at_once(wrong: dict[str, Any], complaint: str) -> None:
    """A wrong argument raises where the class is asked for, before anything is awaited."""
    with pytest.raises(ValueError, match=complaint):
        _ = simulate_class("ws://127.0.0.1:1/wsapi/in/", **wrong)
