"""``lo.replay`` and ``lo.fold``: events from files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.verbs import Verbs

if TYPE_CHECKING:
    from lo_kernel.engine.files import Paths
    from lo_kernel.engine.keys import Scope
    from lo_kernel.engine.reducers import Reducer
    from lo_kernel.engine.report import ReplayReport

__all__ = ["FileVerbs"]


class FileVerbs(Verbs):
    """The verbs of ``lo`` that read files of events."""

    def replay(
        self,
        path: Paths,
        format: str = "auto",
        *,
        learner: str | None = None,
        limit: int | None = None,
        source: str | None = None,
    ) -> Job[ReplayReport]:
        """Put the events of a file, or of several, into the archive, and so through the reducers.

        ``format`` is found out, or said: a study log, JSON lines, a table, xAPI, this archive's own lines,
        plain or compressed. ``learner`` (a safe id) takes that learner's events alone, ``limit`` the first
        so many; ``source`` is the context of events that name none. What is held already is skipped, so a
        file can be replayed again, and a replay that was cancelled goes on. The report says what was taken
        and what was not, with file and line; a record whose time is not clear (``01/03/2024``) is left out.

        A table has columns for learner and event (and time), found by usual names such as ``student``,
        ``action``, ``timestamp``; all its values are texts, its context is ``table``, and its learner
        ``ann`` becomes ``table-ann``. See "Files of events" in the documentation.
        """
        from lo_kernel.engine.files import check_files
        from lo_kernel.engine.replay import check_replay, replay

        self._needs_app()
        runtime = self._runtime
        owner = None if runtime.takes_events else runtime.workspace.find_owner()
        if owner is None:
            check_replay(runtime, path, format=format, learner=learner, limit=limit, source=source)
        else:
            check_files(path, format, learner=learner, limit=limit, source=source)
        runtime.reads.act("replay", texts={"path": str(path)})
        job: Job[ReplayReport] | None = None

        def progress(report: ReplayReport) -> None:
            if job is not None:
                job.progress(report.done, report.total, f"bytes, {report.events:,} events")

        if owner is None:
            start: Any = partial(replay, runtime)
        else:  # it alone puts events in, and they come here from there
            from lo_kernel.app.replaying import replay_at_owner

            async def there_and_here(*given: Any, **options: Any) -> ReplayReport:
                report = await replay_at_owner(owner, *given, **options)
                await runtime.caught_up()  # what is asked next is to be answered with them
                return report

            start = there_and_here
        work = start(path, format=format, learner=learner, limit=limit, source=source, on_progress=progress)
        job = self._job("replay", work)
        return job

    def fold(
        self,
        reducer: Reducer,
        path: Paths,
        format: str = "auto",
        *,
        context: str | None = None,
        learner: str | None = None,
        limit: int | None = None,
        scope: Scope | None = None,
        source: str | None = None,
    ) -> Job[Any]:
        """Run one reducer over a file, or several, and give its states by key; nothing is kept.

        The reducer need not be registered. ``context`` takes the events of that source alone (``None``:
        all of them); the rest is as in :meth:`replay`. What is given is a ``dict`` with ``.report`` (what was
        read), ``.failures`` (at how many events the reducer failed) and ``.errors`` (the first of those, each
        with its file and line); a failure is in ``lo.errors``, too. ``.rows`` are the states as rows, as of
        a query, and ``.to_frame()`` makes a frame of them.
        """
        from lo_kernel.engine.fold import check_fold, fold

        check_fold(reducer, path, format=format, learner=learner, limit=limit, context=context, scope=scope)
        job: Job[Any] | None = None

        def progress(report: ReplayReport) -> None:
            if job is not None:
                job.progress(report.done, report.total, f"bytes, {report.events:,} events")

        runtime = self._runtime
        name = f"fold of {getattr(reducer, '__name__', 'a reducer')}"
        folding = fold(
            reducer,
            path,
            format=format,
            learner=learner,
            limit=limit,
            context=context,
            source=source,
            scope=scope,
            on_progress=progress,
            on_error=lambda error, event: runtime.errors.add(name, error, event=event),
        )

        async def work() -> Any:
            from lo_kernel.engine.keys import reading_of
            from lo_kernel.notebook.folded import FoldedStates

            runtime.errors.forget(name)
            states = FoldedStates.of(await folding)
            runtime.reads.record(
                "events", "files that were folded", {w for k in states for w in reading_of(k)[1]}
            )
            return states

        job = self._job(name, work())
        return job
