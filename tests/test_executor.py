"""Running queries: answers, errors in their place, functions, rosters, rows."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.errors import MissingExtraError, QueryError, SettingsError
from lo_kernel.query.functions import FunctionContext
from lo_kernel.query.language import q
from lo_kernel.query.rosters import Rosters
from lo_kernel.query.rows import Rows

BY_DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])


def counting(people: int = 2) -> Parts:
    """A class with one counting reducer, and its query."""
    parts = Parts(Reducer("counter", default={"count": 0}), people=people)
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    return parts


async def only(parts: Parts, query: Any, **parameters: Any) -> Any:
    """The one answer of a query."""
    (answer,) = (await parts.executor.run(query, None, parameters)).values()
    return answer


async def test_a_reducers_query_is_the_roster_joined_with_its_states() -> None:
    """Every learner of the class has a row; who has no state has the default's fields."""
    parts = counting()
    parts.set("counter", "tc-u1", {"count": 4, "last": "x"})
    assert await parts.executor.run("m", ["counter_export"]) == {
        "counter_export": [
            {"count": 0, "user_id": "tc-u0", "profile": {}},
            {"count": 4, "last": "x", "user_id": "tc-u1", "profile": {}},
        ]
    }


async def test_rows_are_flat_and_say_whose_they_are() -> None:
    """The rows of a notebook: student first, then the state's fields, no provenance, no names."""
    parts = counting()
    parts.set("counter", "tc-u1", {"count": 4, "student": "inside"})
    rows = await parts.executor.rows("counter")
    assert rows == [
        {"student": "tc-u0", "count": 0},
        {"student": "tc-u1", "count": 4, "state.student": "inside"},
    ]
    named = await parts.executor.rows("counter", names={"tc-u0": "Ada"})
    assert named[0] == {"student": "tc-u0", "name": "Ada", "count": 0}


async def test_rows_of_documents_and_of_classes() -> None:
    """A scope with more than the learner gives a column for each of its fields; others need no roster."""
    parts = Parts(
        Reducer("docs", scope=BY_DOCUMENT, default={"n": 0}),
        Reducer("room", scope=Scope([KeyField.CLASS]), default={"n": 0}),
        people=2,
    )
    for name in ("docs", "room"):
        parts.catalog.add_reducer(parts.reducers.get(name), "m")
    parts.set("docs", "tc-u1", {"n": 1}, doc_id="b")
    parts.set("docs", "tc-u1", {"n": 2}, doc_id="a")
    parts.set("docs", "tc-stranger", {"n": 3}, doc_id="a")
    parts.states.set("Internal,m.room,CLASS:7", {"n": 9})
    assert await parts.executor.rows("m.docs") == [
        {"student": "tc-u1", "document": "a", "n": 2},
        {"student": "tc-u1", "document": "b", "n": 1},
    ]
    assert await parts.executor.rows("m.room") == [{"class": "7", "n": 9}]


async def test_an_error_in_one_value_leaves_the_others() -> None:
    """What fails for one learner is an error in that learner's place, with function and traceback."""
    parts = counting()
    parts.set("counter", "tc-u0", {"count": 1})

    @parts.functions.publish("inverse")
    def inverse(count: int) -> float:
        return 1 / count

    bad, good = (await only(parts, q.map("inverse", q.latest("counter"), value_path="count")))[::-1]
    assert good == {"output": 1.0}
    assert bad["error"] == "inverse: ZeroDivisionError: division by zero"
    assert bad["function"] == "map"
    assert "in inverse" in bad["traceback"]
    assert bad["error_provenance"] == {"node": "result", "function_name": "inverse"}


async def test_an_error_of_a_whole_node_goes_through_to_the_answer() -> None:
    """What needs a failed node answers with that error, and says by which field it came."""
    parts = counting()

    @parts.functions.publish("broken")
    async def broken() -> None:
        raise RuntimeError("no luck")

    answer = await only(parts, {"a": q.call("broken")(), "b": q.call("count")(rows=q.variable("a"))})
    assert answer["error"] == "broken: RuntimeError: no luck"
    assert answer["error_path"] == ["b", "kwargs.rows"]
    assert answer["dispatch"] == "call"


async def test_a_field_that_a_state_lacks_is_an_error_and_one_without_state_is_null() -> None:
    """Asking a state for what it hasn't is an error that names what it has; no state at all is no error."""
    parts = counting()
    parts.set("counter", "tc-u0", {"count": 1})
    keys = q.keys("counter", STUDENTS=q.roster(), STUDENTS_path="user_id")
    first, second = await only(parts, q.select(keys, {"text": "text"}))
    assert first["text"]["error"] == "node 'result', field 'fields': expected 'text' in the state, got count"
    assert second == {"text": None}


async def test_map_runs_plain_functions_in_order_and_parallel_ones_at_once() -> None:
    """Serial: one after another on the loop. Parallel: several at once, plain functions on threads."""
    parts = Parts()
    running: list[int] = []
    most: list[int] = []

    @parts.functions.publish("slow")
    async def slow(value: int) -> int:
        running.append(value)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.remove(value)
        return value

    parts.functions.publish("where")(lambda value: threading.current_thread() is threading.main_thread())
    values = list(range(8))
    for parallel, several in ((False, False), (True, True)):
        most.clear()
        rows = await only(parts, {"m": q.map("slow", values, parallel=parallel)})
        assert [row["output"] for row in rows] == values
        assert (max(most) > 1) is several
        rows = await only(parts, {"m": q.map("where", values, parallel=parallel)})
        assert {row["output"] for row in rows} == {not several}


async def test_a_plain_map_over_many_rows_lets_the_loop_go_on() -> None:
    """While a plain function works through a class, others on the loop get their turn."""
    parts = Parts()
    turns: list[float] = []

    async def others() -> None:
        while True:
            turns.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0)

    parts.functions.publish("work")(lambda value: sum(range(20_000)))
    task = asyncio.create_task(others())
    await only(parts, {"m": q.map("work", list(range(300)))})
    task.cancel()
    gaps = [b - a for a, b in itertools.pairwise(turns)]
    assert len(turns) > 5
    assert max(gaps) < 0.2


async def test_a_function_gets_copies_and_the_runtime_where_it_asks() -> None:
    """A function that changes its rows changes nothing of the query; `runtime` is filled in."""
    parts = counting()
    got: list[Any] = []

    @parts.functions.publish("spoil")
    def spoil(rows: list[dict[str, Any]], runtime: Any) -> int:
        got.append(runtime)
        for row in rows:
            row.clear()
        return len(rows)

    query = {"execution_dag": {"c": q.latest("counter"), "n": q.call("spoil")(q.variable("c"))}}
    query["exports"] = {name: {"returns": name} for name in ("c", "n")}
    answer = await parts.executor.run(query)
    assert answer["n"] == 2
    assert answer["c"][0] == {"count": 0, "user_id": "tc-u0", "profile": {}}
    assert got == [FunctionContext()]


async def test_names_never_reach_who_may_not_see_them() -> None:
    """Without `names` no function and no answer holds a profile, wherever in the query it is looked for."""
    parts = counting(1)
    parts.rosters.use(lambda course_id: [{"user_id": "tc-u0", "name": "Ada Lovelace"}])
    query = {"execution_dag": {"c": q.latest("counter")}, "exports": {"c": {"returns": "c"}}}
    hidden = await parts.executor.run(query, provenance=True)
    shown = await parts.executor.run(query, provenance=True, names=True)
    assert "Ada" not in json.dumps(hidden)
    assert shown["c"][0]["profile"] == {"name": {"full_name": "Ada Lovelace"}}
    assert await parts.rosters.names() == {"tc-u0": "Ada Lovelace"}


async def test_builtin_functions_work_on_the_rows_of_a_query() -> None:
    """unwind, group_by and the aggregates answer over a class, and say what they can't work with."""
    parts = Parts(Reducer("work", default={}), people=3)
    for number, room in enumerate(["a", "b", "a"]):
        parts.set("work", f"tc-u{number}", {"room": room, "n": number, "words": ["x"] * number})
    rows = q.latest("work")
    assert await only(parts, q.call("sum")(rows, "n")) == 3
    assert await only(parts, q.call("mean")(rows, "n")) == 1
    assert await only(parts, q.call("median")(rows, "n")) == 1
    assert await only(parts, q.call("min")(rows, "room")) == "a"
    assert await only(parts, q.call("max")(rows, "n")) == 2
    assert await only(parts, q.call("count")(rows)) == 3
    top = await only(parts, q.call("top")(rows, "n", n=1))
    assert [row["user_id"] for row in top] == ["tc-u2"]
    assert await only(
        parts, q.call("group_by")(rows, "room", aggregates={"n": "count", "most": ["max", "n"]})
    ) == [
        {"room": "a", "n": 2, "most": 2},
        {"room": "b", "n": 1, "most": 1},
    ]
    words = await only(parts, q.call("unwind")(rows, "words", "word", ["user_id"]))
    assert words == [{"user_id": f"tc-u{n}", "word": "x"} for n in (1, 2, 2)]
    wrong = await only(parts, q.call("mean")(rows, "room"))
    assert wrong["error"] == "mean: expected numbers at 'room', got 'a'"


async def test_everyone_seen_is_every_course() -> None:
    """Without a roster file any course id means everyone seen, as dashboards of the field need it."""
    parts = counting()
    assert len(await parts.rosters.roster("12345")) == 2
    assert parts.rosters.courses() == [{"id": "everyone", "name": "Everyone seen"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "r.csv",
            "course_id,course_name,student,name,section\n"
            "1,English,tc-u0,Ada,x\n1,English,tc-u9,Bo,\n2,,a b,,\n",
        ),
        (
            "r.tsv",
            "course\tcourse_name\tuser_id\tname\tsection\n"
            "1\tEnglish\ttc-u0\tAda\tx\n1\tEnglish\ttc-u9\tBo\t\n2\t\ta b\t\t\n",
        ),
        (
            "r.json",
            json.dumps(
                {
                    "courses": [
                        {
                            "id": 1,
                            "name": "English",
                            "students": [
                                {"user_id": "tc-u0", "name": "Ada", "section": "x"},
                                {"user_id": "tc-u9", "profile": {"name": {"full_name": "Bo"}}},
                            ],
                        },
                        {"id": "2", "students": [{"user_id": "a b"}]},
                    ]
                }
            ),
        ),
        (
            "rows.json",
            json.dumps(
                [
                    {
                        "course_id": 1,
                        "course_name": "English",
                        "user_id": "tc-u0",
                        "name": "Ada",
                        "section": "x",
                    },
                    {"course_id": 1, "user_id": "tc-u9", "name": "Bo"},
                    {"course_id": 2, "user_id": "a b"},
                ]
            ),
        ),
    ],
)
async def test_rosters_come_from_files(tmp_path: Path, name: str, text: str) -> None:
    """CSV, TSV and JSON give the same courses and learners; extra columns go into the profile."""
    file = tmp_path / name
    file.write_text(text)
    parts = counting()
    await parts.rosters.load(file)
    assert parts.rosters.courses() == [{"id": "1", "name": "English"}, {"id": "2", "name": "2"}]
    assert await parts.rosters.roster("1", names=True) == [
        {"user_id": "tc-u0", "profile": {"section": "x", "name": {"full_name": "Ada"}}},
        {"user_id": "tc-u9", "profile": {"name": {"full_name": "Bo"}}},
    ]
    assert [row["user_id"] for row in await parts.rosters.roster()] == ["tc-u0", "tc-u9", "a+b"]
    rows = await parts.executor.rows("counter", {"course_id": "1"})
    assert [row["student"] for row in rows] == ["tc-u0", "tc-u9"]
    answer = await only(parts, "m.counter", course_id="3")
    assert "there is no course '3' in the roster; there are: 1, 2" in answer["error"]


async def test_an_error_of_the_whole_answer_can_be_raised() -> None:
    """With ``whole_errors`` a course that isn't there is raised with all of its text; a row's error stays."""
    parts = counting()
    parts.rosters.use(lambda course: [{"name": "nobody"}])
    (row,) = await parts.executor.rows("counter")
    with pytest.raises(QueryError, match="roster row 1: expected a learner's id") as raised:
        await parts.executor.rows("counter", whole_errors=True)
    assert str(raised.value) == row["error"]


async def test_an_error_of_one_row_is_not_one_of_the_answer() -> None:
    """A list whose only row is an error stays a list, with ``whole_errors`` too."""
    parts = counting()
    parts.functions.publish("inverse")(lambda count: 1 / count)
    rows = await parts.executor.rows(q.map("inverse", [0]), whole_errors=True)
    assert [row["error"] for row in rows] == ["inverse: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        (
            "r.csv",
            "who,name\n1,2\n",
            "r.csv, line 1: expected a column 'user_id', got 2 that are called otherwise",
        ),
        ("r.csv", "", "line 1: expected a column 'user_id', got an empty file"),
        ("r.json", "{", "r.json: expected JSON"),
        ("r.json", "{}", "expected a list of rows or {'courses': [...]}"),
        ("r.xlsx", "", "expected a .csv, .tsv or .json file, got 'r.xlsx'"),
    ],
)
async def test_a_wrong_roster_file_says_where(tmp_path: Path, name: str, text: str, error: str) -> None:
    """A roster that can't be read names file, line and what was expected, and the old one stays."""
    file = tmp_path / name
    file.write_text(text)
    parts = counting()
    with pytest.raises(SettingsError) as raised:
        await parts.rosters.load(file)
    assert error in str(raised.value)
    assert parts.rosters.source == "everyone"


async def test_rosters_come_from_a_function_sync_or_async() -> None:
    """A Python function gives the learners of a course; None goes back to everyone seen."""
    parts = counting()

    async def mine(course_id: str | None) -> list[dict[str, Any]]:
        return [{"user_id": f"tc-{course_id}"}]

    parts.rosters.use(mine)
    assert await parts.executor.rows("counter", {"course_id": "x"}) == [{"student": "tc-x", "count": 0}]
    parts.rosters.use(lambda course_id: [{"name": "nobody"}])
    answer = await only(parts, "m.counter")
    assert "roster row 0: expected a learner's id" in answer["error"].replace("row 1", "row 0")
    parts.rosters.use(None)
    assert len(await parts.executor.rows("counter")) == 2
    with pytest.raises(QueryError, match="expected a function of course_id, got 3"):
        parts.rosters.use(3)  # type: ignore[arg-type]


async def test_what_was_read_is_put_on_record() -> None:
    """A query that ran names itself and the learners whose data it took."""
    parts = counting()
    await parts.executor.rows("counter")
    await parts.executor.run(q.latest("counter"))
    assert parts.reads.records == [
        ("query", "m: counter", ["tc-u0", "tc-u1"]),
        ("query", "an open query: result", ["tc-u0", "tc-u1"]),
    ]


async def test_a_reducer_in_the_past_is_waited_for_and_told() -> None:
    """A query waits for its reducer, and whoever shows progress hears of it first."""
    gate = asyncio.Event()
    parts = Parts(Reducer("late", default={"n": 0}, gate=gate), people=1)
    heard: list[str] = []

    def on_wait(registration: Any) -> None:
        heard.append(registration.id)
        parts.set("late", "tc-u0", {"n": 5})
        gate.set()

    assert await parts.executor.rows(q.latest("late"), on_wait=on_wait) == [{"student": "tc-u0", "n": 5}]
    assert heard == ["late"]
    await parts.executor.rows(q.latest("late"), on_wait=on_wait)
    assert heard == ["late"]


async def test_who_waits_hears_again_and_again_how_far_it_is() -> None:
    """While a reducer goes through the past, whoever shows progress is told more than once."""
    gate = asyncio.Event()
    parts = Parts(Reducer("late", default={"n": 0}, gate=gate), people=1)
    heard: list[str] = []

    def on_wait(registration: Any) -> None:
        heard.append(registration.id)
        if len(heard) == 3:
            gate.set()

    await asyncio.wait_for(parts.executor.rows(q.latest("late"), on_wait=on_wait), 10)
    assert heard == ["late"] * 3


async def test_each_answer_of_a_dag_keeps_the_times_of_its_own_last_run() -> None:
    """What one export's run took is still drawn after another one's; nodes of others aren't counted."""
    parts = counting()
    parts.catalog.add("two", {"a": q.roster(), "b": q.call("count")([1])})
    await parts.executor.run("two", ["a"])
    await parts.executor.run("two", ["b"])
    first = parts.executor.explain("two.a")
    assert first.timings.keys() == set(first.order)
    assert "b" not in first.timings


async def test_the_times_of_the_last_run_are_drawn() -> None:
    """After a query ran, its picture says how long each node took and how many rows it has."""
    parts = counting()
    query = {"counts": q.latest("counter")}
    assert parts.executor.explain(query).seconds is None
    await parts.executor.run(query)
    text = repr(parts.executor.explain(query))
    assert "2 rows" in text
    assert " ms" in text


async def test_several_answers_are_not_rows() -> None:
    """Asking for the rows of a query with several answers names them."""
    parts = counting()
    parts.catalog.add("two", {"a": 1, "b": 2})
    with pytest.raises(QueryError, match=r"name one: 'two\.a', 'two\.b'"):
        await parts.executor.rows("two")


def test_rows_print_as_a_table_and_never_as_markup() -> None:
    """In text and in HTML, long and odd values are cut and escaped."""
    rows = Rows([{"student": "<script>", "text": "x" * 99, "n": 1.5}, {"student": "b", "extra": None}])
    assert "<script>" not in rows._repr_html_()
    assert "&lt;script&gt;" in rows._repr_html_()
    header, first, _ = repr(rows).splitlines()
    assert header.split() == ["student", "text", "n", "extra"]
    assert "…" in first
    assert repr(Rows()) == "no rows"
    assert repr(Rows([{"n": n} for n in range(70)])).endswith("... 10 more rows")


def test_rows_turn_into_a_frame() -> None:
    """`to_frame` gives a pandas DataFrame with the columns of all rows."""
    pytest.importorskip("pandas")
    frame = Rows([{"student": "a", "n": 1}, {"student": "b", "m": 2}]).to_frame()
    assert list(frame.columns) == ["student", "n", "m"]
    assert frame["m"].sum() == 2


def test_without_pandas_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no frame library is installed, the error names the extra."""
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "lo-kernel\[frames\]"'):
        Rows([{"a": 1}]).to_frame()


@pytest.mark.parametrize(
    "name", ["counter", "my_module.counter", "my_module.count", "my_module.module.count"]
)
async def test_a_reducer_goes_by_the_names_of_the_field(name: str) -> None:
    """A `keys` node may name a reducer by id, by module and id, or by module and function."""
    reducer = Reducer("counter", default={"n": 1}, module="my_module", qualname="my_module.module.count")
    parts = Parts(reducer, Reducer("other"), people=1)
    assert await parts.executor.rows(q.latest(name)) == [{"student": "tc-u0", "n": 1}]


async def test_an_erased_learner_leaves_the_roster() -> None:
    """Who is taken out of the learners is in no roster any more."""
    parts = counting()
    assert len(await parts.rosters.roster()) == 2
    parts.people.remove("tc-u0")
    assert [row["user_id"] for row in await parts.rosters.roster()] == ["tc-u1"]
    assert isinstance(parts.rosters, Rosters)


def test_rows_turn_into_a_frame_of_the_library_that_is_named() -> None:
    """Where both are installed polars can be asked for; mixed columns keep all that is in them."""
    wrong = {"error": "no", "function": "f"}
    rows = Rows([{"student": "a", "n": 1, "x": 1}, {"student": "b", "n": 1.5, "x": wrong}, {"m": {"k": [1]}}])
    frame = rows.to_frame("polars")
    assert type(frame).__module__.startswith("polars")
    assert frame["n"].to_list() == [1.0, 1.5, None]
    assert frame["x"].to_list() == [1, wrong, None]
    assert frame["m"].to_list() == [None, None, {"k": [1]}]
    assert list(rows.to_frame("pandas").columns) == frame.columns == rows.columns
    assert Rows().to_frame("polars").shape == (0, 0)
    with pytest.raises(QueryError, match="expected 'pandas' or 'polars', got 'spark'"):
        rows.to_frame("spark")


def test_a_library_that_is_named_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for pandas gets no polars in its place."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="a pandas frame of rows"):
        Rows([{"a": 1}]).to_frame("pandas")


async def test_publishing_under_a_built_in_name_is_warned_of() -> None:
    """The function takes the built-in one's place and says so once; one's own is replaced without a word."""
    parts = counting()

    def count(rows: Any) -> str:
        return "mine"

    with pytest.warns(
        UserWarning, match="replaces the function of this name that is always there.*'my_count'"
    ):
        parts.functions.publish("count")(count)
    parts.functions.publish("count")(count)
    parts.functions.publish("other")(count)
    assert (await parts.executor.rows(q.call("count")([1]))) == [{"value": "mine"}]
    with pytest.warns(UserWarning, match="courseroster"):
        parts.functions.publish("learning_observer.courseroster")(count)


async def test_what_takes_no_mark_is_published_too() -> None:
    """A function of C, a type and a method work under their names; a map takes them by these."""
    parts = counting()

    class Words:
        def longest(self, words: list[str]) -> str:
            return max(words, key=len)

    told: list[frozenset[str]] = []
    parts.functions.subscribe(told.append)
    for name, function in ("length", len), ("text", str), ("longest", Words().longest):
        assert parts.functions.publish(name)(function) is function
    assert told == [{"length"}, {"text"}, {"longest"}]
    assert (await parts.executor.rows(q.call("length")(["a", "bc"]))) == [{"value": 2}]
    assert (await parts.executor.rows(q.call("longest")(["a", "bc"]))) == [{"value": "bc"}]
    mapped = await parts.executor.rows(q.map("text", [{"n": 1}], "n"))
    assert mapped == [{"output": "1"}]
