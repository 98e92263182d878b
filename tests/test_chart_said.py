"""What a chart says where it can't draw what was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lo_kernel.app.charts import Chart, Kind

ROWS: list[dict[str, Any]] = [
    {"student": f"tc-testcase-{name}", "count": n, "late": None, "pace": {}} for n, name in enumerate("abc")
]
WAITING = "waiting for events"


def said(chart: Chart, rows: list[dict[str, Any]]) -> str:
    """The line above a chart that isn't its subtitle; a console has the same."""
    title = chart.spec(rows, subtitle="3 learners")["title"]["subtitle"]
    (line,) = title[1:] or [""]
    assert line in chart.text(rows, subtitle="3 learners")
    return str(line)


def test_a_column_with_nothing_in_it_is_named() -> None:
    """What is waited for, where the answer has other columns."""
    assert said(Chart("t", field="late"), ROWS) == "Nothing in 'late' yet: waiting for events."
    assert WAITING in said(Chart("t", field="late"), [{"student": "tc-testcase-a", "late": None}])
    assert WAITING in said(Chart("t"), [])


@pytest.mark.parametrize("kind", ["line", "heatmap"])
def test_a_table_in_the_place_of_a_line_says_why(kind: Kind) -> None:
    """A line over what is no time series isn't silently something else; over one it says nothing."""
    assert said(Chart("t", kind), ROWS) == "No column has numbers over time yet; this is what there is."
    series = [{**row, "pace": {"1700000000": 1, "1700000060": 4}} for row in ROWS]
    assert said(Chart("t", kind), series) == ""
    assert "No column" not in json.dumps(Chart("t", "table").spec(ROWS))
