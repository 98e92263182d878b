"""Fold where reducers are careless: a limit holds all the same, and a failure is seen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import StartKernel
from event_files import SOURCE, study_event, study_log, study_text
from IPython.lib.pretty import pretty

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.fold import fold
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.notebook.folded import FoldedStates
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


def fails(event: Any, state: Any) -> Any:
    """A reducer that fails at the tenth event and at each tenth after it."""
    if event["client"]["i"] % 10 == 9:
        raise KeyError("tenth")
    return {"n": (state or {"n": 0})["n"] + 1}, False


def keeps_back(event: Any, state: Any) -> Any:
    """A reducer to which the same events say nothing."""
    if event["client"]["i"] % 10 == 9:
        return False, False
    return {"n": (state or {"n": 0})["n"] + 1}, False


@kvs_pipeline(scope=Scope([EventField("nowhere")]))
def passed_over(event: Any, state: Any) -> Any:
    """A reducer that no event has a state for."""
    return {"n": 1}, False


def shown(value: Any) -> str:
    """A value as a notebook shows it."""
    return str(pretty(value))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("reducer", "counted"), [(fails, 18), (keeps_back, 18), (passed_over, 0)])
async def test_a_limit_holds_whatever_the_reducer_says(tmp_path: Path, reducer: Any, counted: int) -> None:
    """`limit=N` reads the first N events, also where the reducer fails, or leaves out, the N-th."""
    path = study_log(tmp_path / "x.study.log", range(60))
    folded = await fold(reducer, path, limit=20)
    assert folded.report.events == 20
    assert sum(state["n"] for state in folded.values() if state) == counted
    assert folded.failures == (2 if reducer is fails else 0)


async def test_a_failure_is_seen(tmp_path: Path) -> None:
    """The states say themselves that events are missing from them, and which was the first."""
    path = study_log(tmp_path / "x.study.log", range(30))
    folded = await fold(fails, path)
    assert "failed at 3 of 30 events" in repr(folded)
    assert f"{path}, line 10: KeyError: 'tenth'" in folded.note
    assert isinstance(folded.first_error, KeyError)
    assert folded.first_event is not None
    assert folded.first_event["client"]["i"] == 9
    assert "failed at 3 of 30 events" in shown(folded)
    whole = await fold(keeps_back, path)
    assert repr(whole) == repr(dict(whole))
    assert shown(whole) == shown(dict(whole))


def gives_up(error: type[BaseException], way: str = "plain") -> Any:
    """A counter that gives up with ``error`` at the event with the number 5."""

    def plain(event: Any, state: Any) -> Any:
        if event["client"]["i"] == 5:
            raise error("gave up")
        return {"n": (state or {"n": 0})["n"] + 1}, None

    async def coroutine(event: Any, state: Any) -> Any:
        return plain(event, state)

    async def suspends(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        return plain(event, state)

    return {"plain": plain, "coroutine": coroutine, "suspends": suspends}[way]


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("way", ["plain", "coroutine", "suspends"])
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_a_reducer_that_gives_up_ends_no_fold(
    tmp_path: Path, error: type[BaseException], way: str, files: int
) -> None:
    """`sys.exit()` in a reducer is a failed event, and so are its like."""
    paths = [study_log(tmp_path / f"{number}.log", range(20)) for number in range(files)]
    folded = await fold(gives_up(error, way), paths)
    assert folded.failures == files
    assert sum(state["n"] for state in folded.values()) == 19 * files
    assert f"{error.__name__}: gave up" in folded.errors[0]


async def test_nor_where_states_are_made_anew(tmp_path: Path) -> None:
    """The same where the reducer gives up at an event that it had taken before."""
    seen = []

    def second_time(event: Any, state: Any) -> Any:
        number = event["client"]["i"]
        if number == 3 and number in seen:
            raise GeneratorExit("gave up")
        seen.append(number)
        if number == 6:
            raise ValueError("put it back")
        return {"n": (state or {"n": 0})["n"] + 1}, None

    folded = await fold(second_time, study_log(tmp_path / "x.log", range(20), learners=1))
    assert folded.errors[1] == "an event before: GeneratorExit: gave up"
    assert [state["n"] for state in folded.values()] == [18]


async def test_an_interrupt_goes_through(tmp_path: Path) -> None:
    """Who stops a cell wants no states."""
    path = study_log(tmp_path / "x.log", range(20))
    with pytest.raises(KeyboardInterrupt):
        await fold(gives_up(KeyboardInterrupt), path)


async def test_a_fold_that_is_cancelled_ends_while_its_reducer_waits(tmp_path: Path) -> None:
    """That is no failure of the reducer's; nor is it where the loop is gone."""
    path = study_log(tmp_path / "x.log", range(20))
    waits = asyncio.Event()

    async def for_ever(event: Any, state: Any) -> Any:
        waits.set()
        await asyncio.Future()

    work = asyncio.create_task(fold(for_ever, path))
    await waits.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    left = fold(for_ever, path)
    waits.clear()
    while not waits.is_set():
        left.send(None)
    await asyncio.to_thread(left.close)  # on a thread without a loop: `RuntimeError` where it goes on


def test_the_notebook_says_it_at_once(start_kernel: StartKernel, tmp_path: Path) -> None:
    """Under the cell, in the result and in `lo.errors`; again when the cell is run again."""
    path = study_log(tmp_path / "x.study.log", range(30))
    kernel = start_kernel()
    kernel.execute("def fails(event, state):\n    raise KeyError('x')\n")
    for _ in range(2):
        result = kernel.execute(f"states = await lo.fold(fails, {str(path)!r})\nstates")
        assert "failed at 30 of 30 events" in result.value
        assert "fold of fails" in result.stderr
    assert "(30 times)" in kernel.execute("print([str(entry) for entry in lo.errors])").text


async def test_failures_of_other_kinds_are_told_apart(tmp_path: Path, workspace: Path) -> None:
    """`lo.errors` has an entry for each kind and line, and counts what had another message."""

    def fails_often(event: Any, state: Any) -> Any:
        number = event["client"]["i"]
        if number % 2:
            raise KeyError(number)
        raise ValueError("even")

    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"))
    lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
    for _ in range(2):
        await lo.fold(fails_often, study_log(tmp_path / "x.study.log", range(6)))
        assert [str(entry) for entry in lo.errors] == [
            "fold of fails_often: ValueError: even (3 times)",
            "fold of fails_often: KeyError: 1 (3 times, 2 with another message)",
        ]
    assert lo.errors[1].event["client"]["i"] == 1


async def test_who_and_what_is_there_instead_is_said(tmp_path: Path) -> None:
    """Asked for a learner or a context that a file doesn't have, the report names the first that it has."""

    def count(event: Any, state: Any) -> Any:
        return {"n": (state or {"n": 0})["n"] + 1}, False

    path = study_log(tmp_path / "x.study.log", range(30), learners=9)
    for several in (path, [path, study_log(tmp_path / "y.study.log", range(2))]):
        report = (await fold(count, several, learner="u1")).report
        assert report.others == report.read >= 30
        first = ", ".join(f"tc-testcase-u{number}" for number in range(5))
        said = f"of what was asked for there is nothing; there is: {first}"
        assert repr(report).splitlines()[-1] == said if several is path else said[:60] in repr(report)
        report = (await fold(count, several, context="xapi")).report
        assert (report.others, report.elsewhere) == (0, report.read)
        assert f"{report.read} of other contexts" in repr(report)
        assert repr(report).splitlines()[-1].endswith(f"there is: context '{SOURCE}'")
    report = (await fold(count, path, learner="tc-testcase-u1")).report
    assert "asked for" not in repr(report)


async def test_states_are_rows_and_a_frame(tmp_path: Path) -> None:
    """What a fold in a notebook gives is the dict that it was, with rows as a query gives them beside it."""

    @kvs_pipeline(null_state=None, scope=Scope([KeyField.STUDENT, EventField("doc_id"), EventField("item")]))
    def count(event: Any, state: Any) -> Any:
        if event["client"]["i"] == 5:
            raise ValueError("five")
        return {"n": (state or {"n": 0})["n"] + 1, "student": "own"}, False

    path = tmp_path / "x.study.log"
    path.write_text(
        "".join(study_text(study_event(n, doc_id="d,1", item=n % 2)) for n in range(6)) + "oops\n"
    )
    folded = await fold(count, path)
    states = FoldedStates.of(folded)
    assert states == folded
    assert isinstance(states, dict)
    assert states.rows == [
        {"student": "tc-testcase-u0", "document": "d,1", "item": "0", "n": 3, "state.student": "own"},
        {"student": "tc-testcase-u0", "document": "d,1", "item": "1", "n": 2, "state.student": "own"},
    ]
    assert list(states.to_frame("pandas").columns) == states.rows.columns
    for said in (repr(states.rows), repr(states)):
        assert "1 left out: not_json" in said
        assert "The reducer failed at 1 of 6 events" in said
    plain = FoldedStates.of(await fold(lambda event, state: ((state or 0) + 1, False), path))
    assert plain.rows == [{"student": "tc-testcase-u0", "value": 6}]
