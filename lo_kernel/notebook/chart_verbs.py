"""``lo.dashboard`` and ``lo.overview``: live charts, and their pages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError
from lo_kernel.notebook.verbs import Verbs
from lo_kernel.query.values import mistaken

if TYPE_CHECKING:
    from lo_kernel.app.dashboards import Dashboard
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.dashboards_view import DashboardList, DashboardPage
    from lo_kernel.notebook.live_display import Checked, LiveDisplay, LiveDisplays
    from lo_kernel.runtime import Runtime

__all__ = ["ChartVerbs"]


class ChartVerbs(Verbs):
    """The verbs of ``lo`` that show."""

    _displays: LiveDisplays | None = None

    def __init__(self, runtime: Runtime, bridge: LoopBridge, kernel: Any = None) -> None:
        super().__init__(runtime, bridge, kernel)
        self._made: dict[str, tuple[str, str]] = {}  # the id of a dashboard: the cell that made it, its run

    def dashboard(
        self,
        what: Any,
        chart: Any = None,
        *,
        title: str | None = None,
        field: str | None = None,
        course: str | None = None,
        id: str | None = None,
        embed: str | None = None,
        **parameters: Any,
    ) -> LiveDisplay | DashboardPage:
        """A live chart of a reducer or a query, and its page: ``lo.dashboard("event_count")``.

        ``what`` is a reducer or its id, the name of a query, a DAG, or a list of them (or of pairs ``(query,
        chart)``), whose charts lie in a grid. ``chart`` is left out (the answer's shape decides), ``"bar"``,
        ``"line"``, ``"heatmap"``, ``"table"``, ``"number"``, ``"text"``, ``"histogram"``, ``"categories"``, a
        Vega-Lite specification or an Altair chart, whose data the rows become. ``field`` is the column to
        show, ``course`` whose learners; other arguments go to the query.

        The chart stands under the cell and changes in place while events come in, until the cell runs again,
        ``.stop()``, or an hour without a change. Its page is ``/dashboards/<id>``; ``embed="page"`` shows
        that in the notebook instead, where it survives a reload of the browser. The ``id`` comes from the
        title; what differs from a dashboard that is there gets a number after it, and the same again, or
        the same ``title`` given, replaces that. What can't be drawn raises, and changes no dashboard; of an
        answer that isn't there within two seconds the chart says it when it is (on the kernel's own loop, of
        any that has to be waited for).
        """
        from lo_kernel.app.dashboards import Dashboard, own_id
        from lo_kernel.notebook.dashboards_view import check_dashboard

        self._check_embed(embed)
        named = [self._named(each) for each in what] if isinstance(what, list) else self._named(what)
        board = Dashboard.of(
            named, chart, title=title, field=field, course=course, id=id, parameters=parameters
        )
        boards = self._runtime.dashboards

        def identified() -> Dashboard:
            if id is not None:
                return board
            own = own_id(boards, board, titled=title is not None, replaces=before)
            return replace(board, id=own)

        cell, run = self._cell_and_run()
        before = {
            made for made, (where, when) in self._made.items() if cell and where == cell and when != run
        }
        checked = check_dashboard(self._runtime, self._bridge, board)
        added = self._bridge.call(lambda: boards.add(identified()))
        self._made[added.id] = (cell, run)
        return self._shown(added, embed, checked)

    def overview(
        self, course: str | None = None, *, context: str | None = None, embed: str | None = None
    ) -> LiveDisplay | DashboardPage:
        """A class overview, with nothing to be written: activity, time on task, idle now, amount written.

        Its reducers (:mod:`lo_kernel.overview`) are registered and go through the past first. ``course`` is
        whose learners are shown, ``context`` the ``source`` of the events that count.
        """
        from lo_kernel.app.overview import add_overview

        self._check_embed(embed)

        def add() -> Dashboard:
            return add_overview(self._runtime, context=context, course=course)[0]

        return self._shown(self._bridge.call(add), embed)

    @property
    def dashboards(self) -> DashboardList:
        """The dashboards there are, with links to their pages."""
        from lo_kernel.notebook.dashboards_view import DashboardList

        return DashboardList(self._runtime, self._bridge)

    def _shown(
        self, board: Dashboard, embed: str | None, checked: Checked | None = None
    ) -> LiveDisplay | DashboardPage:
        from lo_kernel.notebook.dashboards_view import DashboardPage, live_chart

        if embed == "page":
            return DashboardPage(self._runtime, board)
        return live_chart(self._runtime, self._live_displays(), board, checked)

    def _check_embed(self, embed: str | None) -> None:
        """Raise where nothing could be shown, before anything is made."""
        if embed not in (None, "page"):
            raise LOError(f"embed: expected 'page' or nothing, got {embed!r}")
        if embed is None:
            self._live_displays()

    def _cell_and_run(self) -> tuple[str, str]:
        """Which cell runs, where the front end says it, and the id of its request."""
        parent = self._kernel.get_parent("shell") if self._kernel is not None else {}
        return (
            str(parent.get("metadata", {}).get("cellId", "")),
            str(parent.get("header", {}).get("msg_id", "")),
        )

    def _named(self, what: Any) -> Any:
        """A reducer's function by its id; what a query goes by stays as it is."""
        if isinstance(what, tuple) and len(what) == 2:
            return self._named(what[0]), what[1]
        return self._id_of(what) if callable(what) else what

    def _live_displays(self) -> LiveDisplays:
        from lo_kernel.notebook.live_display import KernelScreen, LiveDisplays

        if self._displays is None:
            if self._kernel is None:
                raise LOError("a chart needs a notebook or a console around it")
            self._displays = LiveDisplays(
                KernelScreen(self._kernel),
                self._bridge,
                lambda chart, error: self._runtime._note(f"chart '{chart}'", error),
            )
        return self._displays

    def _close(self) -> None:
        """The kernel ends: charts leave a true picture in the notebook. Twice is harmless."""
        if self._displays is not None:
            self._displays.close()

    def _id_of(self, function: Any) -> str:
        for registration in self._runtime.registry:
            if registration.function is function:
                return registration.id
        if isinstance(getattr(function, "__lo_name__", None), str):
            raise LOError(f"expected a reducer or a query, got a function for one{mistaken(function)}")
        raise LOError(
            f"{getattr(function, '__name__', function)!r} is not registered: add it with lo.add_reducer(id, "
            "function), or write @lo.reducer(...) above it"
        )
