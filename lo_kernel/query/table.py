"""How rows look when they are printed: columns, cells, and the errors once, whole, under them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lo_kernel.query.values import is_error

__all__ = ["Table", "laid_out"]

SHOWN_ROWS: Final = 60
SHOWN_WIDTH: Final = 40

_SHOWN_ERRORS: Final = 5
_SHOWN_NAMES: Final = 3
_ERROR_FIELDS: Final = frozenset(
    ("error", "function", "error_provenance", "traceback", "error_path", "dispatch")
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they are printed: names of columns, cells as text, which columns are numbers, what is below."""

    names: list[str]
    cells: list[list[str]]
    right: list[bool]
    more: int
    """Rows that are not shown."""
    errors: list[str]
    """Lines that say which errors stand in the rows, in how many, and whose they are."""


def laid_out(rows: Sequence[Mapping[str, Any]], last: Collection[int] = ()) -> Table:
    """The first rows as a table; where not all are shown, those at the places ``last`` come after the others.

    >>> laid_out([{"student": "u0", "n": 1}, {"student": "u1", "error": "no n", "function": "map"}]).cells
    [['u0', '1'], ['u1', 'error']]
    """
    names = list(dict.fromkeys(name for row in rows for name in row if not _is_hidden(row, name)))
    counts: dict[str, list[str]] = {}
    for row in rows:
        for text in dict.fromkeys(_errors_in(row)):
            counts.setdefault(text, []).append(_whose(row))
    shorts = {text: "error" if len(counts) == 1 else f"error {n}" for n, text in enumerate(counts, 1)}
    order: Iterable[int] = range(len(rows))
    if len(rows) > SHOWN_ROWS and last:
        order = sorted(order, key=lambda place: place in last)
    shown = [rows[place] for place in order][:SHOWN_ROWS]
    if any(is_error(row) and not set(names) - set(row) for row in shown):
        names.append("error")
    cells = [_cells(row, names, shorts) for row in shown]
    right = [all(_numeric(row.get(name)) for row in shown) for name in names]
    return Table(names, cells, right, len(rows) - len(shown), _error_lines(counts, shorts, len(rows)))


def _cells(row: Mapping[str, Any], names: Sequence[str], shorts: Mapping[str, str]) -> list[str]:
    if not is_error(row):
        return [_cell(row.get(name, ""), shorts) for name in names]
    own = set(row) - _ERROR_FIELDS
    place = next(n for n, name in enumerate(names) if name not in own)
    return [
        shorts[str(row["error"])] if n == place else _cell(row[name], shorts) if name in own else ""
        for n, name in enumerate(names)
    ]


def _error_lines(counts: Mapping[str, list[str]], shorts: Mapping[str, str], total: int) -> list[str]:
    lines = []
    for text, whose in list(counts.items())[:_SHOWN_ERRORS]:
        named = [name for name in whose if name]
        who = ""
        if named and len(whose) < total:
            who = f" ({', '.join(named[:_SHOWN_NAMES])}{', ...' if len(named) > _SHOWN_NAMES else ''})"
        lines.append(f"{shorts[text]} in {len(whose):,} of {total:,} rows{who}: {text}")
    rest = sum(len(whose) for whose in list(counts.values())[_SHOWN_ERRORS:])
    if rest:
        lines.append(f"{len(counts) - _SHOWN_ERRORS:,} more errors, in {rest:,} rows")
    return lines


def _errors_in(row: Mapping[str, Any]) -> list[str]:
    if is_error(row):
        return [str(row["error"])]
    return [str(value["error"]) for value in row.values() if is_error(value)]


def _whose(row: Mapping[str, Any]) -> str:
    """The first of a row's columns that are texts: whom it belongs to."""
    name = next(iter(row), "")
    return str(row[name]) if isinstance(row.get(name), str) and name not in _ERROR_FIELDS else ""


def _is_hidden(row: Mapping[str, Any], name: str) -> bool:
    return name in _ERROR_FIELDS and is_error(row)


def _cell(value: Any, shorts: Mapping[str, str]) -> str:
    if isinstance(value, float):
        text = f"{value:g}"
    elif value is None:
        text = ""
    elif is_error(value):
        text = shorts.get(str(value["error"]), "error")
    else:
        text = str(value)
    text = text.replace("\n", " ")
    return text if len(text) <= SHOWN_WIDTH else text[: SHOWN_WIDTH - 1] + "…"


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) or value is None
