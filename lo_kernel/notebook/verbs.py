"""What the verbs of ``lo`` share: the app, the way to its loop, and a job for what takes a while."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError
from lo_kernel.notebook.jobs import Job

if TYPE_CHECKING:
    from lo_kernel.notebook.job_display import JobDisplays
    from lo_kernel.runtime import Runtime

__all__ = ["Verbs"]

T = TypeVar("T")


class Verbs:
    """A group of verbs; ``lo`` is all of them together. ``kernel`` is none outside of a notebook."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge, kernel: Any = None) -> None:
        self._runtime = runtime
        self._bridge = bridge
        self._kernel = kernel
        self._jobs: JobDisplays | None = None
        self._underway: list[Job[Any]] = []

    def _needs_app(self) -> None:
        if self._runtime.started is None:
            raise LOError(
                f"this works with the app 'embedded'; this kernel runs {self._runtime.settings.app!r}. "
                "What went wrong at its start, if anything did, is in lo.errors"
            )

    def _job(
        self,
        name: str,
        work: Coroutine[Any, Any, T],
        *,
        about: str = "",
        on_cancel: Callable[[], None] | None = None,
    ) -> Job[T]:
        def show(job: Job[T]) -> None:
            if self._kernel is None:
                print(repr(job))
            else:
                self._job_displays().show(job, about)

        errors = self._runtime.errors
        job = Job(name, work, self._bridge, errors=errors, on_show=show, on_cancel=on_cancel)
        self._underway = [*(each for each in self._underway if not each.finished), job]
        return job

    def _job_displays(self) -> JobDisplays:
        from lo_kernel.notebook.job_display import JobDisplays
        from lo_kernel.notebook.live_display import KernelScreen

        if self._jobs is None:
            self._jobs = JobDisplays(KernelScreen(self._kernel), self._bridge, self._runtime.errors)
        return self._jobs
