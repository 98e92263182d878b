"""Jobs: what they fail with is told once, where somebody looks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from event_files import SOURCE, study_log
from waiting import auntil

from lo_kernel import student_event_reducer
from lo_kernel.bridge import LoopBridge
from lo_kernel.notebook.job_display import JobDisplays
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


class Shown:
    """A notebook's screen, of which the last thing that was shown is kept."""

    last: dict[str, Any]

    def cell(self) -> Any:
        """There is none."""

    def show(self, bundle: dict[str, Any], display_id: str) -> None:
        """Show something new."""
        self.last = bundle

    def update(self, bundle: dict[str, Any], display_id: str, cell: Any) -> None:
        """Show it anew."""
        self.last = bundle


async def _fails() -> None:
    await asyncio.sleep(0)
    raise ValueError("no such course")


def observer(workspace: Path) -> LearningObserver:
    """A `lo` on this loop, whose app isn't started: jobs don't need one."""
    runtime = Runtime(Settings(workspace=str(workspace), port=0, store="memory"))
    return LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))


async def test_who_awaits_a_job_hears_of_its_failure_there_alone(workspace: Path) -> None:
    """The cell that awaits has the traceback; no notice, no card and no `lo.errors` repeats it."""
    lo = observer(workspace)
    with pytest.raises(ValueError, match="no such course"):
        await lo._job("query x", _fails())
    with pytest.raises(ValueError, match="no such course"):
        await asyncio.to_thread(lo._job("query x", _fails()).result)
    assert lo._take_notices() == []
    assert len(lo.errors) == 0
    assert "no such course" not in repr(lo)


async def test_who_awaits_a_job_later_hears_of_its_failure_then(workspace: Path) -> None:
    """Until then it is told, since nobody may ever await it; so is what a cell was stopped waiting for."""
    lo = observer(workspace)
    job = lo._job("query x", _fails())
    with pytest.raises(ValueError, match="no such course"):
        await asyncio.wrap_future(job._future)
    assert "no such course" in repr(lo.errors)
    with pytest.raises(ValueError, match="no such course"):
        await job
    assert len(lo.errors) == 0
    may_end = asyncio.Event()

    async def fails_later() -> None:
        await may_end.wait()
        await _fails()

    job = lo._job("query y", fails_later())
    waiting = asyncio.ensure_future(asyncio.shield(job))
    await auntil(lambda: job.awaited)
    waiting.cancel()
    assert lo._take_notices() == []
    may_end.set()
    with pytest.raises(ValueError, match="no such course"):
        await asyncio.wrap_future(job._future)
    assert lo._take_notices() == ["query y: ValueError: no such course"]


async def test_a_job_that_nobody_awaits_is_told_after_the_cell(workspace: Path) -> None:
    """Its failure would be lost otherwise."""
    lo = observer(workspace)
    job = lo._job("query x", _fails())
    with pytest.raises(ValueError, match="no such course"):
        await asyncio.wrap_future(job._future)
    assert lo._take_notices() == ["query x: ValueError: no such course"]
    assert lo._take_notices() == []


@pytest.mark.parametrize(
    "show",
    [
        lambda lo: repr(lo.errors),
        lambda lo: lo.errors._repr_html_(),
        lambda lo: repr(lo.errors[-1]),
        lambda lo: repr(lo.errors[-1:]),
        repr,
        lambda lo: lo._repr_html_(),
    ],
    ids=["text", "page", "one", "some", "card", "card's page"],
)
async def test_what_a_cell_shows_itself_is_not_told_below_it(
    workspace: Path, show: Callable[[LearningObserver], str]
) -> None:
    """Who looks at `lo.errors` (or at the card) sees it there; what comes after the look is told."""
    lo = observer(workspace)
    lo._runtime.errors.add("store", "away")
    assert "away" in show(lo)
    lo._runtime.errors.add("roster", "gone")
    assert lo._take_notices() == ["roster: Notice: gone"]


async def test_what_was_not_shown_is_told(workspace: Path) -> None:
    """Counting errors, or looking at another, shows none of the rest; nor does a card that has no room."""
    lo = observer(workspace)
    for number in range(7):
        lo._runtime.errors.add(f"source {number}", "away")
    assert len(lo.errors) == 7
    repr(lo.errors[0])
    repr(lo)
    assert lo._take_notices() == ["source 1: Notice: away"]


@pytest.mark.parametrize("shielded", [False, True])
async def test_who_stops_waiting_for_a_job_cancels_it(workspace: Path, shielded: bool) -> None:
    """An interrupted cell's `await job` ends the job; one that awaits `asyncio.shield(job)` leaves it."""
    lo = observer(workspace)
    may_end = asyncio.Event()
    job = lo._job("waiting", may_end.wait())

    async def cell() -> None:
        await (asyncio.shield(job) if shielded else job)

    waiting = asyncio.create_task(cell())
    await auntil(lambda: job.awaited)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    if shielded:
        assert await job is True
    else:
        assert job.status == "cancelled"
        await auntil(lambda: job.ended is not None, what="the work itself to end")


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_a_cancelled_job_leaves_the_reducer_out(tmp_path: Path, settings: Settings, steps: int) -> None:
    """However early it is cancelled: the reducer doesn't come in behind its back."""

    @student_event_reducer(null_state={"count": 0})
    async def counted(event: Any, state: Any) -> Any:
        return {"count": state["count"] + 1}, False

    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        await lo.replay(study_log(tmp_path / "x.log", range(5000)))
        job = lo.add_reducer("counted", counted, context=SOURCE)
        registration = lo.reducers["counted"]
        for _ in range(steps):
            await asyncio.sleep(0)
        assert job.cancel()
        await auntil(lambda: registration.status == "cancelled", what="the registration to end")
        assert job.status == "cancelled"
        assert not job.cancel()
        assert lo._take_notices() == []


async def test_one_that_was_replaced_on_its_way_says_so(tmp_path: Path, settings: Settings) -> None:
    """At once, and at its end too; who awaits it waits for the one in its place."""
    held, shown = asyncio.Event(), Shown()

    @student_event_reducer(null_state={"count": 0})
    async def counted(event: Any, state: Any) -> Any:
        await held.wait()
        return {"count": state["count"] + 1}, False

    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        await lo.replay(study_log(tmp_path / "x.log", range(50)))
        displays = JobDisplays(shown, lo._bridge, runtime.errors)
        old = lo.add_reducer("counted", counted, context=SOURCE)
        displays.show(old, "reducer 'counted'")
        await auntil(lambda: lo.reducers["counted"].status == "catching up")
        new = lo.add_reducer("counted", counted, context=SOURCE)
        said = "reducer 'counted': replaced by a newer one"
        await auntil(lambda: shown.last["text/plain"].startswith(said), what="the card to say so")
        assert (old.status, old.finished, new.status) == ("replaced", False, "running")
        assert "<progress" not in shown.last["text/html"]
        held.set()
        assert await old is await new
        assert (old.status, new.status) == ("replaced", "done")
        assert repr(old).startswith(f"<{said}")
        await auntil(lambda: old._task is not None and old._task.done())
        assert shown.last["text/plain"].startswith(said)
