"""``lo.query``, ``lo.watch`` and what else asks the states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.verbs import Verbs

__all__ = ["QueryVerbs"]


class QueryVerbs(Verbs):
    """The verbs of ``lo`` that ask."""

    def query(self, query: Any, **parameters: Any) -> Job[Any]:
        """The answer of a query as rows: ``await lo.query("event_count")``.

        ``query`` is the id of a reducer, the name of a query, or a DAG made with ``lo.q``; ``parameters``
        are what it asks for. A reducer that goes through the past, or is replaced, is waited for; where the
        states aren't the newest all the same, ``.behind`` of the rows says so. The rows print as a table, and
        ``.to_frame()`` makes a frame of them. Where the roster has names, rows about learners have a made-up
        one in its place, until ``lo.reveal``. An error of one value stands in that value's place; one of the
        whole answer, such as a course that isn't there, raises :class:`QueryError`.
        """
        runtime = self._runtime
        runtime.executor.prepare_one(query, parameters).close()
        name = query if isinstance(query, str) else "a query"
        job: Job[Any] | None = None

        def waits_for(registration: Any) -> None:
            if job is not None:
                job.progress(
                    registration.done, registration.total, f"waits for the reducer {registration.id!r}"
                )

        names = runtime.rosters.notebook_names
        rows = runtime.executor.rows(query, parameters, names=names, on_wait=waits_for, whole_errors=True)
        job = self._job(f"query {name}", rows)
        return job

    def explain(self, query: Any) -> Any:
        """A query as a picture: its nodes, what each needs, and how long each took in its last run.

        JupyterLab shows it drawn, a console as text.
        """
        return self._bridge.call(lambda: self._runtime.executor.explain(query))

    @property
    def q(self) -> Any:
        """Builders for queries (:class:`lo_kernel.query.language.Q`)."""
        from lo_kernel.query.language import q

        return q

    @property
    def queries(self) -> Any:
        """The queries there are, with parameters, descriptions and sample answers; JupyterLab has a link to
        the page that runs them.
        """
        from lo_kernel.notebook.dashboards_view import browser_address

        runtime = self._runtime

        def page() -> str:
            address = browser_address(runtime)
            return address.of("queries", runtime.security.ticket()) if address.base else ""

        runtime.catalog.page = page
        return runtime.catalog

    def publish(self, name: str) -> Callable[[Any], Any]:
        """Make a function usable in queries: ``@lo.publish("my_module.longest")``."""
        functions, bridge = self._runtime.functions, self._bridge
        # a warning is the cell's, and so is a mistake; open queries run the function on the app's loop
        return functions.publish(name, touch=lambda named: bridge.call(lambda: functions.touch(named)))

    def watch(self, query: Any, **parameters: Any) -> AsyncIterator[Any]:
        """What changes in a query's answer: ``async for rows in lo.watch("event_count"): ...``.

        All rows come first, then, each time something changes, the rows that changed. While there is no
        answer, as when the store is away or a course is out of the roster, there are no rows and their
        ``.error`` says why; all of them come again when there is one.
        """
        runtime = self._runtime
        runtime.executor.prepare_one(query, parameters).close()
        names = runtime.rosters.notebook_names
        return self._bridge.iterate(lambda: runtime.live.watch(query, parameters, names=names))
