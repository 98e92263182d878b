"""Fold where reducers are careless: a limit holds all the same, and a failure is seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import StartKernel
from event_files import study_log
from IPython.lib.pretty import pretty

from lo_kernel.engine.fold import fold
from lo_kernel.engine.keys import EventField, Scope
from lo_kernel.engine.reducers import kvs_pipeline


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


@pytest.mark.parametrize("files", [1, 2])
async def test_a_reducer_that_exits_ends_no_fold(tmp_path: Path, files: int) -> None:
    """`sys.exit()` in a reducer is a failed event."""
    paths = [study_log(tmp_path / f"{number}.log", range(20)) for number in range(files)]

    def exits(event: Any, state: Any) -> Any:
        if event["client"]["i"] == 5:
            sys.exit("gave up")
        return {"n": (state or {"n": 0})["n"] + 1}, None

    folded = await fold(exits, paths)
    assert folded.failures == files
    assert sum(state["n"] for state in folded.values()) == 19 * files
    assert "SystemExit: gave up" in folded.errors[0]


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
