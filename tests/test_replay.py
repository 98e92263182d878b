"""Replay and fold: old files go in once, in order, and nothing of them is lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from event_files import SOURCE, compressed, study_event, study_log, study_text
from waiting import auntil

from lo_kernel.cli import main
from lo_kernel.engine import fold as fold_module
from lo_kernel.engine.fold import Folded, fold
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline, student_event_reducer
from lo_kernel.engine.replay import ReplayReport, check_replay, replay
from lo_kernel.errors import EventError, NotOwnerError, ReducerError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@student_event_reducer(null_state={"count": 0, "seen": []}, module_override="t", qualname_override="seen")
async def seen(event: dict[str, Any], state: Any) -> Any:
    """Which events came, in which order."""
    state["count"] += 1
    state["seen"].append(event["client"].get("i"))
    return state, None


@asynccontextmanager
async def running(
    workspace: Path, *, store: str = "memory", segment: int | None = None
) -> AsyncIterator[Runtime]:
    """A runtime that is started, with the reducer `seen`."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store=store))
    runtime.bind("127.0.0.1", 0)
    if segment is not None:
        runtime.archive.segment_bytes = segment
    await runtime.start()
    try:
        if runtime.workspace.owner:
            registration = runtime.add_reducer("seen", seen, module="t")
            await registration.ready()
        yield runtime
    finally:
        await runtime.stop()


async def states(runtime: Runtime) -> dict[str, Any]:
    """What `seen` saw, by learner."""
    await auntil(runtime.pipeline.is_idle)
    keys = await runtime.registry.keys("Internal,t.seen,")
    values = await runtime.registry.read(keys)
    return {key.rpartition("STUDENT:")[2]: value for key, value in zip(keys, values, strict=True)}


async def test_a_file_goes_in_and_through_the_reducers(tmp_path: Path, workspace: Path) -> None:
    """Each record of a file is an event in the archive, and the reducers have seen it, in order."""
    path = study_log(tmp_path / "x.study.log", range(900))
    async with running(workspace) as runtime:
        report = await replay(runtime, path)
        assert (report.events, report.held, report.skipped) == (900, 0, {})
        found = await states(runtime)
        assert found["tc-testcase-u1"] == {"count": 300, "seen": list(range(1, 900, 3))}
        assert runtime.archive.last == 900
        record = runtime.archive.tail(1)[0]
        assert record.t == 1_700_000_899.25
        assert record.s == 900
        assert b"auth" not in bytes(record.body)
        assert len(report.files) == 1
        assert "900 events added from" in repr(report)


@pytest.mark.parametrize("store", ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
async def test_replaying_twice_adds_nothing(
    tmp_path: Path, workspace: Path, store: str, request: pytest.FixtureRequest
) -> None:
    """The second time, under another name, compressed, and after a restart, every record is held already."""
    store = request.getfixturevalue("redis_url") if store == "redis" else store
    path = study_log(tmp_path / "x.study.log", range(600))
    async with running(workspace, store=store, segment=50_000) as runtime:
        await replay(runtime, path)
        again = await replay(runtime, compressed(path, "gz"))
        assert (again.events, again.held) == (0, 600)
    async with running(workspace, store=store) as runtime:
        again = await replay(runtime, str(compressed(path, "zst")))
        assert (again.events, again.held) == (0, 600)
        assert "600 held already" in repr(again)
        assert {who: each["count"] for who, each in (await states(runtime)).items()} == {
            f"tc-testcase-u{n}": 200 for n in range(3)
        }


async def test_a_file_that_grew_adds_what_is_new(tmp_path: Path, workspace: Path) -> None:
    """A log that was appended to, also after a torn last line, adds just its new lines."""
    path = study_log(tmp_path / "x.study.log", range(500))
    whole = study_log(tmp_path / "whole", range(800)).read_bytes()
    path.write_bytes(path.read_bytes()[:-90])
    async with running(workspace) as runtime:
        first = await replay(runtime, path)
        assert first.events == 499
        assert sum(each.count for each in first.skipped.values()) == 1
        path.write_bytes(whole)
        report = await replay(runtime, path)
        assert (report.events, report.held) == (301, 499)
        again = await replay(runtime, path)
        assert (again.events, again.held) == (0, 800)
        found = await states(runtime)
        assert sorted(n for each in found.values() for n in each["seen"]) == list(range(800))


async def test_a_cancelled_replay_goes_on_where_it_was(tmp_path: Path, workspace: Path) -> None:
    """However often a replay is cancelled, in the end each event is there once."""
    path = study_log(tmp_path / "x.study.log", range(6000))
    async with running(workspace, segment=200_000) as runtime:
        for events in (500, 1500, 3000):
            job = asyncio.create_task(replay(runtime, path))
            await auntil(lambda wanted=events: runtime.archive.last >= wanted)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
        assert runtime.archive.last < 6000
        report = await replay(runtime, path)
        assert report.events + report.held == 6000
        assert report.held >= 3000
        found = await states(runtime)
        assert found["tc-testcase-u0"]["seen"] == list(range(0, 6000, 3))


async def test_one_learner_and_a_limit(tmp_path: Path, workspace: Path) -> None:
    """`learner` takes one learner's events, `limit` the first so many; asked for again, they are held."""
    path = study_log(tmp_path / "x.study.log", range(300))
    async with running(workspace) as runtime:
        first = await replay(runtime, path, learner="tc-testcase-u1", limit=20)
        assert (first.events, first.others) == (20, 39)
        again = await replay(runtime, path, learner="tc-testcase-u1", limit=20)
        assert (again.events, again.held) == (0, 20)
        more = await replay(runtime, path, learner="tc-testcase-u1")
        assert (more.events, more.held) == (80, 20)
        rest = await replay(runtime, path)
        assert (rest.events, rest.held) == (200, 100)
        found = await states(runtime)
        assert {who: sorted(each["seen"]) for who, each in found.items()} == {
            f"tc-testcase-u{n}": list(range(n, 300, 3)) for n in range(3)
        }


async def test_several_files_are_merged_by_time(tmp_path: Path, workspace: Path) -> None:
    """Events of several files come in the order of their times, those of one file in the file's own."""
    odd = study_log(tmp_path / "odd", range(1, 400, 2))
    even = compressed(study_log(tmp_path / "even", range(0, 400, 2)), "gz")
    late = tmp_path / "late.jsonl"
    late.write_text("".join(json.dumps(study_event(n)) + "\n" for n in (150, 10, 399)))
    async with running(workspace) as runtime:
        report = await replay(runtime, [odd, even, late])
        assert report.events == 403
        order = [json.loads(bytes(record.body))["i"] for record in runtime.archive.read()]
        own = [n for n in order if n not in (150, 10, 399)]
        assert own == sorted(own)
        assert order.index(150) in (150, 151)
        assert (await replay(runtime, [odd, even, late])).events == 0


async def test_bad_records_are_counted_with_their_place(tmp_path: Path, workspace: Path) -> None:
    """A bad line doesn't end a replay; the report has its reason, its file and its line."""
    lines = [study_text(study_event(n)) for n in range(20)]
    for place in (3, 5, 7, 9, 11, 13, 15):
        lines[place] = "{broken\n"
    path = tmp_path / "x.study.log"
    path.write_text("".join(lines))
    async with running(workspace) as runtime:
        report = await replay(runtime, path)
        assert report.events == 13
        assert report.skipped["not_json"].count == 7
        assert len(report.skipped["not_json"].first) == 5
        assert f"{path}, line 4: expected JSON" in repr(report)
        assert (await replay(runtime, path)).events == 0


async def test_wrong_arguments_are_refused_at_once(tmp_path: Path, workspace: Path) -> None:
    """Before anything is done, what can't be used is named: paths, formats, limits, folders."""
    good = study_log(tmp_path / "good", range(3))
    noise = tmp_path / "noise"
    noise.write_text("hello")
    async with running(workspace) as runtime:
        for paths, options, message in (
            (tmp_path / "none", {}, "is not there"),
            (tmp_path, {}, "is a folder"),
            (noise, {}, "begins with 'hello'"),
            ([], {}, "empty list"),
            (7, {}, "expected a path or a list of paths, got 7"),
            (good, {"format": "parquet"}, "expected 'auto' or one of"),
            (good, {"limit": 0}, "limit: expected"),
            (good, {"learner": ""}, "learner: expected"),
        ):
            with pytest.raises(EventError, match=message):
                check_replay(runtime, paths, **options)  # type: ignore[arg-type]
        await replay(runtime, good)
        own = runtime.archive.segments()[0].path
        with pytest.raises(EventError, match="own archive"):
            check_replay(runtime, own)


async def test_a_follower_is_told_who_owns_it(tmp_path: Path, workspace: Path) -> None:
    """In a process that follows, replay names the owner, and changes nothing."""
    path = study_log(tmp_path / "x", range(3))
    async with running(workspace) as owner, running(workspace) as follower:
        assert not follower.workspace.owner
        with pytest.raises(NotOwnerError, match=r"belongs to process \d+, which answers at http"):
            await replay(follower, path)
        assert (await replay(owner, path)).events == 3
        await auntil(lambda: follower.pipeline.routed == 3)


async def test_the_same_file_twice_at_once_is_refused(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replays of one content can't run beside each other: they would double it."""
    path = study_log(tmp_path / "x", range(2000))
    async with running(workspace) as runtime:
        to_end, sync = asyncio.Event(), runtime.pipeline.sync

        async def last_step() -> None:
            await to_end.wait()
            await sync()

        monkeypatch.setattr(runtime.pipeline, "sync", last_step)
        first = asyncio.ensure_future(replay(runtime, path))
        await auntil(lambda: runtime.replays.digests)
        with pytest.raises(EventError, match="is being replayed already") as wrong:
            await replay(runtime, compressed(path, "gz"))
        assert wrong.value.reason == "already_replaying"
        to_end.set()
        assert (await first).events == runtime.archive.last == 2000
        assert (await replay(runtime, path)).held == 2000


async def test_a_log_that_grows_while_it_is_replayed_is_refused(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is an earlier state of it, and the two in one call: no part of it goes in twice."""
    path = study_log(tmp_path / "x.study.log", range(2000))
    grown = study_log(tmp_path / "grown.study.log", range(2100))
    async with running(workspace) as runtime:
        for paths in ([path, grown], [compressed(grown, "gz"), path], [path, compressed(path, "zst")]):
            with pytest.raises(EventError, match=r"leave .* out") as wrong:
                await replay(runtime, paths)
            assert wrong.value.reason == "twice"
        go, stands, pipeline = asyncio.Event(), asyncio.Event(), runtime.pipeline
        take_many = pipeline.take_many

        def take(*arguments: Any, **options: Any) -> None:
            take_many(*arguments, **options)
            pipeline.full = True

        async def room() -> None:
            stands.set()
            await go.wait()

        monkeypatch.setattr(pipeline, "take_many", take)
        monkeypatch.setattr(pipeline, "room", room)
        for first, second in ((path, grown), (grown, path)):
            go.clear()
            stands.clear()
            job = asyncio.create_task(replay(runtime, first))
            await stands.wait()
            with pytest.raises(EventError, match="already") as wrong:
                await replay(runtime, second)
            assert wrong.value.reason == "already_replaying"
            go.set()
            await job
        report = await replay(runtime, path)
        assert (report.events, report.held) == (0, 2000)
        assert runtime.archive.last == 2100


async def test_what_is_left_of_an_earlier_state_is_held_by_the_later_one(
    tmp_path: Path, workspace: Path
) -> None:
    """A log that was replayed in part, then grown as a whole, then again as it was first."""
    path = study_log(tmp_path / "x.study.log", range(200))
    grown = study_log(tmp_path / "grown.study.log", range(300))
    async with running(workspace) as runtime:
        for file, limit, added in ((path, 50, 50), (grown, None, 250), (path, None, 0)):
            assert (await replay(runtime, file, limit=limit)).events == added


async def test_the_loop_has_its_turn(tmp_path: Path, workspace: Path) -> None:
    """While a file goes in, the loop is never held for long, and progress is told with a rate."""
    path = study_log(tmp_path / "x", range(20_000), compact=True)
    gaps: list[float] = []
    told: list[ReplayReport] = []

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async with running(workspace, store="sqlite") as runtime:
        task = asyncio.create_task(beat())
        report = await replay(runtime, path, on_progress=told.append)
        task.cancel()
    assert report.events == 20_000
    assert sorted(gaps)[int(len(gaps) * 0.95)] < 0.025, "a slice is 4 ms; a busy machine may take more"
    assert told[-1] is report
    assert "records/s" in report.note
    assert report.done == report.total == path.stat().st_size


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Folding a file holds a part of it, not the whole."""

    def count(event: dict[str, Any], state: Any) -> Any:
        return (state or 0) + 1, None

    path = study_log(tmp_path / "x", range(40_000))
    tracemalloc.start()
    try:
        folded = await fold(count, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(folded.values()) == 40_000
    assert peak < 16 << 20 < path.stat().st_size


def everything(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(folder.rglob("*"))


# -- fold --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "gz", "zst", "several", "jsonl"])
async def test_fold_gives_the_states_that_replay_makes(tmp_path: Path, workspace: Path, how: str) -> None:
    """Plain, compressed, as JSON lines and from several files: the states are those that are live."""
    path = study_log(tmp_path / "x.study.log", range(700))
    paths: Any = path
    if how in ("gz", "zst"):
        paths = compressed(path, how)
    elif how == "several":
        paths = [study_log(tmp_path / "a", range(0, 700, 2)), study_log(tmp_path / "b", range(1, 700, 2))]
    elif how == "jsonl":
        paths = tmp_path / "x.jsonl"
        paths.write_text("".join(json.dumps(study_event(n, f"u{n % 3}")) + "\n" for n in range(700)))
    async with running(workspace) as runtime:
        await replay(runtime, paths)
        live = await states(runtime)
    folded = await fold(seen, paths)
    assert folded == {f"Internal,t.seen,STUDENT:{who}": state for who, state in live.items()}
    assert folded.report.events == 700


async def test_fold_has_scopes_contexts_learners_and_limits(tmp_path: Path) -> None:
    """A scope makes the keys; events without its fields, of other contexts or learners are left out."""
    events = [
        study_event(
            n, f"u{n % 2}", **({"doc": {"id": n % 4}} if n % 5 else {}), source=SOURCE if n % 3 else "other"
        )
        for n in range(60)
    ]
    path = tmp_path / "x"
    path.write_text("".join(map(study_text, events)))
    scope = Scope([KeyField.STUDENT, EventField("doc.id")])

    @kvs_pipeline(null_state=0, scope=scope, module_override="t", qualname_override="n")
    def number(event: dict[str, Any], state: Any) -> Any:
        return state + 1, None

    folded = await fold(number, path, context=SOURCE)
    expected: dict[str, int] = {}
    for n in range(60):
        if n % 5 and n % 3:
            key = f"Internal,t.n,EventField.doc.id:{n % 4},STUDENT:tc-testcase-u{n % 2}"
            expected[key] = expected.get(key, 0) + 1
    assert folded == expected
    assert folded.report.elsewhere == 20
    one = await fold(number, path, learner="tc-testcase-u1", limit=10, scope=Scope([KeyField.STUDENT]))
    assert one == {"Internal,t.n,STUDENT:tc-testcase-u1": 10}


@pytest.mark.parametrize("since", [1, 3000, 6 << 20])
async def test_fold_puts_a_state_back(tmp_path: Path, since: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception, a `False`, or a state that is no JSON, the state is what it was before."""
    monkeypatch.setattr(fold_module, "_SINCE_BYTES", since)
    path = study_log(tmp_path / "x", range(200), learners=2)

    @student_event_reducer(null_state={"seen": []}, module_override="t", qualname_override="careless")
    async def careless(event: dict[str, Any], state: Any) -> Any:
        number = event["client"]["i"]
        state["seen"].append(number)
        if number % 10 == 3:
            raise ValueError("three")
        if number % 10 == 6:
            return False, None
        if number % 50 == 8:
            return {"seen": {1, 2}}, None
        if number % 20 == 7:
            await asyncio.sleep(0)
        return state, state

    folded = await fold(careless, path)
    for learner in (0, 1):
        left = [n for n in range(learner, 200, 2) if n % 10 not in (3, 6) and n % 50 != 8]
        assert folded[f"Internal,t.careless,STUDENT:tc-testcase-u{learner}"] == {"seen": left}
    assert folded.failures == 24
    assert "three" in folded.errors[0]


async def test_fold_keeps_nothing_and_names_mistakes(tmp_path: Path) -> None:
    """Nothing is written beside the file; what is no reducer, or gives no pair, is named."""
    path = study_log(tmp_path / "x", range(5))
    before = everything(tmp_path)
    assert isinstance(await fold(seen, path), Folded)
    assert everything(tmp_path) == before
    with pytest.raises(ReducerError, match="takes two arguments"):
        await fold(lambda event: event, path)  # type: ignore[arg-type,misc]
    single = await fold(lambda event, state: state, path)
    assert single.failures == 5
    assert "returns a pair" in single.errors[0]


async def test_fold_shares_no_null_state(tmp_path: Path) -> None:
    """Each key begins with its own copy of the null state."""
    path = study_log(tmp_path / "x", range(6), learners=3)
    folded = await fold(seen, path)
    assert [state["seen"] for state in folded.values()] == [[0, 3], [1, 4], [2, 5]]
    again = await fold(seen, path)
    assert again == folded


# -- on the command line -----------------------------------------------------------------------


async def test_the_command_replays_into_a_workspace(
    tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lo-kernel replay` puts files into a workspace that nobody owns, and refuses one that somebody does."""
    path = study_log(tmp_path / "x.study.log", range(50))
    arguments = ["replay", str(path), "--workspace", str(workspace), "--limit", "20"]
    assert await asyncio.to_thread(main, arguments) == 0
    assert "20 events added" in capsys.readouterr().out
    async with running(workspace) as runtime:
        assert runtime.archive.last == 20
        assert await asyncio.to_thread(main, arguments) == 1
        assert "owns the workspace" in capsys.readouterr().err
    assert (
        await asyncio.to_thread(main, ["replay", str(tmp_path / "none"), "--workspace", str(workspace)]) == 1
    )
    assert "is not there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        await asyncio.to_thread(main, ["replay"])
