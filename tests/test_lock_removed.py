"""The file of a workspace's lock is removed while its owner runs: two never write one archive."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from ingest_parts import (
    SOURCE,
    connect,
    count,
    expect,
    hear,
    idle,
    key_of,
    running,
    say,
    state_of,
    typed,
    who,
)
from waiting import auntil

from lo_kernel.engine.replay import replay
from lo_kernel.errors import LOError
from lo_kernel.lock import FileLock
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace


def streamed(stream: str, user: str) -> dict[str, object]:
    """What a client says that wants acknowledgements."""
    return {"event": "lock_fields", "fields": {"source": SOURCE, "user_id": user}, "ack": {"stream": stream}}


async def test_a_removed_lock_is_made_again_where_nobody_took_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing comes in: nobody else can take the workspace then, and lo.errors says what was."""
    monkeypatch.setattr("lo_kernel.runtime._GUARD_EVERY", 0.02)
    async with running(settings) as runtime:
        path = runtime.workspace.path / "owner.lock"
        (runtime.workspace.path / "owner.json").unlink()
        path.unlink()
        await auntil(lambda: runtime.errors.of("workspace lock"))
        assert [entry.kind for entry in runtime.errors.of("workspace lock")] == ["Removed"]
        assert not FileLock(path).acquire()
        async with running(settings) as second:
            assert not second.takes_events
            assert second.ingest_url == runtime.ingest_url
        path.unlink()
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), typed())
            await auntil(lambda: runtime.pipeline.synced == 2)
        assert runtime.workspace.locked_again == 2
        assert runtime.takes_events


async def test_a_replay_ends_where_the_workspace_is_taken(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had given to the archive is there, and in no state is more; nobody is held up for good."""
    monkeypatch.setattr("lo_kernel.runtime._GUARD_EVERY", 3600)
    monkeypatch.setattr("lo_kernel.engine.commits._ROOM", 400)
    file = tmp_path / "x.jsonl"
    file.write_text(
        "".join(json.dumps({**typed(number), "user_id": "r0"}) + "\n" for number in range(20_000))
    )
    async with running(settings) as first:
        await first.add_reducer("count", count, module="tests").ready()
        job = asyncio.ensure_future(replay(first, [file]))
        await auntil(lambda: first.archive.last > 1000)
        (first.workspace.path / "owner.lock").unlink()
        async with running(settings) as second:
            assert second.takes_events
            await second.add_reducer("count", count, module="tests").ready()
            with pytest.raises(LOError, match="another"):
                await asyncio.wait_for(job, 20)
            await auntil(lambda: first._follower is not None)
            held = second.archive.last
            assert 0 < held < 20_000
            async with connect(second.ingest_url) as ws:
                await say(ws, who("u0"), typed())
                for each in (first, second):
                    await expect(each, key_of("u0"), {"n": 1})
                    assert await state_of(each, key_of("r0")) == {"n": held}
            assert first.archive.unwritten == 0
            assert not first.pipeline.full


@pytest.mark.parametrize("store", ["sqlite", "memory"])
async def test_an_owner_whose_workspace_was_taken_follows(
    settings: Settings, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that comes to it afterwards is acknowledged; what anybody acknowledged is in the archive."""
    monkeypatch.setattr("lo_kernel.runtime._GUARD_EVERY", 3600)  # so that an event is what it notices by
    settings = replace(settings, store=store)
    async with running(settings) as first:
        await first.add_reducer("count", count, module="tests").ready()
        async with connect(first.ingest_url) as ws:
            await say(ws, streamed("A", "u0"), typed(1), typed(2))
            while (await hear(ws, "ack"))["n"] < 2:
                pass
            await idle(first)
            (first.workspace.path / "owner.lock").unlink()
            async with running(settings) as second:
                assert second.takes_events
                await second.add_reducer("count", count, module="tests").ready()
                await say(ws, *[typed(number) for number in range(100)])
                await auntil(lambda: first._follower is not None)
                while (message := await ws.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert message.data == 1012  # come back
                assert "another process has this workspace now" in str(message.extra)
                told = first.errors.of("workspace lock")
                assert [entry.kind for entry in told] == ["Taken"]
                assert second.url in told[0].message
                assert first.ingest_url == second.ingest_url
                async with connect(first.ingest_url) as again:
                    await say(again, streamed("A", "u0"))
                    assert (await hear(again, "ack"))["n"] == 2
                    await say(again, *[typed(number) for number in range(50)])
                    while (await hear(again, "ack"))["n"] < 52:
                        pass
                for each in (first, second):
                    await expect(each, key_of("u0"), {"n": 52})
                numbers = [record.n for record in second.archive.read()]
                assert numbers == list(range(1, len(numbers) + 1))
        assert await first.own()
        async with connect(first.ingest_url) as ws:
            await say(ws, streamed("A", "u0"), typed())
            while (await hear(ws, "ack"))["n"] < 53:
                pass
            await expect(first, key_of("u0"), {"n": 53})
    async with running(settings) as third:
        await third.add_reducer("count", count, module="tests").ready()
        await expect(third, key_of("u0"), {"n": 53})
        assert not third.errors.of("archive")


def test_who_came_and_went_is_not_overlooked(tmp_path: Path) -> None:
    """Its lock is free again, but it may have written: the workspace is not this process's any more."""
    one, two = Workspace(tmp_path / "w"), Workspace(tmp_path / "w")
    assert one.open()
    one.announce("http://127.0.0.1:1/", 1, "")
    assert one.still_owned()
    (one.path / "owner.lock").unlink()
    assert not two.is_owned()  # only a look, though it leaves a file
    assert one.still_owned()
    assert one.locked_again == 1
    (one.path / "owner.lock").unlink()
    assert two.open()
    two.close()
    assert not one.still_owned()
    assert not one.owner
    one.close()
    assert two.open()
    two.close()
