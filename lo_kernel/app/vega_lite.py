"""A Vega-Lite specification of somebody's own: a dict, or an Altair chart, for the rows of an answer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from lo_kernel.app.templates import Spec

__all__ = ["check_vega_lite", "is_chart_object", "vega_lite_of"]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_OWN_SIZES = ("continuousWidth", "continuousHeight")
_SEVERAL: Final = ("layer", "concat", "hconcat", "vconcat")
_PARTS: Final = ("mark", *_SEVERAL, "facet", "repeat", "spec")
# What Vega-Lite 5 and 6 know (https://vega.github.io/vega-lite/docs/mark.html and .../encoding.html).
_MARKS: Final = (
    "arc", "area", "bar", "boxplot", "circle", "errorband", "errorbar", "geoshape", "image", "line",
    "point", "rect", "rule", "square", "text", "tick", "trail",
)  # fmt: skip
_CHANNELS: Final = (
    "angle", "color", "column", "description", "detail", "facet", "fill", "fillOpacity", "href", "key",
    "latitude", "latitude2", "longitude", "longitude2", "opacity", "order", "radius", "radius2", "row",
    "shape", "size", "stroke", "strokeDash", "strokeOpacity", "strokeWidth", "text", "theta", "theta2",
    "time", "tooltip", "url", "x", "x2", "xError", "xError2", "xOffset", "y", "y2", "yError", "yError2",
    "yOffset",
)  # fmt: skip


def is_chart_object(chart: Any) -> bool:
    """Whether this is an Altair chart, or anything else that gives a Vega-Lite specification as it does."""
    return callable(getattr(chart, "to_dict", None)) and not isinstance(chart, Mapping)


def vega_lite_of(chart: Any) -> Spec:
    """The specification without its data, as JupyterLab draws it (version 5).

    ``chart`` is a dict, or an object with ``to_dict()`` that gives one (Altair 4 to 6). The chart's own data
    goes: its place is taken by the rows. So ``alt.Chart().mark_bar().encode(x="count:Q", y="student:N")`` is
    enough. Raises :class:`TypeError` and :class:`ValueError` for what is no Vega-Lite specification, and for
    a mark or an encoding channel that there isn't: JupyterLab would show nothing, and say nothing.

    >>> vega_lite_of({"mark": "bar", "encoding": {}, "data": {"values": []}})
    {'mark': 'bar', 'encoding': {}}
    """
    given = chart.to_dict() if is_chart_object(chart) else chart
    if not isinstance(given, Mapping):
        raise TypeError(
            f"chart: expected a name, a Vega-Lite specification or an Altair chart, got {chart!r:.80}"
        )
    schema = given.get("$schema", _SCHEMA)
    if not isinstance(schema, str) or "/vega-lite/" not in schema:
        raise ValueError(
            f"chart: expected a Vega-Lite specification, got one of {schema!r:.80}; Vega itself is not drawn"
        )
    check_vega_lite(given)
    spec = copy.deepcopy(dict(given))
    own = spec.pop("data", None)
    datasets = spec.pop("datasets", None)
    # Altair gathers all data at the top. The main one is replaced; what a layer brings of its own stays.
    if isinstance(datasets, Mapping):
        main = own.get("name") if isinstance(own, Mapping) else None
        kept = {name: values for name, values in datasets.items() if name != main and _uses(spec, name)}
        if kept:
            spec["datasets"] = kept
    if "$schema" in spec:
        spec["$schema"] = _SCHEMA
    view = spec.get("config", {}).get("view") if isinstance(spec.get("config"), Mapping) else None
    if isinstance(view, dict):  # 300 x 300, which Altair writes into every chart
        for name in _OWN_SIZES:
            view.pop(name, None)
    return spec


def check_vega_lite(view: Any, where: str = "chart") -> None:
    """Raise :class:`ValueError` for what no version of Vega-Lite draws, here or in a view inside.

    >>> check_vega_lite({"layer": [{"mark": "bar", "encoding": {"colour": {"field": "n"}}}]})
    Traceback (most recent call last):
    ...
    ValueError: chart, layer 1: expected channels such as x and y in encoding, got 'colour'; there is 'color'
    """
    if not isinstance(view, Mapping):
        raise ValueError(f"{where}: expected an object with a mark, got {view!r:.80}")
    if not any(part in view for part in _PARTS):
        raise ValueError(f"{where}: expected a Vega-Lite specification with one of {', '.join(_PARTS)}")
    if "mark" in view:
        mark = view["mark"]
        kind = mark.get("type") if isinstance(mark, Mapping) else mark
        if kind not in _MARKS:
            raise ValueError(f"{where}: expected a mark of {', '.join(_MARKS)}, got {kind!r:.80}")
    encoding = view.get("encoding", {})
    if not isinstance(encoding, Mapping):
        raise ValueError(f"{where}: expected an encoding of channels, such as x and y, got {encoding!r:.80}")
    for channel in encoding:
        if channel not in _CHANNELS:
            near = get_close_matches(str(channel), _CHANNELS, 1)
            there = f"; there is {near[0]!r}" if near else ""
            raise ValueError(
                f"{where}: expected channels such as x and y in encoding, got {channel!r:.80}{there}"
            )
    for part in _SEVERAL:
        views = view.get(part, [])
        if not isinstance(views, list | tuple):
            raise ValueError(f"{where}: expected a list in {part}, got {views!r:.80}")
        if part in view and not views:
            raise ValueError(f"{where}: expected one view or more in {part}, got an empty list")
        for number, each in enumerate(views, 1):
            check_vega_lite(each, f"{where}, {part} {number}")
    if "spec" in view:
        check_vega_lite(view["spec"], f"{where}, spec")


def _uses(node: Any, name: str) -> bool:
    if isinstance(node, Mapping):
        data = node.get("data")
        if isinstance(data, Mapping) and data.get("name") == name:
            return True
        return any(_uses(value, name) for value in node.values())
    return isinstance(node, list) and any(_uses(item, name) for item in node)
