"""Dashboards: which answers are shown, and how. Plain data, so that one can be shared, exported and opened.

A :class:`Dashboard` is a title and panels; a :class:`Panel` is a query with its parameters and a chart. The
notebook draws the same object under a cell that the page ``/dashboards/<id>`` shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from lo_kernel.app.charts import Chart, Kind
from lo_kernel.app.vega_lite import check_vega_lite, is_chart_object, vega_lite_of
from lo_kernel.errors import DashboardError, LOError, QueryError, UnknownDashboardError
from lo_kernel.query.catalog import Catalog
from lo_kernel.query.dag import Export
from lo_kernel.query.executor import Executor
from lo_kernel.query.functions import Functions

__all__ = ["FORMATS", "Dashboard", "Dashboards", "Panel", "own_id", "slug"]

FORMATS: Final = ("number", "text", "duration", "ago", "percent")
"""How a column may be written: ``duration`` is for seconds, ``ago`` for seconds since 1970 (UTC)."""

COURSE: Final = "course_id"


def slug(title: str) -> str:
    """A title as part of an address.

    >>> slug("Time on task (min)")
    'time-on-task-min'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "dashboard"


@dataclass(frozen=True, slots=True)
class Panel:
    """One answer and its chart.

    ``query`` is the id of a reducer, the name of a query, or a DAG; ``parameters`` are what it asks for.
    ``chart`` is the name of a kind (:class:`~lo_kernel.app.charts.Chart`) or a Vega-Lite specification;
    ``field`` the column to show, ``label`` what it is called.
    """

    query: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    chart: str | Mapping[str, Any] = "auto"
    title: str = ""
    field: str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        named = isinstance(self.chart, str)
        if not (self.chart in get_args(Kind) if named else isinstance(self.chart, Mapping)):
            raise DashboardError(
                f"chart: expected one of {', '.join(get_args(Kind))}, a Vega-Lite specification or an Altair "
                f"chart, got {self.chart!r}"
            )
        if not named:
            try:
                check_vega_lite(self.chart)
            except ValueError as error:
                raise DashboardError(str(error)) from None

    @property
    def name(self) -> str:
        """Its title, or that of its query."""
        return self.title or (self.query if isinstance(self.query, str) else "query")

    def drawn(self) -> Chart:
        """The chart, as it is drawn."""
        if isinstance(self.chart, str):
            return Chart(self.name, self.chart, self.field, label=self.label)  # type: ignore[arg-type]
        return Chart(self.name, template=self.chart, field=self.field, label=self.label)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data, without what is left at its default."""
        given = {
            "query": self.query,
            "parameters": dict(self.parameters),
            "chart": self.chart if isinstance(self.chart, str) else dict(self.chart),
            "title": self.title,
            "field": self.field,
            "label": self.label,
        }
        return {name: value for name, value in given.items() if value not in ({}, "", None, "auto")}


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of panels.

    ``columns`` says how columns of the learners' list are called and written, those named first, the others
    after: ``{"seconds": {"title": "Time on task", "format": "duration"}}``; ``{"show": False}`` leaves one
    out. ``course`` is given to every query that asks for one.

    >>> board = Dashboard("class", "My class", (Panel("event_count"),))
    >>> Dashboard.from_json(board.to_json()) == board
    True
    """

    id: str
    title: str
    panels: tuple[Panel, ...]
    course: str | None = None
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    icon: str = ""
    source: str = "notebook"
    """Where it comes from: ``notebook``, or the name of a module."""

    def __post_init__(self) -> None:
        if not self.id or slug(self.id) != self.id:
            raise DashboardError(
                "dashboard: expected an id of lower-case letters, digits and single '-', "
                f"got {self.id!r}; {slug(self.id)!r} would do"
            )
        if not self.panels:
            raise DashboardError(f"dashboard {self.id!r}: expected at least one panel")
        for name, about in self.columns.items():
            if about.get("format", "text") not in FORMATS:
                raise DashboardError(
                    f"dashboard {self.id!r}, column {name!r}: expected a format of {', '.join(FORMATS)}, "
                    f"got {about['format']!r}"
                )

    @classmethod
    def of(
        cls,
        what: Any,
        chart: Any = None,
        *,
        title: str | None = None,
        field: str | None = None,
        course: str | None = None,
        id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Dashboard:
        """A dashboard from what a person gives: a query, or a list of queries, panels and ``(query, chart)``.

        >>> board = Dashboard.of(["event_count", ("last_word", "text")], title="Two")
        >>> board.id, [panel.chart for panel in board.panels]
        ('two', ['auto', 'text'])
        """
        items = what if isinstance(what, list) else [what]
        panels = tuple(_panel(item, chart, field, parameters or {}) for item in items)
        if not panels:
            raise DashboardError(
                "dashboard: expected a reducer, a query or a list of them, got an empty list"
            )
        named = title or " and ".join(dict.fromkeys(panel.name for panel in panels[:3]))
        if len(panels) == 1 and title:
            panels = (replace(panels[0], title=panels[0].title or title),)
        return cls(id or slug(named), named, panels, course)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data."""
        given = {
            "id": self.id,
            "title": self.title,
            "course": self.course,
            "icon": self.icon,
            "columns": {name: dict(about) for name, about in self.columns.items()},
            "panels": [panel.to_json() for panel in self.panels],
        }
        return {name: value for name, value in given.items() if value not in (None, "", {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "notebook") -> Dashboard:
        """The dashboard that :meth:`to_json` gave; :class:`DashboardError` where something is wrong."""
        try:
            panels = tuple(Panel(**panel) for panel in data["panels"])
            rest = {name: value for name, value in data.items() if name != "panels"}
            return cls(**rest, panels=panels, source=source)
        except (TypeError, KeyError, AttributeError) as error:
            raise DashboardError(
                f"dashboard: expected id, title and panels with a query each: {error}"
            ) from None


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """How a page asks for a panel's answer, in the words of the query protocol."""

    dag: str
    export: str
    parameters: Mapping[str, Any]
    takes_course: bool

    def to_json(self) -> dict[str, Any]:
        """What is sent over the socket."""
        return {
            "execution_dag": self.dag,
            "target_exports": [self.export],
            "kwargs": dict(self.parameters),
            "takes_course": self.takes_course,
        }


class Dashboards:
    """The dashboards of an app: ``dashboards["my-class"]``, ``len(dashboards)``, iteration over ids."""

    def __init__(self, executor: Executor, catalog: Catalog, functions: Functions) -> None:
        self._executor = executor
        self._catalog = catalog
        self._functions = functions
        self._dashboards: dict[str, Dashboard] = {}
        self._queries: dict[str, tuple[PanelQuery, ...]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._ticking: dict[str, asyncio.Task[None]] = {}
        self.course_links: list[dict[str, Any]] = []
        """Pages that modules bring for a course: ``{"name", "url", "icon", "module"}``."""
        self.student_links: list[dict[str, Any]] = []
        """The same for one learner."""

    def add(self, dashboard: Dashboard) -> Dashboard:
        """Add one, or replace the one of this id; only on the app's loop.

        A query that can't run raises :class:`QueryError` now. A DAG of one's own becomes a named query, so
        that a page may ask for it.
        """
        self.asked(dashboard)
        self._forget(dashboard.id)
        self._queries[dashboard.id] = tuple(
            self._query(dashboard, panel, f"dashboard_{dashboard.id}_{number}".replace("-", "_"))
            for number, panel in enumerate(dashboard.panels, 1)
        )
        self._dashboards[dashboard.id] = dashboard
        self._tell(dashboard.id)
        return dashboard

    def asked(self, dashboard: Dashboard) -> list[tuple[Any, dict[str, Any]]]:
        """What its panels ask for, and with which parameters, whether it was added or not.

        A query that can't run raises :class:`QueryError`. Only on the app's loop.
        """
        found = []
        for panel in dashboard.panels:
            running = self._executor.prepare_one(panel.query, panel.parameters)
            (export,) = running.exports
            found.append((panel.query, _given(dashboard, panel, running.dag.exports[export])))
        return found

    def remove(self, dashboard_id: str) -> None:
        """Take one away."""
        self[dashboard_id]
        self._forget(dashboard_id)
        del self._dashboards[dashboard_id]
        self._tell(dashboard_id)

    def queries(self, dashboard_id: str) -> tuple[PanelQuery, ...]:
        """How the answers of its panels are asked for."""
        self[dashboard_id]
        return self._queries[dashboard_id]

    def reducers(self, dashboard_id: str) -> list[Any]:
        """The reducers that its panels read; those of a query that can't run any more are left out."""
        found: dict[str, Any] = {}
        for query in self.queries(dashboard_id):
            with contextlib.suppress(LOError):
                running = self._executor.prepare(query.dag, [query.export], query.parameters)
                found.update((registration.id, registration) for registration in running.registrations())
        return list(found.values())

    def subscribe(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with the id of a dashboard that was added, replaced or taken away."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def tick(self, function: str, seconds: float) -> None:
        """Run a published function again every so often: its answer depends on the time of day.

        Only queries that somebody looks at run.
        """
        self.tick_no_more(function)
        self._ticking[function] = asyncio.get_running_loop().create_task(self._tick(function, seconds))

    def tick_no_more(self, function: str) -> None:
        """End what :meth:`tick` began; where nothing runs by the clock there is nothing to do."""
        if (task := self._ticking.pop(function, None)) is not None:
            task.cancel()

    def close(self) -> None:
        """End what goes on in the background."""
        for task in self._ticking.values():
            task.cancel()
        self._ticking.clear()

    async def _tick(self, function: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self._functions.touch(function)

    def _query(self, dashboard: Dashboard, panel: Panel, name: str) -> PanelQuery:
        if not isinstance(panel.query, str):
            self._catalog.add(name, _as_dag(panel.query))
            dag, exports = self._catalog.resolve(name)
        else:
            dag, exports = self._catalog.resolve(panel.query)
            name = dag.name
        if len(exports) != 1:
            raise QueryError(f"dashboard {dashboard.id!r}: expected a query with one answer")
        export = dag.exports[exports[0]]
        return PanelQuery(name, exports[0], _given(dashboard, panel, export), _takes_course(export))

    def _forget(self, dashboard_id: str) -> None:
        """Take away the named queries that were made for its panels."""
        made = f"dashboard_{dashboard_id}_".replace("-", "_")
        for query in self._queries.pop(dashboard_id, ()):
            if query.dag.startswith(made) and query.dag.removeprefix(made).isdecimal():
                self._catalog.remove(query.dag)

    def _tell(self, dashboard_id: str) -> None:
        for listener in list(self._listeners):
            listener(dashboard_id)

    def __getitem__(self, dashboard_id: str) -> Dashboard:
        found = self._dashboards.get(dashboard_id)
        if found is None:
            there = ", ".join(sorted(self._dashboards)) or "none yet"
            raise UnknownDashboardError(f"there is no dashboard {dashboard_id!r}; there are: {there}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._dashboards)

    def __len__(self) -> int:
        return len(self._dashboards)

    def __contains__(self, dashboard_id: object) -> bool:
        return dashboard_id in self._dashboards

    def __repr__(self) -> str:
        lines = [
            f"{board.id}: {board.title}, {len(board.panels)} panel{'s'[: len(board.panels) != 1]}, "
            f"/dashboards/{board.id}"
            for board in self._dashboards.values()
        ]
        return "\n".join(lines) or "no dashboards yet: make one with lo.dashboard(...)"


def own_id(
    there: Mapping[str, Dashboard] | Dashboards,
    wanted: Dashboard,
    *,
    titled: bool,
    replaces: Container[str] = (),
) -> str:
    """The id for a dashboard whose author gave none: that of its title, or with a number after it.

    It gets the id of the one that it replaces: the same again, one of the title that was given
    (``titled``), or one of ``replaces``.

    >>> bars = Dashboard.of("event_count")
    >>> own_id({"event-count": bars}, bars, titled=False)
    'event-count'
    >>> own_id({"event-count": bars}, Dashboard.of("event_count", "categories"), titled=False)
    'event-count-2'
    """
    number, candidate = 1, wanted.id
    while candidate in there and not (
        candidate in replaces
        or (titled and there[candidate].title == wanted.title)
        or _said(there[candidate]) == _said(wanted)
    ):
        number += 1
        candidate = f"{wanted.id}-{number}"
    return candidate


def _said(board: Dashboard) -> tuple[dict[str, Any], list[Any]]:
    """All of a dashboard but its id, to be compared."""
    return replace(board, id="x").to_json() | {
        "panels": [replace(p, query="").to_json() for p in board.panels]
    }, [_as_dag(panel.query) for panel in board.panels]


def _panel(item: Any, chart: Any, field_name: str | None, parameters: Mapping[str, Any]) -> Panel:
    if isinstance(item, Panel):
        return item
    if isinstance(item, tuple):
        if len(item) != 2:
            raise DashboardError(f"dashboard: expected (query, chart), got {item!r:.80}")
        item, chart = item
    if isinstance(item, Mapping) and "query" in item and "dispatch" not in item:
        return Panel(**item)
    if is_chart_object(chart) or isinstance(chart, Mapping):
        try:
            chart = vega_lite_of(chart)
        except (TypeError, ValueError) as error:
            raise DashboardError(str(error)) from None
    return Panel(item, dict(parameters), "auto" if chart is None else chart, field=field_name)


def _takes_course(export: Export) -> bool:
    return any(parameter.name == COURSE for parameter in export.parameters)


def _given(dashboard: Dashboard, panel: Panel, export: Export) -> dict[str, Any]:
    """The parameters of a panel's query, with the course where that is asked for."""
    given = dict(panel.parameters)
    if dashboard.course is not None and _takes_course(export):
        given.setdefault(COURSE, dashboard.course)
    return given


def _as_dag(query: Any) -> Any:
    to_json = getattr(query, "to_json", None)
    return to_json() if callable(to_json) else query
