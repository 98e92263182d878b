"""Vega-Lite templates: how a chart of the page is drawn, over data that the page fills in.

Each is a specification over the named data ``rows``, whose columns depend on the kind of chart:

=============  ==================================================================================
``bar``        ``label``, ``value``, ``rank`` (place from the top)
``histogram``  ``value``
``categories`` ``value`` (a word)
``line``       ``label``, ``t`` (milliseconds since 1970, UTC), ``value``
``heatmap``    ``label``, ``rank``, ``t``, ``until``, ``value``
``spread``     ``t``, ``until``, ``value``
=============  ==================================================================================

Nothing here fixes the colour of texts or of the ground: the theme of whoever draws does. Vega-Lite 5.6 is
enough for all of it, so that JupyterLab draws the last three as well.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = [
    "COLOUR",
    "COUNTING",
    "MANY",
    "bars",
    "bins",
    "categories",
    "heatmap",
    "histogram",
    "lines",
    "spread",
]

Spec: TypeAlias = dict[str, Any]

COLOUR: Final = "#5b8fd6"  # 3:1 or more against white and against the backgrounds of dark themes
MANY: Final = 60  # learners above which one row for each can't be read, and their distribution is shown
FEW: Final = 8  # lines of which each can still be told from the others
_CLOCK = {
    "grid": False,
    "tickCount": 6,
    # Hours and minutes; between two minutes the seconds; where a day or a year begins, that.
    "labelExpr": "timeFormat(datum.value, seconds(datum.value) ? ':%S'"
    " : hours(datum.value) || minutes(datum.value) ? '%H:%M'"
    " : month(datum.value) || date(datum.value) > 1 ? '%b %-d' : '%Y')",
}
_MOMENT: Final = "%Y-%m-%d %H:%M:%S"
# There is no half a learner, and Vega's own least step between ticks doesn't hold on a scale up to 1 or 2.
COUNTING: Final[Spec] = {
    "tickMinStep": 1,
    "labelExpr": "datum.value % 1 ? '' : format(datum.value, ',d')",
    "gridOpacity": {"condition": {"test": "datum.value % 1", "value": 0}, "value": 0.35},
}
_ROOM = {"left": 4, "top": 4, "right": 40, "bottom": 4}  # for the number at the end of the longest bar
# Shades of one colour: they mean the same on a light and on a dark ground.
_SHADES: Final[Spec] = {
    "scale": {"range": [0.06, 1], "zero": True},
    "legend": {
        "orient": "top",
        "tickCount": 4,
        "symbolType": "square",
        "symbolFillColor": COLOUR,
        "symbolStrokeWidth": 0,
    },
}
_DESCRIPTION = {"field": "said", "type": "nominal"}  # what a screen reader says for a mark


def bars(title: str) -> Spec:
    """A bar for each row, its number at its end."""
    y = {
        "field": "label",
        "type": "nominal",
        "sort": {"field": "rank", "op": "min"},
        "title": None,
        "axis": {"labelLimit": 150},
    }
    x = {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "axis": {"tickCount": 5},
        "scale": {"zero": True},
    }
    number = {"field": "value", "type": "quantitative", "format": ",~r", "title": title}
    return {
        "height": {"step": 17},
        "padding": _ROOM,
        "encoding": {"y": y, "x": x},
        "layer": [
            {
                "mark": {
                    "type": "bar",
                    "color": COLOUR,
                    "height": {"band": 0.72},
                    "cornerRadiusEnd": 2,
                    "invalid": None,
                },
                "encoding": {"tooltip": [{"field": "label", "title": "learner"}, number]},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 11, "aria": False},
                "encoding": {"text": number},
            },
        ],
    }


def bins(whole: bool, most: int = 24) -> Spec:
    """How numbers are put together; ``whole`` ones by whole steps."""
    return {"maxbins": most, "minstep": 1} if whole else {"maxbins": most}


def histogram(title: str, counted: str, *, whole: bool = False) -> Spec:
    """How the numbers are distributed, which are ``whole`` or not."""
    binned = {"field": "value", "bin": bins(whole), "type": "quantitative", "title": title}
    number = {"aggregate": "count", "type": "quantitative", "title": counted}
    return {
        "height": 240,
        "mark": {"type": "bar", "color": COLOUR, "cornerRadiusEnd": 2},
        "encoding": {
            "x": {**binned, "axis": {"grid": False, "format": ",~f"}},
            "y": {**number, "axis": {"grid": True, **COUNTING}},
            "tooltip": [binned, number],
        },
    }


def categories(title: str, counted: str) -> Spec:
    """How often each word occurs."""
    number = {"aggregate": "count", "type": "quantitative", "title": counted}
    word = {"field": "value", "type": "nominal", "title": title}
    return {
        "height": {"step": 34},
        "padding": _ROOM,
        "encoding": {
            "y": {**word, "sort": "-x", "title": None, "axis": {"labelLimit": 150, "labelFontSize": 13}},
            "x": {**number, "axis": {"tickCount": 5, **COUNTING}},
        },
        "layer": [
            {
                "mark": {
                    "type": "bar",
                    "color": COLOUR,
                    "height": {"band": 0.66},
                    "cornerRadiusEnd": 2,
                },
                "encoding": {"tooltip": [word, number]},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 12, "aria": False},
                "encoding": {"text": number},
            },
        ],
    }


def lines(title: str, learners: int) -> Spec:
    """Numbers over time: a line for each of a few learners; of more, the median and the middle half."""
    x = {"field": "t", "type": "temporal", "title": None, "axis": _CLOCK}
    y = {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "axis": {"grid": True, "gridOpacity": 0.35},
    }
    when = {"field": "t", "type": "temporal", "format": _MOMENT, "title": "time"}
    if learners <= FEW:
        return {
            "height": 240,
            "mark": {"type": "line", "interpolate": "monotone", "strokeWidth": 2, "point": {"size": 18}},
            "encoding": {
                "x": x,
                "y": y,
                "color": {
                    "field": "label",
                    "type": "nominal",
                    "title": None,
                    "legend": {"labelLimit": 130},
                },
                "tooltip": [{"field": "label", "title": "learner"}, when, {"field": "value", "title": title}],
            },
        }
    return {
        "height": 240,
        # The middle of a few who are the first of their class in a minute says nothing of the class.
        "transform": [
            {"joinaggregate": [{"op": "count", "as": "there"}], "groupby": ["t"]},
            {"joinaggregate": [{"op": "max", "field": "there", "as": "most"}]},
            {"filter": "datum.there * 10 >= datum.most"},
        ],
        "encoding": {"x": x},
        "layer": [
            {
                "mark": {"type": "area", "color": COLOUR, "opacity": 0.25, "interpolate": "monotone"},
                "encoding": {
                    "y": {**y, "aggregate": "q1"},
                    "y2": {"field": "value", "aggregate": "q3"},
                },
            },
            {
                # A line through a single moment is none: the point is.
                "mark": {
                    "type": "line",
                    "color": COLOUR,
                    "interpolate": "monotone",
                    "strokeWidth": 2,
                    "point": {"size": 18, "color": COLOUR},
                },
                "encoding": {
                    "y": {**y, "aggregate": "median"},
                    "tooltip": [when, {"field": "value", "aggregate": "median", "title": f"median {title}"}],
                },
            },
        ],
    }


def heatmap(title: str) -> Spec:
    """Numbers over time as shades, a row for each learner."""
    when = {"field": "t", "type": "temporal", "format": _MOMENT, "title": "from"}
    return {
        "height": {"step": 17},
        "mark": {"type": "rect", "color": COLOUR, "height": {"band": 0.86}},
        "encoding": {
            "y": {
                "field": "label",
                "type": "nominal",
                "sort": {"field": "rank", "op": "min"},
                "title": None,
                "axis": {"labelLimit": 150},
            },
            "x": {
                "field": "t",
                "type": "temporal",
                "title": None,
                "axis": _CLOCK,
            },
            "x2": {"field": "until"},
            "opacity": {"field": "value", "type": "quantitative", "title": title, **_SHADES},
            "tooltip": [{"field": "label", "title": "learner"}, when, {"field": "value", "title": title}],
            "description": _DESCRIPTION,
        },
    }


def spread(title: str, counted: str) -> Spec:
    """Numbers over time of more learners than can be read: how many of them are where, as shades."""
    number = {"aggregate": "count", "type": "quantitative", "title": counted}
    binned = {"field": "value", "bin": bins(False, 12), "type": "quantitative", "title": title}
    when = {"field": "t", "type": "temporal", "format": _MOMENT, "title": "from"}
    shades = {**_SHADES, "legend": {**_SHADES["legend"], "labelExpr": COUNTING["labelExpr"]}}
    return {
        "height": 240,
        "mark": {"type": "rect", "color": COLOUR},
        "encoding": {
            "x": {"field": "t", "type": "temporal", "title": None, "axis": _CLOCK},
            "x2": {"field": "until"},
            "y": {**binned, "axis": {"grid": False, "format": ",~f"}},
            "opacity": {**number, **shades},
            "tooltip": [when, binned, number],
        },
    }
