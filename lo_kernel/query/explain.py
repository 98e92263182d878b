"""A query as a picture: nodes, edges, and how long each took the last time; as SVG and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lo_kernel.query.dag import Dag, Node
from lo_kernel.query.ports import JSON
from lo_kernel.query.steps import Timing

__all__ = ["Explanation"]

_WIDTH: Final = 210
_HEIGHT: Final = 58
_GAP_X: Final = 56
_GAP_Y: Final = 18
_MARGIN: Final = 16
_CHARACTERS: Final = 30

_FILL: Final = {
    "parameter": "#f3efe2",
    "constant": "#f3efe2",
    "variable": "#f3efe2",
    "call": "#e6f0e4",
    "map": "#e6f0e4",
    "keys": "#e3ecf5",
    "select": "#e3ecf5",
    "join": "#f2e6ef",
}


class Explanation:
    """A query, drawn: an SVG in JupyterLab, text in a console. Times are those of its last run.

    >>> dag = Dag.read({"a": {"dispatch": "parameter", "parameter_name": "x"},
    ...                 "b": {"dispatch": "call", "function_name": "double",
    ...                       "args": [{"dispatch": "variable", "variable_name": "a"}]}})
    >>> Explanation(dag, ["b"], {"b": Timing(0.0012, 3)})
    a  parameter x
    b  call double  <- a  3 rows, 1.20 ms  = answer
    """

    def __init__(self, dag: Dag, exports: Sequence[str], timings: Mapping[str, Timing] | None = None) -> None:
        self.dag = dag
        self.exports = {dag.export(name).returns: name for name in exports}
        self.order = dag.needed(self.exports)
        self.timings = {name: found for name, found in (timings or {}).items() if name in self.order}

    @property
    def seconds(self) -> float | None:
        """How long the last run took; ``None`` where there was none."""
        return sum(timing.seconds for timing in self.timings.values()) if self.timings else None

    def nodes(self) -> list[dict[str, JSON]]:
        """The nodes as rows: name, what it does, what it needs, and the seconds and rows of the last run."""
        found = []
        for name in self.order:
            node, timing = self.dag.nodes[name], self.timings.get(name)
            found.append(
                {
                    "node": name,
                    "what": _what(node),
                    "needs": list(dict.fromkeys(node.inputs.values())),
                    "rows": timing.rows if timing else None,
                    "seconds": timing.seconds if timing else None,
                    "answer": name in self.exports,
                }
            )
        return found

    def __repr__(self) -> str:
        width = max((len(name) for name in self.order), default=0)
        lines = []
        for row in self.nodes():
            name, inputs = row["node"], ", ".join(row["needs"])
            parts = [
                f"{name:<{width}}",
                row["what"],
                f"<- {inputs}" if inputs else "",
                self._timing(name),
                "= answer" if row["answer"] else "",
            ]
            lines.append("  ".join(part for part in parts if part))
        return "\n".join(lines)

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """The drawing, as SVG; the flow is from left to right.

        Colours are attributes, which the style of a page may replace by class.
        """
        places = self._places()
        columns = max((column for column, _ in places.values()), default=0) + 1
        rows = max((row for _, row in places.values()), default=0) + 1
        width = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP_X
        height = 2 * _MARGIN + rows * _HEIGHT + (rows - 1) * _GAP_Y
        title = escape(f"Query {self.dag.name}".strip())
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img">',
            f"<title>{title}</title>",
            f'<rect class="ground" width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0 L8 4 L0 8 z" fill="#7a7a7a"/></marker></defs>',
        ]
        for name in self.order:
            for source in dict.fromkeys(self.dag.nodes[name].inputs.values()):
                parts.append(_edge(places[source], places[name]))
        parts.extend(self._box(name, places[name]) for name in self.order)
        return "".join([*parts, "</svg>"])

    def _places(self) -> dict[str, tuple[int, int]]:
        """Column and row of each node: as far right as what it needs makes it."""
        columns: dict[str, int] = {}
        for name in self.order:
            inputs = self.dag.nodes[name].inputs.values()
            columns[name] = max((columns[source] + 1 for source in inputs), default=0)
        taken: dict[int, int] = {}
        places = {}
        for name in self.order:
            row = taken.get(columns[name], 0)
            taken[columns[name]] = row + 1
            places[name] = (columns[name], row)
        return places

    def _box(self, name: str, place: tuple[int, int]) -> str:
        node = self.dag.nodes[name]
        x, y = _corner(place)
        answer = name in self.exports
        stroke = 'stroke="#2b5d8a" stroke-width="2"' if answer else 'stroke="#9a9a9a"'
        what = _what(node)
        fill = _FILL.get(node.dispatch, "#eeeeee")
        note = " · ".join(part for part in (self._timing(name), self.exports.get(name, "")) if part)
        return (
            f"<g class={quoteattr(f'node {node.dispatch}' + ' answer' * answer)}>"
            f"<title>{escape(f'{name}: {what}')}</title>"
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            f"fill={quoteattr(fill)} {stroke}/>"
            f'<text class="name" x="{x + 10}" y="{y + 18}" font-weight="600" fill="#1a1a1a">'
            f"{escape(_short(name))}</text>"
            f'<text class="what" x="{x + 10}" y="{y + 34}" fill="#333333">{escape(_short(what))}</text>'
            f'<text class="note" x="{x + 10}" y="{y + 50}" fill="#5a5a5a" font-size="11">'
            f"{escape(_short(note))}</text></g>"
        )

    def _timing(self, name: str) -> str:
        timing = self.timings.get(name)
        if timing is None:
            return ""
        rows = "" if timing.rows is None else f"{timing.rows} row{'s'[: timing.rows != 1]}, "
        return f"{rows}{timing.seconds * 1000:.2f} ms"


def _what(node: Node) -> str:
    names = {
        "parameter": "parameter_name",
        "call": "function_name",
        "map": "function_name",
        "keys": "function",
    }
    field = names.get(node.dispatch)
    return f"{node.dispatch} {node.fields[field]}" if field else node.dispatch


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    column, row = place
    return _MARGIN + column * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y)


def _edge(source: tuple[int, int], target: tuple[int, int]) -> str:
    x1, y1 = _corner(source)
    x2, y2 = _corner(target)
    x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
    bend = (x2 - x1) // 2
    return (
        f'<path class="edge" d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" '
        'stroke="#7a7a7a" marker-end="url(#end)"/>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
