"""Who is seen and isn't in the roster, and whether another id of the same person may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lo_kernel.engine.errorlog import ErrorEntry, ErrorLog

__all__ = ["WHO", "Strangers"]

WHO: Final = "roster: who is in it"
"""Where the errors say it."""

_STRANGERS: Final = 3
"""How many learners are seen, and none of the roster, before that is said."""


class Strangers:
    """Compares those who are seen with the roster ``name``, and tells ``errors`` what doesn't fit.

    Each kind of trouble is one entry, whose text is kept true while more learners come. ``before`` is the one
    that this takes the place of, as when the file was read again: what it told isn't told anew, unless
    somebody else is concerned.

    >>> log = ErrorLog()
    >>> Strangers("r.csv", {"tc-ada", "bo"}, log).saw(["tc-ada", "tc-bo"])
    >>> print(log[0].message)
    'bo' stands in r.csv and wasn't seen, 'tc-bo' was: 'user_id' is the safe id, as lo.query shows it
    """

    def __init__(self, name: str, ids: set[str], errors: ErrorLog, before: Strangers | None = None) -> None:
        self._name = name
        self._ids = ids
        self._errors = errors
        self._met: set[str] = set()
        self._alike: dict[str, str] = {}  # who isn't in the roster: who of it is meant, and wasn't seen
        self._others: dict[str, None] = {}  # who isn't in it, and like nobody of it
        self._entries: dict[str, ErrorEntry] = {}
        self._before: dict[str, set[str]] = {}  # until the first look: who was told of, by kind
        if before is not None and before._name == name:
            self._entries = before._entries
            self._before = {kind: before._concerned(kind) for kind in self._entries}
        else:
            errors.forget(WHO)

    def saw(self, learners: Iterable[str]) -> None:
        """Take note of these safe ids."""
        for here in learners:
            if here in self._ids:
                self._met.add(here)
                for each in [each for each, there in self._alike.items() if there == here]:
                    del self._alike[each]
                    self._others[each] = None
            elif there := self._meant(here):
                self._alike[here] = there
            else:
                self._others[here] = None
        self._tell()

    def forget(self, learner: str) -> None:
        """Somebody was erased."""
        self._met.discard(learner)
        self._alike.pop(learner, None)
        self._others.pop(learner, None)
        self._tell()

    def _meant(self, here: str) -> str:
        """Who of the roster has this id without its provenance, and wasn't seen."""
        rest = here
        while rest:
            rest = rest.partition("-")[2]
            if rest in self._ids and rest not in self._met:
                return rest
        return ""

    def _tell(self) -> None:
        nobody = bool(self._ids) and not self._met
        enough = bool(self._alike) or len(self._others) >= _STRANGERS
        said = {
            "NobodySeen": self._nobody() if nobody and enough else "",
            "LookAlike": self._look_alike() if self._alike and not nobody else "",
            "NotInRoster": self._not_in_it() if self._others and self._met else "",
        }
        before, self._before = self._before, {}
        for kind, message in said.items():
            entry = self._entries.get(kind)
            if entry is not None and kind in before and not self._concerned(kind) <= before[kind]:
                self._errors.drop(self._entries.pop(kind))
                entry = None
            if message and entry is None:
                self._entries[kind] = self._errors.add(WHO, message, kind=kind)
            elif message and entry is not None:
                entry.message = message
            elif entry is not None:
                self._errors.drop(self._entries.pop(kind))

    def _concerned(self, kind: str) -> set[str]:
        """Whom an entry is about; that nobody was seen is about the roster as a whole."""
        return {"LookAlike": set(self._alike), "NotInRoster": set(self._others)}.get(kind, set())

    def _nobody(self) -> str:
        here, there = next(iter(self._alike.items()), None) or (next(iter(self._others)), min(self._ids))
        return (
            f"nobody in {self._name} has been seen, though others have, so all rows are empty: {there!r} "
            f"stands there, and ids here are as {here!r}. 'user_id' is the safe id, as lo.query shows it"
        )

    def _look_alike(self) -> str:
        (here, there), more = next(iter(self._alike.items())), len(self._alike) - 1
        return (
            f"{there!r} stands in {self._name} and wasn't seen, {here!r} was"
            + (f", and {more:,} more like that" if more else "")
            + ": 'user_id' is the safe id, as lo.query shows it"
        )

    def _not_in_it(self) -> str:
        count = len(self._others)
        some = "1 learner has" if count == 1 else f"{count:,} learners have"
        return (
            f"{some} sent events and can't be found in {self._name}, and so in no answer about its courses; "
            f"the first: {next(iter(self._others))!r}"
        )
