"""A Vega-Lite specification of somebody's own: a dict, or an Altair chart, for the rows of an answer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lo_kernel.app.templates import Spec

__all__ = ["is_chart_object", "vega_lite_of"]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_OWN_SIZES = ("continuousWidth", "continuousHeight")


def is_chart_object(chart: Any) -> bool:
    """Whether this is an Altair chart, or anything else that gives a Vega-Lite specification as it does."""
    return callable(getattr(chart, "to_dict", None)) and not isinstance(chart, Mapping)


def vega_lite_of(chart: Any) -> Spec:
    """The specification without its data, as JupyterLab draws it (version 5).

    ``chart`` is a dict, or an object with ``to_dict()`` that gives one (Altair 4 to 6). The chart's own data
    goes: its place is taken by the rows. So ``alt.Chart().mark_bar().encode(x="count:Q", y="student:N")`` is
    enough. Raises :class:`TypeError` and :class:`ValueError` for what is no Vega-Lite specification.

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
    parts = ("mark", "layer", "concat", "hconcat", "vconcat", "facet", "repeat", "spec")
    if not any(part in given for part in parts):
        raise ValueError(f"chart: expected a Vega-Lite specification with one of {', '.join(parts)}")
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


def _uses(node: Any, name: str) -> bool:
    if isinstance(node, Mapping):
        data = node.get("data")
        if isinstance(data, Mapping) and data.get("name") == name:
            return True
        return any(_uses(value, name) for value in node.values())
    return isinstance(node, list) and any(_uses(item, name) for item in node)
