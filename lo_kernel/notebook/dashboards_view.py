"""``lo.dashboards``, and the page of one inside a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from lo_kernel.app.browser_address import BrowserAddress, find_address
from lo_kernel.app.dashboards import Dashboard
from lo_kernel.app.grid import Grid
from lo_kernel.app.security import EMBED
from lo_kernel.notebook.live_display import Checked, Drawn, LiveSource, check_now
from lo_kernel.notebook.sources import PanelSources, QuerySource

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.live_display import LiveDisplay, LiveDisplays
    from lo_kernel.runtime import Runtime

__all__ = ["DashboardList", "DashboardPage", "browser_address", "check_dashboard", "live_chart"]

_HEIGHT = 760  # pixels of a page in a notebook


def browser_address(runtime: Runtime) -> BrowserAddress:
    """How this notebook's browser reaches the app, which from then on answers to the names in it."""
    found = find_address(runtime.settings, runtime.port, os.environ, probe=runtime.proxies)
    runtime.security.found_hosts.update(found.hosts)
    return found


def live_chart(
    runtime: Runtime, displays: LiveDisplays, dashboard: Dashboard, checked: Checked | None = None
) -> LiveDisplay:
    """A dashboard as a live chart: one panel by itself, several as a grid; first with what was checked."""
    queries = runtime.dashboards.queries(dashboard.id)
    asked = [(f"{query.dag}.{query.export}", query.parameters) for query in queries]
    address = browser_address(runtime).of(f"dashboards/{dashboard.id}")
    drawn = _drawn(runtime, dashboard, asked)
    return displays.make(dashboard.id, *drawn, address=address, checked=checked)


def check_dashboard(runtime: Runtime, bridge: LoopBridge, dashboard: Dashboard) -> Checked:
    """Raise what showing this dashboard would raise, before it is added; the answer to show otherwise."""
    asked = bridge.call(lambda: runtime.dashboards.asked(dashboard))
    return check_now(bridge, *_drawn(runtime, dashboard, asked))


def _drawn(
    runtime: Runtime, dashboard: Dashboard, asked: Sequence[tuple[Any, Mapping[str, Any]]]
) -> tuple[Drawn, LiveSource]:
    """The chart of a dashboard, and where its rows come from."""
    sources = [QuerySource(runtime, query, parameters) for query, parameters in asked]
    charts = tuple(panel.drawn() for panel in dashboard.panels)
    if len(charts) == 1:
        return charts[0], sources[0]
    return Grid(dashboard.title, charts), PanelSources(sources)


class DashboardPage:
    """The page of a dashboard, shown inside the notebook: live, also after a reload of the browser.

    It is let in by a ticket that ends after twelve hours, or with the kernel, and calls learners what the
    notebook calls them.
    """

    def __init__(self, runtime: Runtime, dashboard: Dashboard, *, height: int = _HEIGHT) -> None:
        self.dashboard = dashboard
        self.height = height
        self.address = browser_address(runtime)
        self._runtime = runtime

    @property
    def path(self) -> str:
        """Its address below the app's own."""
        return f"dashboards/{self.dashboard.id}"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if self.address.kind == "colab":
            from google.colab import output  # type: ignore[import-not-found,unused-ignore]

            page = f"/{self.path}?token={self._runtime.security.ticket(EMBED)}"
            output.serve_kernel_port_as_iframe(self._runtime.port, path=page, height=str(self.height))
            return
        bundle = {"text/html": self._html(), "text/plain": repr(self)}
        display(bundle, raw=True)  # type: ignore[no-untyped-call]

    def _html(self) -> str:
        source = self.address.of(self.path, self._runtime.security.ticket(EMBED))
        return (
            f'<iframe src="{escape(source)}" title="{escape(self.dashboard.title)}" width="100%" '
            f'height="{self.height}" style="border:0;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<page of {self.dashboard.title!r}: {self.address.of(self.path)}>"


class DashboardList:
    """The dashboards there are: ``lo.dashboards["my-class"]``, ``len``, iteration over ids."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge) -> None:
        self._runtime = runtime
        self._bridge = bridge

    def __getitem__(self, dashboard_id: str) -> Dashboard:
        return self._runtime.dashboards[dashboard_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runtime.dashboards)

    def __len__(self) -> int:
        return len(self._runtime.dashboards)

    def __contains__(self, dashboard_id: object) -> bool:
        return dashboard_id in self._runtime.dashboards

    def page(self, dashboard_id: str) -> DashboardPage:
        """The page of one, to be shown in the notebook."""
        return DashboardPage(self._runtime, self._runtime.dashboards[dashboard_id])

    def remove(self, dashboard_id: str) -> None:
        """Take one away; a page that shows it says so when it is loaded again."""
        self._bridge.call(lambda: self._runtime.dashboards.remove(dashboard_id))

    def __repr__(self) -> str:
        return repr(self._runtime.dashboards)

    def _repr_html_(self) -> str:
        if not len(self):
            return f"<em>{escape(repr(self))}</em>"
        address, ticket = browser_address(self._runtime), self._runtime.security.ticket()
        lines = []
        for name in self:
            board: Any = self[name]
            title = escape(board.title)
            if address.base:
                link = escape(address.of(f"dashboards/{name}", ticket))
                title = f'<a href="{link}" target="_blank" rel="noopener">{title}</a>'
            panels = f"{len(board.panels)} panel{'s'[: len(board.panels) != 1]}"
            lines.append(f"<li>{title} <small>{escape(name)}, {panels}</small></li>")
        return f"<ul>{''.join(lines)}</ul>"
