"""The rows of an answer as a table of plain values: who, and which numbers, words and texts.

An answer of a query is a list of dicts. What is in them is up to whoever wrote the query, so a chart looks:
one key says which learner a row is about, the others (nested ones by their dotted path) are columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias, TypeGuard

from lo_kernel.app.series import Series, series_of

__all__ = ["Row", "Table", "Value", "table_of", "text_table"]

Row: TypeAlias = Mapping[str, Any]
Value: TypeAlias = str | int | float | bool | None

# How rows say whom they are about, in the order of preference.
_WHO = ("student", "learner", "safe_user_id", "user_id", "STUDENT", "name")
# Where a value comes from, and the roster's own data: not what a chart is about.
_ASIDE = ("provenance", "profile")
_PROVENANCE = re.compile(r"(tc-testcase|testcase|tc|ls|gcu|mch)-")
# Seconds or milliseconds since 1970 are numbers, but hardly ever what somebody wants as the length of a bar.
_EPOCH = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of plain values, all of the same length.

    ``who`` is the key that names the learners (``None``: rows are not about learners), ``names`` holds them
    in full, and ``labels`` without a provenance where there is only one. ``errors`` are those that stood in
    place of a value. ``series`` are columns of numbers over time.
    """

    who: str | None
    names: tuple[str, ...]
    labels: tuple[str, ...]
    columns: Mapping[str, tuple[Value, ...]]
    errors: tuple[str, ...] = ()
    series: Mapping[str, tuple[Series | None, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def numeric(self) -> list[str]:
        """Columns of numbers, those that are moments in time last."""
        names = [name for name, values in self.columns.items() if _numeric(values)]
        return sorted(names, key=lambda name: _is_moment(self.columns[name]))

    @property
    def measures(self) -> list[str]:
        """Columns of numbers that are no moments in time."""
        return [name for name in self.numeric if not _is_moment(self.columns[name])]

    def whole(self, column: str) -> bool:
        """Whether a column of numbers holds whole ones alone."""
        return all(value % 1 == 0 for value in self.columns[column] if isinstance(value, int | float))

    @property
    def texts(self) -> list[str]:
        """Columns of words and texts, texts first."""
        names = [n for n, values in self.columns.items() if any(isinstance(value, str) for value in values)]
        return sorted(names, key=lambda name: name in self.categorical)

    @property
    def categorical(self) -> list[str]:
        """Columns of few different words (or yes and no), which can be counted."""
        return [name for name, values in self.columns.items() if _categorical(values)]


def table_of(rows: Sequence[Row]) -> Table:
    """Look at the rows of an answer.

    >>> rows = [{"user_id": "tc-testcase-a", "count": 3}, {"user_id": "tc-testcase-b", "count": None}]
    >>> table = table_of(rows)
    >>> table.who, table.labels, table.numeric, table.columns["count"]
    ('user_id', ('a', 'b'), ['count'], (3, None))
    """
    broken = [_error_of(row) for row in rows]
    series: dict[str, list[Series | None]] = {}
    flat = [_flat(row, series, index, len(rows)) for index, row in enumerate(rows)]
    # A state may have a `name` of its own: a key is the learner's only where each row has one.
    who = next((key for key in _WHO if flat and all(isinstance(row.get(key), str) for row in flat)), None)
    names = tuple(str(row[who]) if who else str(number) for number, row in enumerate(flat, 1))
    columns: dict[str, list[Value]] = {}
    for index, row in enumerate(flat):
        for key, value in row.items():
            # What names the learner a second time says nothing new.
            if key != who and not (key in _WHO and value == row.get(who or "")):
                columns.setdefault(key, [None] * len(flat))[index] = value
    return Table(
        who=who,
        names=names,
        labels=_distinct(_short(names), columns) if who else names,
        columns={name: tuple(values) for name, values in columns.items()},
        errors=tuple(f"{name}: {error}" for name, error in zip(names, broken, strict=True) if error),
        series={name: tuple(values) for name, values in series.items()},
    )


def text_table(table: Table, columns: Sequence[str], *, bar: str | None = None, limit: int = 40) -> str:
    """The table as text of at most ``limit`` rows, for a console; ``bar`` names a column to be drawn too.

    >>> print(text_table(table_of([{"student": "ann", "n": 4}, {"student": "bo", "n": 2}]), ["n"], bar="n"))
    student  n
    ann      4  ████████████████████████
    bo       2  ████████████
    """
    shown = min(len(table), limit)
    header = [table.who or "", *columns]
    body = [
        [table.labels[row], *(_cell(table.columns[name][row]) for name in columns)] for row in range(shown)
    ]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    right = [False, *(_numeric(table.columns[name]) for name in columns)]
    lines = [_line(header, widths, right)]
    numbers = [value if _is_number(value) else 0 for value in table.columns[bar]] if bar else []
    most = max((abs(value) for value in numbers), default=0)
    for index, cells in enumerate(body):
        drawn = "█" * round(24 * (abs(numbers[index]) / most)) if most else ""
        lines.append(f"{_line(cells, widths, right)}  {drawn}".rstrip())
    if shown < len(table):
        lines.append(f"... and {len(table) - shown} more")
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(parts).rstrip()


def _cell(value: Value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _is_error(value: Mapping[str, Any]) -> bool:
    """Whether this is what a query puts in the place of a value that it could not get."""
    return isinstance(value.get("error"), str) and ("function" in value or "traceback" in value)


def _error_of(row: Row) -> str:
    places = [row, *(value for value in row.values() if isinstance(value, Mapping))]
    return next((place["error"] for place in places if _is_error(place)), "")


def _flat(
    row: Row, series: dict[str, list[Series | None]], index: int, rows: int, prefix: str = ""
) -> dict[str, Value]:
    values: dict[str, Value] = {}
    broken = _is_error(row)
    for key, value in row.items():
        if (not prefix and key in _ASIDE) or (broken and key not in _WHO):
            continue
        path = f"{prefix}{key}"
        if isinstance(value, Mapping | list) and (found := series_of(value)) is not None:
            series.setdefault(path, [None] * rows)[index] = found
        elif isinstance(value, Mapping):
            values.update(_flat(value, series, index, rows, f"{path}."))
        elif isinstance(value, float) and not isfinite(value):
            values[path] = None  # as a page has it, and as aggregates count it
        elif value is None or isinstance(value, str | int | float | bool):
            values[path] = value
        # A list is no plain value, and its length may not be what it is about: left out.
    return values


def _short(names: tuple[str, ...]) -> tuple[str, ...]:
    """Safe ids without their provenance, where all that have one have the same and so it tells nothing.

    >>> _short(("tc-testcase-ann", "xapi-4f2a"))
    ('ann', 'xapi-4f2a')
    >>> _short(("tc-testcase-ann", "gcu-bo"))
    ('tc-testcase-ann', 'gcu-bo')
    """
    found = {match[0] for name in names if (match := _PROVENANCE.match(name))}
    if len(found) != 1:
        return names
    short = tuple(name.removeprefix(next(iter(found))) for name in names)
    return short if len(set(short)) == len(set(names)) else names


def _distinct(labels: tuple[str, ...], columns: Mapping[str, Sequence[Value]]) -> tuple[str, ...]:
    """Labels of which each stands for one row; several rows of a learner get what tells them apart."""
    if len(set(labels)) == len(labels):
        return labels
    for values in columns.values():
        longer = tuple(f"{label} · {value}" for label, value in zip(labels, values, strict=True))
        if all(isinstance(value, str) for value in values) and len(set(longer)) == len(longer):
            return longer
    return tuple(f"{label} #{number}" for number, label in enumerate(labels, 1))


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(values: Sequence[Value]) -> bool:
    held = [value for value in values if value is not None]
    return bool(held) and all(_is_number(value) for value in held)


def _is_moment(values: Sequence[Value]) -> bool:
    return all(value is None or (isinstance(value, int | float) and value > _EPOCH) for value in values)


def _categorical(values: Sequence[Value]) -> bool:
    held = [value for value in values if value is not None]
    if not held or not all(isinstance(value, str | bool) for value in held):
        return False
    different = len(set(held))
    return all(isinstance(value, bool) for value in held) or (
        different <= 12 and (different < len(held) or len(held) == 1)
    )
