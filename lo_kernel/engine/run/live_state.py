"""One state in memory, and what of many is committed at a time."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from lo_kernel.engine.events import Sender

__all__ = ["LEAST", "MISSING", "Item", "LiveState", "Snapshot"]

MISSING: Any = object()
"""Where there is nothing: a state that isn't in memory, an external state that isn't to be written."""

Item = tuple[int, Sender, bytes | msgspec.Raw, float]
"""An event as it is kept: its number, its sender, its text, and its time."""


LEAST: Final = 8
"""Events kept with a state before its text is made anew, at least."""


class LiveState:
    """One state in memory."""

    __slots__ = (
        "base",
        "dirty",
        "external",
        "failed",
        "key",
        "most",
        "seq",
        "since",
        "state",
        "used",
        "waiting",
    )

    def __init__(self, key: str, state: Any, seq: int) -> None:
        self.key = key  # of the internal state
        self.state = state
        self.external: Any = MISSING  # not written yet; bytes: its text
        self.base: bytes | None = None  # JSON text before the events in `since`; None: the null state
        self.since: list[Item] | None = None
        self.most = LEAST  # so many events in `since` are worth a new text
        self.seq = seq  # number of the newest event folded in
        self.dirty = False
        self.failed = False  # the reducer did, at one of its events
        self.used = True
        self.waiting: deque[Item] | None = None  # what waits, while an event is in work


class Snapshot:
    """What a run has to commit: JSON texts by key, the position they stand for, and who is ahead of it."""

    __slots__ = ("ahead", "position", "states")

    def __init__(self, states: dict[str, bytes], position: int, ahead: dict[str, int]) -> None:
        self.states = states
        self.position = position
        self.ahead = ahead
