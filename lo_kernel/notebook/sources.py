"""A query that goes on, as a live chart wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_kernel.app.grid import in_panels
from lo_kernel.query.naming import NOTEBOOK
from lo_kernel.query.rows import Rows, flat_rows

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["PanelSources", "QuerySource"]


class QuerySource:
    """The rows of one query, and word of their changes; all of it on the app's loop."""

    def __init__(self, runtime: Runtime, query: Any, parameters: Mapping[str, Any]) -> None:
        self._runtime = runtime
        self._query = query
        self._parameters = dict(parameters)

    async def rows(self) -> Rows:
        """The answer as it is now; waits only where a reducer is still going through the past."""
        executor, names = self._runtime.executor, self._runtime.rosters.notebook_names
        running = executor.prepare(self._query, None, self._parameters, strict=True)
        if len(running.exports) != 1 or any(
            getattr(registration, "status", "live") not in ("live", "paused")
            for registration in running.registrations()
        ):
            return _by_name(await executor.rows(self._query, self._parameters, newest=False), names)
        await running.run()
        executor.record(running, running.learners())
        answer = running.answer(next(iter(running.exports)))
        return _by_name(flat_rows(answer, behind=running.behind()), names)

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` when the answer may have changed; gives what ends it."""
        subscription = self._runtime.live.subscribe(
            self._query, None, self._parameters, names=NOTEBOOK, strict=True, queue=1
        )

        async def listen() -> None:
            async for _ in subscription:
                callback()

        task = asyncio.get_running_loop().create_task(listen())

        def end() -> None:
            subscription.close()
            task.cancel()

        return end


def _by_name(rows: Rows, names: Mapping[str, str]) -> Rows:
    """The rows, with learners called what this notebook calls them."""
    if not names:
        return rows
    named = (
        {**row, "student": names.get(row["student"], row["student"])} if "student" in row else row
        for row in rows
    )
    return Rows(named, behind=rows.behind)


class PanelSources:
    """The answers of several panels, as a :class:`~lo_kernel.app.grid.Grid` wants them."""

    def __init__(self, sources: Sequence[QuerySource]) -> None:
        self._sources = tuple(sources)

    async def rows(self) -> list[dict[str, Any]]:
        """All answers as they are now."""
        return in_panels([await source.rows() for source in self._sources])

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` when one of them may have changed; gives what ends it."""
        ends = [source.subscribe(callback) for source in self._sources]

        def end() -> None:
            for each in ends:
                each()

        return end
