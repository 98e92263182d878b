"""Dashboards as data: what a person gives, what is kept, what a page asks for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from apps import running_app
from page_parts import send
from waiting import auntil

from lo_kernel.app.charts import Chart
from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.grid import Grid, in_panels
from lo_kernel.app.overview import add_overview
from lo_kernel.app.series import series_of
from lo_kernel.app.vega_lite import vega_lite_of
from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import DashboardError, LOError, QueryError, UnknownDashboardError
from lo_kernel.notebook.dashboards_view import DashboardPage
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.overview.module import DASHBOARD
from lo_kernel.query.language import q
from lo_kernel.settings import Settings


def test_a_dashboard_survives_being_written_and_read() -> None:
    """What `to_json` gives is JSON, and gives the same dashboard back."""
    board = Dashboard.from_json(DASHBOARD)
    assert Dashboard.from_json(json.loads(json.dumps(board.to_json()))) == board


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"id": "x", "title": "X"}, "panels"),
        ({"id": "x", "title": "X", "panels": [{"chart": "bar"}]}, "query"),
        ({"id": "x", "title": "X", "panels": [{"query": "a", "chart": "pie"}]}, "pie"),
        ({"id": "Not So", "title": "X", "panels": [{"query": "a"}]}, "not-so"),
        ({"id": "x", "title": "X", "panels": []}, "at least one"),
        ({"id": "x", "title": "X", "panels": [{"query": "a"}], "columns": {"n": {"format": "euro"}}}, "euro"),
    ],
)
def test_a_wrong_dashboard_says_what_is_wrong(data: dict[str, Any], says: str) -> None:
    """A mistake in a dashboard is an error that names it."""
    with pytest.raises(DashboardError, match=says):
        Dashboard.from_json(data)


class FakeAltair:
    """Gives what Altair 6 gives: a version 6 specification, its data gathered at the top."""

    def to_dict(self) -> dict[str, Any]:
        """The specification."""
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.1.0.json",
            "config": {"view": {"continuousWidth": 300, "continuousHeight": 300}},
            "data": {"name": "data-1"},
            "datasets": {"data-1": [{"n": 1}], "data-2": [{"limit": 5}]},
            "layer": [
                {"mark": "bar", "encoding": {"x": {"field": "count", "type": "quantitative"}}},
                {"mark": "rule", "data": {"name": "data-2"}, "encoding": {"x": {"field": "limit"}}},
            ],
        }


def test_an_altair_chart_is_brought_to_what_jupyterlab_draws() -> None:
    """Its schema becomes version 5, its own data goes, and what a layer brings of its own stays."""
    spec = vega_lite_of(FakeAltair())
    assert spec["$schema"].endswith("/v5.json")
    assert "data" not in spec
    assert spec["datasets"] == {"data-2": [{"limit": 5}]}
    assert "continuousWidth" not in spec["config"]["view"]
    board = Dashboard.of("event_count", FakeAltair())
    drawn = board.panels[0].drawn().spec([{"student": "a", "count": 2}])
    assert drawn["data"]["values"] == [{"student": "a", "count": 2}]


@pytest.mark.parametrize(
    "chart", [3, {"data": []}, {"$schema": "https://vega.github.io/schema/vega/v5.json"}]
)
def test_what_is_no_chart_is_an_error(chart: Any) -> None:
    """Neither a number nor Vega itself is taken for a Vega-Lite specification."""
    with pytest.raises(LOError, match="expected"):
        Dashboard.of("event_count", chart)


@pytest.mark.parametrize(
    ("chart", "says"),
    [
        ({"mark": "blob", "encoding": {}}, "a mark of arc, .*, got 'blob'"),
        ({"mark": {"filled": True}}, "a mark of arc, .*, got None"),
        ({"mark": ["bar"]}, "a mark of arc, .*, got \\['bar'\\]"),
        ({"mark": "bar", "encoding": {"colour": {"field": "n"}}}, "got 'colour'; there is 'color'"),
        ({"mark": "bar", "encoding": {"field": "n"}}, "in encoding, got 'field'"),
        ({"mark": "bar", "encoding": "x"}, "an encoding of channels, such as x and y, got 'x'"),
        ({"layer": [{"mark": "bar"}, {"mark": "dot"}]}, "chart, layer 2: expected a mark of .* got 'dot'"),
        ({"hconcat": [{"layer": [{"encoding": {}}]}]}, "chart, hconcat 1, layer 1: expected .* mark, layer"),
        ({"layer": {"mark": "bar"}}, "a list in layer"),
        ({"layer": []}, "chart: expected one view or more in layer, got an empty list"),
        ({"vconcat": [{"hconcat": []}]}, "chart, vconcat 1: expected one view or more in hconcat"),
        ({"facet": {"field": "n"}, "spec": {"mark": "pie"}}, "chart, spec: .* got 'pie'"),
        ({"concat": [3]}, "chart, concat 1: expected an object with a mark, got 3"),
    ],
)
def test_what_vega_lite_does_not_know_is_refused_at_once(chart: Any, says: str) -> None:
    """JupyterLab would leave the output empty: a mark or channel that isn't there is an error in the cell."""
    with pytest.raises(DashboardError, match=says):
        Dashboard.of("event_count", chart)
    with pytest.raises(DashboardError, match=says):
        Panel("event_count", chart=chart)


def test_what_vega_lite_knows_is_taken() -> None:
    """Composite marks, layers that repeat, facets and channels that are switched off are drawn as given."""
    charts: list[dict[str, Any]] = [
        {"mark": {"type": "boxplot"}, "encoding": {"x": {"field": "n"}, "xOffset": None, "tooltip": []}},
        {"repeat": {"layer": ["n", "m"]}, "spec": {"mark": "line", "encoding": {"y": {"field": "n"}}}},
        {"facet": {"row": {"field": "n"}}, "spec": {"layer": [{"mark": "rule"}, {"mark": "text"}]}},
        {"vconcat": [{"mark": "point"}, {"hconcat": [{"mark": "tick"}]}]},
    ]
    for chart in charts:
        assert vega_lite_of(chart) == chart


@pytest.mark.parametrize(
    "value",
    [
        {"start": 1_700_000_000, "step": 60, "values": [1, 2]},
        {"1700000000": 1, "1700000060": 2},
        [[1_700_000_000, 1], [1_700_000_060, 2]],
        [{"time": 1_700_000_000_000, "n": 1}, {"time": 1_700_000_060_000, "n": 2}],
    ],
)
def test_each_form_of_a_series_is_known(value: Any) -> None:
    """The same series is read from each form, and drawn as a line for few and a heat map for more."""
    assert series_of(value) == [(1_700_000_000.0, 1.0), (1_700_000_060.0, 2.0)]
    rows = [{"student": f"s{number}", "recent": value} for number in range(9)]
    assert Chart("t").drawing(rows[:3]).kind == "line"
    assert Chart("t").drawing(rows).kind == "heatmap"
    assert Chart("t").drawing([{**row, "student": f"{n}"} for n in range(9) for row in rows]).kind == "line"
    drawn = Chart("t").spec(rows)["data"]["values"]
    assert (drawn[0]["t"], drawn[0]["until"], drawn[0]["value"]) == (
        1_700_000_000_000,
        1_700_000_060_000,
        1.0,
    )


@pytest.mark.parametrize(
    "value", [[], {}, {"a": 1}, [1, 2], "text", [[1, 2]], {"start": 1, "step": 0, "values": [1]}]
)
def test_what_is_no_series_is_none(value: Any) -> None:
    """Lists and objects that hold no times aren't taken for series."""
    assert series_of(value) is None


def test_a_grid_has_the_panels_side_by_side() -> None:
    """Each panel keeps its title and its own data; as text they come one after the other."""
    rows = [{"student": "tc-testcase-ann", "n": 3, "word": "b"}]
    grid = Grid("Both", (Chart("Numbers", field="n"), Chart("Words", "text", field="word")))
    spec = grid.spec(in_panels([rows, rows]), subtitle="live")
    assert [panel["title"]["text"] for panel in spec["concat"]] == ["Numbers", "Words"]
    assert [panel["data"]["name"] for panel in spec["concat"]] == ["rows_1", "rows_2"]
    assert spec["title"]["subtitle"] == ["live"]
    text = grid.text(in_panels([rows, rows]))
    assert text.index("Numbers") < text.index("Words")
    json.dumps(spec)


async def test_a_dag_of_ones_own_becomes_a_query_that_a_page_may_ask(settings: Settings) -> None:
    """A page has no right to send a DAG; the dashboard's is a named query, until the dashboard is gone."""
    async with running_app(settings) as runtime:
        add_overview(runtime)
        board = Dashboard.of(
            q.latest("overview.activity", {"events": "events"}), title="Mine", course="everyone"
        )
        runtime.dashboards.add(board)
        (query,) = runtime.dashboards.queries("mine")
        assert query.dag in runtime.catalog
        assert query.parameters == {"course_id": "everyone"}
        runtime.dashboards.add(Dashboard.of("overview.class", title="Mine"))
        assert query.dag not in runtime.catalog
        runtime.dashboards.remove("mine")
        with pytest.raises(UnknownDashboardError, match="overview"):
            runtime.dashboards["mine"]
        assert "overview" in runtime.dashboards


async def test_a_query_that_can_not_run_is_an_error_at_once(settings: Settings) -> None:
    """An unknown query, or a parameter that it doesn't have, raises when the dashboard is made."""
    async with running_app(settings) as runtime:
        add_overview(runtime)
        for panel in (Panel("nothing"), Panel("overview.class", {"colour": "red"})):
            with pytest.raises(QueryError):
                runtime.dashboards.add(Dashboard("x", "X", (panel,)))
        assert "x" not in runtime.dashboards


async def test_a_function_of_the_time_of_day_runs_again(settings: Settings) -> None:
    """`tick` touches a function every so often, until the dashboards are closed."""
    async with running_app(settings) as runtime:
        touched: list[frozenset[str]] = []
        runtime.functions.subscribe(touched.append)
        runtime.dashboards.tick("count", 0.01)
        runtime.dashboards.tick("count", 0.01)
        await auntil(lambda: len(touched) > 2)
        runtime.dashboards.close()
        await asyncio.sleep(0)
        assert set(touched) == {frozenset({"count"})}


async def test_one_that_ticks_no_more_leaves_the_others(settings: Settings) -> None:
    """`tick_no_more` ends what runs by the clock for one function; of one that doesn't it is no error."""
    async with running_app(settings) as runtime:
        touched: list[frozenset[str]] = []
        runtime.functions.subscribe(touched.append)
        for name in ("count", "presence"):
            runtime.dashboards.tick(name, 0.01)
        runtime.dashboards.tick_no_more("count")
        runtime.dashboards.tick_no_more("nothing")
        await auntil(lambda: len(touched) > 2)
        assert set(touched) == {frozenset({"presence"})}


async def test_lo_makes_dashboards_and_their_pages(settings: Settings) -> None:
    """`embed="page"` gives a frame with a ticket that opens the page; `lo.dashboards` lists all."""
    import aiohttp

    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        assert isinstance(lo.overview(embed="page"), DashboardPage)
        await send(runtime, "ann")
        page = lo.dashboard(["overview.class", ("overview.class", "line")], title="Two", embed="page")
        assert isinstance(page, DashboardPage)
        assert list(lo.dashboards) == ["overview", "two"]
        assert "2 panels" in repr(lo.dashboards)
        assert "token" not in repr(page)
        source = page._html().split('src="')[1].split('"')[0]
        async with aiohttp.ClientSession() as client, client.get(source) as answer:
            assert answer.status == 200
        with pytest.raises(LOError, match="page"):
            lo.dashboard("overview.class", embed="window")


async def test_a_dashboard_that_can_not_be_drawn_is_not_made(settings: Settings) -> None:
    """What raises leaves no dashboard behind; the one that has its name stays as it is, with its queries."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        for registration in add_overview(runtime)[1]:
            await registration.ready()
        await send(runtime, "ann")
        mine = q.latest("overview.activity", {"events": "events"})
        lo.dashboard([mine], title="Mine", embed="page", course="everyone")
        there, (query,) = lo.dashboards["mine"], runtime.dashboards.queries("mine")
        with pytest.raises(DashboardError, match="no column 'typos'"):
            lo.dashboard([("overview.class", "table"), mine], title="Mine", field="typos", embed="page")
        with pytest.raises(LOError, match="notebook or a console"):
            lo.dashboard("overview.class", id="mine")
        with pytest.raises(LOError, match="embed"):
            lo.overview(embed="window")
        assert lo.dashboards["mine"] is there
        assert query.dag in runtime.catalog
        assert list(lo.dashboards) == ["overview", "mine"]


async def test_what_differs_has_an_id_of_its_own(settings: Settings) -> None:
    """A chart replaces the same one, one with its title or id, and one of its own cell; no other."""
    parent = {"metadata": {"cellId": "one"}, "header": {"msg_id": "1"}}
    kernel = SimpleNamespace(get_parent=lambda channel: parent)
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()), kernel=kernel)
        lo.overview(embed="page")

        def made(cell: str, run: str, *arguments: Any, **options: Any) -> str:
            parent.update({"metadata": {"cellId": cell}, "header": {"msg_id": run}})
            page = lo.dashboard("overview.class", *arguments, embed="page", **options)
            assert isinstance(page, DashboardPage)
            return page.dashboard.id

        assert made("one", "1") == "overview-class"
        assert made("one", "1", "table") == "overview-class-2"  # two in one cell
        assert made("two", "2") == "overview-class"
        assert made("two", "2", title="Overview class") == "overview-class-3"
        assert made("three", "3", "table", title="Overview class") == "overview-class-3"
        assert made("three", "4", "line") == "overview-class-3"  # the cell was changed
        assert made("four", "5", "bar", id="overview-class") == "overview-class"
