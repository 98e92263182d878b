"""Published functions that would end a program: their call is an error, and everything else goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.errors import QueryError
from lo_kernel.query.language import q


def counting() -> Parts:
    """Three learners, of whom the second has saved twice."""
    parts = Parts(Reducer("saves", default={"n": 0}), people=3)
    parts.set("saves", "tc-u1", {"n": 2})
    return parts


class Gone(BaseException):
    """No Exception, as libraries have them for their own ends."""


def give_up(how: str) -> None:
    """End the program in one way or another."""
    if how == "exit":
        sys.exit("no model")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "cancel":
        raise asyncio.CancelledError
    raise Gone("away")


SAID = {
    "exit": "SystemExit: no model",
    "interrupt": "KeyboardInterrupt",
    "cancel": "CancelledError",
    "other": "Gone: away",
}


@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("kind", ["plain", "async", "iterator", "async iterator"])
async def test_a_call_that_gives_up_is_an_error_value(how: str, kind: str) -> None:
    """Whatever a function raises, sync or not, at once or on the way, stands in the answer."""
    parts = counting()

    def plain(rows: Any) -> Any:
        give_up(how)

    async def later(rows: Any) -> Any:
        await asyncio.sleep(0)
        give_up(how)

    def one_by_one(rows: Any) -> Iterator[Any]:
        yield 1
        give_up(how)

    async def one_by_one_later(rows: Any) -> AsyncIterator[Any]:
        yield 1
        give_up(how)

    functions = {"plain": plain, "async": later, "iterator": one_by_one, "async iterator": one_by_one_later}
    parts.functions.publish("f")(functions[kind])
    (row,) = await parts.executor.rows(q.call("f")(q.latest("saves")))
    assert row["error"] == f"f: {SAID[how]}"


@pytest.mark.parametrize("how", SAID)
@pytest.mark.parametrize("parallel", [False, True])
async def test_a_map_that_gives_up_at_one_row_has_the_others(how: str, parallel: bool) -> None:
    """The row at which a function ends the program is an error, on a thread too; the other rows stand."""
    parts = counting()

    @parts.functions.publish("f")
    def f(n: int) -> int:
        if n == 2:
            give_up(how)
        return n + 1

    rows = await parts.executor.rows(q.map("f", q.latest("saves"), value_path="n", parallel=parallel))
    assert [row.get("output", row.get("error")) for row in rows] == [1, f"f: {SAID[how]}", 1]


async def test_who_watches_goes_on_after_a_function_gave_up() -> None:
    """A live query says what went wrong, and has the right answer once the function has one."""
    parts = counting()

    @parts.functions.publish("f")
    def f(n: int) -> int:
        if n == 2:
            sys.exit()
        return n + 1

    async with parts.live.subscribe(q.map("f", q.latest("saves"), value_path="n")) as subscription:
        update = await asyncio.wait_for(anext(subscription), 5)
        messages = [message for frame in update.frames for message in json.loads(frame)]
        assert [message["op"] for message in messages] == ["update", "error", "update"]
        parts.set("saves", "tc-u1", {"n": 5})
        update = await asyncio.wait_for(anext(subscription), 5)
        assert update.rows() == [{"student": "tc-u1", "output": 6}]


async def test_a_roster_function_that_gives_up_is_an_error_of_who_asks() -> None:
    """A roster that exits ends neither the app nor the query."""
    parts = counting()
    parts.rosters.use(lambda course_id: sys.exit("no roster today"))
    with pytest.raises(QueryError, match="courseroster: SystemExit: no roster today"):
        await parts.rosters.roster("c1")
    (row,) = await parts.executor.rows(q.latest("saves"))
    assert "no roster today" in row["error"]


async def test_a_query_that_is_cancelled_ends() -> None:
    """Who asked and wants no answer any more ends a function that waits."""
    parts = counting()
    inside = asyncio.Event()

    @parts.functions.publish("f")
    async def f(rows: Any) -> Any:
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(parts.executor.rows(q.call("f")(q.latest("saves"))))
    await asyncio.wait_for(inside.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
