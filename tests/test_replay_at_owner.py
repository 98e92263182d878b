"""Files of events go in where events go in: the owner of a workspace replays them for whoever asks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
from apps import running_app
from event_files import study_log
from waiting import auntil

from lo_kernel.app.replaying import replay_at_owner
from lo_kernel.engine.replay import ReplayReport
from lo_kernel.errors import EventError, LOError
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings
from lo_kernel.workspace import Owner, Workspace

pytestmark = pytest.mark.usefixtures("workspace")


def owner_of(runtime: Runtime) -> Owner:
    """As another process finds it."""
    owner = Workspace(runtime.workspace.path).find_owner()
    assert owner is not None
    return owner


async def command(*arguments: str, workspace: Path) -> tuple[int, str, str]:
    """`lo-kernel` with these arguments: its code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lo_kernel", *arguments, "--workspace", str(workspace),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_has_the_owner_replay(tmp_path: Path, settings: Settings) -> None:
    """Beside a running app `lo-kernel replay` puts events in through it; again, and they are held."""
    path = study_log(tmp_path / "x.log", range(200))
    async with running_app(settings) as runtime:
        workspace = runtime.workspace.path
        code, out, err = await command("replay", str(path), workspace=workspace)
        assert (code, runtime.archive.last) == (0, 200), err
        assert out.startswith(f"200 events added from {path}")
        code, out, err = await command("replay", str(path), workspace=workspace)
        assert "0 events added" in out, err
        assert "200 held already" in out
        assert runtime.archive.last == 200


async def test_the_report_comes_back_whole(tmp_path: Path, settings: Settings) -> None:
    """Counts, what was left out with file and line, and how far it is meanwhile."""
    path = study_log(tmp_path / "x.log", range(3))
    path.write_text(path.read_text() + "no event\n")
    steps: list[ReplayReport] = []
    async with running_app(settings) as runtime:
        report = await replay_at_owner(owner_of(runtime), path, on_progress=steps.append)
    assert report.events == 3
    assert report.ended is not None
    assert report.seconds < 60
    assert [(skipped.count, skipped.first[0][: len(str(path))]) for skipped in report.skipped.values()] == [
        (1, str(path))
    ]
    assert steps[-1].events == 3


async def test_the_owners_record_names_who_asked(tmp_path: Path, settings: Settings) -> None:
    """Of a replay at the command line it has that user and place, and not who runs the owner."""
    path = study_log(tmp_path / "x.log", range(3))
    async with running_app(settings) as runtime:
        log = AuditLog(runtime.workspace.path, state=tmp_path / "state")
        log.open()
        try:
            runtime.reads = recorder = Recorder(log)
            recorder.write("run", {"role": "app", "user": {"name": "root", "from": "system"}, "pid": 1})
            await replay_at_owner(owner_of(runtime), path, user="joe")
            await replay_at_owner(owner_of(runtime), path)
        finally:
            log.close()
        told = [each for each in AuditReader(runtime.workspace.path).events() if each["what"] == "replay"]
    assert [(each["user"], each["by"]) for each in told] == [
        ("joe", "command line"),
        ("root", "a kernel that follows"),
    ]


async def test_a_kernel_that_follows_has_the_owner_replay(tmp_path: Path, settings: Settings) -> None:
    """Its `lo.replay` is the owner's, and the events come to it from there."""
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.observer import LearningObserver

    path = study_log(tmp_path / "x.log", range(50))
    async with running_app(settings) as runtime, running_app(settings) as follower:
        assert (runtime.takes_events, follower.takes_events) == (True, False)
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        report = await lo.replay(path)
        assert report.events == 50
        assert runtime.archive.last == 50
        with pytest.raises(EventError, match="limit: expected"):
            lo.replay(path, limit=0)


async def test_a_kernel_that_follows_has_the_owner_erase(tmp_path: Path, settings: Settings) -> None:
    """Its `lo.erase` is the owner's."""
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.observer import LearningObserver

    who = "tc-testcase-u1"
    async with running_app(settings) as owner, running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        await lo.replay(study_log(tmp_path / "x.log", range(50)))
        await auntil(lambda: who in follower.learners, what="the follower to see the learner")
        theirs = len(lo.events.filter(learner=who))
        erased = await lo.erase(who)
        assert (erased.student, erased.events) == (who, theirs)
        assert theirs > 0
        assert who not in owner.learners
        assert not lo.events.filter(learner=who)


async def test_what_the_owner_refuses_is_said(tmp_path: Path, settings: Settings) -> None:
    """A file that it can't use, a token that isn't the notebook's, and an owner that is gone."""
    path = study_log(tmp_path / "x.log", range(5))
    async with running_app(settings) as runtime:
        owner = owner_of(runtime)
        with pytest.raises(EventError, match=r"nothing\.log"):
            await replay_at_owner(owner, tmp_path / "nothing.log")
        async with aiohttp.ClientSession() as client:
            for kind in ("read", "ingest"):
                headers = {"Authorization": f"Bearer {runtime.security.tokens[kind]}"}
                url = f"{owner.url}webapi/replay"
                async with client.post(url, json={"paths": [str(path)]}, headers=headers) as response:
                    assert response.status == 403
            headers = {"Authorization": f"Bearer {owner.token}"}
            async with client.post(url, json={"paths": str(path)}, headers=headers) as response:
                assert response.status == 400
                assert "paths" in (await response.json())["error"]
        assert runtime.archive.last == 0
    with pytest.raises(LOError, match="does not answer"):
        await replay_at_owner(owner, path)
