"""What a printed answer says beside its values: errors once and whole, whose rows are a null state, typos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from ingest_parts import SOURCE
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.errors import QueryError
from lo_kernel.query.language import q
from lo_kernel.query.rows import Rows
from lo_kernel.settings import Settings


def writing(people: int, writers: int, default: Any = None) -> Parts:
    """A class in which the last ``writers`` have written something; all by one reducer, ``chars``."""
    parts = Parts(Reducer("chars", default={"typed": 0} if default is None else default), people=people)
    parts.catalog.add_reducer(parts.reducers.get("chars"), "m")
    for number in range(people - writers, people):
        parts.set("chars", f"tc-u{number}", {"typed": number})
    return parts


async def test_a_field_that_no_state_has_is_said_once_and_whole() -> None:
    """The error isn't cut to the width of a cell, stands once, and says in how many rows it is."""
    parts = writing(69, 69)
    rows = await parts.executor.rows(q.latest("chars", {"typo": "x", "typed": "n"}))
    said = (
        "error in 69 of 69 rows: node 'result.left', field 'fields': expected 'typo' in the state, got typed"
    )
    text, page = repr(rows), rows._repr_html_()
    assert text.endswith(said)
    assert text.count("expected 'typo'") == page.count("expected &#x27;typo&#x27;") == 1
    assert text.splitlines()[1].split() == ["tc-u0", "error", "0"]
    assert isinstance(rows[0]["x"], dict), "the rows themselves are as they were"


async def test_rows_that_a_function_failed_at_are_counted_and_named() -> None:
    """A table has no columns of errors; what failed is below it, though its rows are not shown."""
    parts = writing(69, 69)

    @parts.functions.publish("inverse")
    def inverse(typed: int) -> dict[str, float]:
        if typed >= 66:
            raise ValueError("much too long to be shown in a cell, as what went wrong often is")
        return {"inverse": 1 / typed}

    rows = await parts.executor.rows(q.map("inverse", q.latest("chars"), value_path="typed"))
    lines = repr(rows).splitlines()
    assert lines[0].split() == ["student", "inverse"]
    assert lines[1].split() == ["tc-u0", "error", "1"]
    assert lines[-3:] == [
        "... 9 more rows",
        "error 1 in 1 of 69 rows (tc-u0): inverse: ZeroDivisionError: division by zero",
        "error 2 in 3 of 69 rows (tc-u66, tc-u67, tc-u68): inverse: ValueError: much too long to be shown in "
        "a cell, as what went wrong often is",
    ]
    value = await parts.executor.rows(
        q.call("mean")(q.map("inverse", q.latest("chars"), value_path="typed"), "inverse")
    )
    assert value.notes == [
        "mean: 4 of 69 rows don't count, for an error: inverse: ZeroDivisionError: division by zero"
    ]


async def test_a_table_of_errors_alone_has_a_place_for_them() -> None:
    """Where every row failed, or is nobody's, there is still something to see."""
    wrong = {"error": "no", "function": "map", "traceback": ""}
    assert (
        repr(Rows([{"student": "a", **wrong}])) == "student  error\na        error\nerror in 1 of 1 rows: no"
    )
    assert repr(Rows([wrong, wrong])).splitlines()[-1] == "error in 2 of 2 rows: no"
    many = Rows([{"student": str(n), "x": {"error": f"no {n}", "function": "f"}} for n in range(9)])
    assert repr(many).splitlines()[-2:] == ["error 5 in 1 of 9 rows (4): no 4", "4 more errors, in 4 rows"]
    assert "4 more errors" in many._repr_html_()


@pytest.mark.parametrize(
    ("query", "note"),
    [
        (q.call("mean")(q.latest("chars"), "typpo"), "mean: no row has 'typpo'; they have typed"),
        (q.call("top")(q.latest("chars"), path="a.b"), "top: no row has 'a.b'; they have typed"),
        (q.call("group_by")(q.latest("chars"), "tyed"), "group_by: no row has 'tyed'; they have typed"),
        (
            q.call("group_by")(q.latest("chars"), "typed", {"n": ["sum", "x"]}),
            "group_by: no row has 'x'; they have typed",
        ),
        (q.call("unwind")(q.latest("chars"), "x.y", "z"), "unwind: no row has 'x.y'; they have typed"),
    ],
)
async def test_a_path_that_is_in_no_row_is_named(query: Any, note: str) -> None:
    """An empty value because of a typo says so; where some rows have the field, all is well."""
    parts = writing(3, 3)
    rows = await parts.executor.rows(query)
    assert rows.notes == [note]
    assert repr(rows).endswith(note)
    assert note.replace("'", "&#x27;") in rows._repr_html_()
    assert not (await parts.executor.rows(q.call("mean")(q.latest("chars"), "typed"))).notes


async def test_who_never_wrote_is_told_from_who_wrote_nothing() -> None:
    """Rows that are a null state are counted, and the line says how to have the others alone."""
    parts = writing(69, 6)
    note = (
        "63 of 69 have no events for 'chars' here: their rows are its null state; "
        "lo.q.select(lo.q.keys('chars'), lo.q.ALL) leaves them out"
    )
    for query in ("chars", q.latest("chars"), q.call("mean")(q.latest("chars"), "typed")):
        assert repr(await parts.executor.rows(query)).splitlines()[-1] == note
    rows = await parts.executor.rows("chars")
    assert [row["student"] for row in rows[:2]] == ["tc-u0", "tc-u1"], "the answer keeps its order"
    lines = repr(rows).splitlines()
    assert [line.split() for line in lines[1:7]] == [[f"tc-u{n}", str(n)] for n in range(63, 69)]
    assert lines[-2] == "... 9 more rows"
    assert repr(rows[8:]).splitlines()[1].split() == ["tc-u63", "63"]
    alone = q.select(q.keys("chars"), q.ALL)
    assert len(await parts.executor.rows(alone)) == 6
    (value,) = await parts.executor.rows(q.call("mean")(alone, "typed"))
    assert value == {"value": 65.5}
    assert not (await parts.executor.rows(alone)).notes


async def test_all_rows_without_events_keep_their_places() -> None:
    """Where all fit into the table they stand as in the answer."""
    parts = writing(3, 1)
    assert [line.split()[0] for line in repr(await parts.executor.rows("chars")).splitlines()[1:4]] == [
        "tc-u0", "tc-u1", "tc-u2",
    ]  # fmt: skip
    empty = await writing(3, 0).executor.rows("chars")
    assert empty.notes == ["3 of 3 have no events for 'chars' here: their rows are its null state"]


@student_event_reducer(null_state={"n": 0}, module_override="tests")
async def picky(event: dict[str, Any], state: dict[str, int]) -> tuple[Any, Any]:
    """Fails at some events, and keeps nothing of others."""
    number = event["client"]["number"]
    if number == 1:
        raise KeyError(number)
    return (False, False) if number == 2 else ({"n": state["n"] + 1}, False)


async def test_who_has_no_state_though_events_came_is_told_from_who_sent_none(workspace: Path) -> None:
    """The reducer failed at them, or kept nothing; and where that isn't known, nothing is said of events."""
    settings = Settings(workspace=str(workspace), port=0)
    query = q.select(q.keys("picky", STUDENTS=["tc-testcase-u0", "tc-testcase-u1", "tc-testcase-u2", "tc-x"]))
    async with running_app(settings) as runtime:
        await runtime.add_reducer("picky", picky, module="tests").ready()
        for number in (0, 1, 2, 1):
            sender = Sender(identify({"user_id": f"u{number}"}), SOURCE)  # type: ignore[arg-type]
            body = {"event": "x", "number": number}
            await runtime.pipeline.accept(sender, body, json.dumps(body).encode(), 1.5)
        await auntil(runtime.pipeline.is_idle)
        assert (await runtime.executor.rows(query)).notes == [
            "1 of 4 have no state: 'picky' failed at their events (see lo.errors), so their rows are its "
            "null state",
            "1 of 4 have no state: 'picky' kept nothing of their events, so their rows are its null state",
            "1 of 4 have no events for 'picky' here: their rows are its null state; "
            "lo.q.select(lo.q.keys('picky'), lo.q.ALL) leaves them out",
        ]
    unknown = (
        "3 of 4 have no state of 'picky' here: their rows are its null state; "
        "lo.q.select(lo.q.keys('picky'), lo.q.ALL) leaves them out"
    )
    async with running_app(settings) as runtime:
        assert (await runtime.executor.rows(query)).notes == [unknown]
        await runtime.add_reducer("picky", picky, module="tests").ready()
        assert (await runtime.executor.rows(query)).notes == [unknown]


async def test_a_value_that_comes_later_counts_from_then_on() -> None:
    """A query that is kept up to date knows who has got a state, and who has lost it again."""
    parts = writing(2, 0)
    running = parts.executor.prepare("m", ["chars"], {})
    await running.run()
    (step,) = [step for step in running.steps if hasattr(step, "stateless")]
    assert len(step.stateless) == 2
    key = min(step.stateless)
    from lo_kernel.query.steps import Dirt

    for state, without in (({"typed": 1}, 1), (None, 2)):
        parts.states.states[key] = state
        await running.refresh(Dirt(keys=frozenset([key])))
        assert len(step.stateless) == without


async def test_an_error_of_the_whole_answer_is_still_raised() -> None:
    """Notes are for what is there; where nothing is, the error is all."""
    parts = writing(2, 2)
    with pytest.raises(QueryError, match="expected numbers"):
        await parts.executor.rows(q.call("mean")(q.latest("chars"), "user_id"), whole_errors=True)
