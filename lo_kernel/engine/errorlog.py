"""What went wrong in the background, kept so that a person can act on it.

One entry per place, kind of error and line of code: the first with its traceback and the event that caused
it, how often it came since, and how often of these with another message. It is bounded, whatever the messages
say, and costs nothing while nothing goes wrong.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lo_kernel.errors import LOError

__all__ = ["ErrorEntry", "ErrorLog", "is_own"]


_EVENT_SHOWN = 1000  # characters of an event
_OTHERS = 2  # messages kept beside the first
_OTHER_SHOWN = 200  # characters of each of these
_LINES = 10  # lines of code that have an entry of their own, of one place and kind
_ELSEWHERE = ("...", 0)  # stands for all other lines

# what stands between a reducer and what called it, or what an interrupt came by: nothing that a person wrote
_NOT_SHOWN = (
    f"{Path(__file__).parent / 'run'}{os.sep}",
    str(Path(__file__).parent.parent / "kernel" / "app.py"),
    str(Path(__file__).parent.parent / "kernel" / "kernel.py"),
    str(Path(__file__).parent.parent / "kernel" / "interrupts.py"),
)

_OURS = f"{Path(__file__).parent.parent}{os.sep}"
_PYTHONS = (f"{Path(os.__file__).parent}{os.sep}", "<frozen ")
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

Line = tuple[str, int]
"""A line of code: its file and number; ``("", 0)`` where it isn't known or of no matter."""


@dataclass(slots=True)
class ErrorEntry:
    """One kind of trouble in one place; times are seconds since 1970 (UTC).

    ``message`` is that of the first. Of the ``count``, ``others`` had another message; the first two of these
    are ``other_messages``, cut where they are long.

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
    others: int = 0
    other_messages: list[str] = field(default_factory=list)
    line: Line = ("", 0)

    @property
    def times(self) -> str:
        """How often it came, to be said behind the message; empty where it came once."""
        if self.count == 1:
            return ""
        return f" ({self.count:,} times{f', {self.others:,} with another message' if self.others else ''})"

    @property
    def also(self) -> list[str]:
        """Lines that say which other messages there are; none where all are the same."""
        if not self.others:
            return []
        head = f"the message is another in {self.others:,} of {self.count:,}, such as:"
        return [head, *(f"    {' '.join(text.split())}" for text in self.other_messages)]

    def again(self, message: str, now: float) -> None:
        """It came once more."""
        self.count += 1
        self.last = now
        if message == self.message:
            return
        self.others += 1
        if len(self.other_messages) < _OTHERS and (text := _cut(message)) not in self.other_messages:
            self.other_messages.append(text)

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}{self.times}"

    def __repr__(self) -> str:
        parts = [str(self), *self.also]
        if self.event is not None:
            event = repr(self.event)
            which = "event of the first" if self.others else "event"
            parts.append(f"{which}: {event if len(event) <= _EVENT_SHOWN else event[:_EVENT_SHOWN] + '…'}")
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
    >>> print(*log.add("reducer 'count'", ValueError("no user")).also, sep="\\n")
    the message is another in 1 of 3, such as:
        no user
    """

    limit: int = 200
    clock: Callable[[], float] = time.time
    cell_of: Callable[[str], str | None] = lambda file: None
    """What a notebook calls the cell whose code has this file name; None for other files."""
    _entries: dict[tuple[str, str, Line], ErrorEntry] = field(default_factory=dict)
    _listeners: list[Callable[[ErrorEntry], None]] = field(default_factory=list)

    def add(self, where: str, error: BaseException | str, *, event: Any = None, kind: str = "") -> ErrorEntry:
        """Note an error, or a plain message with a ``kind``; listeners hear of the first of each entry."""
        line = ("", 0)
        if isinstance(error, BaseException):
            kind = kind or type(error).__name__
            message = _message(error)
            if isinstance(error, Exception):  # an interrupt comes at any line
                line = _line(error)
        else:
            kind, message = kind or "Notice", error
        now = self.clock()
        entry = self._entries.get((where, kind, line))
        if entry is None and line[0] and self._lines(where, kind) >= _LINES:
            line = _ELSEWHERE
            entry = self._entries.get((where, kind, line))
        if entry is not None:
            entry.again(message, now)
            return entry
        text = self._traceback(error) if isinstance(error, BaseException) else ""
        entry = ErrorEntry(where, kind, message, now, now, text, event, line=line)
        while len(self._entries) >= self.limit:
            del self._entries[next(iter(self._entries))]
        self._entries[where, kind, line] = entry
        for listener in list(self._listeners):
            listener(entry)
        return entry

    def _lines(self, where: str, kind: str) -> int:
        return sum(key[:2] == (where, kind) for key in self._entries)

    def _traceback(self, error: BaseException) -> str:
        """As Python writes it, from where a reducer begins, with cells as the notebook names them."""
        told = traceback.TracebackException.from_exception(error)
        shown = [frame for frame in told.stack if not frame.filename.startswith(_NOT_SHOWN)]
        if _on_purpose(error) and all(
            f.filename.startswith(_OURS) for each in _chain(told) for f in each.stack
        ):
            return ""  # none of these lines is a person's, and it says itself what to do
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
            del self._entries[where, entry.kind, entry.line]
            entry.where = other
            self._entries[other, entry.kind, entry.line] = entry

    def drop(self, entry: ErrorEntry) -> None:
        """Drop one entry, as when it names somebody who is erased."""
        self._entries.pop((entry.where, entry.kind, entry.line), None)

    def of(self, where: str) -> list[ErrorEntry]:
        """What was noted of one place."""
        return [entry for entry in self._entries.values() if entry.where == where]

    def subscribe(self, listener: Callable[[ErrorEntry], None]) -> Callable[[], None]:
        """Call ``listener`` with the first error of each entry; gives what ends it."""
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


def is_own(file: str) -> bool:
    """Whether a person wrote this file (or cell): it is none of this package, of others, or of Python's."""
    return not file.startswith((_OURS, *_PYTHONS)) and not any(part in file for part in _PACKAGES)


def _message(error: BaseException) -> str:
    try:
        return str(error) or repr(error)
    except Exception:  # of a class that a person wrote
        return "its message can't be shown: making a text of it fails, too"


def _cut(message: str) -> str:
    """The beginning of a message, whole words of it: half an id would be found by nobody."""
    if len(message) <= _OTHER_SHOWN:
        return message
    words = message[:_OTHER_SHOWN].rsplit(None, 1)
    return f"{words[0] if len(words) > 1 else ''}…"


def _line(error: Exception) -> Line:
    """The innermost line that a person wrote and the error went through.

    Where it went through none, that of another package; this one's and Python's own are of no matter.
    """
    own: Line = ("", 0)
    of_package: Line = ("", 0)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_own(file):
            own = (file, trace.tb_lineno)
        elif not file.startswith(_OURS) and any(part in file for part in _PACKAGES):
            of_package = (file, trace.tb_lineno)
        trace = trace.tb_next
    return own if own[0] else of_package


def _on_purpose(error: BaseException | None) -> bool:
    """Whether it is one of ours, and not for another one that isn't."""
    while isinstance(error, LOError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error is None


def _chain(told: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    while told is not None:
        yield told
        told = told.__cause__ or told.__context__
