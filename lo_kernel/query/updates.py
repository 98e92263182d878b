"""What is sent when an answer changes: rows by path, encoded once for everyone who shares it."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec

from lo_kernel.query.behind import Behind
from lo_kernel.query.ports import JSON
from lo_kernel.query.rows import Rows, flat_row
from lo_kernel.query.steps import WHOLE, Change
from lo_kernel.query.values import error_value, identity, path_of, same, visible

__all__ = ["Board", "RowChange", "Update", "message"]

FRAME_BYTES: Final = 256 * 1024
"""A frame larger than this is sent as several: many clients refuse large ones."""

_encode = msgspec.json.Encoder().encode


class RowChange(msgspec.Struct, frozen=True, gc=False):
    """One row that changed.

    ``value`` holds the fields that changed, or, with ``op`` ``delete``, nothing; ``row`` is the whole row.
    """

    path: str
    op: str
    value: Any
    row: Any = None


class _Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A change as it goes over the wire."""

    op: str
    path: str
    value: Any
    behind: dict[str, str] | None = None


class Update:
    """Rows that changed at the same time."""

    def __init__(
        self, changes: Iterable[RowChange], behind: Mapping[str, Behind] | None = None, *, mark: bool = False
    ) -> None:
        self.changes = tuple(changes)
        self.behind: Mapping[str, Behind] = behind or {}
        """Which reducers' states aren't the newest; the first message of each frame says so."""
        self.mark = mark
        """Whether nothing but that has changed: the row says again what it said before."""

    @cached_property
    def frames(self) -> list[bytes]:
        """The update as text frames of JSON, made when first asked for."""
        marks = {name: mark.status for name, mark in self.behind.items()} or None
        return _frames(self.changes, marks)

    def rows(self, names: Mapping[str, str] | None = None, exports: Container[str] = ()) -> Rows:
        """The rows that changed, whole and flat; without those that are gone.

        Where the answer of one of ``exports`` as a whole is an error, there are none, and ``.error`` says it.
        """
        for change in self.changes:
            if change.op == "error" and change.path in exports:
                return Rows(behind=self.behind, error=str(change.row["error"]))
        rows = (flat_row(change.row, names) for change in self.changes if change.op != "delete")
        return Rows(rows, behind=self.behind)

    @property
    def gone(self) -> list[str]:
        """Paths of rows that are gone."""
        given = {change.path for change in self.changes if change.op != "delete"}
        return [change.path for change in self.changes if change.op == "delete" and change.path not in given]

    def __len__(self) -> int:
        return len(self.changes)


@dataclass(slots=True)
class _Export:
    """Where the rows of one export stand, and what was sent of them."""

    paths: list[str] = field(default_factory=list)
    values: dict[str, Mapping[str, JSON]] = field(default_factory=dict)
    rows: dict[str, JSON] = field(default_factory=dict)


class Board:
    """What all readers of a query have been told so far, by path.

    ``stamps`` are fields that are added to every row of an export.
    """

    def __init__(self, stamps: Mapping[str, Mapping[str, JSON]] | None = None) -> None:
        self._exports: dict[str, _Export] = {}
        self._stamps = stamps or {}
        self._snapshot: Update | None = None
        self._behind: Mapping[str, Behind] = {}
        self._failed: dict[str, RowChange] = {}

    @property
    def failed(self) -> bool:
        """Whether the newest thing that readers were told is that there is no answer."""
        return bool(self._failed)

    def fail(self, exports: Iterable[str], value: dict[str, JSON]) -> Update | None:
        """Note that an answer can't be had, and why; ``None`` where that was said already.

        The rows stay noted as they are: the next :meth:`update` says all of them again.
        """
        failed = {export: RowChange(export, "error", value, value) for export in exports}
        if failed == self._failed:
            return None
        self._failed = failed
        return Update(failed.values(), self._behind)

    def mark(self, behind: Mapping[str, Behind]) -> bool:
        """Note of which reducers the states are behind; whether those who look are to hear of it."""
        before, self._behind = self._behind, behind
        changed = {name: why.status for name, why in before.items()} != {
            name: why.status for name, why in behind.items()
        }
        if changed:
            self._snapshot = None
        return changed

    def update(self, changes: Sequence[RowChange]) -> Update:
        """What is sent of some changes; of none, one row again, so that the mark has something to go with.

        After :meth:`fail`, everything.
        """
        if self._failed:
            over = [RowChange(path, "delete", {}) for path in self._failed]
            gone = [change for change in changes if change.op == "delete"]
            self._failed = {}
            return Update([*over, *gone, *self.snapshot().changes], self._behind)
        if changes:
            return Update(changes, self._behind)
        rows = ((board, path) for board in self._exports.values() for path in board.values)
        again = [
            RowChange(path, _op(board.values[path]), board.values[path], board.rows[path])
            for board, path in itertools.islice(rows, 1)
        ]
        return Update(again, self._behind, mark=True)

    def take(self, export: str, answer: JSON, change: Change) -> list[RowChange]:
        """Note a new answer of an export, of which ``change`` is new; what is to be sent."""
        if not change:
            return []
        board = self._exports.setdefault(export, _Export())
        rows = answer if isinstance(answer, list) else [answer]
        single = not isinstance(answer, list)
        if change is not WHOLE:
            sent = self._rows(board, export, rows, sorted(change))
            if sent is not None:
                return self._noted(sent)
        paths = [_path(export, place, row, single) for place, row in enumerate(rows)]
        if len(set(paths)) < len(paths):
            taken: dict[str, int] = {}
            paths = [_unique(path, taken) for path in paths]
        known = set(paths)
        changes: list[RowChange] = []
        for path in [path for path in board.values if path not in known]:
            del board.values[path], board.rows[path]
            changes.extend(self._newest([path]))
        board.paths = paths
        for place, row in enumerate(rows):
            changes.extend(self._row(board, export, paths[place], row))
        return self._noted(changes)

    def snapshot(self) -> Update:
        """All rows; made once for all who come until they change."""
        if self._snapshot is None:
            changes = (
                RowChange(path, _op(value), value, board.rows[path])
                for board in self._exports.values()
                for path, value in board.values.items()
            )
            self._snapshot = Update(changes, self._behind)
        return self._snapshot

    def everything(self) -> Update:
        """All that there is to tell a reader who has nothing."""
        if not self._failed:
            return self.snapshot()
        return Update([*self.snapshot().changes, *self._failed.values()], self._behind)

    def newest(self, paths: Iterable[str]) -> Update:
        """The newest state of some paths, for a reader who was behind."""
        return Update(self._newest(paths), self._behind)

    def _newest(self, paths: Iterable[str]) -> Iterator[RowChange]:
        """All that is at these paths, of every export: rows of several stand under the learner's path."""
        for path in paths:
            yield RowChange(path, "delete", {})  # what a reader merged before may have fields that are gone
            for board in self._exports.values():
                if path in board.values:
                    value = board.values[path]
                    yield RowChange(path, _op(value), value, board.rows[path])
            if path in self._failed:
                yield self._failed[path]

    def _rows(
        self, board: _Export, export: str, rows: list[JSON], places: list[int]
    ) -> list[RowChange] | None:
        """Rows that changed in their places; ``None`` where one has become another's."""
        paths = {place: _path(export, place, rows[place], False) for place in places}
        added = [path for place, path in paths.items() if place >= len(board.paths)]
        if len(set(added)) < len(added) or not board.values.keys().isdisjoint(added):
            return None
        for place, path in paths.items():
            if place < len(board.paths):
                known = board.paths[place]
                if known != path and not known.startswith(f"{path}.rows."):
                    return None
                paths[place] = known
        board.paths.extend(added)
        return [
            change for place, path in paths.items() for change in self._row(board, export, path, rows[place])
        ]

    def _row(self, board: _Export, export: str, path: str, row: JSON) -> list[RowChange]:
        value = visible(row) if isinstance(row, dict) else {"output": row}
        stamp = self._stamps.get(export)
        if stamp:
            value = {**value, **stamp}
        before = board.values.get(path)
        board.values[path] = value
        board.rows[path] = row
        if before is None:
            return [RowChange(path, _op(value), value, row)]
        if not before.keys() <= value.keys():
            return list(self._newest([path]))
        changed = {
            name: item for name, item in value.items() if name not in before or not same(before[name], item)
        }
        return [RowChange(path, _op(value), changed, row)] if changed else []

    def _noted(self, changes: list[RowChange]) -> list[RowChange]:
        if changes:
            self._snapshot = None
        return changes


def message(op: str, path: str, value: JSON) -> bytes:
    """One frame with one message.

    >>> message("complete", "q", {})
    b'[{"op":"complete","path":"q","value":{}}]'
    """
    return b"[" + _encoded(RowChange(path, op, value)) + b"]"


def _op(value: Mapping[str, JSON]) -> str:
    return "error" if "error" in value and "function" in value else "update"


def _path(export: str, place: int, row: JSON, single: bool) -> str:
    who = identity(row)
    if who:
        return path_of(who)
    return export if single else f"{export}.{place}"


def _unique(path: str, taken: dict[str, int]) -> str:
    """Rows of the same learner beyond the first get a number, so that none hides another."""
    number = taken.get(path, 0)
    taken[path] = number + 1
    return f"{path}.rows.{number}" if number else path


def _encoded(change: RowChange, behind: dict[str, str] | None = None) -> bytes:
    try:
        return _encode(_Message(change.op, change.path, change.value, behind))
    except (TypeError, ValueError, RecursionError) as error:
        value = error_value(f"the answer can't be written as JSON: {error}", "encode")
        return _encode(_Message("error", change.path, value, behind))


def _frames(changes: Iterable[RowChange], marks: dict[str, str] | None) -> list[bytes]:
    frames: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for change in changes:
        part = _encoded(change, None if batch else marks)
        if batch and size + len(part) > FRAME_BYTES:
            frames.append(b"[" + b",".join(batch) + b"]")
            batch, size = [], 0
            part = _encoded(change, marks) if marks else part
        batch.append(part)
        size += len(part) + 1
    if batch:
        frames.append(b"[" + b",".join(batch) + b"]")
    return frames
