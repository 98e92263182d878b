"""Events in, over a real websocket, by a client that knows the wire format alone."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from ingest_parts import (
    SOURCE,
    Faulty,
    bodies,
    connect,
    count,
    expect,
    hear,
    idle,
    key_of,
    rejected,
    running,
    say,
    state_of,
    talking,
    typed,
    who,
)
from waiting import auntil

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline, student_event_reducer
from lo_kernel.settings import Settings


async def test_an_event_gets_to_its_reducer_and_the_store(settings: Settings) -> None:
    """A client that says who it is and sends an event has its state under the key that PROTOCOL.md gives."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(ws, who("u0"), {"event": "metadata_finished", "source": SOURCE}, typed())
        assert await hear(ws, "auth") == {"status": "auth", "user_id": "testcase-u0"}
        await expect(runtime, key_of("u0"), {"n": 1})
        await idle(runtime)
        text = await runtime.store.get_many(runtime.registry.get("count").run.generation, [key_of("u0")])  # type: ignore[union-attr]
        assert json.loads(text[0] or b"") == {"n": 1}


async def test_a_reducer_gets_the_event_in_the_fields_form(settings: Settings) -> None:
    """What a reducer sees has client, server and metadata, with the authenticated identity and no other."""
    seen: list[Any] = []

    @student_event_reducer(module_override="tests", qualname_override="look")
    async def look(event: Any, state: Any) -> Any:
        seen.append(event)
        return state, state

    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("look", look, module="tests")
        await say(ws, who("u0", origin="test"), typed(7, auth={"user_id": "root"}))
        await auntil(lambda: len(seen) == 2)
    auth = {
        "sec": "unauthenticated",
        "user_id": "testcase-u0",
        "safe_user_id": "tc-testcase-u0",
        "providence": "tc",
    }
    assert seen[1]["client"] == {**typed(7), "auth": auth}
    assert seen[1]["metadata"]["auth"] == auth
    assert seen[1]["metadata"]["origin"] == "test"
    assert set(seen[1]["server"]) == {"time", "origin", "agent", "ip", "executable"}


@pytest.mark.parametrize(
    ("event", "user_id", "safe_id"),
    [
        ({"event": "x", "user_id": "u 1"}, "testcase-u 1", "tc-testcase-u+1"),
        ({"event": "x", "user_tag": "bob"}, "ls-bob", "ls-ls-bob"),
        ({"event": "x", "chrome_identity": {"id": "0042"}}, "gc-42", "gc-42"),
        ({"event": "x", "hash": "h/1"}, "hi-h/1", "mch-hi-h%2F1"),
        ({"event": "x", "user_id": "a", "user_tag": "b"}, "testcase-a", "tc-testcase-a"),
    ],
)
async def test_who_it_is(settings: Settings, event: Any, user_id: str, safe_id: str) -> None:
    """Each way to say who one is gives the user id and the storage id of the deployed system."""
    async with talking(settings) as (runtime, ws):
        await say(ws, {**event, "source": SOURCE})
        assert (await hear(ws, "auth"))["user_id"] == user_id
        assert list(runtime.learners) == [safe_id]


async def test_a_client_that_never_says_who_it_is_is_a_guest(settings: Settings) -> None:
    """Its events are kept under a random id, also when it goes before it has said anything of itself."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, typed(1), typed(2))
        await auntil(lambda: runtime.archive.last == 2)
        async with connect(runtime.ingest_url) as ws:
            await say(ws, {"event": "metadata_finished", "source": SOURCE})
            assert (await hear(ws, "auth"))["user_id"]
        assert all(name.startswith("guest-") for name in runtime.learners)
        assert len(runtime.learners) == 2


async def test_where_guests_are_not_taken_their_events_are_put_away(settings: Settings) -> None:
    """With guests=False, what a nameless client sends is kept as rejected, and the client is told once."""
    async with running(replace(settings, guests=False)) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, typed(1), {"event": "metadata_finished", "source": SOURCE})
            assert (await hear(ws, "error"))["reason"] == "no_identity"
            await say(ws, who(), typed(2))
            await hear(ws, "auth")
        await auntil(lambda: runtime.archive.last == 2)
        await idle(runtime)
        assert [entry["reason"] for entry in rejected(runtime.workspace.path)] == ["no_identity"] * 2


async def test_locked_fields_hold_for_every_later_event(settings: Settings) -> None:
    """They win over an event's own fields, say under which context it is reduced, and identify, too."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(
            ws,
            {"event": "lock_fields", "fields": {"source": SOURCE, "user_id": "u3", "auth": "root"}},
            {"event": "keystroke"},
            {"event": "keystroke", "source": "another"},
            {"event": "lock_fields", "fields": {"source": "another"}},
            {"event": "keystroke", "source": SOURCE},
        )
        await auntil(lambda: runtime.archive.last == 3)
        assert await state_of(runtime, key_of("u3")) == {"n": 2}
        assert runtime.pipeline.unrouted == {"another": 1}


async def test_terminate_closes_the_connection_with_all_on_disk(settings: Settings) -> None:
    """The server closes, and what came before is in the archive's file by then."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who(), typed(1), {"event": "terminate"}, typed(2))
        await hear(ws, "auth")
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert [body["event"] for body in bodies(runtime)] == ["test_framework_fake_identity", "keystroke"]


async def test_a_goodbye_does_not_wait_for_ever_for_the_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that says it is done is let go of, in order, though the disk takes longer than it waits."""
    monkeypatch.setattr("lo_kernel.app.ingest._PATIENCE", 0.01)
    async with talking(settings) as (runtime, ws):
        flush = runtime.archive.flush
        go = asyncio.Event()

        async def slow() -> int:
            await go.wait()
            return await flush()

        monkeypatch.setattr(runtime.archive, "flush", slow)
        await say(ws, who(), typed(1), {"event": "terminate"})
        await hear(ws, "auth")
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == aiohttp.WSCloseCode.OK
        go.set()
        await auntil(lambda: runtime.pipeline.synced == 2)


async def test_blobs_are_kept_per_learner_source_and_activity(settings: Settings) -> None:
    """What is saved is fetched again at once, and after a restart; others don't see it."""
    settings = replace(settings, store="sqlite")
    save = {"event": "save_blob", "source": "s", "activity": "a", "blob": {"text": ["é"]}}
    fetch = {"event": "fetch_blob", "source": "s", "activity": "a"}
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0"), save, fetch, {**fetch, "activity": "b"})
        assert (await hear(ws, "fetch_blob"))["data"] == {"text": ["é"]}
        assert (await hear(ws, "fetch_blob"))["data"] is None
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), fetch)
            assert (await hear(ws, "fetch_blob"))["data"] == {"text": ["é"]}
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u1"), fetch)
            assert (await hear(ws, "fetch_blob"))["data"] is None


async def test_a_blob_survives_a_store_that_is_gone_for_a_while(settings: Settings) -> None:
    """It is answered from memory meanwhile, the connection stays up, and it is in the store afterwards."""
    async with talking(settings) as (runtime, ws):
        store = Faulty(runtime.store)
        runtime.store = runtime.pipeline.store = runtime.registry.store = store
        store.down = True
        blob = {"source": "s", "activity": "a"}
        await say(ws, who("u0"), {"event": "save_blob", "blob": 1, **blob}, {"event": "fetch_blob", **blob})
        assert (await hear(ws, "fetch_blob"))["data"] == 1
        await say(ws, {"event": "fetch_blob", "source": "s", "activity": "other"})
        assert (await hear(ws, "error"))["reason"] == "store"
        store.down = False
        await auntil(lambda: not runtime.pipeline.plain)
        await say(ws, {"event": "fetch_blob", **blob})
        assert (await hear(ws, "fetch_blob"))["data"] == 1


async def test_arrays_are_so_many_events(settings: Settings) -> None:
    """An array of events counts as its elements; a bad element is put away and the others are taken."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(
            ws, [who("u0"), typed(1), 5, {"no": "event"}, typed(2)], [], f"\n [ {json.dumps(typed(3))} ]"
        )
        assert (await hear(ws, "error"))["reason"] == "not_an_object"
        assert (await hear(ws, "error"))["reason"] == "no_event"
        await expect(runtime, key_of("u0"), {"n": 3})
        assert runtime.archive.last == 4


async def test_a_large_array_does_not_hold_the_loop(settings: Settings) -> None:
    """While a frame of 20,000 events is taken in, the loop turns many times."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0"))
        await hear(ws, "auth")
        await ws.send_str(json.dumps([{"event": "k", "source": "s"}] * 20_000))
        turns = set()
        while runtime.archive.last < 20_001:
            turns.add(runtime.archive.last)
            await asyncio.sleep(0)
        assert len(turns) > 5


BAD = [
    ("nonsense", "not_json"),
    ('{"event": NaN}', "not_json"),
    ('{"event": "a"', "not_json"),
    ("[1, 2", "not_json"),
    ("5", "not_an_object"),
    ('"text"', "not_an_object"),
    ("null", "not_an_object"),
    ("{}", "no_event"),
    ('{"event": 5}', "no_event"),
    ('{"event": ""}', "no_event"),
    ('{"event": "x", "user_id": {}}', "bad_identity"),
    ('{"event": "x", "chrome_identity": {"id": "abc"}}', "bad_identity"),
    ('{"event": "lock_fields"}', "bad_lock_fields"),
    ('{"event": "lock_fields", "fields": {"a": "%s"}}' % ("x" * 20_000), "bad_lock_fields"),
    ('{"event": "lock_fields", "fields": {}, "ack": 5}', "bad_ack"),
    ('{"event": "save_blob"}', "bad_blob"),
    ("[" * 5000 + "]" * 5000, "not_json"),
    ("x" * (1 << 20) + "x", "too_large"),
]


@pytest.mark.parametrize(("frame", "reason"), BAD, ids=[f"{reason}-{i}" for i, (_, reason) in enumerate(BAD)])
async def test_what_is_no_event_is_told_and_kept(settings: Settings, frame: str, reason: str) -> None:
    """The client hears why, the connection stays up, the frame lies under rejected/, and lo.errors has it."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(ws, frame)
        assert (await hear(ws, "error"))["reason"] == reason
        await say(ws, who("u0"), typed())
        await expect(runtime, key_of("u0"), {"n": 1})
        await idle(runtime)
        (entry,) = rejected(runtime.workspace.path)
        assert entry["text"] == frame
        assert entry["reason"] == reason
        assert [error.kind for error in runtime.errors] == [reason]


async def test_bad_utf8_and_binary_frames_are_put_away(settings: Settings) -> None:
    """Bytes that are no text are kept as base64."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await ws.send_bytes(b"\xff\x00")
            assert (await hear(ws, "error"))["reason"] == "binary"
            await say(ws, who("u0"), typed())
            await hear(ws, "auth")
        await auntil(lambda: runtime.archive.last == 2)
        await idle(runtime)
        assert base64.b64decode(rejected(runtime.workspace.path)[0]["base64"]) == b"\xff\x00"


async def test_a_frame_over_the_hard_limit_closes_with_1009(settings: Settings) -> None:
    """Over 16 MiB the connection ends; the server stays, and what came before is kept."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"))
            await hear(ws, "auth")
            await ws.send_str("x" * ((16 << 20) + 1))
            message = await ws.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == 1009
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u1"))
            await hear(ws, "auth")
        assert runtime.archive.last == 2


async def test_a_context_without_a_reducer_is_kept_for_a_later_one(settings: Settings) -> None:
    """lo.errors says that nobody hears it; a reducer added for it gets the past, and the note goes."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0", source="new.source"), typed(source="new.source"))
        await auntil(lambda: runtime.archive.last == 2)
        assert [str(error.where) for error in runtime.errors] == ["context 'new.source'"]
        registration = runtime.add_reducer("count", count, module="tests", context="new.source")
        await registration.ready()
        assert await state_of(runtime, key_of("u0")) == {"n": 1}
        assert len(runtime.errors) == 0


async def test_strange_sources_do_no_harm(settings: Settings) -> None:
    """A source that is no text has no context; many made-up ones don't push real errors out of the list."""
    async with talking(settings) as (runtime, ws):
        runtime.errors.add("reducer 'x'", ValueError("real"))
        await say(ws, who("u0"), typed(source=5), typed(source=[]), typed(source={}), typed(source=None))
        await say(ws, *[typed(source=f"made-up-{number}") for number in range(500)])
        await auntil(lambda: runtime.archive.last == 505)
        assert runtime.errors.of("reducer 'x'")
        assert len(runtime.errors) < 50
        assert runtime.pipeline.unrouted["(none)"] == 4


def _reducer(name: str, function: Any) -> Any:
    return student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override=name)(
        function
    )


async def _raises(event: Any, state: Any) -> Any:
    raise KeyError("doc_id")


async def _not_json(event: Any, state: Any) -> Any:
    return {"words": [{"seen": {1, 2}}]}, None


async def _no_pair(event: Any, state: Any) -> Any:
    return state


def _not_awaited(event: Any, state: Any) -> Any:
    yield state


@pytest.mark.parametrize(
    ("function", "kind", "says"),
    [
        (_raises, "KeyError", "doc_id"),
        (_not_json, "StateError", "$.words[0].seen"),
        (_no_pair, "ReducerError", "a reducer returns a pair"),
        (_not_awaited, "ReducerError", "got generator"),
    ],
)
async def test_a_reducer_that_fails_is_named_and_the_others_go_on(
    settings: Settings, function: Any, kind: str, says: str
) -> None:
    """Its first error is kept with the event, and with its lines where one of them raised; it is counted."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("bad", _reducer("bad", function), module="tests")
        runtime.add_reducer("count", count, module="tests")
        await say(ws, who("u0"), *[typed(number) for number in range(20)])
        await expect(runtime, key_of("u0"), {"n": 20})
        await idle(runtime)
        (entry,) = runtime.errors.of("reducer 'bad'")
        assert entry.kind == kind
        assert says in entry.message
        assert bool(entry.traceback) == (function is _raises)
        assert entry.event["client"]["source"] == SOURCE
        assert entry.count == runtime.registry.get("bad").errors == 21
        assert await state_of(runtime, key_of("u0", "tests.bad")) is None
        assert runtime.archive.last == 21


async def test_after_an_exception_or_false_the_state_is_what_it_was(settings: Settings) -> None:
    """A reducer that changes its state in place and then fails, or says False, has changed nothing."""

    async def fickle(event: Any, state: Any) -> Any:
        number = event["client"].get("number", -1)
        state.setdefault("seen", []).append(number)
        if number % 3 == 1:
            raise ValueError("one")
        if number % 3 == 2:
            return False, False
        return state, state

    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("fickle", _reducer("fickle", fickle), module="tests")
        await say(ws, who("u0", number=0), *[typed(number) for number in range(1, 31)])
        expected = {"n": 0, "seen": [number for number in range(31) if number % 3 == 0]}
        await expect(runtime, key_of("u0", "tests.fickle"), expected)


async def test_false_leaves_one_half_as_it_was(settings: Settings) -> None:
    """False for the external state keeps the one before, even though both are one object."""

    async def halves(event: Any, state: Any) -> Any:
        number = event["client"].get("number", 0)
        state["n"] = number
        return (state, state) if number < 2 else (state, False) if number == 2 else (False, {"last": number})

    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("halves", _reducer("halves", halves), module="tests")
        external = key_of("u0", "tests.halves").replace("Internal", "External")
        await say(ws, who("u0"), typed(1), typed(2))
        await expect(runtime, key_of("u0", "tests.halves"), {"n": 2})
        await idle(runtime)
        assert await state_of(runtime, external) == {"n": 1}
        await say(ws, typed(3))
        await expect(runtime, external, {"last": 3})
        assert await state_of(runtime, key_of("u0", "tests.halves")) == {"n": 2}


async def test_each_learner_begins_with_a_null_state_of_its_own(settings: Settings) -> None:
    """A null state that is changed in place by one learner's events is as new for the next."""
    async with running(settings) as runtime:
        runtime.add_reducer("count", count, module="tests")
        for user in ("u0", "u1"):
            async with connect(runtime.ingest_url) as ws:
                await say(ws, who(user), typed(1), typed(2))
            await expect(runtime, key_of(user), {"n": 2})


async def test_scopes_of_event_fields(settings: Settings) -> None:
    """Dotted fields reach inside; an event without one of them is skipped; values may have commas."""

    @kvs_pipeline(
        null_state=0,
        scope=Scope([EventField("doc.id"), KeyField.STUDENT]),
        module_override="tests",
        qualname_override="per_doc",
    )
    def per_doc(event: Any, state: Any) -> Any:
        return state + 1, None

    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("per_doc", per_doc, module="tests")
        await say(
            ws,
            who("u0"),
            typed(doc={"id": "a,b:c"}),
            typed(doc={"id": 7}),
            typed(doc={}),
            typed(doc={"id": 7}),
        )
        key = "Internal,tests.per_doc,EventField.doc.id:{},STUDENT:tc-testcase-u0"
        await expect(runtime, key.format("7"), 2)
        assert await state_of(runtime, key.format("a,b:c")) == 1
        assert await runtime.registry.keys("Internal,tests.per_doc") == [key.format("7"), key.format("a,b:c")]


async def test_two_connections_of_one_learner_and_a_reducer_that_suspends(settings: Settings) -> None:
    """Every event counts, in order, also when the reducer gives up the loop between reading and writing."""

    async def slow(event: Any, state: Any) -> Any:
        before = state["n"]
        await asyncio.sleep(0.001)
        return {"n": before + 1, "last": event["client"].get("number")}, None

    async with running(settings) as runtime:
        runtime.add_reducer("slow", _reducer("slow", slow), module="tests")
        runtime.add_reducer("count", count, module="tests")
        async with connect(runtime.ingest_url) as one, connect(runtime.ingest_url) as two:
            await say(one, who("u0"))
            await say(two, who("u0"))
            for number in range(50):
                await say(one, typed(number))
                await say(two, typed(number))
            await expect(runtime, key_of("u0"), {"n": 100})
            await expect(runtime, key_of("u0", "tests.slow"), {"n": 102, "last": 49})
        assert runtime.registry.get("slow").errors == 0


async def test_a_reducer_that_hangs_holds_up_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on, the archive takes all in, and lo.errors names it; its replacement counts all."""
    monkeypatch.setattr("lo_kernel.engine.run.folding.HANGS_AFTER", 0.05)
    monkeypatch.setattr("lo_kernel.engine.run.waiting.PENDING", 50)

    async def hangs(event: Any, state: Any) -> Any:
        if event["metadata"]["auth"]["user_id"] == "testcase-u0":
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        state["n"] += 1
        return state, state

    async with running(settings) as runtime:
        runtime.add_reducer("count", count, module="tests")
        runtime.add_reducer("other", _reducer("other", hangs), module="tests")
        async with connect(runtime.ingest_url) as one, connect(runtime.ingest_url) as two:
            await say(one, who("u0"))
            await say(two, who("u1"), typed())
            await expect(runtime, key_of("u1", "tests.other"), {"n": 2})
            await say(one, *[typed(number) for number in range(200)])
            await expect(runtime, key_of("u0"), {"n": 200})
            kinds = {"Behind", "Hanging"}
            await auntil(lambda: {entry.kind for entry in runtime.errors.of("reducer 'other'")} == kinds)
            assert runtime.registry.get("other").status == "catching up"
            await idle(runtime)
            assert len(runtime.registry.get("other").run.pending) <= 202  # type: ignore[union-attr]
            replaced = runtime.add_reducer("other", _reducer("other", _counts), module="tests")
            await replaced.ready()
            assert await state_of(runtime, key_of("u0", "tests.other")) == {"n": 201}
            assert await state_of(runtime, key_of("u1", "tests.other")) == {"n": 2}


async def _counts(event: Any, state: Any) -> Any:
    return {"n": state["n"] + 1}, None


async def test_an_app_without_a_token_takes_no_events(settings: Settings) -> None:
    """The address without its token is refused before the websocket opens."""
    async with running(settings) as runtime:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connect(runtime.ingest_url.partition("?")[0]):
                pass
        assert caught.value.status == 401
