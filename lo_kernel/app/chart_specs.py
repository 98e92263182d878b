"""What a chart in a notebook consists of: specifications with their rows in them.

A specification holds no background and no colour of text, so that the theme of whoever draws it (JupyterLab's
light or dark one) decides them; what it fixes is legible on both. Two things were measured in JupyterLab 4.6
and shape what is written here: its Vega-Lite is 5.6, and a ``width`` of ``"container"`` is 0 pixels there and
hangs the page when it makes the picture for the document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from lo_kernel.app import templates
from lo_kernel.app.chart_data import Table, Value
from lo_kernel.app.templates import COLOUR, COUNTING, MANY, Spec

__all__ = [
    "LABEL",
    "NOTHING",
    "WIDTH",
    "bars",
    "beside",
    "by_value",
    "categories",
    "clipped",
    "columns_of_text",
    "data",
    "figure",
    "frame",
    "histogram",
    "number",
    "over_time",
    "spread",
]

WIDTH: Final = 600
LABEL: Final = 150  # pixels of a learner's name at most; the whole of it is in the tooltip
_BESIDE = 80  # pixels beside a plot of its full width: short names, and figures of three digits
_LETTER = 7  # pixels of a letter or a digit, about
_STEP = 17  # pixels per row: 30 learners fit on a screen
_TABLE_ROWS = 40

# Between what a row's axes show: each axis labels the row with its own part of the key.
_PART = "\t"
# A layer that is only its axis.
NOTHING: Final[Spec] = {"mark": {"type": "point", "size": 0, "opacity": 0, "aria": False}}


def over_time(table: Table, field: str) -> list[dict[str, Any]]:
    """A row for each learner and moment, as the templates want them; times in milliseconds."""
    column = table.series[field]
    totals = [sum(number for _, number in series or ()) for series in column]
    ranks = {index: rank for rank, index in enumerate(sorted(range(len(table)), key=lambda i: -totals[i]))}
    found = []
    for index, series in enumerate(column):
        times = [time for time, _ in series or ()]
        step = min((later - time for time, later in pairwise(times) if later > time), default=60.0)
        for time, number in series or ():
            row = {
                "label": table.labels[index],
                "rank": ranks[index],
                "t": round(time * 1000),
                "until": round((time + step) * 1000),
                "value": number,
                "said": f"{table.labels[index]}: {figure(number)}",
            }
            found.append(row)
    return found


def spread(table: Table, field: str) -> list[dict[str, Any]]:
    """The same rows without who it is, for many learners."""
    names = ("t", "until", "value")
    return [{name: row[name] for name in names} for row in over_time(table, field)]


def frame(title: str, lines: Sequence[str], width: int = WIDTH) -> Spec:
    """Title, lines below it, and what all charts have in common."""
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
        "width": width,
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


def beside(width: int, labels: Sequence[str], figures: int = 0) -> int:
    """The width of a plot that fits below a cell together with its labels, and figures of so many digits.

    A front end cuts off what is too wide. Its own way to fit a chart is not for several in one picture.

    >>> beside(600, ["ann"]), beside(600, ["xapi-c687b789422659204471a16f79415"])
    (600, 524)
    """
    label = min(LABEL, _LETTER * max(map(len, labels), default=0)) + 6
    return width - max(0, label + (8 + _LETTER * figures if figures else 0) - _BESIDE)


def data(values: list[dict[str, Any]]) -> Spec:
    """The rows, as named data."""
    return {"data": {"name": "rows", "values": values}}


def by_value(table: Table, field: str) -> list[int]:
    """Rows, the largest number first; equal ones by name; those without a number last."""
    values = table.columns[field]

    def rank(index: int) -> tuple[bool, float, str]:
        value = values[index]
        return value is None, -float(value) if isinstance(value, int | float) else 0.0, table.labels[index]

    return sorted(range(len(table)), key=rank)


def bars(table: Table, field: str, label: str, width: int = WIDTH) -> Spec:
    """A bar for each row, the largest first."""
    values = table.columns[field]
    rows = []
    for index in by_value(table, field):
        said = figure(values[index])
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
        {"field": "value", "type": "quantitative", "title": label, "format": ",~r"},
    ]
    x = {"field": "value", "type": "quantitative", "title": label, "axis": {"tickCount": 6}}
    step = _STEP if len(rows) <= MANY else 13
    return data(rows) | _labelled_bars(rows, x, tooltip, step, width)


def categories(table: Table, field: str, label: str, width: int = WIDTH) -> Spec:
    """How often each word occurs."""
    counts = Counter(figure(value) for value in table.columns[field])
    rows = [
        {"row": f"{word}{_PART}{number}", "value": number, "id": word, "said": f"{word}: {number}"}
        for word, number in counts.most_common()
    ]
    counted = "learners" if table.who else "rows"
    x = {
        "field": "value",
        "type": "quantitative",
        "title": counted,
        "axis": {"tickCount": 6, **COUNTING},
    }
    return data(rows) | _labelled_bars(
        rows, x, [{"field": "id", "title": label}, {"field": "value", "title": counted}], 28, width
    )


def _labelled_bars(rows: list[dict[str, Any]], x: Spec, tooltip: list[Spec], step: int, width: int) -> Spec:
    """Bars with their names on the left and their figures, in a column, on the right."""
    cells = [row["row"].split(_PART) for row in rows]
    widest = max((len(cell[1]) for cell in cells), default=1)
    figures = _axis(1, orient="right", labelAlign="right", labelPadding=8 + _LETTER * widest)
    bar = {"type": "bar", "color": COLOUR, "height": {"band": 0.78}, "cornerRadiusEnd": 2}
    return {
        "width": beside(width, [cell[0] for cell in cells], widest),
        "height": {"step": step},
        "encoding": {"x": x},
        "layer": [
            {
                "mark": bar,
                "encoding": {
                    "y": _axis(0, labelLimit=LABEL),
                    "tooltip": tooltip,
                    # What a screen reader says for the bar.
                    "description": {"field": "said", "type": "nominal"},
                },
            },
            {**NOTHING, "encoding": {"y": figures}},
        ],
        "resolve": {"axis": {"y": "independent"}},
    }


def histogram(table: Table, field: str, label: str) -> Spec:
    """How the numbers are distributed."""
    rows = [{"value": value} for value in table.columns[field] if value is not None]
    template = templates.histogram(label, "learners" if table.who else "rows", whole=table.whole(field))
    return data(rows) | template | {"height": 280}


def number(table: Table, field: str, label: str, width: int = WIDTH) -> Spec:
    """One number, large; of several rows, their sum."""
    values = [value for value in table.columns[field] if isinstance(value, int | float)]
    shown = table.columns[field][0] if len(table) == 1 else sum(values)
    row = {"row": f"{_PART}{figure(shown)}"}
    large = _axis(1, orient="right", offset=-width, labelAlign="left", labelFontSize=52, labelLimit=width)
    large["axis"] |= {"title": label, "titleAngle": 0, "titleAlign": "left", "titleX": 8, "titleY": 84}
    return data([row]) | {"height": 76} | NOTHING | {"encoding": {"y": large}}


def columns_of_text(table: Table, columns: Sequence[str], width: int = WIDTH) -> Spec:
    """Texts in columns: the labels of one axis each, so that the output stays one that changes in place."""
    rows = []
    for index in range(min(len(table), _TABLE_ROWS)):
        cells = [table.labels[index], *(clipped(figure(table.columns[name][index])) for name in columns)]
        rows.append({"row": _PART.join(cells)})
    if len(table) > _TABLE_ROWS:
        rows.append({"row": _PART.join([f"… {len(table) - _TABLE_ROWS:,} more", *[""] * len(columns)])})
    wide = width // max(1, len(columns))
    layers = [{**NOTHING, "encoding": {"y": _axis(0, labelLimit=180)}}]
    for number, name in enumerate(columns):
        column = _axis(
            number + 1, orient="right", offset=wide * number - width, labelAlign="left", labelLimit=wide - 12
        )
        column["axis"] |= {
            "title": name,
            "titleAngle": 0,
            "titleAlign": "left",
            "titleX": 6,
            "titleY": -10,
            "titleFontWeight": "bold",
        }
        layers.append({**NOTHING, "encoding": {"y": column}})
    # A horizontal place that shows nothing: without any, Vega-Lite 5.6 names the width of a panel twice in a
    # grid, and draws none of it.
    place = {"x": {"datum": 0, "type": "quantitative", "axis": None}}
    height = {"height": {"step": 20}, "resolve": {"axis": {"y": "independent"}}}
    return data(rows) | height | {"encoding": place, "layer": layers}


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


def figure(value: Value) -> str:
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


def clipped(text: str, limit: int = 110) -> str:
    """One line of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
