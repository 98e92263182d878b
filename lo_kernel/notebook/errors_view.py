"""``lo.errors`` as a notebook shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from lo_kernel.engine.errorlog import ErrorEntry, ErrorLog

__all__ = ["Errors"]


class Errors(Sequence["ErrorEntry"]):
    """What went wrong in the background: one entry per place, kind and line of code.

    Each has the traceback and event of the first, and says how often it came, and how often with another
    message. ``lo.errors[-1].event`` is the event that caused it; ``lo.errors.clear()`` forgets all.
    """

    def __init__(self, log: ErrorLog, saw: Callable[[list[ErrorEntry]], None]) -> None:
        self._log = log
        self._saw = saw  # called with the entries that a cell looks at

    def clear(self) -> None:
        """Forget all."""
        self._log.clear()

    def __len__(self) -> int:
        return len(self._log)

    def __iter__(self) -> Iterator[ErrorEntry]:
        return iter(self._log)

    @overload
    def __getitem__(self, index: int) -> ErrorEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[ErrorEntry]: ...
    def __getitem__(self, index: int | slice) -> ErrorEntry | list[ErrorEntry]:
        found = list(self._log)[index]
        self._saw(found if isinstance(found, list) else [found])
        return found

    def __repr__(self) -> str:
        from lo_kernel.notebook.cards import errors_text

        return errors_text(self[:])

    def _repr_html_(self) -> str:
        from lo_kernel.notebook.cards import errors_html

        return errors_html(self[:])
