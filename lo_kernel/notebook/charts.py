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

from lo_kernel.notebook.chart_data import Row, Table, table_of, text_table

__all__ = ["COLOUR", "MIME", "Chart", "Kind", "Spec"]

MIME = "application/vnd.vegalite.v5+json"
COLOUR = "#5b8fd6"  # 3:1 or more against white and against the backgrounds of dark themes

Kind: TypeAlias = Literal["auto", "bar", "histogram", "categories", "number", "table"]
Spec: TypeAlias = dict[str, Any]

_WIDTH = 600
_STEP = 17  # pixels per row: 30 learners fit on a screen
_MANY = 60  # rows above which one bar for each can't be read, and their distribution is shown
_TABLE_ROWS = 40

# What the guides' theme colours hold for, so that text of a mark is white where theirs is.
_AS_LABEL = {"style": "guide-label", "fontSize": 12}


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
    >>> spec["title"]["text"], spec["data"]["values"]
    ('event_count', [{'learner': 'ann', 'value': 3, 'id': 'tc-testcase-ann'}])
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
            return _frame(self.title, lines) | _waiting()
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
            return "\n".join([*filter(None, lines), "no answer yet: waiting for events"])
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
                "frame": "group",
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
    rows = [
        {"learner": table.labels[index], "value": values[index], "id": table.names[index]}
        for index in _by_value(table, field)
    ]
    y = {"field": "learner", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}}
    x = {"field": "value", "type": "quantitative", "title": field, "axis": {"tickCount": 6}}
    tooltip = [
        {"field": "id", "type": "nominal", "title": table.who or "row"},
        {"field": "value", "type": "quantitative", "title": field, "format": ",~g"},
    ]
    # In place of a missing number stands a dash: "has written nothing yet" and "0" are different things.
    label = {"condition": {"test": "datum.value === null", "value": "–"}, **_number_format("value")}
    return _data(rows) | {
        "height": {"step": _STEP if len(rows) <= _MANY else 13},
        "encoding": {"y": y, "tooltip": tooltip},
        "layer": [
            {
                "mark": {"type": "bar", "color": COLOUR, "height": {"band": 0.78}, "cornerRadiusEnd": 2},
                "encoding": {"x": x},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 5, **_AS_LABEL, "aria": False},
                "encoding": {"x": x, "text": label},
            },
        ],
    }


def _number_format(field: str) -> Spec:
    return {"field": field, "type": "quantitative", "format": ",.5~g"}


def _histogram(table: Table, field: str) -> Spec:
    rows = [{"value": value} for value in table.columns[field] if value is not None]
    binned = {"field": "value", "bin": {"maxbins": 24}, "type": "quantitative", "title": field}
    number = {"aggregate": "count", "type": "quantitative", "title": "learners" if table.who else "rows"}
    return _data(rows) | {
        "height": 280,
        "mark": {"type": "bar", "color": COLOUR, "cornerRadiusEnd": 2},
        "encoding": {
            "x": binned,
            "y": {**number, "axis": {"grid": True, "gridOpacity": 0.35}},
            "tooltip": [binned, number],
        },
    }


def _categories(table: Table, field: str) -> Spec:
    counts = Counter(_word(value) for value in table.columns[field])
    rows = [{"category": word, "count": number} for word, number in counts.most_common()]
    y = {"field": "category", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    number = "learners" if table.who else "rows"
    x = {
        "field": "count",
        "type": "quantitative",
        "title": number,
        "axis": {"tickMinStep": 1, "tickCount": 6},
    }
    return _data(rows) | {
        "height": {"step": 28},
        "encoding": {
            "y": y,
            "x": x,
            "tooltip": [{"field": "category", "title": field}, {"field": "count", "title": number}],
        },
        "layer": [
            {"mark": {"type": "bar", "color": COLOUR, "height": {"band": 0.72}, "cornerRadiusEnd": 2}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, **_AS_LABEL, "aria": False},
                "encoding": {"text": {"field": "count", "type": "quantitative"}},
            },
        ],
    }


def _number(table: Table, field: str) -> Spec:
    return _data([{"value": table.columns[field][0]}]) | {
        "height": 84,
        "layer": [
            {
                "mark": {"type": "text", **_AS_LABEL, "fontSize": 52, "align": "left", "x": 0, "y": 34},
                "encoding": {"text": {"field": "value", "type": "quantitative", "format": ",.6~g"}},
            },
            {
                "mark": {"type": "text", **_AS_LABEL, "text": field, "align": "left", "x": 2, "y": 76},
            },
        ],
    }


def _table(table: Table) -> Spec:
    """Texts as a table of text marks, so that the output stays one that changes in place."""
    columns = list(table.columns)[:6]
    rows = [
        {"row": table.labels[index], "column": name, "text": _clipped(_word(table.columns[name][index]))}
        for index in range(min(len(table), _TABLE_ROWS))
        for name in columns
    ]
    return _data(rows) | {
        "height": {"step": 20},
        "mark": {
            "type": "text",
            "align": "left",
            "limit": _WIDTH / max(1, len(columns)) - 10,
            **_AS_LABEL,
        },
        "encoding": {
            "y": {
                "field": "row",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 180},
            },
            "x": {
                "field": "column",
                "type": "nominal",
                "sort": None,
                "title": None,
                "bandPosition": 0,
                "axis": {
                    "orient": "top",
                    "labelAngle": 0,
                    "labelAlign": "left",
                    "labelPadding": 4,
                    "bandPosition": 0,
                },
            },
            "text": {"field": "text"},
            "tooltip": [
                {"field": "row", "title": table.who or "row"},
                {"field": "column"},
                {"field": "text"},
            ],
        },
    }


def _waiting() -> Spec:
    return _data([{}]) | {
        "height": 60,
        "mark": {
            "type": "text",
            **_AS_LABEL,
            "fontSize": 14,
            "text": "No answer yet: waiting for events",
            "align": "left",
            "x": 0,
            "y": 20,
        },
    }


def _word(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _clipped(text: str, limit: int = 110) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
