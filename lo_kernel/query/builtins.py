"""Functions for queries that are always there: ``unwind``, ``group_by`` and the plain aggregates, over rows.

Each takes rows (what a ``select``, ``join`` or ``map`` gives) and a dotted path into them. A row without a
value at the path (missing, ``None`` or NaN) doesn't count; a row that is an error, or has one at the path,
doesn't either.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

from lo_kernel.errors import QueryError
from lo_kernel.query.paths import MISSING, describe, follow
from lo_kernel.query.ports import JSON
from lo_kernel.query.values import is_error

__all__ = ["BUILTINS"]

Row = dict[str, Any]


def unwind(objects: JSON, value_path: str, new_name: str, keys_to_keep: list[str] | None = None) -> list[Row]:
    """A row for each item of the list at ``value_path``, the item under ``new_name``.

    >>> unwind([{"who": 1, "items": ["a", "b"]}, {"who": 2, "items": []}], "items", "item")
    [{'who': 1, 'item': 'a'}, {'who': 1, 'item': 'b'}]
    """
    head = value_path.partition(".")[0]
    found: list[Row] = []
    for row in objects if isinstance(objects, list) else [objects]:
        items = follow(row, value_path)
        if items is MISSING or items is None or is_error(items) or is_error(row):
            continue
        if not isinstance(items, list):
            raise QueryError(f"unwind: expected a list at {value_path!r}, got {describe(items)}")
        if keys_to_keep is None:
            kept = {name: value for name, value in row.items() if name != head}
        else:
            kept = {name: row[name] for name in (*keys_to_keep, "provenance") if name in row}
        found.extend({**kept, new_name: item} for item in items)
    return found


def group_by(rows: list[JSON], by: str | list[str], aggregates: Mapping[str, Any] | None = None) -> list[Row]:
    """A row for each group: the values that make the group, and the aggregates over its rows.

    ``by`` is a path, or several. ``aggregates`` is ``{name: [function, path]}``, or ``{name: "count"}``;
    without, the rows are counted. Groups come in the order in which they are first met.

    >>> rows = [{"room": "a", "n": 1}, {"room": "b", "n": 5}, {"room": "a", "n": 3}]
    >>> group_by(rows, "room", {"learners": "count", "mean_n": ["mean", "n"]})
    [{'room': 'a', 'learners': 2, 'mean_n': 2}, {'room': 'b', 'learners': 1, 'mean_n': 5}]
    """
    paths = [by] if isinstance(by, str) else list(by)
    names = {path: path.rpartition(".")[2] for path in paths}
    if len(set(names.values())) < len(names):
        names = {path: path for path in paths}
    groups: dict[str, tuple[Row, list[JSON]]] = {}
    for row in _rows("group_by", rows):
        if is_error(row):
            continue
        values = {names[path]: None if (v := follow(row, path)) is MISSING else v for path in paths}
        groups.setdefault(repr(values), (values, []))[1].append(row)
    wanted = aggregates if aggregates is not None else {"count": "count"}
    return [
        {**values, **{name: _aggregate(name, spec, members) for name, spec in wanted.items()}}
        for values, members in groups.values()
    ]


def count(rows: list[JSON], path: str | None = None) -> int:
    """How many rows there are; with a path, how many have a value there.

    >>> count([{"n": 1}, {"n": None}, {}], "n")
    1
    """
    return len(_values("count", rows, path))


def total(rows: list[JSON], path: str | None = None) -> float:
    """The sum of the values at ``path``; 0 where there are none.

    >>> total([{"n": 1}, {"n": 2}], "n")
    3
    """
    return sum(_numbers("sum", rows, path))


def mean(rows: list[JSON], path: str | None = None) -> float | None:
    """The mean of the values at ``path``; ``None`` where there are none.

    >>> mean([{"n": 1}, {"n": 2}], "n")
    1.5
    """
    numbers = _numbers("mean", rows, path)
    return statistics.mean(numbers) if numbers else None


def median(rows: list[JSON], path: str | None = None) -> float | None:
    """The median of the values at ``path``; ``None`` where there are none.

    >>> median([{"n": 1}, {"n": 2}, {"n": 9}], "n")
    2
    """
    numbers = _numbers("median", rows, path)
    return statistics.median(numbers) if numbers else None


def smallest(rows: list[JSON], path: str | None = None) -> JSON:
    """The smallest value at ``path`` (numbers, or texts); ``None`` where there are none.

    >>> smallest([{"n": 2}, {"n": 1}], "n")
    1
    """
    return min(_comparable("min", rows, path), default=None)


def largest(rows: list[JSON], path: str | None = None) -> JSON:
    """The largest value at ``path`` (numbers, or texts); ``None`` where there are none.

    >>> largest([{"n": 2}, {"n": 1}], "n")
    2
    """
    return max(_comparable("max", rows, path), default=None)


def top(rows: list[JSON], path: str, n: int = 10, lowest: bool = False) -> list[JSON]:
    """The ``n`` rows with the largest values at ``path``, largest first; with ``lowest``, the smallest.

    >>> top([{"n": 1}, {"n": 3}, {"n": 2}], "n", 2)
    [{'n': 3}, {'n': 2}]
    """
    if not isinstance(n, int) or n < 0:
        raise QueryError(f"top: n: expected how many rows, got {n!r}")
    _comparable("top", rows, path)
    having = [row for row in rows if _value(row, path) is not None]
    return sorted(having, key=lambda row: follow(row, path), reverse=not lowest)[:n]


BUILTINS: Final[Mapping[str, Callable[..., JSON]]] = {
    "unwind": unwind,
    "group_by": group_by,
    "count": count,
    "sum": total,
    "mean": mean,
    "median": median,
    "min": smallest,
    "max": largest,
    "top": top,
}

_AGGREGATES: Final = ("count", "sum", "mean", "median", "min", "max")


def _aggregate(name: str, spec: JSON, rows: list[JSON]) -> JSON:
    function, *rest = [spec] if isinstance(spec, str) else spec if isinstance(spec, list) else [None]
    if function not in _AGGREGATES or len(rest) > 1:
        raise QueryError(
            f"group_by: aggregates.{name}: expected [function, path] with one of {', '.join(_AGGREGATES)}, "
            f"got {spec!r:.80}"
        )
    if function != "count" and not rest:
        raise QueryError(f"group_by: aggregates.{name}: expected a path beside {function!r}")
    return BUILTINS[function](rows, *rest)


def _rows(name: str, rows: JSON) -> list[JSON]:
    if not isinstance(rows, list):
        raise QueryError(f"{name}: expected rows, got {describe(rows)}")
    return rows


def _value(row: JSON, path: str | None) -> JSON:
    """The value that counts; ``None`` where none does."""
    value = None if is_error(row) else follow(row, path)
    if value is MISSING or is_error(value) or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _values(name: str, rows: JSON, path: str | None) -> list[JSON]:
    return [value for row in _rows(name, rows) if (value := _value(row, path)) is not None]


def _numbers(name: str, rows: JSON, path: str | None) -> list[float]:
    values = _values(name, rows, path)
    for value in values:
        if not isinstance(value, int | float):
            raise QueryError(f"{name}: expected numbers at {path!r}, got {describe(value)}")
    return values


def _comparable(name: str, rows: JSON, path: str | None) -> list[Any]:
    values = _values(name, rows, path)
    kinds = {
        "text" if isinstance(v, str) else "number" if isinstance(v, int | float) else "other" for v in values
    }
    if len(kinds) > 1 or "other" in kinds:
        raise QueryError(f"{name}: expected numbers, or texts, at {path!r}, got {', '.join(sorted(kinds))}")
    return values
