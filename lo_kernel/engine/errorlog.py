"""What went wrong in the background, kept so that a person can act on it.

One entry per place and kind of error: the first with its traceback and the event that caused it, and
how often it came since. It is bounded, and costs nothing while nothing goes wrong.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ErrorEntry", "ErrorLog"]


_EVENT_SHOWN = 1000  # characters of an event

# what stands between a reducer and what called it, or what an interrupt came by: nothing that a person wrote
_NOT_SHOWN = (
    f"{Path(__file__).parent / 'run'}{os.sep}",
    str(Path(__file__).parent.parent / "kernel" / "app.py"),
    str(Path(__file__).parent.parent / "kernel" / "kernel.py"),
    str(Path(__file__).parent.parent / "kernel" / "interrupts.py"),
)


@dataclass(slots=True)
class ErrorEntry:
    """One kind of trouble in one place; times are seconds since 1970 (UTC).

    >>> ErrorEntry("reducer 'count'", "ValueError", "no doc_id", 0.0, 0.0, event={"event": "keystroke"})
    reducer 'count': ValueError: no doc_id
    event: {'event': 'keystroke'}
    """

    where: str
    kind: str
    message: str
    first: float
    last: float
    traceback: str = ""
    event: Any = None
    count: int = 1

    def __str__(self) -> str:
        times = "" if self.count == 1 else f" ({self.count} times)"
        return f"{self.where}: {self.kind}: {self.message}{times}"

    def __repr__(self) -> str:
        parts = [str(self)]
        if self.event is not None:
            event = repr(self.event)
            parts.append(f"event: {event if len(event) <= _EVENT_SHOWN else event[:_EVENT_SHOWN] + '…'}")
        if self.traceback:
            parts.append(self.traceback.rstrip())
        return "\n".join(parts)


@dataclass(slots=True)
class ErrorLog:
    """The list of what went wrong, newest place last.

    >>> log = ErrorLog()
    >>> _ = log.add("reducer 'count'", ValueError("no doc_id"))
    >>> _ = log.add("reducer 'count'", ValueError("no doc_id"))
    >>> len(log), str(log[0])
    (1, "reducer 'count': ValueError: no doc_id (2 times)")
    """

    limit: int = 200
    clock: Callable[[], float] = time.time
    cell_of: Callable[[str], str | None] = lambda file: None
    """What a notebook calls the cell whose code has this file name; None for other files."""
    _entries: dict[tuple[str, str], ErrorEntry] = field(default_factory=dict)
    _listeners: list[Callable[[ErrorEntry], None]] = field(default_factory=list)

    def add(self, where: str, error: BaseException | str, *, event: Any = None, kind: str = "") -> ErrorEntry:
        """Note an error, or a plain message with a ``kind``; listeners hear of the first of each kind."""
        if isinstance(error, BaseException):
            kind = kind or type(error).__name__
            message = str(error) or repr(error)
        else:
            kind, message = kind or "Notice", error
        now = self.clock()
        entry = self._entries.get((where, kind))
        if entry is not None:
            entry.count += 1
            entry.last = now
            return entry
        text = self._traceback(error) if isinstance(error, BaseException) else ""
        entry = ErrorEntry(where, kind, message, now, now, text, event)
        while len(self._entries) >= self.limit:
            del self._entries[next(iter(self._entries))]
        self._entries[where, kind] = entry
        for listener in list(self._listeners):
            listener(entry)
        return entry

    def _traceback(self, error: BaseException) -> str:
        """As Python writes it, from where a reducer begins, with cells as the notebook names them."""
        told = traceback.TracebackException.from_exception(error)
        shown = [frame for frame in told.stack if not frame.filename.startswith(_NOT_SHOWN)]
        if shown:
            told.stack = traceback.StackSummary.from_list(shown)
        text = "".join(told.format())
        files = {frame.filename for each in _chain(told) for frame in each.stack}
        for file in files:
            if cell := self.cell_of(file):
                text = text.replace(f'  File "{file}", line ', f"  {cell}, line ")
        return text

    def forget(self, where: str) -> None:
        """Drop what was noted of one place, as when a reducer was replaced by a better one."""
        for key in [key for key in self._entries if key[0] == where]:
            del self._entries[key]

    def rename(self, where: str, other: str) -> None:
        """Let what was noted of one place stand under another name, as when a reducer was removed."""
        for entry in self.of(where):
            del self._entries[where, entry.kind]
            entry.where = other
            self._entries[other, entry.kind] = entry

    def drop(self, entry: ErrorEntry) -> None:
        """Drop one entry, as when it names somebody who is erased."""
        self._entries.pop((entry.where, entry.kind), None)

    def of(self, where: str) -> list[ErrorEntry]:
        """What was noted of one place."""
        return [entry for entry in self._entries.values() if entry.where == where]

    def subscribe(self, listener: Callable[[ErrorEntry], None]) -> Callable[[], None]:
        """Call ``listener`` with the first error of each kind; gives what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def __iter__(self) -> Iterator[ErrorEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> ErrorEntry:
        return list(self._entries.values())[index]


def _chain(told: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    while told is not None:
        yield told
        told = told.__cause__ or told.__context__
