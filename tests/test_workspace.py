"""A workspace, its one owner, and those who follow."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ingest_parts import connect, count, expect, hear, key_of, running, say, state_of, typed, who
from waiting import auntil, until

from lo_kernel.errors import ArchiveError, NotOwnerError, StoreError, WorkspaceError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings
from lo_kernel.workspace import Owner, Workspace


def test_one_process_owns_it_and_the_next_one_when_it_ends(workspace: Path) -> None:
    """The second one follows; the lock is free again after the first one's end."""
    one, two = Workspace(workspace), Workspace(workspace)
    assert one.open()
    assert not two.open()
    assert one.tokens == two.tokens
    assert two.is_owned()
    assert not two.own()
    one.close()
    assert not two.is_owned()
    assert two.own()
    assert two.owner
    two.close()


def test_its_files_are_its_users_alone(workspace: Path) -> None:
    """Folder, tokens and owner can be read by nobody else."""
    one = Workspace(workspace)
    one.open()
    one.announce("http://127.0.0.1:1/", 1, "ws://127.0.0.1:1/")
    assert stat.S_IMODE(workspace.stat().st_mode) == 0o700
    for name in ("secrets.json", "owner.json"):
        assert stat.S_IMODE((workspace / name).stat().st_mode) == 0o600
    one.close()
    assert not (workspace / "owner.json").exists()


def test_tokens_and_the_last_port_outlive_the_owner(workspace: Path) -> None:
    """Clients come back to the same address with the same token."""
    one = Workspace(workspace)
    one.open()
    tokens = one.tokens
    one.announce("http://127.0.0.1:4711/", 4711, "ws://127.0.0.1:4711/")
    one.close()
    two = Workspace(workspace)
    assert two.last_port == 4711
    two.open()
    assert two.tokens == tokens
    two.close()


def test_what_a_killed_owner_left_is_repaired(workspace: Path) -> None:
    """owner.json of a dead process, or of another that has its number now, names nobody."""
    code = (
        "import sys, time; from pathlib import Path; from lo_kernel.workspace import Workspace\n"
        f"w = Workspace(Path({str(workspace)!r})); assert w.open(); w.announce('http://x/', 1, 'ws://x/')\n"
        "print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    follower = Workspace(workspace)
    assert not follower.open()
    owner = follower.find_owner()
    assert owner is not None
    assert owner.pid == process.pid
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: follower.find_owner() is None)
    stale = json.loads((workspace / "owner.json").read_text())
    (workspace / "owner.json").write_text(json.dumps({**stale, "pid": os.getppid()}))
    assert follower.find_owner() is None
    assert follower.own()
    assert not (workspace / "owner.json").exists()
    follower.close()


def test_looking_for_an_owner_takes_nobodys_place(workspace: Path) -> None:
    """While others look whether it is owned, whoever opens it becomes the owner."""
    looker = Workspace(workspace)
    looker.open()
    looker.close()
    code = (
        "from pathlib import Path; from lo_kernel.workspace import Workspace\n"
        f"w = Workspace(Path({str(workspace)!r}))\nprint('up', flush=True)\nwhile True: w.is_owned()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        for _ in range(50):
            one = Workspace(workspace)
            assert one.open()
            one.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_workspace_that_cannot_be_used_says_so_and_is_free_again(workspace: Path) -> None:
    """Damaged tokens are named, with what to do; the lock isn't kept."""
    workspace.mkdir()
    (workspace / "secrets.json").write_text("{")
    one = Workspace(workspace)
    with pytest.raises(WorkspaceError, match=r"secrets\.json"):
        one.open()
    (workspace / "secrets.json").unlink()
    two = Workspace(workspace)
    assert two.open()
    two.close()
    assert isinstance(Owner(1, "", 0.0), Owner)


def test_an_app_that_cannot_start_leaves_the_workspace_free(
    settings: Settings, workspace: Path, run: Any
) -> None:
    """A store that can't be opened ends the start with its error, and another try finds no lock."""
    (workspace / "states.sqlite").mkdir(parents=True)
    with pytest.raises(StoreError, match="states"):
        run(Runtime(replace(settings, store="sqlite")).start())

    async def second() -> None:
        async with running(settings) as runtime:
            assert runtime.workspace.owner

    run(second())


async def test_a_follower_sees_events_with_reducers_of_its_own(settings: Settings) -> None:
    """A second app on the workspace has each event within 100 ms; ingest is the owner's."""
    async with running(settings) as owner, running(settings) as follower:
        assert not follower.workspace.owner
        assert follower.ingest_url == owner.ingest_url
        owner.add_reducer("count", count, module="tests")
        async with connect(owner.ingest_url) as ws:
            await say(ws, who("u0"), typed(), typed())
            await expect(owner, key_of("u0"), {"n": 2})
            late = follower.add_reducer("count", count, module="tests")
            await late.ready()
            await expect(follower, key_of("u0"), {"n": 2})
            delays = []
            for number in range(3, 13):
                await say(ws, typed(number))
                started = time.perf_counter()
                await expect(follower, key_of("u0"), {"n": number})
                delays.append(time.perf_counter() - started)
            assert sorted(delays)[5] < 0.1
            assert list(follower.learners) == ["tc-testcase-u0"]
            assert follower.archive.last == owner.archive.last
        own = f"ws{follower.url.removeprefix('http')}wsapi/in/?token={follower.security.tokens['ingest']}"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connect(own):
                pass
        assert caught.value.status == 421
        with pytest.raises(NotOwnerError, match=f"process {os.getpid()}"):
            await follower.own()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_follower_takes_over_when_the_owner_has_ended(
    settings: Settings, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it could; then events come in there, and every state goes on where it was."""
    monkeypatch.setattr("lo_kernel.engine.follow._OWNER_EVERY", 0.05)
    settings = replace(settings, store=store)
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        owner = await first.enter_async_context(running(settings))
        follower = await stack.enter_async_context(running(settings))
        owner.add_reducer("count", count, module="tests")
        await follower.add_reducer("count", count, module="tests").ready()
        await follower.registry.set("notes", 5)
        async with connect(owner.ingest_url) as ws:
            await say(ws, who("u0"), typed(), typed())
            await expect(follower, key_of("u0"), {"n": 2})
        assert not follower.errors.of("workspace")
        await first.aclose()
        await auntil(lambda: follower.errors.of("workspace"))
        assert "lo.own()" in follower.errors.of("workspace")[0].message
        assert await follower.own()
        assert await follower.own()
        assert not follower.errors.of("workspace")
        async with connect(follower.ingest_url) as ws:
            await say(ws, who("u0"), typed())
            await hear(ws, "auth")
            await expect(follower, key_of("u0"), {"n": 3})
        await follower.registry.get("count").ready()
        assert await state_of(follower, "notes") == 5
        assert follower.learners["tc-testcase-u0"].events == 5
        third = await stack.enter_async_context(running(settings))
        assert not third.workspace.owner
        assert third.ingest_url == follower.ingest_url
    async with running(settings) as again:
        await again.add_reducer("count", count, module="tests").ready()
        await expect(again, key_of("u0"), {"n": 3})
        assert again.archive.last == 5


async def test_a_takeover_that_fails_leaves_a_follower_that_can_try_again(settings: Settings) -> None:
    """It goes on answering and following; once what was in the way is gone, all goes on where it was."""
    settings = replace(settings, store="sqlite")
    first = AsyncExitStack()
    owner = await first.enter_async_context(running(settings))
    async with running(settings) as follower:
        await follower.add_reducer("count", count, module="tests").ready()
        async with connect(owner.ingest_url) as ws:
            await say(ws, who("u0"), typed(), typed())
            await expect(follower, key_of("u0"), {"n": 2})
        await first.aclose()
        rejected = follower.workspace.path / "rejected"
        rejected.rename(rejected.with_name("elsewhere"))
        rejected.write_text("in the way")
        for _ in range(2):
            with pytest.raises(ArchiveError, match="rejected has to be a folder"):
                await follower.own()
            assert not follower.takes_events
            assert not follower.workspace.owner
        assert await state_of(follower, key_of("u0")) == {"n": 2}
        rejected.unlink()
        async with running(settings) as second:  # nobody holds it
            assert second.workspace.owner
            async with connect(second.ingest_url) as ws:
                await say(ws, who("u0"), typed())
                await expect(follower, key_of("u0"), {"n": 3})
        assert all(await asyncio.gather(follower.own(), follower.own()))
        async with connect(follower.ingest_url) as ws:
            await say(ws, who("u0"), typed())
            await expect(follower, key_of("u0"), {"n": 4})
        assert follower.learners["tc-testcase-u0"].events == 7


async def test_events_during_a_takeover_are_counted_once(settings: Settings) -> None:
    """Clients that come at once, while reducers still move to the store, lose nothing."""
    settings = replace(settings, store="sqlite")
    first = AsyncExitStack()
    owner = await first.enter_async_context(running(settings))
    async with running(settings) as follower:
        await follower.add_reducer("count", count, module="tests").ready()
        async with connect(owner.ingest_url) as ws:
            await say(ws, who("u0"), *[typed(number) for number in range(3000)])
            await auntil(lambda: follower.archive.last == 3001)
        await first.aclose()
        await follower.own()
        async with connect(follower.ingest_url) as ws:
            await say(ws, who("u0"), *[typed(number) for number in range(500)])
            await expect(follower, key_of("u0"), {"n": 3500})
        await follower.registry.get("count").ready()
        await asyncio.sleep(0)
        assert await state_of(follower, key_of("u0")) == {"n": 3500}
