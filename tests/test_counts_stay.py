"""A stream's count never goes back behind what a client was told: not by damage, nor by an erasure."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ingest_parts import Faulty, bodies, connect, hear, idle, running, say, typed, who
from test_acks import STREAM, hear_count, lock
from waiting import auntil

from lo_kernel.app.erasing import erase
from lo_kernel.engine import acknowledged
from lo_kernel.engine.acknowledged import Notes, Place, stream_key
from lo_kernel.engine.store import Commit
from lo_kernel.errors import ArchiveError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@pytest.fixture(params=["memory", "sqlite"])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With a store that forgets, or one that is deleted."""
    return replace(settings, store=request.param)


def lose_store(settings: Settings) -> None:
    """What a store of files held is gone."""
    for path in settings.workspace_path.glob("states.sqlite*"):
        path.unlink()


async def told(runtime: Runtime, count: int, *events: Any) -> None:
    """Come back with the stream, which has this count, and send so much more."""
    async with connect(runtime.ingest_url) as ws:
        await say(ws, lock())
        assert (await hear(ws, "ack"))["n"] == count
        await say(ws, *events)
        if events:
            await hear_count(ws, count + len(events))


@pytest.mark.parametrize("lost", [49, 99])
async def test_a_damaged_line_gives_no_number_back(settings: Settings, lost: int) -> None:
    """Wherever it is, and whatever became of the store: what comes then is new, and archived."""
    async with running(settings) as runtime:
        await told(runtime, 0, who(), *[typed(number) for number in range(1, 100)])
    lose_store(settings)
    (segment,) = (settings.workspace_path / "archive").glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:lost], b"#" + lines[lost][1:], *lines[lost + 1 :]]))
    for start in (100, 150):
        async with running(settings) as runtime:
            await told(runtime, start, who(), *[typed(number) for number in range(start, start + 49)])
            numbers = [body["number"] for body in bodies(runtime) if body["event"] == "keystroke"]
            assert numbers[-49:] == list(range(start, start + 49))


async def test_an_erasure_gives_no_number_back(settings: Settings) -> None:
    """Nor does that of rejected frames; what was noted names neither the learner nor the stream."""
    bad = '{"user_id": "ada", "no": "event"}'
    async with running(settings) as runtime:
        await told(runtime, 0, who("ada"), typed(1), bad, bad)
        await told(runtime, 4, who("ben"), typed(2))
        await idle(runtime)
        (settings.workspace_path / "acknowledged.jsonl").unlink()  # as in a workspace of before
        assert (await erase(runtime, "tc-testcase-ada")).rejected == 2
        text = (settings.workspace_path / "acknowledged.jsonl").read_text()
    lose_store(settings)
    async with running(settings) as runtime:
        await told(runtime, 6, who("ben"), typed(3), typed(4))
        assert [body.get("number") for body in bodies(runtime)] == [None, 2, None, 3, 4]
    assert STREAM not in text


async def test_what_comes_while_an_erasure_begins_gives_no_number_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it acknowledged before its lines go, or written by then and acknowledged later."""
    copy = replace(settings, workspace=str(tmp_path / "copy"))
    async with running(settings) as runtime, connect(runtime.ingest_url) as ws:
        real = runtime.archive.erase

        async def beside(*how: Any) -> tuple[int, int]:
            await say(ws, typed(2), typed(3))
            await hear_count(ws, 4)
            async with runtime.pipeline._syncing:  # nothing is acknowledged
                await say(ws, typed(4), typed(5))
                await auntil(lambda: runtime.archive.last == 6)
                return await real(*how)

        monkeypatch.setattr(runtime.archive, "erase", beside)
        await say(ws, lock(), who("ada"), typed(1))
        await hear_count(ws, 2)
        assert (await erase(runtime, "tc-testcase-ada")).events == 6
        await hear_count(ws, 6)
        shutil.copytree(settings.workspace_path, copy.workspace_path)  # as a crash leaves it
    lose_store(copy)
    async with running(copy) as runtime:
        await told(runtime, 6, who("ben"), typed(1))


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_a_new_store_hears_of_streams_that_no_line_names(settings: Settings) -> None:
    """All that a stream brought was erased: its count comes from the notes, and is in the store then."""
    async with running(settings) as runtime:
        await told(runtime, 0, who("ada"), typed(1))
        await erase(runtime, "tc-testcase-ada")
    lose_store(settings)
    async with running(settings):
        pass
    (settings.workspace_path / "acknowledged.jsonl").unlink()
    async with running(settings) as runtime:
        await told(runtime, 2)


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_rejected_lines_count_after_an_erasure_has_moved_them(settings: Settings) -> None:
    """The store knows a place in a file that is another now: what it never heard of is read all the same."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("ada"), *['{"user_id": "ada", "no": "event"}'] * 20)
            await idle(runtime)
        await told(runtime, 0, who("ben"), "oops")
        await idle(runtime)
        assert (await erase(runtime, "tc-testcase-ada")).rejected > 0
        runtime.pipeline.store = Faulty(runtime.store)
        runtime.pipeline.store.down = True
        async with connect(runtime.ingest_url) as ws:
            stream = runtime.pipeline.streams._streams.get(stream_key(STREAM))
            assert stream is None
            runtime.pipeline.store.down = False
            await say(ws, lock())
            await hear_count(ws, 2)
            runtime.pipeline.store.down = True
            await say(ws, *[f"oops {number}" for number in range(60)])
            await hear_count(ws, 62)
    (settings.workspace_path / "acknowledged.jsonl").unlink()
    async with running(settings) as runtime:
        await told(runtime, 62, who("ben"), typed(1))
        assert [body.get("number") for body in bodies(runtime)][-1] == 1


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_counts_under_the_names_of_streams_are_found(settings: Settings) -> None:
    """A store of before had them so."""
    async with running(settings) as runtime:
        await runtime.store.commit([Commit(-2, {STREAM: b'{"n":7,"held":[9]}'})])
        await told(runtime, 7, who(), typed(2))
    async with running(settings) as runtime:
        await told(runtime, 9, who(), typed(3))
        assert [body.get("number") for body in bodies(runtime)] == [None, None, 3]


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_a_stream_that_is_called_like_the_key_of_another_begins_with_nothing(
    settings: Settings,
) -> None:
    """At once, and where a start has to count it from the archive."""
    name = stream_key(STREAM)
    async with running(settings) as runtime:
        await told(runtime, 0, who(), *[typed(number) for number in range(6)])
        await idle(runtime)
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock(name, user_id="ben"))
            assert (await hear(ws, "ack"))["n"] == 0
            runtime.pipeline.store = Faulty(runtime.store)
            runtime.pipeline.store.down = True
            await say(ws, typed(1))
            await hear_count(ws, 1, name)
    async with running(settings) as runtime, connect(runtime.ingest_url) as ws:
        await say(ws, lock(name, user_id="ben"))
        assert (await hear(ws, "ack"))["n"] == 1


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize("array", [False, True])
async def test_an_event_that_is_held_is_acknowledged_when_it_comes_again(
    settings: Settings, array: bool
) -> None:
    """Though nothing new comes with it: else a client that comes back would send it once more."""
    async with running(settings) as runtime:
        await runtime.store.commit([Commit(-2, {stream_key(STREAM): b'{"n":1,"held":[3]}'})])
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock(user_id="u0"), typed(2))
            await hear_count(ws, 2)
            await say(ws, [typed(3)] if array else typed(3))
            await hear_count(ws, 3)
        await told(runtime, 3)
        assert [body["number"] for body in bodies(runtime)] == [2]


async def test_a_long_stream_is_noted_while_it_lasts(settings: Settings) -> None:
    """Every hundred events: where a process is killed later, and more than that lost, the count stays."""
    async with running(settings) as runtime, connect(runtime.ingest_url) as ws:
        await say(ws, lock(), who(), *[typed(number) for number in range(149)])
        await hear_count(ws, 150)
        noted = Notes(settings.workspace_path / "acknowledged.jsonl").read(Place())
        assert 50 < noted[stream_key(STREAM)] <= 150


def test_notes_are_read_from_a_place_and_old_ones_go(tmp_path: Path, monkeypatch: Any) -> None:
    """A damaged or torn line costs itself alone; in a file that was written anew, all of it is read."""
    notes = Notes(tmp_path / "acknowledged.jsonl")
    assert notes.read(notes.end()) == {}
    for count in range(1, 300):
        notes.add({"#a": count, "#b": 2 * count})
    place = notes.end()
    with notes.path.open("ab") as file:
        file.write(b'{"stream":"#a","n":9')
    notes.add({"#c": 3}, sync=True)
    assert notes.read(place) == {"#c": 3}
    assert notes.read(Place()) == {"#a": 299, "#b": 598, "#c": 3}
    monkeypatch.setattr(acknowledged, "_MUCH", 1000)
    assert notes.read(place) == {"#a": 299, "#b": 598, "#c": 3}
    assert notes.path.read_bytes().count(b"\n") == 3


async def test_notes_that_can_not_be_read_are_named(settings: Settings) -> None:
    """A start without them could give numbers twice: it says what is in the way instead."""
    (settings.workspace_path / "acknowledged.jsonl").mkdir(parents=True)
    runtime = Runtime(settings)
    runtime.bind("127.0.0.1", 9)
    with pytest.raises(ArchiveError, match=r"acknowledged\.jsonl says what clients were told"):
        await runtime.start()
