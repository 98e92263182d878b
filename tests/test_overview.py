"""The class overview: its reducers by hand, and the whole of it over a class that types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from apps import running_app
from hypothesis import given
from hypothesis import strategies as st
from page_parts import SOURCE, send

from lo_kernel.app.overview import add_overview
from lo_kernel.app.typists import apply_commands, typists
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.overview.queries import presence
from lo_kernel.overview.reducers import MINUTES, TENS, activity, time_on_task, writing
from lo_kernel.read_log import NoReadLog
from lo_kernel.settings import Settings


class Noted(NoReadLog):
    """The deeds that were put on record."""

    def __init__(self) -> None:
        self.deeds: list[dict[str, Any]] = []

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """A deed."""
        self.deeds.append({"what": what, "name": name, **details})


def folded(reducer: Any, events: list[tuple[float, dict[str, Any]]]) -> Any:
    """The state after these events, each with its time."""
    state = json.loads(json.dumps(declaration_of(reducer).null_state))
    for time, client in events:
        event = {"client": {"event": "keystroke", **client}, "server": {"time": time}}
        internal, _ = asyncio.run(reducer(event, state))
        state = state if internal is False else internal
    return state


@given(st.lists(st.integers(0, 3 * 3600), min_size=1, max_size=60))
def test_activity_counts_each_event_in_its_minute(offsets: list[int]) -> None:
    """Whenever events come, the newest half hour is counted right, and no more is kept."""
    start = 1_700_000_000
    times = sorted(start + offset for offset in offsets)
    state = folded(activity, [(float(time), {}) for time in times])
    series = state["per_minute"]
    newest = times[-1] // 60 * 60
    first = series["start"]
    assert first + 60 * (len(series["values"]) - 1) == newest
    assert len(series["values"]) <= MINUTES
    expected = [
        sum(1 for time in times if minute <= time < minute + 60) for minute in range(first, newest + 60, 60)
    ]
    assert series["values"] == expected
    assert sum(1 for time in times if time < first and time > newest - 60 * (MINUTES - 1)) == 0
    assert (state["events"], state["first"], state["last"]) == (len(times), times[0], times[-1])


def test_time_on_task_leaves_pauses_out() -> None:
    """Events within a minute of each other are work; a longer pause begins another session."""
    state = folded(time_on_task, [(0.0, {}), (10.0, {}), (70.0, {}), (200.0, {}), (203.0, {}), (199.0, {})])
    assert (state["seconds"], state["sessions"], state["last"]) == (73.0, 2, 203.0)


def test_writing_counts_what_is_left() -> None:
    """Typed less deleted is the length of the text; other events change nothing."""
    (typist,) = typists(1, seed=5)
    text, events = "", []
    for due, event in typist.until(200):
        text = apply_commands(text, event["bundles"][0]["commands"])
        events.append((due, event))
    state = folded(writing, [*events, (300.0, {"event": "mouse"})])
    assert state["characters"] == len(text)
    assert state["documents"] == 1


@pytest.mark.parametrize(("ago", "word"), [(0, "active"), (59, "active"), (61, "pausing"), (301, "idle")])
def test_presence_is_how_long_ago(ago: float, word: str) -> None:
    """A minute without an event is a pause, five are idleness."""
    import time

    assert presence({"last": time.time() - ago})["presence"] == word


def test_the_minute_that_goes_on_is_left_out() -> None:
    """Its count is still low, and would look like a fall; it is shown where there is no other."""
    import time

    now = time.time()
    minute = int(now // 60) * 60

    def shown(start: int, values: list[int]) -> list[int]:
        series = {"start": start, "step": 60, "values": values}
        found: list[int] = presence({"last": now, "per_minute": series})["per_minute"]["values"]
        assert series["values"] == values, "the state stays as it is"
        return found

    assert shown(minute + 600, [40, 41, 3]) == [40, 41]
    assert shown(minute - 600, [40, 41, 39]) == [40, 41, 39]
    assert shown(minute + 600, [3]) == [3]
    assert presence({"last": now, "per_minute": None})["per_minute"] is None


@given(st.lists(st.integers(0, 900), min_size=1, max_size=40))
def test_activity_counts_each_event_in_its_ten_seconds(offsets: list[int]) -> None:
    """The newest three minutes are there, each ten seconds with all of its events."""
    times = sorted(1_700_000_000 + offset for offset in offsets)
    lately = folded(activity, [(float(time), {}) for time in times])["lately"]
    first, newest = lately["start"], times[-1] // 10 * 10
    assert lately["step"] == 10
    assert first + 10 * (len(lately["values"]) - 1) == newest
    assert len(lately["values"]) <= TENS
    assert lately["values"] == [
        sum(1 for time in times if each <= time < each + 10) for each in range(first, newest + 10, 10)
    ]


@pytest.mark.parametrize(
    ("ago", "step", "values"),
    [(25, 10, [24, 12]), (9, 10, [24]), (45, 10, [24, 12, 6, 0]), (170, 60, [9, 9, 9])],
)
def test_who_has_just_begun_has_a_value_for_ten_seconds(ago: int, step: int, values: list[int]) -> None:
    """In the first three minutes, as events a minute; what goes on is left out there too."""
    began = 1_700_000_040 + 40  # 40 s into a minute
    now = began + ago
    counted = [4, 2, 1][: ago // 10 + 1]
    lately = {"start": began, "step": 10, "values": list(counted)}
    minutes = {"start": began - 40, "step": 60, "values": [9, 9, 9, 2][: (ago + 40) // 60 + 1]}
    row = {"last": now, "per_minute": minutes, "lately": lately}
    with patch("time.time", return_value=now):
        shown = presence(row)
    assert (shown["per_minute"]["step"], shown["per_minute"]["values"]) == (step, values)
    assert "lately" not in shown
    assert row["lately"] == lately == {**lately, "values": counted}, "the state stays as it is"


async def test_the_whole_over_a_class(settings: Settings) -> None:
    """Each learner of the class has a row with all of it, also those who have done nothing yet."""
    async with running_app(settings) as runtime:
        board, registrations = add_overview(runtime)
        for registration in registrations:
            await registration.ready()
        identity = identify({"user_id": "ann"})
        assert identity is not None
        now = runtime.clock()
        (typist,) = typists(1, seed=5)
        for due, event in typist.until(300):
            raw = json.dumps(event).encode()
            await runtime.pipeline.accept(Sender(identity, SOURCE), event, raw, now - 300 + due)
        await send(runtime, "bo", source="somewhere.else")
        rows = await runtime.executor.rows("overview.class")
        by_name = {row["student"]: row for row in rows}
        ann, bo = by_name["tc-testcase-ann"], by_name["tc-testcase-bo"]
        assert ann["characters"] > 50
        assert ann["minutes_on_task"] > 0.5
        assert ann["presence"] == "active"
        series = ann["per_minute"]
        assert 0 < sum(series["values"]) <= ann["events"]  # without those of the minute that goes on
        assert series["start"] + 60 * len(series["values"]) <= now
        assert (bo["presence"], bo["events"], bo["characters"]) == ("not seen yet", 0, 0)
        assert "profile" not in ann
        assert add_overview(runtime)[0] == board  # again does no harm
        assert (await runtime.executor.rows("overview.class"))[0]["events"] == ann["events"]


async def test_its_reducers_are_as_others_are(settings: Settings) -> None:
    """Each is loaded on record, with the hash of its code, and has a query of its own."""
    async with running_app(settings) as runtime:
        runtime.reads = noted = Noted()
        registrations = add_overview(runtime)[1]
        for registration in registrations:
            await registration.ready()
        assert [(each["name"], each["code"], each["module"]) for each in noted.deeds] == [
            (registration.id, registration.code, "overview") for registration in registrations
        ]
        await send(runtime, "ann")
        rows = await runtime.executor.rows("overview.writing")
        assert [(row["student"], row["characters"]) for row in rows] == [("tc-testcase-ann", 0)]


async def test_paused_it_says_what_makes_it_go_on(settings: Settings) -> None:
    """After a restart no cell has its code: its reducers and answers name `lo.overview()`."""
    settings = replace(settings, store="sqlite")
    async with running_app(settings) as runtime:
        for registration in add_overview(runtime)[1]:
            await registration.ready()
        await send(runtime, "ann")
    async with running_app(settings) as runtime:
        says = "call lo.overview() to go on"
        assert says in repr(runtime.registry.get("overview.activity"))
        rows = await runtime.executor.rows("overview.activity")
        assert repr(rows).endswith(
            f"'overview.activity' is paused, with all events so far in its states; {says}"
        )
