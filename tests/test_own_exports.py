"""Exports that come back: their own workspace holds their events already, another one takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from event_files import study_log
from ingest_parts import SOURCE, bodies, count, expect, idle, key_of, running
from waiting import auntil

from lo_kernel.engine.archive import Search, sealing
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.export import export_events
from lo_kernel.engine.replay import replay
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


def sent(runtime: Runtime, events: int) -> None:
    """Events of three learners in turn."""
    senders = [Sender(identify({"user_id": f"u{user}"}), SOURCE) for user in range(3)]  # type: ignore[arg-type]
    for number in range(events):
        body: dict[str, Any] = {"event": "keystroke", "number": number}
        runtime.pipeline.take(senders[number % 3], body, json.dumps(body).encode(), 1.5)


@pytest.mark.parametrize("name", ["x.study.log", "x.study.log.gz", "x.jsonl.zst"])
async def test_an_export_adds_nothing_where_it_is_from(settings: Settings, tmp_path: Path, name: str) -> None:
    """Each of its events is held already, whatever the format, and however often it is replayed."""
    path = tmp_path / name
    async with running(settings) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        sent(runtime, 15)
        await idle(runtime)
        assert await export_events(runtime.archive, path) == 15
        sent(runtime, 3)
        for _ in range(2):
            report = await replay(runtime, path)
            assert (report.events, report.held) == (0, 15)
        await expect(runtime, key_of("u0"), {"n": 6})
    other = replace(settings, workspace=str(tmp_path / "other"))
    async with running(other) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        for added, held in ((15, 0), (0, 15)):
            report = await replay(runtime, path)
            assert (report.events, report.held) == (added, held)
        await expect(runtime, key_of("u0"), {"n": 5})
        again = tmp_path / f"again-{name}"
        await export_events(runtime.archive, again)
        assert (await replay(runtime, again)).held == 15


@pytest.mark.parametrize("learner", [None, "tc-testcase-u1"])
async def test_a_followers_export_adds_nothing_either(
    settings: Settings, tmp_path: Path, learner: str | None
) -> None:
    """What a process that follows exports is known to the owner, also among files that it replayed itself."""
    path, held = tmp_path / "x.study.log", 15 if learner is None else 5
    async with running(settings) as owner, running(settings) as follower:
        assert not follower.workspace.owner
        sent(owner, 15)
        await idle(owner)
        await auntil(lambda: follower.archive.last == 15)
        assert await export_events(follower.archive, path, search=Search(learner=learner)) == held
        other = study_log(tmp_path / "other.study.log", range(3))
        for file, added, known in ((path, 0, held), (other, 3, 0), (path, 0, held), (other, 0, 3)):
            report = await replay(owner, file)
            assert (report.events, report.held) == (added, known)
        assert owner.archive.last == 18


async def test_an_export_that_can_not_be_noted_is_whole_and_said(settings: Settings, tmp_path: Path) -> None:
    """Where the journal can't be written, the file is there, and `lo.errors` has what that means."""
    path = tmp_path / "x.study.log"
    async with running(settings) as runtime:
        sent(runtime, 3)
        await idle(runtime)
        (settings.workspace_path / "replayed.jsonl").mkdir()
        assert await export_events(runtime.archive, path) == 3
        assert len(path.read_bytes().splitlines()) == 3
        (error,) = runtime.errors.of("export")
        assert "would count twice" in error.message


async def test_one_that_was_picked_or_has_grown_is_known_too(settings: Settings, tmp_path: Path) -> None:
    """Of a learner's export all is held; of one with lines added to it these are new."""
    path = tmp_path / "x.study.log"
    async with running(settings) as runtime:
        sent(runtime, 15)
        await idle(runtime)
        assert await export_events(runtime.archive, path, search=Search(learner="tc-testcase-u1")) == 5
        report = await replay(runtime, path)
        assert (report.events, report.held) == (0, 5)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines) + lines[0].replace(b'"number":1', b'"number":100'))
        for added, held in ((1, 5), (0, 6)):
            report = await replay(runtime, path)
            assert (report.events, report.held) == (added, held)


async def test_what_the_archive_lost_comes_back_from_it(settings: Settings, tmp_path: Path) -> None:
    """An export of events that are there no more is what they can be had again from."""
    path = tmp_path / "x.study.log.gz"
    async with running(settings) as runtime:
        runtime.archive.segment_bytes = 2000
        for _ in range(4):
            sent(runtime, 15)
            await idle(runtime)
        await export_events(runtime.archive, path)
    segments = sorted((settings.workspace_path / "archive").glob("events-*.jsonl*"))
    for each in segments[1:3]:
        each.unlink()
    async with running(settings) as runtime:
        there = sum(1 for _ in runtime.archive.read())
        assert 0 < there < 60
        report = await replay(runtime, path)
        assert (report.events, report.held) == (60 - there, there)
        await idle(runtime)
        assert sum(1 for _ in runtime.archive.read()) == 60


def no_line(data: bytearray) -> None:
    """A line that is no JSON any more."""
    data[data.index(b"\n") + 1] ^= 0xFF


def no_sender(data: bytearray) -> None:
    """One that is, and doesn't say whose it is."""
    data[data.index(b"auth")] ^= 1


def no_block(data: bytearray) -> None:
    """A compressed block."""
    data[len(data) // 2] ^= 0xFF


@pytest.mark.parametrize(("spoil", "lost"), [(no_line, 1), (no_sender, 1), (no_block, 15)])
async def test_what_a_damaged_segment_lost_comes_back_from_it(
    settings: Settings, tmp_path: Path, spoil: Any, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that can't be read any more is none that is held, wherever in a segment it was."""
    monkeypatch.setattr(sealing, "_REST", 0.0)
    path = tmp_path / "x.study.log"
    async with running(settings) as runtime:
        runtime.archive.segment_bytes = 2000
        for _ in range(3):
            sent(runtime, 15)
            await idle(runtime)
        await export_events(runtime.archive, path)
        runtime.archive._untidy = True
        await runtime.archive.keep()
    packed = spoil is no_block
    damaged = sorted((settings.workspace_path / "archive").glob("events-*.jsonl*"))[1 if packed else -1]
    assert damaged.name.endswith(".zst") == packed
    data = bytearray(damaged.read_bytes())
    spoil(data)
    damaged.write_bytes(data)
    async with running(settings) as runtime:
        report = await replay(runtime, path)
        assert (report.events, report.held) == (lost, 45 - lost)
        await idle(runtime)
        assert sorted(body["number"] for body in bodies(runtime)) == sorted([*range(15)] * 3)
        report = await replay(runtime, path)
        assert (report.events, report.held) == (0, 45)
