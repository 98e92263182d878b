"""`lo.events`: the archive in a notebook, and events out into files that come back the same."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from event_files import SOURCE, study_event, study_log, study_text
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.archive import segments
from lo_kernel.engine.replay import replay
from lo_kernel.errors import ArchiveError, EventError, MissingExtraError
from lo_kernel.notebook.events import Events
from lo_kernel.read_log import NoReadLog
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

START = 1_700_000_000


class Reads(NoReadLog):
    """A read log that a test can look at."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, set[str]]] = []

    def record(self, kind: str, what: str, learners: Any) -> None:
        """Keep it."""
        self.seen.append((kind, what, set(learners)))


@asynccontextmanager
async def events_of(workspace: Path, *paths: Path, segment: int = 40_000) -> AsyncIterator[Events]:
    """`lo.events` of a runtime into which files were replayed."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"), reads=Reads())
    runtime.bind("127.0.0.1", 0)
    runtime.archive.segment_bytes = segment
    await runtime.start()
    try:
        if paths:
            await replay(runtime, list(paths))
        yield Events(runtime, LoopBridge(asyncio.get_running_loop()))
    finally:
        await runtime.stop()


def leftovers(folder: Path) -> list[Path]:
    """Files that were begun and not finished."""
    return list(folder.glob("*.tmp"))


def indices(items: list[dict[str, Any]]) -> list[int]:
    """The numbers that a test gave its events."""
    return [item["client"]["i"] for item in items]


async def test_count_and_tail(tmp_path: Path, workspace: Path) -> None:
    """`count` and `tail` know the newest events, as a reducer gets them, with their numbers."""
    async with events_of(workspace, study_log(tmp_path / "x", range(500))) as events:
        assert events.count() == len(events) == 500
        newest = events.tail(2)
        assert [item["n"] for item in newest] == [499, 500]
        assert {**newest[1], "n": None} == {**study_event(499, "u1"), "n": None}
        assert events.tail(0) == []
        assert len(events.tail(1000)) == 500
        assert "500 events" in repr(events)
        with pytest.raises(EventError, match="n: expected"):
            events.tail(-1)


@pytest.mark.parametrize("segment", [40_000, 64 << 20], ids=["closed segments", "one that grows"])
async def test_the_count_is_of_events_that_are_there(tmp_path: Path, workspace: Path, segment: int) -> None:
    """Numbers whose event was erased, or lost with a damaged segment, are not counted."""
    async with events_of(workspace, study_log(tmp_path / "x", range(500)), segment=segment) as events:
        archive = events._runtime.archive
        assert events.count() == 500
        gone = len(events.filter(learner="tc-testcase-u1"))
        assert gone
        await archive.erase("tc-testcase-u1", "testcase-u1", START)
        assert events.count() == len(events) == len(events.filter()) == 500 - gone
        await archive.keep()  # compressed again where it is full
        assert events.count() == 500 - gone
        if segment == 40_000:
            first = archive.segments()[0]
            first.path.rename(tmp_path / "elsewhere")
            assert events.count() == len(events.filter())


@pytest.mark.filterwarnings("ignore:no learner has the safe id .nobody.")
async def test_filter_finds_what_is_asked_for(tmp_path: Path, workspace: Path) -> None:
    """By learner, context, kind, time, a function and a limit, alone and together."""
    path = tmp_path / "x"
    lines = [
        study_event(
            n, f"u{n % 4}", event="click" if n % 5 == 0 else "key", source="s2" if n % 7 == 0 else SOURCE
        )
        for n in range(400)
    ]
    path.write_text("".join(map(study_text, lines)))
    async with events_of(workspace, path) as events:
        assert indices(events.filter(learner="tc-testcase-u1")) == list(range(1, 400, 4))
        assert indices(events.filter(context="s2")) == list(range(0, 400, 7))
        assert indices(events.filter(event="click", limit=3)) == [0, 5, 10]
        assert indices(events.filter(where=lambda item: item["client"]["i"] > 397)) == [398, 399]
        assert indices(events.filter(since=START + 10.25, until=START + 13.25)) == [10, 11, 12]
        early = datetime.fromtimestamp(START + 2, UTC)
        assert indices(events.filter(until=early)) == [0, 1]
        assert indices(events.filter(until=early.replace(tzinfo=None).isoformat())) == [0, 1]
        both = events.filter(learner="tc-testcase-u2", context="s2", event="click")
        assert indices(both) == [n for n in range(400) if n % 4 == 2 and n % 7 == 0 and n % 5 == 0]
        assert events.filter(learner="nobody") == []
        assert events.filter(limit=0) == []
        assert events.count(learner="tc-testcase-u1") == 100
        assert events.count(event="click") == 80
        for wrong in ({"since": "soon"}, {"learner": 7}, {"where": 3}, {"limit": -1}):
            with pytest.raises(EventError, match="expected"):
                events.filter(**wrong)


@pytest.mark.filterwarnings("ignore:no learner has the safe id .nobody.")
async def test_reading_gives_what_a_filter_gives(tmp_path: Path, workspace: Path) -> None:
    """The same events for the same filters, the same learners on record, the same mistakes at once."""
    path = tmp_path / "x"
    lines = [
        study_event(
            n, f"u{n % 4}", event="click" if n % 5 == 0 else "key", source="s2" if n % 7 == 0 else SOURCE
        )
        for n in range(2500)
    ]
    path.write_text("".join(map(study_text, lines)))
    async with events_of(workspace, path) as events:
        reads = events._runtime.reads
        assert isinstance(reads, Reads)
        filters: list[dict[str, Any]] = [
            {},
            {"learner": "tc-testcase-u1"},
            {"context": "s2", "event": "click"},
            {"since": START + 10.25, "until": START + 13.25},
            {"where": lambda item: item["client"]["i"] > 2398},
            {"event": "click", "limit": 3},
            {"limit": 1200},
            {"limit": 0},
            {"learner": "nobody"},
        ]
        for each in filters:
            reads.seen.clear()
            wanted = events.filter(**each)
            noted = [*reads.seen] or [("events", "archive", set())]
            reads.seen.clear()
            assert await events.read(**each) == wanted
            assert reads.seen == noted
        for wrong in ({"since": "soon"}, {"learner": 7}, {"where": 3}, {"limit": -1}):
            with pytest.raises(EventError, match="expected"):
                events.read(**wrong)


async def test_the_app_goes_on_while_events_are_read(tmp_path: Path, workspace: Path) -> None:
    """Others on the loop have their turns meanwhile; a function of the user's is asked on the loop."""
    async with events_of(workspace, study_log(tmp_path / "x", range(5000))) as events:
        turns, asked_on, seen_at = 0, set(), []

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        def where(item: dict[str, Any]) -> bool:
            asked_on.add(threading.current_thread())
            seen_at.append(turns)
            return True

        beside = asyncio.create_task(others())
        job = events.read(where=where)
        assert len(await job) == 5000
        beside.cancel()
        assert (job.done, job.total) == (5000, 5000)
        assert asked_on == {threading.current_thread()}
        assert len(set(seen_at)) >= 5  # turns of others between the first event and the last

        cancelled = events.read(where=where)
        del seen_at[:]
        await auntil(lambda: seen_at)
        assert cancelled.cancel()
        await auntil(lambda: cancelled.status == "cancelled")
        assert events._runtime.errors.of("reading events") == []


async def test_a_filter_reads_a_part_of_the_archive(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's and a learner's events are read from those segments that have them."""
    path = tmp_path / "x"
    path.write_text("".join(study_text(study_event(n, "rare" if n == 700 else "u0")) for n in range(3000)))
    async with events_of(workspace, path) as events:
        archive = events._runtime.archive
        await auntil(lambda: all(each.packed for each in archive.segments()[:-1]))
        assert len(archive.segments()) > 10
        read: list[int] = []
        block = segments.PackedReader.block

        def counted(reader: segments.PackedReader, each: Any) -> bytes:
            read.append(each.first)
            return block(reader, each)

        monkeypatch.setattr(segments.PackedReader, "block", counted)
        assert indices(events.filter(learner="tc-testcase-rare")) == [700]
        assert len(read) == 1
        assert indices(events.filter(since=START + 1500, until=START + 1501)) == [1500]
        assert len(read) <= 3


async def test_what_is_read_is_on_record(tmp_path: Path, workspace: Path) -> None:
    """Each look at events is recorded, with the learners whose events were seen."""
    async with events_of(workspace, study_log(tmp_path / "x", range(30))) as events:
        reads = events._runtime.reads
        assert isinstance(reads, Reads)
        events.filter(learner="tc-testcase-u1")
        events.tail(1)
        events.filter(limit=1)
        assert [learners for kind, _, learners in reads.seen if kind == "events"] == [
            {"tc-testcase-u1"}, {"tc-testcase-u2"}, {"tc-testcase-u0"},
        ]  # fmt: skip


async def test_what_is_called_otherwise_is_said(tmp_path: Path, workspace: Path) -> None:
    """A learner, a context or an event that isn't there at all is a warning that names those that are."""
    async with events_of(workspace, study_log(tmp_path / "x", range(60), learners=12)) as events:
        cases: tuple[tuple[Any, str], ...] = (
            ({"learner": "u1"}, "no learner has the safe id 'u1'; there are: tc-testcase-u0, "),
            ({"context": "xapi"}, f"no event has the context 'xapi'; the newest have: '{SOURCE}'"),
            ({"event": "open"}, "none of these events is called 'open'; there are: 'keystroke'"),
            ({"event": "open", "learner": "tc-testcase-u1"}, "none of these events is called 'open'"),
        )
        for filters, said in cases:
            for ask in (events.count, events.filter, events.to_frame):
                with pytest.warns(UserWarning, match=re.escape(said)) as caught:
                    found: Any = ask(**filters)
                assert (found if ask == events.count else len(found)) == 0
                (one,) = caught
                assert one.filename == __file__, "it is the caller's line that is named"
            with pytest.warns(UserWarning, match=re.escape(said)) as caught:
                assert await events.read(**filters) == []
            assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match=r"tc-testcase-u7, \.\.\.$"):
            events.count(learner="u1")
        # these there are, though not together, or not then: that is an answer, and no mistake
        assert events.count(event="keystroke", where=lambda event: False) == 0
        assert events.filter(learner="tc-testcase-u1", until=5) == events.filter(event="x", limit=0) == []


async def test_a_frame_has_a_row_an_event(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`to_frame` gives the body's fields as columns, and names the extra where nothing is installed."""
    async with events_of(workspace, study_log(tmp_path / "x", range(6))) as events:
        frame = events.to_frame(learner="tc-testcase-u1")
        assert events.to_frame(await events.read(learner="tc-testcase-u1")).equals(frame)
        with pytest.raises(EventError, match="events or filters, got both"):
            events.to_frame([], learner="tc-testcase-u1")
        assert list(frame["i"]) == [1, 4]
        assert list(frame["learner"]) == ["tc-testcase-u1"] * 2
        assert list(frame["time"]) == [START + 1.25, START + 4.25]
        assert "auth" not in frame.columns
        assert list(frame.columns[:6]) == ["n", "time", "learner", "datetime", "source", "event"]
        assert str(frame["datetime"].dtype) == "datetime64[ns, UTC]"
        assert frame["datetime"][0] == datetime.fromtimestamp(START + 1.25, UTC)
        assert list(frame["source"]) == [SOURCE] * 2
        none = events.to_frame([])
        assert list(none.columns) == list(frame.columns[:6])
        assert list(none.dtypes)[:5] == list(frame.dtypes)[:5]
        far = events.to_frame([{"n": 1, **study_event(90_000_000_000, context="own", datetime="x")}])
        assert far["datetime"].isna().all()
        assert (far["context"][0], far["event.datetime"][0]) == ("own", "x")
        times = (START, 90_000_000_000, -90_000_000_000, 1e30, -1e30, math.inf, math.nan)
        odd = [{"n": n, **study_event(START), "server": {"time": time}} for n, time in enumerate(times)]
        assert list(events.to_frame(odd)["datetime"].isna()) == [False, *[True] * 6]
        assert events.to_frame(odd)["datetime"][0] == datetime.fromtimestamp(START, UTC)
        monkeypatch.setitem(sys.modules, "pandas", None)
        polar = events.to_frame(limit=1)
        assert str(polar["datetime"].dtype) == "Datetime(time_unit='us', time_zone='UTC')"
        assert polar["datetime"].to_list() == [datetime.fromtimestamp(START + 0.25, UTC)]
        assert polar.columns[:6] == events.to_frame([]).columns
        assert [each and each.year for each in events.to_frame(odd)["datetime"].to_list()] == [
            2023, 4821, None, None, None, None, None,
        ]  # fmt: skip
        monkeypatch.setitem(sys.modules, "polars", None)
        with pytest.raises(MissingExtraError, match="frames"):
            events.to_frame()


async def test_what_is_no_event_is_told(tmp_path: Path, workspace: Path) -> None:
    """A frame of what isn't there yet, or isn't events, says what was expected, and what came."""

    class Card:
        """Something that shows itself at length."""

        def __repr__(self) -> str:
            return "a card " * 50

    async with events_of(workspace, study_log(tmp_path / "x", range(6))) as events:
        job: Any = events.read()
        with pytest.raises(EventError, match=r"got Job: write lo\.events\.to_frame\(await lo\.events\.read"):
            events.to_frame(job)
        whole: dict[str, Any] = (await job)[0]
        assert list(events.to_frame(iter([whole]))["n"]) == [1]
        wrong: Any
        for wrong, got in (
            (7, "got 7$"),
            (Card(), "got Card$"),
            ([{"a": 1}], r"got one without n \(number 1\)$"),
            ([whole, {**whole, "server": {}}], r"got one without server\.time \(number 2\)$"),
            ([{**whole, "client": 3}], r"got one without client\.auth\.safe_user_id \(number 1\)$"),
            ([Card()], r"got Card \(number 1\)$"),
            ("ab", r"got 'a' \(number 1\)$"),
            ([None], r"got None \(number 1\)$"),
        ):
            with pytest.raises(EventError, match=f"to_frame: expected events as .* gives them, {got}"):
                events.to_frame(wrong)
        card: Any = Card()
        for filters in (
            {"learner": card},
            {"context": card},
            {"limit": card},
            {"where": card},
            {"since": card},
        ):
            with pytest.raises(EventError, match=r": expected .*, got Card$"):
                events.filter(**filters)
        with pytest.raises(EventError, match=r"n: expected a number from 0 on, got Card$"):
            events.tail(card)


async def test_ids_that_a_warning_shows_are_on_record(tmp_path: Path, workspace: Path) -> None:
    """A learner that isn't there: whose ids are named instead were read, and no others."""
    async with events_of(workspace, study_log(tmp_path / "x", range(60), learners=12)) as events:
        reads = events._runtime.reads
        assert isinstance(reads, Reads)
        shown = {f"tc-testcase-u{n}" for n in range(8)}
        for ask in (lambda: events.filter(learner="u1"), lambda: events.count(learner="u1")):
            reads.seen.clear()
            with pytest.warns(UserWarning, match="there are: tc-testcase-u0, "):
                ask()
            assert [each for each in reads.seen if each[2]] == [("events", "the list of learners", shown)]
        reads.seen.clear()
        with pytest.warns(UserWarning, match="there are: tc-testcase-u0, "):
            await events.read(learner="u1")
        assert [each for each in reads.seen if each[2]] == [("events", "the list of learners", shown)]


@pytest.mark.parametrize(
    "name", ["a.study.log", "a.study.log.gz", "a.study.log.zst", "a.jsonl", "a.jsonl.gz"]
)
async def test_what_is_exported_comes_back(tmp_path: Path, workspace: Path, name: str) -> None:
    """An export read into another workspace gives the same events: client, server, metadata and time."""
    source = study_log(tmp_path / "x", range(200))
    target = tmp_path / name
    async with events_of(workspace, source) as events:
        assert await events.export(target) == 200
        assert await events.export(tmp_path / "one.jsonl", learner="tc-testcase-u1", event="keystroke") == 67
        before = [{**item, "n": 0} for item in events.filter()]
    async with events_of(tmp_path / "second", target) as events:
        after = [{**item, "n": 0} for item in events.filter()]
    assert after == before
    assert leftovers(tmp_path) == []


async def test_bodies_go_out_without_who_sent_them(tmp_path: Path, workspace: Path) -> None:
    """Without identity there are bodies alone, and nothing in them that says who it was."""
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"event":"hello","user_id":"ann-secret","source":"s"}\n{"event":"key","k":1,"auth":{"safe_user_id":"tc-ann-secret"}}\n'
    )
    async with events_of(workspace, path) as events:
        target = tmp_path / "bodies.jsonl"
        assert await events.export(target, identity=False) == 2
        text = target.read_text()
        assert [json.loads(line)["event"] for line in text.splitlines()] == ["hello", "key"]
        assert "secret" not in text
        with pytest.raises(ArchiveError, match=r"without identity, export to \.jsonl"):
            events.export(tmp_path / "a.study.log", identity=False)
        with pytest.raises(ArchiveError, match=r"ends with \.study\.log or \.jsonl"):
            events.export(tmp_path / "a.csv")
        with pytest.raises(ArchiveError, match="is not there"):
            events.export(tmp_path / "none" / "a.jsonl")
