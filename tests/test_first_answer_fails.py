"""A live query whose first answer can't be had: what is told, and what comes after."""

from __future__ import annotations

from pathlib import Path

import pytest
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel.errors import ReducerError
from lo_kernel.query.language import COURSE_ROSTER


class Cancelled(Reducer):
    """A reducer that was cancelled while it went through the past, until it is there again."""

    gone = True

    async def ready(self) -> None:
        """Raise, as one that was cancelled does."""
        if self.gone:
            raise ReducerError("the reducer 'late' was cancelled before it had gone through the past")


async def of_two_courses(tmp_path: Path) -> tuple[Parts, Cancelled]:
    """Two learners, each in a course of their own, and a reducer that can't answer yet."""
    roster = tmp_path / "roster.csv"
    roster.write_text("user_id,course_id\ntc-u0,1\ntc-u1,2\n", encoding="utf-8")
    late = Cancelled("late", default={"n": 0})
    parts = Parts(late, people=2)
    await parts.rosters.load(roster)
    parts.catalog.add_reducer(late, "m")
    return parts, late


async def test_who_stays_is_told_of_their_course_alone(tmp_path: Path) -> None:
    """A chart whose reducer was cancelled has the learners of its course when there is an answer."""
    parts, late = await of_two_courses(tmp_path)
    source = parts.live.source("m.late", {"course_id": "1"})
    told: list[int] = []
    end = source.subscribe(lambda: told.append(1))
    await auntil(lambda: told)
    with pytest.raises(ReducerError, match="was cancelled"):
        await source.rows()
    late.gone = False
    parts.functions.touch(COURSE_ROSTER)
    await auntil(lambda: len(told) == 2)
    assert await source.rows() == [{"student": "tc-u0", "n": 0}]
    end()
    assert not len(parts.live)


async def test_who_comes_later_has_it_tried_again(tmp_path: Path) -> None:
    """Who asks the same when the reducer is there again gets its answer, and so does who stayed."""
    parts, late = await of_two_courses(tmp_path)
    parameters = {"course_id": "1"}
    stays = parts.live.subscribe("m", ["late"], parameters)
    with pytest.raises(ReducerError, match="was cancelled"):
        await anext(stays)
    async with parts.live.subscribe("m", ["late"], parameters) as fails:
        with pytest.raises(ReducerError, match="was cancelled"):
            await anext(fails)
    late.gone = False
    async with parts.live.subscribe("m", ["late"], parameters) as comes:
        assert [change.path for change in (await anext(comes)).changes] == ["students.tc-u0"]
    assert [change.path for change in (await anext(stays)).changes] == ["students.tc-u0"]
    stays.close()


async def test_what_was_redefined_meanwhile_is_asked_as_it_is(tmp_path: Path) -> None:
    """Where the query was replaced before its first answer, that answer is the new one's."""
    parts, late = await of_two_courses(tmp_path)
    dag = parts.catalog.get("m").to_json()
    parts.catalog.remove("m")
    parts.catalog.add("named", dag)
    stays = parts.live.subscribe("named", ["late"], {"course_id": "1"})
    with pytest.raises(ReducerError, match="was cancelled"):
        await anext(stays)
    late.gone = False
    parts.catalog.add("named", {"execution_dag": {"late": 7}, "exports": {"late": {"returns": "late"}}})
    await auntil(lambda: stays.waiting)
    assert [change.value for change in (await anext(stays)).changes] == [{"output": 7}]
    stays.close()
