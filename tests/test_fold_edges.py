"""Fold where reducers are careless: a limit holds all the same, and a failure is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from event_files import study_log

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


@pytest.mark.parametrize(("reducer", "counted"), [(fails, 18), (keeps_back, 18), (passed_over, 0)])
async def test_a_limit_holds_whatever_the_reducer_says(tmp_path: Path, reducer: Any, counted: int) -> None:
    """`limit=N` reads the first N events, also where the reducer fails, or leaves out, the N-th."""
    path = study_log(tmp_path / "x.study.log", range(60))
    folded = await fold(reducer, path, limit=20)
    assert folded.report.events == 20
    assert sum(state["n"] for state in folded.values() if state) == counted
    assert folded.failures == (2 if reducer is fails else 0)
