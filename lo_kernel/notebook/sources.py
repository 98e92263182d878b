"""A query that goes on, as a live chart wants it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lo_kernel.app.grid import in_panels
from lo_kernel.query.live import LiveSource
from lo_kernel.query.naming import NOTEBOOK
from lo_kernel.query.rows import Rows

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["PanelSources", "QuerySource"]


class QuerySource:
    """The rows of one query, and word of their changes; all of it on the app's loop.

    Learners are called what this notebook calls them.
    """

    def __init__(self, runtime: Runtime, query: Any, parameters: Mapping[str, Any]) -> None:
        self._source = LiveSource(runtime.live, query, parameters, naming=NOTEBOOK)
        self._names = runtime.rosters.notebook_names

    async def rows(self) -> Rows:
        """The answer as it is now; waits only where a reducer is still going through the past."""
        return self._named(await self._source.rows())

    async def now(self) -> Rows:
        """The same, without waiting for what is under way."""
        return self._named(await self._source.now())

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` when the answer may have changed; gives what ends it."""
        return self._source.subscribe(callback)

    def _named(self, rows: Rows) -> Rows:
        named = bool(self._names)
        for row in rows:
            if named and "student" in row:
                row["student"] = self._names.get(row["student"], row["student"])
            for name, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    row[name] = None  # as pages have it: JSON has no such number
        return rows


class PanelSources:
    """The answers of several panels, as a :class:`~lo_kernel.app.grid.Grid` wants them."""

    def __init__(self, sources: Sequence[QuerySource]) -> None:
        self._sources = tuple(sources)

    async def rows(self) -> list[dict[str, Any]]:
        """All answers as they are now."""
        return in_panels([await source.rows() for source in self._sources])

    async def now(self) -> list[dict[str, Any]]:
        """The same, without waiting for what is under way."""
        return in_panels([await source.now() for source in self._sources])

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` when one of them may have changed; gives what ends it."""
        with ExitStack() as ends:
            for source in self._sources:
                ends.callback(source.subscribe(callback))  # where one raises, those before it are ended
            return ends.pop_all().close
