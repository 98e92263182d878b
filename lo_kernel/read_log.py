"""What the parts of the app tell the record: whose data was read, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

__all__ = ["NoReadLog", "ReadLog"]


class ReadLog(Protocol):
    """Where reads of learners' data are put on record."""

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Note that ``what`` (a reducer, a query) was read, and of whom (safe ids)."""

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """Note a deed: a reducer loaded, an export, an erasure. ``texts={...}`` are details in free text."""

    def on_behalf(self, client: str, path: str, connection: str = "") -> AbstractContextManager[None]:
        """What is read inside is a client's doing: the kind of its token, and what it asked for."""

    def forget(self, learner: str, named: Callable[[str], bool] | None = None) -> int:
        """Name a learner no more, nor keep texts that are ``named`` as theirs; how many texts went."""
        ...

    def knows(self, learner: str) -> bool:
        """Whether a learner is named."""
        ...


class NoReadLog:
    """A read log that keeps nothing."""

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Keep nothing."""

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """Keep nothing."""

    def on_behalf(self, client: str, path: str, connection: str = "") -> AbstractContextManager[None]:
        """Keep nothing."""
        return nullcontext()

    def forget(self, learner: str, named: Callable[[str], bool] | None = None) -> int:
        """There is nothing to forget."""
        return 0

    def knows(self, learner: str) -> bool:
        """It names nobody."""
        return False
