"""The labels of a time axis, as vega draws them: from a minute to years."""

from __future__ import annotations

import gzip
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lo_kernel
from lo_kernel.app import templates

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

VENDOR = Path(lo_kernel.__file__).parent / "app" / "static" / "vendor"
LABELS = """async spec => {
    const view = new vega.View(vega.parse(vegaLite.compile(spec).spec), {renderer: 'svg'});
    const drawn = document.createElement('div');
    drawn.innerHTML = await view.toSVG();
    const texts = group => [...group.querySelectorAll('text')].map(text => text.textContent);
    return [...drawn.querySelectorAll('.role-axis-label')].map(texts);
}"""
START = 1_709_287_620  # 2024-03-01 10:07 UTC
MINUTE, HOUR, DAY = 60, 3600, 86_400
SPANS = {
    50: r"\d\d:\d\d|:\d\d",
    40 * MINUTE: r"\d\d:\d\d",
    9 * HOUR: r"\d\d:\d\d",
    3 * DAY: r"\d\d:\d\d|Mar \d",
    60 * DAY: r"(Mar|Apr) \d\d?",
    5 * 365 * DAY: r"20\d\d",
}


@pytest.fixture
def drawing(page: Page) -> Page:
    """A page that has what charts are drawn with."""
    for name in ("vega", "vega-lite"):
        page.add_script_tag(content=gzip.decompress((VENDOR / f"{name}.min.js.gz").read_bytes()).decode())
    return page


def labels(drawing: Page, spec: dict[str, Any], seconds: int) -> list[str]:
    """The labels below a chart of numbers over so many seconds."""
    values = [
        {
            "label": "a",
            "rank": 0,
            "t": (START + at) * 1000,
            "until": (START + at + 60) * 1000,
            "value": at % 7,
        }
        for at in range(0, seconds + 1, max(seconds // 40, 1))
    ]
    axes = drawing.evaluate(LABELS, {"width": 500, **spec, "data": {"values": values}})
    (found,) = [axis for axis in axes if any(re.search(r"[:A-Z]|20\d\d", each) for each in axis)]
    return [each for each in found if each]


def test_no_label_says_the_same_as_the_one_beside_it(drawing: Page) -> None:
    """Over days all of them were 00:00."""
    for seconds, like in SPANS.items():
        for template in (templates.lines("n", 3), templates.lines("n", 20)):
            found = labels(drawing, template, seconds)
            assert len(found) > 2
            assert all(re.fullmatch(like, each) for each in found), found
            assert all(one != other for one, other in pairwise(found)), found
            assert seconds < DAY or "00:00" not in found
