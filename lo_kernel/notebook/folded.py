"""What ``lo.fold`` gives: the states by key, which are rows and a frame, too."""

from __future__ import annotations

from typing import Any, Final

from lo_kernel.engine.fold import Folded
from lo_kernel.engine.keys import parse_key
from lo_kernel.query.rows import Rows, flat_row

__all__ = ["FoldedStates"]

_LABELS: Final = {"EventField.doc_id": "RESOURCE"}  # as queries call them


class FoldedStates(Folded):
    """States by key, as :class:`~lo_kernel.engine.fold.Folded` has them; also as an answer of a query.

    >>> from lo_kernel.engine.report import ReplayReport
    >>> folded = Folded(ReplayReport())
    >>> folded["Internal,__main__.verbs,STUDENT:table-ann"] = {"open": 2}
    >>> FoldedStates.of(folded).rows
    student    open
    table-ann     2
    """

    @classmethod
    def of(cls, folded: Folded) -> FoldedStates:
        """The same states, and what is known of them."""
        made = cls(folded.report)
        made.update(folded)
        made.failures, made.errors = folded.failures, folded.errors
        made.first_error, made.first_event = folded.first_error, folded.first_event
        return made

    @property
    def rows(self) -> Rows:
        """A row for each state, with whose it is, as :meth:`lo.query` gives them."""
        return Rows((_row(key, state) for key, state in self.items()), notes=self.note.splitlines())

    def to_frame(self, library: str = "") -> Any:
        """The rows as a data frame of pandas or polars; see :meth:`Rows.to_frame`."""
        return self.rows.to_frame(library)


def _row(key: str, state: Any) -> dict[str, Any]:
    parsed = parse_key(key)
    whose = parsed.values if parsed is not None else {}
    names = {_LABELS.get(name, name): {"value": value} for name, value in whose.items()}
    fields = state if isinstance(state, dict) else {"value": state}
    return flat_row({**fields, "provenance": {"key": key, "provenance": names}})
