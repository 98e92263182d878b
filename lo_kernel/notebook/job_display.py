"""A job under its cell: its progress, its end, and what goes wrong later in what it started."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lo_kernel.bridge import LoopBridge
from lo_kernel.notebook.cards import errors_html, errors_text, job_html, job_text

if TYPE_CHECKING:
    from lo_kernel.engine.errorlog import ErrorEntry, ErrorLog
    from lo_kernel.notebook.jobs import Job
    from lo_kernel.notebook.live_display import Screen

__all__ = ["JobDisplays"]

_EVERY = 0.25  # seconds between two updates, at least


class JobDisplays:
    """Shows jobs on a screen; one of them, at most, for each thing that may go wrong later (``about``)."""

    def __init__(self, screen: Screen, bridge: LoopBridge, errors: ErrorLog) -> None:
        self._screen = screen
        self._bridge = bridge
        self._errors = errors
        self._numbers = itertools.count(1)
        self._about: dict[str, _Shown] = {}
        errors.subscribe(self._went_wrong)

    def show(self, job: Job[Any], about: str = "") -> None:
        """Show a job under the cell that runs now, and keep it up to date.

        ``about`` names a place in the error log, such as ``"reducer 'count'"``: what goes wrong there is
        shown with the job, as long as no other job about it is.
        """
        shown = _Shown(self._screen, self._bridge, job, f"lo-job-{next(self._numbers)}")
        shown.problems = lambda: self._errors.of(about) if self._about.get(about) is shown else []
        if about:
            self._about[about] = shown
        shown.begin()

    def _went_wrong(self, entry: ErrorEntry) -> None:
        shown = self._about.get(entry.where)
        if shown is not None:
            shown.refresh()


class _Shown:
    def __init__(self, screen: Screen, bridge: LoopBridge, job: Job[Any], display_id: str) -> None:
        self.problems: Callable[[], list[ErrorEntry]] = list
        self._screen = screen
        self._bridge = bridge
        self._job = job
        self._id = display_id
        self._cell: Any = None
        self._sent = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._last: dict[str, Any] = {}

    def begin(self) -> None:
        self._cell = self._screen.cell()
        self._last = self._bundle()
        self._screen.show(self._last, self._id)
        if not self._job.finished:
            self._job.subscribe(self.refresh)

    def refresh(self) -> None:
        """Send what is new, soon; on the app's loop."""
        if self._timer is None:
            wait = 0.0 if self._job.finished else max(0.0, self._sent + _EVERY - time.monotonic())
            self._timer = self._bridge.loop.call_later(wait, self._send)

    def _send(self) -> None:
        self._timer = None
        self._sent = time.monotonic()
        bundle = self._bundle()
        if bundle != self._last:
            self._last = bundle
            self._screen.update(bundle, self._id, self._cell)

    def _bundle(self) -> dict[str, Any]:
        problems = self.problems()
        text, page = job_text(self._job), job_html(self._job)
        if problems:
            text += "\n" + errors_text(problems)
            page += errors_html(problems)
        return {"text/plain": text, "text/html": page}
