"""Several charts in one picture, for a notebook: the panels of a dashboard, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lo_kernel.app import chart_specs as specs
from lo_kernel.app.chart_data import Row
from lo_kernel.app.charts import Chart
from lo_kernel.app.templates import Spec

__all__ = ["Grid", "in_panels"]

_COLUMNS: Final = 2
_WIDTH: Final = 330  # pixels of a panel without its labels: two fit below a cell
_OF_THE_WHOLE: Final = ("$schema", "usermeta", "config", "padding")


def in_panels(answers: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """The answers of several panels as rows of a :class:`Grid`, one for each panel.

    >>> in_panels([[{"n": 1}], []])
    [{'panel': 0, 'rows': [{'n': 1}]}, {'panel': 1, 'rows': []}]
    """
    return [{"panel": place, "rows": list(rows)} for place, rows in enumerate(answers)]


@dataclass(frozen=True, slots=True)
class Grid:
    """Charts under one title, two in a line; its rows are what :func:`in_panels` gives.

    >>> grid = Grid("Class", (Chart("A"), Chart("B")))
    >>> spec = grid.spec(in_panels([[{"student": "tc-testcase-ann", "n": 1}], []]))
    >>> len(spec["concat"]), spec["concat"][0]["data"]["name"]
    (2, 'rows_1')
    """

    title: str
    charts: tuple[Chart, ...]

    def spec(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> Spec:
        """The specification of the whole."""
        lines = [subtitle] if isinstance(subtitle, str) else list(subtitle)
        whole = specs.frame(self.title, lines)
        del whole["width"]
        return whole | {
            "concat": [
                _panel(chart.spec(_rows_of(rows, place), width=_WIDTH), place)
                for place, chart in enumerate(self.charts)
            ],
            "columns": _COLUMNS,
            "spacing": 28,
            "resolve": {"scale": {"color": "independent", "opacity": "independent"}},
        }

    def text(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> str:
        """The same as text, one panel after the other."""
        lines = [self.title, *([subtitle] if isinstance(subtitle, str) else subtitle)]
        panels = [chart.text(_rows_of(rows, place)) for place, chart in enumerate(self.charts)]
        return "\n\n".join(["\n".join(filter(None, lines)), *panels])

    def problem(self, rows: Sequence[Row]) -> str:
        """Why the first panel that can't be drawn can't."""
        found = (chart.problem(_rows_of(rows, place)) for place, chart in enumerate(self.charts))
        return next(filter(None, found), "")

    def counted(self, rows: Sequence[Row]) -> str:
        """How much there is in the fullest panel, in words."""
        fullest = max((_rows_of(rows, place) for place in range(len(self.charts))), key=len, default=[])
        return self.charts[0].counted(fullest)


def _rows_of(rows: Sequence[Row], place: int) -> list[Row]:
    return list(rows[place]["rows"]) if place < len(rows) else []


def _panel(spec: Spec, place: int) -> Spec:
    spec = {name: value for name, value in spec.items() if name not in _OF_THE_WHOLE}
    spec["data"] = {**spec["data"], "name": f"rows_{place + 1}"}
    spec["title"] = {**spec["title"], "fontSize": 13, "anchor": "start", "frame": "group"}
    return spec
