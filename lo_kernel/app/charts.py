"""A chart as data: rows in, a small Vega-Lite v5 specification out.

Nothing here knows of kernels or pages. A specification holds no background and no colour of text, so that
the theme of whoever draws it (JupyterLab's light or dark one, the page's) decides them; what it fixes is
legible on both. Two things were measured in JupyterLab 4.6 and shape what is written here: its Vega-Lite is
5.6, and a ``width`` of ``"container"`` is 0 pixels there and hangs the page when it makes the picture for
the document.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from lo_kernel.app.chart_data import Row, Table, Value, table_of, text_table

__all__ = ["COLOUR", "MIME", "Chart", "Kind", "Spec"]

MIME = "application/vnd.vegalite.v5+json"
COLOUR = "#5b8fd6"  # 3:1 or more against white and against the backgrounds of dark themes

Kind: TypeAlias = Literal["auto", "bar", "histogram", "categories", "number", "table"]
Spec: TypeAlias = dict[str, Any]

_WIDTH = 600
_STEP = 17  # pixels per row: 30 learners fit on a screen
_MANY = 60  # rows above which one bar for each can't be read, and their distribution is shown
_TABLE_ROWS = 40
_WAITING = "No answer yet: waiting for events."

# Between what a row's axes show: each axis labels the row with its own part of the key.
_PART = "\t"
_NOTHING = {
    "mark": {"type": "point", "size": 0, "opacity": 0, "aria": False}
}  # a layer that is only its axis


@dataclass(frozen=True, slots=True)
class Chart:
    """How an answer is drawn.

    ``kind`` is one of ``auto``, ``bar``, ``histogram``, ``categories``, ``number`` and ``table``; ``auto``
    looks at each answer: numbers per learner are bars (their distribution for more than 60 learners), a
    single number is shown large, words are counted, texts are a table. ``field`` is the column to show, by
    its dotted path; ``None``: the first that fits. ``template`` is a Vega-Lite specification of one's own,
    which gets the rows as its data.

    >>> chart = Chart(title="event_count")
    >>> spec = chart.spec([{"user_id": "tc-testcase-ann", "count": 3}], subtitle="1 learner")
    >>> spec["title"]["text"], spec["data"]["values"][0]["said"]
    ('event_count', 'ann: 3')
    """

    title: str
    kind: Kind = "auto"
    field: str | None = None
    template: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"chart: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}")

    def spec(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> Spec:
        """The specification for these rows. JSON values only; ``rows`` are not changed."""
        table = table_of(rows)
        lines = [subtitle] if isinstance(subtitle, str) else list(subtitle)
        if table.errors:
            lines.append(_clipped(f"error for {table.errors[0]}"))
        if self.template is not None:
            return (
                _frame(self.title, lines) | copy.deepcopy(dict(self.template)) | _data(list(map(dict, rows)))
            )
        kind, field = self._choose(table)
        if kind == "waiting":
            return _frame(self.title, [*lines, _WAITING]) | _data([{}]) | {"height": 1} | _NOTHING
        if field is None:
            body = _table(table)
        elif kind == "bar":
            body = _bars(table, field)
        elif kind == "histogram":
            body = _histogram(table, field)
        elif kind == "number":
            body = _number(table, field)
        else:
            body = _categories(table, field)
        return _frame(self.title, lines) | body

    def text(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> str:
        """The same as a text table, for a console and for whoever reads the notebook without JupyterLab."""
        table = table_of(rows)
        lines = [self.title, *([subtitle] if isinstance(subtitle, str) else subtitle)]
        kind, field = self._choose(table)
        if kind == "waiting":
            return "\n".join([*filter(None, lines), _WAITING])
        columns = [field] if field is not None else list(table.columns)
        if kind == "bar" and field is not None:
            order = _by_value(table, field)
            table = table_of([rows[index] for index in order])
        bar = field if kind in ("bar", "histogram") else None
        return "\n".join([*filter(None, lines), "", text_table(table, columns, bar=bar)])

    def _choose(self, table: Table) -> tuple[str, str | None]:
        """What to draw, and which column (``None``: all of them)."""
        if not table.columns or all(value is None for each in table.columns.values() for value in each):
            return "waiting", None
        if self.field is not None and self.field in table.columns:
            numbers = [self.field] if self.field in table.numeric else []
            words = [] if numbers else [self.field]
        else:
            numbers, words = table.numeric, table.categorical
        kind: str = self.kind
        if kind == "auto" and numbers:
            one = len(table) == 1 and table.who is None
            kind = "number" if one else "histogram" if len(table) > _MANY else "bar"
        elif kind == "auto":
            kind = "categories" if words else "table"
        if kind == "table":
            return kind, None
        fitting = numbers if kind != "categories" else words or numbers
        return (kind, fitting[0]) if fitting else ("table", None)


def _frame(title: str, lines: Sequence[str]) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        # SVG: text can be read by a screen reader, and the picture is sharp at every zoom. No link to an
        # editor: it would send the data to another site.
        "usermeta": {
            "embedOptions": {
                "renderer": "svg",
                "actions": {"export": True, "source": False, "compiled": False, "editor": False},
            }
        },
        "title": {"text": title, "subtitle": [line for line in lines if line]},
        "padding": 12,
        "width": _WIDTH,
        "config": {
            "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
            "title": {
                "anchor": "start",
                "frame": "bounds",
                "fontSize": 16,
                "subtitleFontSize": 12,
                "subtitlePadding": 5,
                "subtitleLineHeight": 16,
                "offset": 14,
            },
            "axis": {
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "labelPadding": 6,
            },
            "axisX": {"gridOpacity": 0.35, "domain": False, "ticks": False, "titlePadding": 8},
            "axisY": {"grid": False, "domain": False, "ticks": False},
            "view": {"stroke": None},
            "mark": {"invalid": None},  # a learner without a number keeps a place in the chart
        },
    }


def _data(values: list[dict[str, Any]]) -> Spec:
    return {"data": {"name": "rows", "values": values}}


def _by_value(table: Table, field: str) -> list[int]:
    """Rows, the largest number first; equal ones by name; those without a number last."""
    values = table.columns[field]

    def rank(index: int) -> tuple[bool, float, str]:
        value = values[index]
        return value is None, -float(value) if isinstance(value, int | float) else 0.0, table.labels[index]

    return sorted(range(len(table)), key=rank)


def _bars(table: Table, field: str) -> Spec:
    values = table.columns[field]
    rows = []
    for index in _by_value(table, field):
        said = _figure(values[index])
        rows.append(
            {
                "row": f"{table.labels[index]}{_PART}{said}",
                "value": values[index],
                "id": table.names[index],
                "said": f"{table.labels[index]}: {said}",
            }
        )
    tooltip = [
        {"field": "id", "type": "nominal", "title": table.who or "row"},
        {"field": "value", "type": "quantitative", "title": field, "format": ",~r"},
    ]
    x = {"field": "value", "type": "quantitative", "title": field, "axis": {"tickCount": 6}}
    step = _STEP if len(rows) <= _MANY else 13
    return _data(rows) | _labelled_bars(rows, x, tooltip, step)


def _categories(table: Table, field: str) -> Spec:
    counts = Counter(_figure(value) for value in table.columns[field])
    rows = [
        {"row": f"{word}{_PART}{number}", "value": number, "id": word, "said": f"{word}: {number}"}
        for word, number in counts.most_common()
    ]
    counted = "learners" if table.who else "rows"
    x = {
        "field": "value",
        "type": "quantitative",
        "title": counted,
        "axis": {"tickMinStep": 1, "tickCount": 6},
    }
    return _data(rows) | _labelled_bars(
        rows, x, [{"field": "id", "title": field}, {"field": "value", "title": counted}], 28
    )


def _labelled_bars(rows: list[dict[str, Any]], x: Spec, tooltip: list[Spec], step: int) -> Spec:
    """Bars with their names on the left and their figures, in a column, on the right."""
    widest = max((len(row["row"].split(_PART)[1]) for row in rows), default=1)
    bar = {"type": "bar", "color": COLOUR, "height": {"band": 0.78}, "cornerRadiusEnd": 2}
    return {
        "height": {"step": step},
        "encoding": {"x": x},
        "layer": [
            {
                "mark": bar,
                "encoding": {
                    "y": _axis(0, labelLimit=260),
                    "tooltip": tooltip,
                    # What a screen reader says for the bar.
                    "description": {"field": "said", "type": "nominal"},
                },
            },
            {
                **_NOTHING,
                "encoding": {"y": _axis(1, orient="right", labelAlign="right", labelPadding=8 + 7 * widest)},
            },
        ],
        "resolve": {"axis": {"y": "independent"}},
    }


def _histogram(table: Table, field: str) -> Spec:
    rows = [{"value": value} for value in table.columns[field] if value is not None]
    binned = {"field": "value", "bin": {"maxbins": 24}, "type": "quantitative", "title": field}
    number = {"aggregate": "count", "type": "quantitative", "title": "learners" if table.who else "rows"}
    return _data(rows) | {
        "height": 280,
        "mark": {"type": "bar", "color": COLOUR, "cornerRadiusEnd": 2},
        "encoding": {
            "x": {**binned, "axis": {"grid": False}},
            "y": {**number, "axis": {"grid": True, "gridOpacity": 0.35, "tickMinStep": 1}},
            "tooltip": [binned, number],
        },
    }


def _number(table: Table, field: str) -> Spec:
    row = {"row": f"{_PART}{_figure(table.columns[field][0])}"}
    large = _axis(1, orient="right", offset=-_WIDTH, labelAlign="left", labelFontSize=52, labelLimit=_WIDTH)
    large["axis"] |= {"title": field, "titleAngle": 0, "titleAlign": "left", "titleX": 8, "titleY": 84}
    return _data([row]) | {"height": 76} | _NOTHING | {"encoding": {"y": large}}


def _table(table: Table) -> Spec:
    """Texts in columns: the labels of one axis each, so that the output stays one that changes in place."""
    columns = list(table.columns)[:6]
    rows = []
    for index in range(min(len(table), _TABLE_ROWS)):
        cells = [table.labels[index], *(_clipped(_figure(table.columns[name][index])) for name in columns)]
        rows.append({"row": _PART.join(cells)})
    wide = _WIDTH // max(1, len(columns))
    layers = [{**_NOTHING, "encoding": {"y": _axis(0, labelLimit=180)}}]
    for number, name in enumerate(columns):
        column = _axis(
            number + 1, orient="right", offset=wide * number - _WIDTH, labelAlign="left", labelLimit=wide - 12
        )
        column["axis"] |= {
            "title": name,
            "titleAngle": 0,
            "titleAlign": "left",
            "titleX": 6,
            "titleY": -10,
            "titleFontWeight": "bold",
        }
        layers.append({**_NOTHING, "encoding": {"y": column}})
    height = {"height": {"step": 20}, "resolve": {"axis": {"y": "independent"}}}
    return _data(rows) | height | {"layer": layers}


def _axis(part: int, **options: Any) -> Spec:
    """The vertical channel of rows, with an axis whose labels are one part of each row's key."""
    label = f"split(datum.label, '\\t')[{part}]"
    return {
        "field": "row",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelExpr": label, **options},
    }


def _figure(value: Value) -> str:
    """A value as a person reads it; what is not there is a dash, which is not the same as 0."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value.replace(_PART, " ")


def _clipped(text: str, limit: int = 110) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
