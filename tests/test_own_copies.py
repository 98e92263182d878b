"""What a function, a cell or a reader does with what it has changes nothing of anybody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from query_parts import Parts, Reducer, bare

from lo_kernel.query.language import q

LISTS = q.select(q.keys("a", STUDENTS=q.roster(), STUDENTS_path="user_id"), q.ALL)


def marked(rows: list[Any]) -> list[Any]:
    """Write into what it was given."""
    for row in rows:
        row["marks"].append(1)
    return rows


async def test_a_function_has_rows_of_its_own() -> None:
    """Each row without a state has its own default, and another step the rows as they were."""
    parts = Parts(Reducer("a", default={"marks": []}), people=2)
    parts.functions.publish("marked")(marked)
    dag = {
        "execution_dag": {"states": LISTS, "marked": q.call("marked")(q.variable("states"))},
        "exports": {"marked": {"returns": "marked"}, "states": {"returns": "states"}},
    }
    for _ in range(2):
        answers = bare(await parts.executor.run(dag))
        assert [row["marks"] for row in answers["marked"]] == [[1], [1]]
        assert [row["marks"] for row in answers["states"]] == [[], []]


async def test_rows_of_an_answer_have_a_default_each() -> None:
    """Who writes into one row of an answer writes into no other."""
    parts = Parts(Reducer("a", default={"marks": []}), people=2)
    rows = await parts.executor.rows(LISTS)
    rows[0]["marks"].append(1)
    assert rows[1]["marks"] == []


async def test_no_function_changes_the_roster(tmp_path: Path) -> None:
    """A function that takes the names out of its rows leaves them in the roster."""
    (tmp_path / "r.csv").write_text("user_id,name\ntc-u0,Ada\n", encoding="utf-8")
    parts = Parts(people=1)
    await parts.rosters.load(tmp_path / "r.csv")

    @parts.functions.publish("nameless")
    def nameless(rows: list[Any]) -> list[Any]:
        for row in rows:
            row["profile"].clear()
        return rows

    assert bare(await parts.executor.run(q.call("nameless")(q.roster()), names=True))["result"] == [
        {"user_id": "tc-u0", "profile": {}}
    ]
    assert await parts.rosters.names() == {"tc-u0": "Ada"}


async def test_constants_and_parameters_stay_as_they_were_given() -> None:
    """What a function or a cell does to a constant or a parameter's value doesn't outlive the answer."""
    parts = Parts()
    parts.catalog.add(
        "d",
        {
            "execution_dag": {"c": [{"marks": []}], "p": q.parameter("p", default=[{"marks": []}])},
            "exports": {"c": {"returns": "c"}, "p": {"returns": "p"}},
        },
    )
    for name in ("d.c", "d.p"):
        marked(await parts.executor.rows(name))
        assert await parts.executor.rows(name) == [{"marks": []}]
    mine: list[Any] = [{"marks": []}]
    async with parts.live.subscribe("d", ["p"], {"p": mine}) as subscription:
        marked(mine)
        assert [change.value for change in (await anext(subscription)).changes] == [{"marks": []}]


async def test_arguments_of_a_map_are_the_same_for_each_row() -> None:
    """A function that writes into an argument does not write into the next row's."""
    parts = Parts()
    parts.functions.publish("so_far")(lambda value, seen: seen.append(value) or list(seen))
    rows = await parts.executor.rows(q.map("so_far", [1, 2], func_kwargs={"seen": []}))
    assert [row["output"] for row in rows] == [[1], [2]]


async def test_what_a_function_goes_on_with_is_seen_to_change() -> None:
    """Readers are told, though the function gives the very list and the very object that it gave before."""
    parts = Parts(Reducer("a"), people=1)
    parts.set("a", "tc-u0", {"n": 1})
    history: list[int] = []
    by_key: dict[str, Any] = {"seen": []}

    @parts.functions.publish("history")
    def collect(rows: list[Any]) -> list[int]:
        history.append(rows[0]["n"])
        return history

    @parts.functions.publish("each")
    def each(row: dict[str, Any]) -> dict[str, Any]:
        by_key["seen"].append(row["n"])
        return by_key

    states = q.select(q.keys("a"), q.ALL)
    async with (
        parts.live.subscribe(q.call("history")(states)) as all_of_them,
        parts.live.subscribe(q.map("each", states)) as one_by_one,
    ):
        await anext(all_of_them)
        await anext(one_by_one)
        parts.set("a", "tc-u0", {"n": 2})
        assert [change.value for change in (await anext(all_of_them)).changes] == [{"output": 2}]
        assert [change.value for change in (await anext(one_by_one)).changes] == [{"seen": [1, 2]}]


async def test_who_watches_has_rows_of_their_own() -> None:
    """A cell that sorts a list in the rows that it watches changes no page of the same query."""
    parts = Parts(Reducer("a"), people=1)
    parts.set("a", "tc-u0", {"marks": [2, 1]})
    watching = parts.live.watch(q.select(q.keys("a"), q.ALL))
    rows = await anext(watching)
    rows[0]["marks"].sort()
    async with parts.live.subscribe(q.select(q.keys("a"), q.ALL)) as page:
        assert [change.value for change in (await anext(page)).changes] == [{"marks": [2, 1]}]
    await watching.aclose()  # type: ignore[attr-defined]
