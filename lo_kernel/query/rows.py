"""The answer of a query as flat rows, that print as a table and turn into a frame."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, SupportsIndex, overload

from lo_kernel.errors import MissingExtraError, QueryError
from lo_kernel.query.behind import Behind
from lo_kernel.query.ports import JSON
from lo_kernel.query.table import Table, laid_out
from lo_kernel.query.values import identity

__all__ = ["Rows", "flat_row", "flat_rows"]

_COLUMNS: Final = {"STUDENT": "student", "TEACHER": "teacher", "CLASS": "class", "RESOURCE": "document"}


class Rows(list[dict[str, Any]]):
    """A list of rows. It prints as a table, in text and in HTML.

    >>> Rows([{"student": "tc-u0", "count": 2}, {"student": "tc-u1", "count": 10}])
    student  count
    tc-u0        2
    tc-u1       10

    ``behind`` says of which reducers the rows aren't the newest state, and why; nearly always of none.

    >>> Rows([{"n": 2}], behind={"count": Behind("paused", 3)})
    n
    2
    'count' is behind: paused, 3 events came since; run the cell that defines it to go on

    An error in the place of a value, or of a row, is said once, whole, under the table. ``notes`` are what
    else there is to know, ``last`` the places of rows that may be shown after the others.

    >>> Rows([{"student": "tc-u0", "n": 2}, {"student": "tc-u1", "error": "no n", "function": "map"}])
    student      n
    tc-u0        2
    tc-u1    error
    error in 1 of 2 rows (tc-u1): no n

    ``error`` says why there is no answer at all; empty where there is one.

    >>> Rows(error="there is no course 'c9' in the roster")
    error: there is no course 'c9' in the roster
    """

    def __init__(
        self,
        rows: Iterable[dict[str, Any]] = (),
        *,
        behind: Mapping[str, Behind] | None = None,
        error: str = "",
        notes: Iterable[str] = (),
        last: Collection[int] = (),
    ) -> None:
        super().__init__(rows)
        self.notes: list[str] = list(notes)
        self._last = frozenset(last)
        self.behind: dict[str, Behind] = dict(behind or {})
        self.error = error

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice, /) -> Rows: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> dict[str, Any] | Rows:
        """A row, or for a slice some rows, which still print as a table."""
        found = super().__getitem__(index)
        if not isinstance(found, list):
            return found
        places = range(len(self))[index] if isinstance(index, slice) else ()
        last = [place for place, was in enumerate(places) if was in self._last]
        return Rows(found, behind=self.behind, error=self.error, notes=self.notes, last=last)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order in which they first come."""
        return list(dict.fromkeys(name for row in self for name in row))

    def to_frame(self, library: str = "") -> Any:
        """The rows as a data frame of ``library``: ``"pandas"`` or ``"polars"``.

        Without a name, a pandas one, or a polars one where only polars is installed. Raises
        :class:`MissingExtraError` where the library isn't there, :class:`QueryError` for another name, and
        where there is no answer.
        """
        if self.error:
            raise QueryError(self.error)
        if library not in ("", *_FRAMES):
            raise QueryError(f"to_frame: expected 'pandas' or 'polars', got {library!r}")
        for name in _FRAMES if not library else (library,):
            with contextlib.suppress(ImportError):
                return _FRAMES[name](self)
        raise MissingExtraError("frames", f"a {library} frame of rows" if library else "a frame of rows")

    @property
    def _notes(self) -> list[str]:
        return [*self.notes, *(mark.of(name) for name, mark in self.behind.items())]

    def __repr__(self) -> str:
        if not self:
            return "\n".join([f"error: {self.error}" if self.error else "no rows", *self._notes])
        table = self._table
        widths = [
            max(len(name), *(len(row[place]) for row in table.cells))
            for place, name in enumerate(table.names)
        ]
        lines = [_line(row, widths, table.right) for row in (table.names, *table.cells)]
        if table.more:
            lines.append(f"... {table.more} more rows")
        return "\n".join([*lines, *table.errors, *self._notes])

    @property
    def _table(self) -> Table:
        return laid_out(self, self._last)

    def _repr_html_(self) -> str:
        table = self._table if self else None
        notes = [*(table.errors if table is not None else ()), *self._notes]
        below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        if table is None:
            said = f"<b>error:</b> {html.escape(self.error)}" if self.error else "<em>no rows</em>"
            return f"{said}{below}"
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in table.names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.cells
        )
        foot = f"<caption style='caption-side:bottom'>{table.more} more rows</caption>" if table.more else ""
        return f"<table>{foot}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _pandas(rows: Rows) -> Any:
    import pandas

    return pandas.DataFrame(list(rows), columns=rows.columns)


def _polars(rows: Rows) -> Any:
    import polars  # type: ignore[import-not-found,unused-ignore]

    columns = []
    for name in rows.columns:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        try:
            if len(kinds) > 1 and kinds != {int, float}:
                raise TypeError("an error beside numbers, say")
            each = [{name: value} for value in values]
            columns.append(polars.DataFrame(each, infer_schema_length=None, strict=True)[name])
        except (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError):
            columns.append(
                polars.Series(name, values, dtype=polars.Object)
            )  # as it is: polars would drop some
    return polars.DataFrame(columns)


_FRAMES: Final[dict[str, Callable[[Rows], Any]]] = {"pandas": _pandas, "polars": _polars}


def flat_row(row: JSON, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One row of an answer, flat: whom it belongs to, then its fields.

    ``student`` is the safe id (``document``, ``class``, ``teacher`` where the scope has them). What the
    roster put in (``user_id``, ``profile``) and the provenance are left out: ``student`` says it, and names
    stay out. A state's own ``profile`` stays. A field called like one of these columns keeps both, as
    ``state.student``.

    >>> flat_row({"provenance": {"provenance": {"STUDENT": {"user_id": "tc-u0"}}}, "count": 2})
    {'student': 'tc-u0', 'count': 2}
    """
    if not isinstance(row, dict):
        return {"value": row}
    who = identity(row)
    flat: dict[str, Any] = {_COLUMNS.get(name) or name.partition(".")[2]: value for name, value in who}
    if names and "student" in flat:
        flat["name"] = names.get(flat["student"], "")
    own = set(flat)
    of_roster = "student" in own and row.get("user_id") == flat["student"]
    for name, value in row.items():
        if name == "provenance" or (name in ("user_id", "profile") and of_roster):
            continue
        flat[f"state.{name}" if name in own else name] = value
    return flat


def flat_rows(
    answer: JSON,
    names: Mapping[str, str] | None = None,
    behind: Mapping[str, Behind] | None = None,
    *,
    notes: Iterable[str] = (),
    last: Collection[int] = (),
) -> Rows:
    """An answer as rows; one that is no list is a single row.

    >>> flat_rows(3)
    value
        3
    """
    items = answer if isinstance(answer, list) else [answer]
    return Rows((flat_row(item, names) for item in items), behind=behind, notes=notes, last=last)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()
