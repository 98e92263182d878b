"""Charts: what is drawn for which answer, and how a display stays up to date."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from waiting import auntil

from lo_kernel.app.chart_data import Row, Table, table_of
from lo_kernel.app.chart_specs import columns_of_text
from lo_kernel.app.charts import COLOUR, MIME, Chart, Kind
from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import DashboardError
from lo_kernel.notebook.live_display import LiveDisplay, LiveDisplays

PNG = "image/png"
PLAIN = "text/plain"


def learners(*values: Any, field: str = "count") -> list[dict[str, Any]]:
    """Rows as a query gives them."""
    return [{"student": f"tc-testcase-sim-{n:02d}", field: value} for n, value in enumerate(values, 1)]


def drawn(spec: dict[str, Any]) -> list[str]:
    """What the rows of a chart's data say, from top to bottom."""
    return [row["said"] for row in spec["data"]["values"]]


class Answer:
    """A live source that a test sets; counts how often it was asked."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)
        self.listeners: list[Callable[[], None]] = []
        self.asked = 0
        self.wait: asyncio.Event | None = None
        self.error: Exception | None = None

    async def rows(self) -> list[dict[str, Any]]:
        """The answer, after `wait` where a test holds it back."""
        self.asked += 1
        if self.wait is not None:
            await self.wait.wait()
        if self.error is not None:
            raise self.error
        return learners(*self.values)

    async def now(self) -> list[dict[str, Any]]:
        """The same."""
        return await self.rows()

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """As `LiveSource` has it."""
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def change(self, *values: Any) -> None:
        """A new answer, and word of it."""
        self.values = list(values)
        for listener in list(self.listeners):
            listener()


class Paper:
    """A screen that keeps all that was put on it."""

    def __init__(self) -> None:
        self.running = "cell 1"
        self.first: list[dict[str, Any]] = []
        self.later: list[tuple[float, str, dict[str, Any]]] = []
        self.ids: set[str] = set()
        self.threads: set[str] = set()

    def cell(self) -> str:
        """The cell that runs."""
        return self.running

    def show(self, bundle: dict[str, Any], display_id: str) -> None:
        """A new output."""
        json.dumps(bundle)
        self.ids.add(display_id)
        self.first.append(bundle)

    def update(self, bundle: dict[str, Any], display_id: str, cell: Any) -> None:
        """A changed output."""
        json.dumps(bundle)
        self.ids.add(display_id)
        self.threads.add(threading.current_thread().name)
        self.later.append((time.monotonic(), cell, bundle))

    @property
    def last(self) -> dict[str, Any]:
        """What it shows in the end."""
        return self.later[-1][2]


def make(
    paper: Paper, answer: Answer, *, interval: float = 0.02, idle: float = 3600, chart_id: str = "event_count"
) -> tuple[LiveDisplays, LiveDisplay]:
    """Displays on this loop, and a chart of them."""
    displays = LiveDisplays(paper, LoopBridge(asyncio.get_running_loop()))
    return displays, another(displays, answer, interval=interval, idle=idle, chart_id=chart_id)


def another(
    displays: LiveDisplays,
    answer: Answer,
    *,
    interval: float = 0.02,
    idle: float = 3600,
    chart_id: str = "event_count",
) -> LiveDisplay:
    """A chart that is quick, so that tests are."""
    return LiveDisplay(
        displays,
        chart_id,
        Chart("event_count"),
        answer,
        address="http://127.0.0.1:9999/",
        interval=interval,
        idle=idle,
    )


# -- what is drawn ---------------------------------------------------------------------------


def test_numbers_per_learner_are_sorted_bars() -> None:
    """The largest first, equal ones by name; a learner without a number stays, with a dash, at the end."""
    spec = Chart("event_count").spec(learners(2, None, 0, 7, 2), subtitle="5 learners")
    assert drawn(spec) == ["sim-04: 7", "sim-01: 2", "sim-05: 2", "sim-03: 0", "sim-02: –"]
    assert spec["layer"][0]["mark"]["type"] == "bar"
    assert spec["title"] == {"text": "event_count", "subtitle": ["5 learners"]}
    assert spec["encoding"]["x"]["title"] == "count"


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (learners(1, 2), "bar"),
        (learners(*range(61)), "bin"),
        (learners("sad", "happy", "sad", field="mood"), "sad: 2"),
        (learners(True, False, True, field="done"), "yes: 2"),
        (learners("It was a dark night", "Once upon a time", field="text"), "Once upon a time"),
        ([{"events": 812}], "labelFontSize"),
        (learners({"n": 3}, {"n": 4}, field="words"), "words.n"),
        ([], "waiting for events"),
        (learners(None, None), "waiting for events"),
    ],
)
def test_the_shape_decides(rows: list[dict[str, Any]], shape: str) -> None:
    """Left to itself, a chart looks at the answer: numbers, many of them, words, texts, one, nothing."""
    assert shape in json.dumps(Chart("a").spec(rows), ensure_ascii=False)


def test_long_names_leave_room_for_bars_and_figures() -> None:
    """However long the ids, a chart fits below a cell; all of an id is in the tooltip, others stay short."""
    rows = [*learners(7), {"student": "xapi-" + "c687b7894226592" * 3, "count": 12}]
    spec = Chart("x").spec(rows)
    assert drawn(spec)[1] == "sim-01: 7"
    assert spec["data"]["values"][0]["id"] == rows[1]["student"]
    assert spec["layer"][0]["encoding"]["y"]["axis"]["labelLimit"] + spec["width"] < 680
    assert Chart("x").spec(learners(7))["width"] == 600


def test_a_heat_map_of_many_shows_where_how_many_are() -> None:
    """Above 60 learners it is another picture than the line: learners by number and time, named nowhere."""
    recent = {"start": 1_700_000_000, "step": 60, "values": [1, 2]}
    rows = [{"student": f"s{number}", "recent": recent} for number in range(61)]
    charts = [Chart("x", kind, "recent") for kind in ("heatmap", "line")]
    assert [chart.drawing(rows).kind for chart in charts] == ["spread", "line"]
    assert [chart.drawing(rows[:60]).kind for chart in charts] == ["heatmap", "line"]
    spread, line = [chart.spec(rows) for chart in charts]
    assert spread["encoding"]["opacity"]["title"] == "learners"
    assert spread["data"]["values"][1] == {"t": 1_700_000_060_000, "until": 1_700_000_120_000, "value": 2}
    assert (len(spread["data"]["values"]), spread["width"]) == (122, line["width"])


def test_a_column_with_nothing_in_it_waits() -> None:
    """Asked for by its name it is waited for, whatever the kind, and not made up for by the other columns."""
    rows: list[dict[str, Any]] = [{"student": f"s{n}", "count": 0, "recent": None} for n in range(3)]
    for kind in ("line", "heatmap", "bar", "auto"):
        chart = Chart("x", kind, "recent")
        assert chart.drawing(rows).kind == "waiting"
        assert "waiting for events" in chart.text(rows)
    rows[0]["recent"] = {"start": 1_700_000_000, "step": 60, "values": [1]}
    assert Chart("x", "line", "recent").drawing(rows).kind == "line"


def test_learners_are_counted_in_whole_numbers() -> None:
    """There is no half a learner on an axis, and whole numbers are put together by whole steps."""
    for chart in (Chart("x", "histogram", "n"), Chart("x", "categories", "n")):
        for spec in (chart.spec([{"student": "a", "n": 1}]), chart.drawing([{"student": "a", "n": 1}]).spec):
            assert spec is not None
            axes = [spec["encoding"][name].get("axis", {}) for name in "xy" if name in spec["encoding"]]
            assert "datum.value % 1 ? ''" in str([axis.get("labelExpr") for axis in axes])
    for value, step in ((0, 1), (3.0, 1), (None, 1), (0.5, None)):
        rows: list[dict[str, Any]] = [{"student": "a", "n": 4}, {"student": "b", "n": value}]
        drawing = Chart("x", "histogram", "n").drawing(rows).spec
        assert drawing is not None
        assert drawing["encoding"]["x"]["bin"].get("minstep") == step
        assert Chart("x", "histogram", "n").spec(rows)["encoding"]["x"]["bin"].get("minstep") == step


def test_a_field_that_is_no_column_is_told() -> None:
    """Nothing is drawn in its place: chart, text and page list the columns, once there are rows."""
    chart, says = Chart("x", field="cuont"), "there is no column 'cuont'; there are: count"
    assert says in chart.problem(learners(3))
    assert says in chart.spec(learners(3))["title"]["subtitle"][-1]
    assert says in chart.text(learners(3))
    with pytest.raises(DashboardError, match="cuont"):
        chart.drawing(learners(3))
    assert not chart.problem([])
    assert chart.drawing([]).kind == "waiting"
    assert not Chart("x", field="count").problem(learners(3))


async def test_a_field_that_is_no_column_raises_in_the_cell() -> None:
    """Where there are rows, showing the chart raises, and puts nothing under the cell."""
    paper = Paper()
    displays = LiveDisplays(paper, LoopBridge(asyncio.get_running_loop()))
    with pytest.raises(DashboardError, match="there are: count"):
        displays.make("x", Chart("x", field="cuont"), Answer(3)).show()
    assert not paper.first


def test_moments_are_not_the_length_of_a_bar() -> None:
    """Where a state has a time stamp and a count, the count is drawn; a field that is asked for wins."""
    rows = [{"student": "a", "last": 1_700_000_000_000, "n": 3, "m": 9}]
    assert drawn(Chart("x").spec([*rows, *rows])) == ["a #1: 3", "a #2: 3"]
    assert drawn(Chart("x", field="m").spec([*rows, *rows]))[0] == "a #1: 9"


def test_rows_of_a_learners_documents_stay_apart() -> None:
    """Two rows of one learner get what tells them apart."""
    rows = [{"student": "a", "document": name, "n": n} for n, name in enumerate(("one", "two"), 1)]
    assert drawn(Chart("x").spec(rows)) == ["a · two: 2", "a · one: 1"]


def test_an_error_in_one_place_is_told() -> None:
    """A learner whose value is an error has a dash, and the chart says what the error is."""
    broken = {"student": "b", "count": {"error": "no such key", "function": "select", "traceback": "..."}}
    spec = Chart("x").spec([{"student": "a", "count": 3}, broken])
    assert drawn(spec) == ["a: 3", "b: –"]
    assert "no such key" in spec["title"]["subtitle"][-1]


def test_a_template_gets_the_rows() -> None:
    """A Vega-Lite specification of one's own is kept, its data are the rows, and it is not changed."""
    template = {"mark": "point", "encoding": {"x": {"field": "count"}}, "data": {"values": []}}
    spec = Chart("x", template=template).spec(learners(1, 2))
    assert spec["mark"] == "point"
    assert [row["count"] for row in spec["data"]["values"]] == [1, 2]
    assert template["data"] == {"values": []}


def test_the_colour_is_legible_on_light_and_dark() -> None:
    """Bars have a contrast of 3:1 (WCAG, graphics) against the grounds of both themes."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for ground in ("#ffffff", "#333333", "#111111"):
        lighter, darker = sorted([luminance(COLOUR), luminance(ground)], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_text_says_the_same() -> None:
    """A console sees a table of the same rows, in the same order, with bars of blocks."""
    text = Chart("event_count").text(learners(2, None, 8), subtitle="3 learners")
    lines = [line.split() for line in text.splitlines()]
    assert lines[:2] == [["event_count"], ["3", "learners"]]
    assert [line[:2] for line in lines[4:]] == [["sim-03", "8"], ["sim-01", "2"], ["sim-02", "–"]]
    assert len(lines[4][2]) == 4 * len(lines[5][2])


def test_what_is_no_number_is_no_value() -> None:
    """NaN and infinity are drawn and printed as nothing is, on a page and in a text alike."""
    given, rows = learners(2.5, None, 8.0), learners(2.5, float("nan"), 8.0)
    for kind in get_args(Kind):
        chart = Chart("x", kind=kind)
        assert json.dumps(chart.spec(rows)) == json.dumps(chart.spec(given))
        assert chart.text(rows) == chart.text(given)
        assert chart.drawing(rows) == chart.drawing(given)
    assert Chart("x").drawing(learners(float("inf"), float("-inf"))).kind == "waiting"


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
answers = st.lists(
    st.dictionaries(
        st.sampled_from(["student", "user_id", "a", "b", "error", "function"]) | st.text(), values
    )
    | st.fixed_dictionaries(
        {"student": st.text(), "state": st.dictionaries(st.text(), values | st.lists(values))}
    )
)


@given(rows=answers, kind=st.sampled_from(["auto", "bar", "histogram", "categories", "number", "table"]))
@tries(max_examples=150, deadline=None)
def test_any_answer_can_be_drawn(rows: list[dict[str, Any]], kind: Kind) -> None:
    """Whatever the rows hold, there is a specification of JSON and a text, and the rows are as they were."""
    before = json.dumps(rows)
    assert json.dumps(Chart("x", kind=kind).spec(rows))
    assert Chart("x", kind=kind).text(rows)
    assert json.dumps(rows) == before
    assert len(table_of(rows)) == len(rows)


def test_an_unknown_kind_raises() -> None:
    """A kind that isn't one names those that are."""
    with pytest.raises(ValueError, match=r"auto, bar, .*, number, table, text, got 'pie'"):
        Chart("x", kind="pie")  # type: ignore[arg-type]


# -- how it is shown -------------------------------------------------------------------------


async def test_the_first_display_holds_the_answer() -> None:
    """The first bundle is the answer as it is, without PNG or HTML, and says of when it is and where."""
    paper, answer = Paper(), Answer(3, 1)
    _, chart = make(paper, answer)
    chart.show()
    assert len(paper.first) == 1
    assert set(paper.first[0]) == {MIME, PLAIN}
    assert drawn(paper.first[0][MIME]) == ["sim-01: 3", "sim-02: 1"]
    (second,) = paper.first[0][MIME]["title"]["subtitle"]
    assert re.fullmatch(r"2 learners · as of \d\d:\d\d:\d\d · http://127.0.0.1:9999/", second)
    chart.stop()


async def test_it_changes_in_place() -> None:
    """A change gives an update of the same display, under the cell that showed it, with a placeholder PNG."""
    paper, answer = Paper(), Answer(3, 1)
    _, chart = make(paper, answer)
    chart.show()
    await auntil(lambda: answer.listeners)
    paper.running = "cell 7"
    answer.change(3, 5)
    await auntil(lambda: paper.later)
    _, cell, bundle = paper.later[0]
    assert (cell, set(bundle)) == ("cell 1", {MIME, PLAIN, PNG})
    assert drawn(bundle[MIME]) == ["sim-02: 5", "sim-01: 3"]
    assert paper.ids == {"lo-chart-event_count-1"}
    chart.stop()


async def test_updates_keep_their_distance_and_only_tell_news() -> None:
    """However often the answer changes, updates are an interval apart; nothing is sent twice."""
    paper, answer = Paper(), Answer(0)
    _, chart = make(paper, answer, interval=0.1)
    chart.show()
    await auntil(lambda: answer.listeners)
    for number in range(1, 300):
        answer.change(number)
        await asyncio.sleep(0.001)
    await auntil(lambda: drawn(paper.last[MIME]) == ["sim-01: 299"])
    times = [at for at, _, _ in paper.later]
    assert all(later - earlier > 0.095 for earlier, later in pairwise(times))
    sent, asked = len(paper.later), answer.asked
    answer.change(299)
    await auntil(lambda: answer.asked > asked)
    assert len(paper.later) == sent
    chart.stop()


async def test_stop_leaves_a_true_picture() -> None:
    """The last update has no placeholder, so that the front end draws the picture; nothing follows."""
    paper, answer = Paper(), Answer(1)
    _, chart = make(paper, answer)
    chart.show()
    await auntil(lambda: answer.listeners)
    chart.stop()
    assert set(paper.last) == {MIME, PLAIN}
    assert "stopped at" in paper.last[MIME]["title"]["subtitle"][0]
    await auntil(lambda: not answer.listeners)
    answer.change(2)
    chart.stop()
    await asyncio.sleep(0)
    assert len(paper.later) == 1
    assert not chart.live


async def test_running_the_cell_again_stops_the_one_before() -> None:
    """Of two charts with one id the newer publishes; the older's output says so, and stays as it was."""
    paper, answer = Paper(), Answer(1)
    displays, older = make(paper, answer)
    older.show()
    await auntil(lambda: answer.listeners)
    paper.running = "cell 2"
    newer = another(displays, answer)
    newer.show()
    assert not older.live
    await auntil(lambda: len(answer.listeners) == 1)
    answer.change(2)
    await auntil(lambda: len(paper.later) == 2)
    (_, first, goodbye), (_, second, _) = paper.later
    assert (first, second) == ("cell 1", "cell 2")
    assert "replaced by a newer one at" in goodbye[PLAIN]
    assert drawn(goodbye[MIME]) == ["sim-01: 1"]
    assert paper.ids == {"lo-chart-event_count-1", "lo-chart-event_count-2"}
    assert (older.updates, len(paper.first)) == (1, 2)
    assert displays.shown["event_count"] is newer
    displays.close()


async def test_an_hour_without_change_ends_it() -> None:
    """Where nothing changes for the idle time, it stops by itself, and says why."""
    paper, answer = Paper(), Answer(1)
    _, chart = make(paper, answer, idle=0.2)
    chart.show()
    await auntil(lambda: not chart.live)
    assert "no change for" in paper.last[MIME]["title"]["subtitle"][0]
    assert PNG not in paper.last
    await auntil(lambda: not answer.listeners)


async def test_an_answer_that_takes_time_follows() -> None:
    """Where the answer is not there at once, the first display says so, and the update brings it."""
    paper, answer = Paper(), Answer(4)
    answer.wait = asyncio.Event()
    _, chart = make(paper, answer)
    chart.show()
    assert "waiting for events" in paper.first[0][PLAIN]
    answer.wait.set()
    await auntil(lambda: paper.later)
    assert drawn(paper.last[MIME]) == ["sim-01: 4"]
    chart.stop()


async def test_settled_is_the_answer_of_now() -> None:
    """After `settled` the display holds the answer of now, sent under the running cell, to be saved."""
    paper, answer = Paper(), Answer(1)
    _, chart = make(paper, answer)
    await chart.settled()
    assert drawn(paper.first[0][MIME]) == ["sim-01: 1"], "shown by `settled` where it wasn't yet"
    await auntil(lambda: answer.listeners)
    paper.running = "cell 2"
    answer.change(2)
    await chart.settled()
    assert drawn(paper.last[MIME]) == ["sim-01: 2"]
    assert PNG not in paper.last
    assert paper.later[-1][1] == "cell 2"
    answer.change(3)
    await auntil(lambda: drawn(paper.last[MIME]) == ["sim-01: 3"])
    assert PNG in paper.last, "it goes on"
    chart.stop()
    await chart.settled()
    assert not chart.live


async def test_settled_gives_up_in_time() -> None:
    """`settled` does not wait for ever for an answer that never comes."""
    paper, answer = Paper(), Answer(1)
    answer.wait = asyncio.Event()
    _, chart = make(paper, answer)
    chart.show()
    with pytest.raises(TimeoutError):
        await chart.settled(timeout=0.1)
    answer.wait.set()
    chart.stop()


async def test_an_error_is_shown_and_it_goes_on() -> None:
    """An answer that fails is told in chart and log, what was drawn stays, and the next one is drawn."""
    paper, answer, told = Paper(), Answer(5), list[tuple[str, Exception]]()
    displays = LiveDisplays(paper, LoopBridge(asyncio.get_running_loop()), lambda *entry: told.append(entry))
    chart = another(displays, answer)
    chart.show()
    await auntil(lambda: answer.listeners)
    answer.error = RuntimeError("no such field")
    answer.change(6)
    await auntil(lambda: paper.later)
    assert drawn(paper.last[MIME]) == ["sim-01: 5"]
    assert "RuntimeError: no such field" in paper.last[MIME]["title"]["subtitle"][1]
    assert (told[0][0], str(told[0][1])) == ("event_count", "no such field")
    answer.error = None
    answer.change(7)
    await auntil(lambda: drawn(paper.last[MIME]) == ["sim-01: 7"])
    chart.stop()
    with pytest.raises(RuntimeError, match="from the start"):
        another(displays, _failing("from the start")).show()


async def test_an_answer_that_can_not_be_drawn_is_said_and_it_goes_on() -> None:
    """A chart that fails over some rows is told in chart and log; it shows what it drew, then what it can."""
    paper, answer, told = Paper(), Answer(5), list[tuple[str, Exception]]()
    displays = LiveDisplays(paper, LoopBridge(asyncio.get_running_loop()), lambda *entry: told.append(entry))
    chart = LiveDisplay(displays, "picky", _Picky("event_count"), answer, interval=0.01)
    chart.show()
    await auntil(lambda: answer.listeners)
    answer.change(13)
    await auntil(lambda: paper.later)
    assert drawn(paper.last[MIME]) == ["sim-01: 5"]
    assert "ValueError: thirteen" in paper.last[MIME]["title"]["subtitle"][1]
    assert [(name, str(error)) for name, error in told] == [("picky", "thirteen")]
    answer.change(14)
    await auntil(lambda: drawn(paper.last[MIME]) == ["sim-01: 14"])
    assert chart.live
    chart.stop()


class _Picky(Chart):
    """A chart that can't draw every number."""

    def counted(self, rows: Sequence[Row]) -> str:
        """Raise over a thirteen."""
        if 13 in rows[0].values():
            raise ValueError("thirteen")
        return super().counted(rows)


def _failing(message: str) -> Answer:
    answer = Answer()
    answer.error = RuntimeError(message)
    return answer


async def test_an_app_on_a_thread_of_its_own() -> None:
    """The first display has the app's answer; updates come from its thread, also while a cell is busy."""
    paper, answer = Paper(), Answer(1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="app")
    thread.start()
    try:
        displays = LiveDisplays(paper, LoopBridge(loop))
        chart = another(displays, answer)
        chart.show()
        assert drawn(paper.first[0][MIME]) == ["sim-01: 1"]
        await auntil(lambda: answer.listeners)
        loop.call_soon_threadsafe(answer.change, 2)
        seen = threading.Event()
        while not paper.later:  # a busy cell: this loop does not turn
            seen.wait(0.01)
        assert paper.threads == {"app"}
        await chart.settled()
        chart.stop()
        await auntil(lambda: not answer.listeners)
        assert PNG not in paper.last
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_table_panel_says_how_many_rows_it_leaves_out() -> None:
    """A long class isn't cut off without a word."""

    def last_row(learners: int) -> list[str]:
        names = tuple(f"u{number}" for number in range(learners))
        rows = columns_of_text(Table(None, names, names, {"n": tuple(range(learners))}), ["n"])["data"][
            "values"
        ]
        return [text.strip() for text in rows[-1]["row"].split("\t")]

    assert last_row(40) == ["u39", "39"]
    assert last_row(1062) == ["… 1,022 more", ""]
