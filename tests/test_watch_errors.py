"""An answer that as a whole is an error, for who watches: said as an error, once, and taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.errors import QueryError
from lo_kernel.query import shared
from lo_kernel.query.behind import Behind
from lo_kernel.query.language import q
from lo_kernel.query.rows import Rows
from lo_kernel.query.steps import WHOLE
from lo_kernel.query.subscription import Subscription
from lo_kernel.query.updates import FRAME_BYTES, Board, RowChange

ALL = [{"student": "tc-u0", "count": 0}, {"student": "tc-u1", "count": 0}]


@pytest.fixture(autouse=True)
def _try_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is read again soon."""
    monkeypatch.setattr(shared, "_RETRY_SECONDS", 0.01)


def counting() -> Parts:
    """Two learners, one counting reducer, and its query."""
    parts = Parts(Reducer("counter", default={"count": 0}), people=2)
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    return parts


async def soon(watching: AsyncIterator[Rows]) -> Rows:
    """The next rows, within a time limit."""
    return await asyncio.wait_for(anext(watching), 5)


async def messages(subscription: Subscription) -> list[tuple[str, str]]:
    """Kinds and paths of the next update's messages."""
    update = await asyncio.wait_for(anext(subscription), 5)
    return [(message["op"], message["path"]) for frame in update.frames for message in json.loads(frame)]


async def test_an_answer_that_becomes_an_error_is_no_row() -> None:
    """A function that fails: no rows, and the error; then the rows of the answer that comes after."""
    parts = counting()

    @parts.functions.publish("checked")
    def checked(rows: list[Any]) -> list[Any]:
        if any(row["count"] > 5 for row in rows):
            raise ValueError("more than 5")
        return rows

    watching = parts.live.watch(q.call("checked")(q.latest("counter")))
    assert (first := await soon(watching)) == ALL
    assert first.error == ""
    parts.set("counter", "tc-u1", {"count": 6})
    wrong = await soon(watching)
    assert (list(wrong), wrong.error) == ([], "checked: ValueError: more than 5")
    parts.set("counter", "tc-u1", {"count": 2})
    right = await soon(watching)
    assert (right, right.error) == ([ALL[0], {"student": "tc-u1", "count": 2}], "")
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_first_answer_that_is_an_error_is_told_and_waited_for() -> None:
    """A course that isn't there at first: its error; the class as soon as it is."""
    parts = counting()
    there: list[dict[str, str]] = []

    def roster(course_id: str | None) -> list[dict[str, str]]:
        if not there:
            raise QueryError(f"there is no course {course_id!r}")
        return there

    parts.rosters.use(roster)
    watching = parts.live.watch("counter", {"course_id": "c9"})
    assert "there is no course 'c9'" in (await soon(watching)).error
    there.append({"user_id": "tc-u1"})
    parts.rosters.use(roster)
    rows = await soon(watching)
    assert (rows, rows.error) == ([ALL[1]], "")
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_store_that_is_away_is_an_error_and_then_all_rows() -> None:
    """While states can't be read there are no rows; all of them come again, though few have changed."""
    parts = counting()
    watching = parts.live.watch("counter")
    assert await soon(watching) == ALL
    parts.states.fails = 1
    parts.set("counter", "tc-u0", {"count": 1})
    wrong = await soon(watching)
    assert (list(wrong), wrong.error) == ([], "OSError: the store is out of reach")
    assert await soon(watching) == [{"student": "tc-u0", "count": 1}, ALL[1]]
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_query_that_goes_and_comes_back_says_both_though_no_row_changed() -> None:
    """A query that is taken away is an error, once; when it is there again, clients hear that it is over."""
    parts = counting()
    watching = parts.live.watch("counter")
    assert await soon(watching) == ALL
    async with parts.live.subscribe("counter", queue=1) as slow, parts.live.subscribe("counter") as quick:
        assert len(await messages(quick)) == 2
        parts.catalog.remove_reducer("counter", "m")
        assert "there is no query 'counter'" in (await soon(watching)).error
        assert await messages(quick) == [("error", "counter")]
        # One who hasn't even taken the first answer hears of it too.
        assert ("error", "counter") in await messages(slow)
        parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
        parts.live.reducers_changed()
        rows = await soon(watching)
        assert (rows, rows.error) == (ALL, "")
        back = [("delete", "counter"), ("update", "students.tc-u0"), ("update", "students.tc-u1")]
        assert await messages(quick) == back
    await watching.aclose()  # type: ignore[attr-defined]


def test_an_error_is_said_once_and_who_comes_hears_it() -> None:
    """The same failure again is no news; another one is; a new reader gets the rows and why they are old."""
    board = Board()
    board.take("x", [{"user_id": "u", "n": 1}], WHOLE)
    assert board.fail(["x"], {"error": "away", "function": "query"}) is not None
    assert board.fail(["x"], {"error": "away", "function": "query"}) is None
    assert board.fail(["x"], {"error": "gone", "function": "query"}) is not None
    assert [(change.op, change.path) for change in board.everything().changes] == [
        ("update", "students.u"),
        ("error", "x"),
    ]
    assert [change.op for change in board.update([RowChange("y", "delete", {})]).changes] == [
        "delete",
        "delete",
        "update",
    ]
    assert not board.failed
    assert [change.op for change in board.everything().changes] == ["update"]


def test_rows_with_an_error_print_it_and_make_no_frame() -> None:
    """In a console and in JupyterLab an error reads as one, and its text stays text; a frame raises it."""
    rows = Rows(error="no <course> c9")
    assert repr(rows) == repr(rows[:1]) == "error: no <course> c9"
    assert "no &lt;course&gt; c9" in rows._repr_html_()
    with pytest.raises(QueryError, match="no <course> c9"):
        rows.to_frame()


def test_each_frame_of_an_answer_that_is_behind_says_so() -> None:
    """An answer of several frames: the first message of each has the mark, so none looks up to date."""
    board = Board()
    rows = [{"user_id": f"u{number}", "text": "x" * (FRAME_BYTES // 3)} for number in range(7)]
    board.take("x", rows, WHOLE)
    board.mark({"counter": Behind("paused", 2)})
    frames = [json.loads(frame) for frame in board.snapshot().frames]
    assert len(frames) > 2
    assert sum(map(len, frames)) == 7
    for frame in frames:
        assert [message.get("behind") for message in frame] == [
            {"counter": "paused"},
            *[None] * (len(frame) - 1),
        ]
