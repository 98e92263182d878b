"""Who was erased: no known file brings them back, and who goes on sending is known again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from event_files import study_event, study_log, study_text
from page_parts import send
from test_replay import running

from lo_kernel.app import erasing
from lo_kernel.app.erasing import erase
from lo_kernel.app.unfinished import known
from lo_kernel.engine.archive import Search, Senders
from lo_kernel.engine.replay import replay
from lo_kernel.runtime import Runtime

U0, U1 = "tc-testcase-u0", "tc-testcase-u1"


def events_of(runtime: Runtime, student: str) -> int:
    """How many the archive has."""
    return sum(1 for _ in runtime.archive.search(Search(learner=student), Senders()))


async def test_who_types_meanwhile_is_known_by_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that come while a learner is erased count, so that they can be erased, too."""
    async with running(workspace, store="sqlite") as runtime:
        await send(runtime, "u0", "u1", "u0")
        anew = erasing._anew

        async def typing(runtime: Runtime) -> Any:
            await send(runtime, "u0", "u0")
            return await anew(runtime)

        monkeypatch.setattr(erasing, "_anew", typing)
        assert (await erase(runtime, U0)).events == 2
        await send(runtime, "u0")
        assert runtime.learners[U0].events == 3
        assert runtime.learners[U1].events == 1
        monkeypatch.undo()
    async with running(workspace, store="sqlite") as runtime:
        assert runtime.learners[U0].events == 3
        assert known(runtime, U0)
        assert (await erase(runtime, U0)).events == 3
        assert not known(runtime, U0)
    async with running(workspace, store="sqlite") as runtime:
        assert not known(runtime, U0)
        assert runtime.learners[U1].events == 1


async def test_a_file_that_was_known_does_not_bring_them_back(tmp_path: Path, workspace: Path) -> None:
    """Neither replayed again, nor grown, nor after a restart; the report says so, and by name they come."""
    path = study_log(tmp_path / "x.study.log", range(30))
    async with running(workspace) as runtime:
        await replay(runtime, path)
        await erase(runtime, U0)
        report = await replay(runtime, path)
        assert (report.events, report.held, report.erased, report.back) == (0, 20, 10, [])
        assert "10 left out, of learners who were erased" in repr(report)
        with path.open("a") as file:
            file.write(study_text(study_event(30, "u0")) + study_text(study_event(31, "u1")))
    async with running(workspace) as runtime:
        report = await replay(runtime, path)
        assert (report.events, report.held, report.erased) == (1, 20, 11)
        assert U0 not in runtime.learners
        report = await replay(runtime, path, learner=U0)
        assert (report.events, report.erased, report.back) == (11, 0, [U0])
        report = await replay(runtime, path)
        assert (report.events, report.held, report.erased) == (0, 32, 0)
    text = (workspace / "replayed.jsonl").read_text()
    assert "u0" not in text


async def test_a_file_that_was_not_known_does_and_the_report_names_them(
    tmp_path: Path, workspace: Path
) -> None:
    """Whoever gives a file that is new here is told who was erased here before."""
    async with running(workspace) as runtime:
        await send(runtime, "u0", "u1")
        await erase(runtime, U0)
        path = study_log(tmp_path / "x.study.log", range(30))
        report = await replay(runtime, path)
        assert (report.events, report.erased, report.back) == (30, 0, [U0])
        assert f"erased here earlier, and in again with this: {U0}" in repr(report)
        assert (await replay(runtime, path)).held == 30
        await erase(runtime, U0)
        report = await replay(runtime, path)
        assert (report.events, report.held, report.erased, report.back) == (0, 20, 10, [])


async def test_a_replay_that_goes_on_brings_nobody_back(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is erased while a file of theirs goes in is left out from then on; so where it was cut off."""
    path = study_log(tmp_path / "x.study.log", range(900))
    async with running(workspace) as runtime:
        await replay(runtime, path, limit=300)
        await erase(runtime, U0)
        pipeline, go, stands = runtime.pipeline, asyncio.Event(), asyncio.Event()
        take_many = pipeline.take_many

        def take(*arguments: Any, **options: Any) -> None:
            take_many(*arguments, **options)
            pipeline.full = True

        async def room() -> None:
            if runtime.archive.last > 500:
                stands.set()
                await go.wait()

        monkeypatch.setattr(pipeline, "take_many", take)
        monkeypatch.setattr(pipeline, "room", room)
        job = asyncio.create_task(replay(runtime, path))
        await stands.wait()
        await erase(runtime, U1)
        go.set()
        report = await job
        assert report.events + report.held + report.erased == 900
        assert events_of(runtime, U0) == events_of(runtime, U1) == 0
        assert events_of(runtime, "tc-testcase-u2") == 300
        assert list(runtime.learners) == ["tc-testcase-u2"]
