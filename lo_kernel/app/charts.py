"""A chart as data: rows in, a small Vega-Lite v5 specification out.

A :class:`Chart` looks at an answer and decides what to draw. For a notebook it gives the whole specification,
rows included (:mod:`lo_kernel.app.chart_specs`); for a page, which keeps the rows itself, a :class:`Drawing`
with a template (:mod:`lo_kernel.app.templates`). Nothing here knows of kernels or browsers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from lo_kernel.app import chart_specs as specs
from lo_kernel.app import templates
from lo_kernel.app.chart_data import Row, Table, table_of, text_table
from lo_kernel.app.templates import COLOUR, MANY, Spec
from lo_kernel.errors import DashboardError

__all__ = ["COLOUR", "MIME", "Chart", "Drawing", "Kind", "Spec"]

MIME = "application/vnd.vegalite.v5+json"

Kind: TypeAlias = Literal[
    "auto", "bar", "histogram", "categories", "line", "heatmap", "number", "table", "text"
]

_WAITING = "No answer yet: waiting for events."


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a page has to know to draw an answer: the kind, the column, and a template over the rows.

    ``spec`` is a Vega-Lite specification over the data ``rows`` (:mod:`lo_kernel.app.templates`); ``None``
    where none is needed. ``columns`` are all columns of the answer, with what they hold.
    """

    kind: str
    field: str | None = None
    spec: Spec | None = None
    columns: tuple[Mapping[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data."""
        columns = list(map(dict, self.columns))
        return {"kind": self.kind, "field": self.field, "spec": self.spec, "columns": columns}


@dataclass(frozen=True, slots=True)
class Chart:
    """How an answer is drawn.

    ``kind`` is one of ``auto``, ``bar``, ``histogram``, ``categories``, ``line``, ``heatmap``, ``number``,
    ``table`` and ``text``; ``auto`` looks at each answer: numbers per learner are bars (their distribution
    for more than 60 learners), a single number is shown large, series over time are lines, words are
    counted, texts are a table. ``field`` is the column to show, by its dotted path; ``None``: the first that
    fits. ``label`` is how that column is called in the chart. ``template`` is a Vega-Lite specification of
    one's own, which gets the rows as its data.

    >>> chart = Chart(title="event_count")
    >>> spec = chart.spec([{"user_id": "tc-testcase-ann", "count": 3}], subtitle="1 learner")
    >>> spec["title"]["text"], spec["data"]["values"][0]["said"]
    ('event_count', 'ann: 3')
    """

    title: str
    kind: Kind = "auto"
    field: str | None = None
    template: Mapping[str, Any] | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"chart: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}")

    def spec(
        self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "", width: int = specs.WIDTH
    ) -> Spec:
        """The specification for these rows, JSON values only; ``width`` is in pixels."""
        table = table_of(rows)
        lines = [subtitle] if isinstance(subtitle, str) else list(subtitle)
        if table.errors:
            lines.append(specs.clipped(f"error for {table.errors[0]}"))
        if self.template is not None:
            return (
                specs.frame(self.title, lines, width)
                | copy.deepcopy(dict(self.template))
                | specs.data(list(map(dict, rows)))
            )
        kind, field = self._choose(table)
        lines += self._said(table, kind)
        if kind in ("waiting", "problem"):
            return specs.frame(self.title, lines, width) | specs.data([{}]) | {"height": 1} | specs.NOTHING
        label = self.label or field or ""
        if field is None or kind == "text":
            body = specs.columns_of_text(table, list(table.columns)[:6] if field is None else [field], width)
        elif kind == "bar":
            body = specs.bars(table, field, label, width)
        elif kind == "histogram":
            body = specs.histogram(table, field, label)
        elif kind == "number":
            body = specs.number(table, field, label, width)
        elif kind == "spread":
            counted = "learners" if table.who else "rows"
            body = specs.data(specs.spread(table, field)) | templates.spread(label, counted)
            body |= {"width": specs.beside(width, ())}
        elif kind in ("line", "heatmap"):
            values = specs.over_time(table, field)
            template = templates.heatmap(label) if kind == "heatmap" else templates.lines(label, len(table))
            # The names of a heat map are on its left, those of a few lines on the right, by their colours;
            # then the figures are on the left.
            names = table.labels if kind == "heatmap" or len(table) <= templates.FEW else ()
            figures = 8 if names and kind == "line" else 0
            body = specs.data(values) | template | {"width": specs.beside(width, names, figures)}
        else:
            body = specs.categories(table, field, label, width)
        return specs.frame(self.title, lines, width) | body

    def problem(self, rows: Sequence[Row]) -> str:
        """Why these rows can't be drawn: the column to show isn't one of theirs. Empty where they can.

        >>> Chart("Events", field="cuont").problem([{"student": "tc-testcase-ann", "count": 3}])
        "field: there is no column 'cuont'; there are: count"
        """
        table = table_of(rows)
        return self._missing(table) if self._choose(table)[0] == "problem" else ""

    def _said(self, table: Table, kind: str) -> list[str]:
        """What is said above the chart: why it isn't the one that was asked for."""
        if kind == "problem":
            return [self._missing(table)]
        if kind == "waiting":
            empty = self.field is not None and any(
                value is not None for each in table.columns.values() for value in each
            )
            return [
                specs.clipped(f"Nothing in {self.field!r} yet: waiting for events.") if empty else _WAITING
            ]
        if kind == "table" and self.kind in ("line", "heatmap"):
            return ["No column has numbers over time yet; this is what there is."]
        return []

    def _missing(self, table: Table) -> str:
        there = [*table.columns, *table.series]
        if self.field in there or self.field == table.who:
            return ""
        return specs.clipped(f"field: there is no column {self.field!r}; there are: {', '.join(there)}", 200)

    def counted(self, rows: Sequence[Row]) -> str:
        """How many rows there are, in words: ``"30 learners"``."""
        if not rows:
            return ""
        about_learners = all(
            any(key in row for key in ("user_id", "student", "safe_user_id")) for row in rows
        )
        noun = "learner" if about_learners else "row"
        return f"{len(rows)} {noun}{'s'[: len(rows) != 1]}"

    def drawing(self, rows: Sequence[Row]) -> Drawing:
        """How a page draws these rows: it fills in the data by itself, and goes on doing so.

        >>> drawing = Chart("Events").drawing([{"student": "tc-testcase-ann", "count": 3}])
        >>> drawing.kind, drawing.field, drawing.columns
        ('bar', 'count', ({'path': 'count', 'holds': 'number'},))
        """
        table = table_of(rows)
        columns = tuple(_columns(table))
        if self.template is not None:
            template = {
                name: value for name, value in self.template.items() if name not in ("data", "datasets")
            }
            return Drawing("template", None, copy.deepcopy(template) | {"data": {"name": "rows"}}, columns)
        kind, field = self._choose(table)
        if kind == "problem":
            raise DashboardError(self._missing(table))
        label = self.label or field or ""
        counted = "learners" if table.who else "rows"
        made: Spec | None = None
        if kind == "bar":
            made = templates.bars(label)
        elif kind == "histogram":
            made = templates.histogram(label, counted, whole=table.whole(str(field)))
        elif kind == "categories":
            made = templates.categories(label, counted)
        elif kind == "line":
            made = templates.lines(label, len(table))
        elif kind == "heatmap":
            made = templates.heatmap(label)
        elif kind == "spread":
            made = templates.spread(label, counted)
        return Drawing(kind, field, made | {"data": {"name": "rows"}} if made else None, columns)

    def text(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> str:
        """The same as a text table, for a console and for whoever reads the notebook without JupyterLab."""
        table = table_of(rows)
        lines = [self.title, *([subtitle] if isinstance(subtitle, str) else subtitle)]
        kind, field = self._choose(table)
        lines += self._said(table, kind)
        if kind in ("waiting", "problem"):
            return "\n".join(filter(None, lines))
        columns = [field] if field is not None else list(table.columns)
        if field in table.series:
            return "\n".join([*filter(None, lines), "", text_table(_latest(table, str(field)), columns)])
        if kind == "bar" and field is not None:
            order = specs.by_value(table, field)
            table = table_of([rows[index] for index in order])
        bar = field if kind in ("bar", "histogram") else None
        return "\n".join([*filter(None, lines), "", text_table(table, columns, bar=bar)])

    def _choose(self, table: Table) -> tuple[str, str | None]:
        """What to draw, and which column (``None``: all of them)."""
        if not table.series and all(value is None for each in table.columns.values() for value in each):
            return "waiting", None
        if self.template is None and self.field is not None and self._missing(table):
            return "problem", None
        shown = table.columns.get(self.field or "", ())
        if shown and self.field not in table.series and all(value is None for value in shown):
            return "waiting", None  # the column is there, and nothing in it yet
        series = [name for name in table.series if self.field in (None, name)]
        if self.kind in ("line", "heatmap"):
            # As with bars: of more rows than can be read, how they are distributed.
            drawn = "spread" if self.kind == "heatmap" and len(table) > MANY else self.kind
            return (drawn, series[0]) if series else ("table", None)
        if self.field in table.series:
            return ("heatmap" if templates.FEW < len(table) <= MANY else "line"), self.field
        if self.field is not None and self.field in table.columns:
            numbers = [self.field] if self.field in table.numeric else []
            words = [] if numbers else [self.field]
        else:
            numbers, words = table.numeric, table.categorical
        kind: str = self.kind
        if kind == "text":
            texts = [name for name in table.texts if self.field in (None, name)]
            return ("text", texts[0]) if texts else ("table", None)
        if kind == "auto" and series and not table.measures:
            return ("heatmap" if templates.FEW < len(table) <= MANY else "line"), series[0]
        if kind == "auto" and numbers:
            one = len(table) == 1 and table.who is None
            kind = "number" if one else "bar"
        elif kind == "auto":
            kind = "categories" if words else "table"
        if kind == "bar" and len(table) > MANY and (self.kind == "auto" or table.who is not None):
            kind = "histogram"
        if kind == "table":
            return kind, None
        fitting = numbers if kind != "categories" else words or numbers
        return (kind, fitting[0]) if fitting else ("table", None)


def _columns(table: Table) -> Iterator[Mapping[str, str]]:
    """The columns, with what they hold: numbers, moments (seconds since 1970), words, texts, series."""
    numeric, words, measures = set(table.numeric), set(table.categorical), set(table.measures)
    for name in table.columns:
        holds = "number" if name in measures else "moment" if name in numeric else "text"
        yield {"path": name, "holds": "word" if name in words else holds}
    for name in table.series:
        yield {"path": name, "holds": "series"}


def _latest(table: Table, field: str) -> Table:
    """The table with the newest number of a series in its column, for a console."""
    newest = tuple(series[-1][1] if series else None for series in table.series[field])
    return replace(table, columns={**table.columns, field: newest})
