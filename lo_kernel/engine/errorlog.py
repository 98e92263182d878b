"""What went wrong in the background, kept so that a person can act on it.

One entry per place and kind of error: the first with its traceback and the event that caused it, and
how often it came since. It is bounded, and costs nothing while nothing goes wrong.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ErrorEntry", "ErrorLog"]


@dataclass(slots=True)
class ErrorEntry:
    """One kind of trouble in one place; times are seconds since 1970 (UTC)."""

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
        text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
        entry = ErrorEntry(where, kind, message, now, now, text, event)
        while len(self._entries) >= self.limit:
            del self._entries[next(iter(self._entries))]
        self._entries[where, kind] = entry
        for listener in list(self._listeners):
            listener(entry)
        return entry

    def forget(self, where: str) -> None:
        """Drop what was noted of one place, as when a reducer was replaced by a better one."""
        for key in [key for key in self._entries if key[0] == where]:
            del self._entries[key]

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
