"""Answers that aren't of all events, or not of the newest code, and how they say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lo_kernel.query.ports import Registration

__all__ = ["Behind", "behind"]

_CELL = "run the cell that defines it"


@dataclass(frozen=True, slots=True)
class Behind:
    """Why the states of a reducer are behind, and by how many events.

    ``status`` is ``paused`` (its code isn't registered in this process), ``replaced`` (the code before
    answers while the new one goes through the past), or what else the reducer is, as ``catching up``;
    ``to_go_on`` is what to do about one that is paused.
    """

    status: str
    events: int = 0
    to_go_on: str = _CELL

    def of(self, name: str) -> str:
        """What a reader of an answer is told of a reducer.

        >>> Behind("paused").of("count")
        "'count' is paused, with all events so far in its states; run the cell that defines it to go on"
        """
        return f"{name!r} is {'' if self.status == 'paused' and not self.events else 'behind: '}{self}"

    def __str__(self) -> str:
        events = f"{self.events:,} event{'s'[: self.events != 1]}"
        if self.status == "paused":
            stands = f"{events} came since" if self.events else "with all events so far in its states"
            return f"paused, {stands}; {self.to_go_on} to go on"
        if self.status == "replaced":
            return f"the code before answers; the new one has {events} to go"
        return f"{self.status}, {events} to go"


def behind(registrations: Iterable[Registration]) -> dict[str, Behind]:
    """Which of these reducers answer with states that are behind, by id."""
    found = {registration.id: _mark(registration) for registration in registrations}
    return {name: mark for name, mark in found.items() if mark is not None}


def _mark(registration: Registration) -> Behind | None:
    status = getattr(registration, "status", "live")
    to_go = max(0, getattr(registration, "total", 0) - getattr(registration, "done", 0))
    if status == "live":
        return None
    if getattr(registration, "replacing", False):
        return Behind("replaced", to_go)
    if getattr(registration, "answering", False) and status == "waiting":
        return None  # the same code, registered again: nothing has to run
    again = getattr(registration, "to_go_on", _CELL)
    return Behind(status, max(to_go, getattr(registration, "behind", 0)), again)
