"""A reducer that doesn't come to an end: how it is found among the frames of a thread, and what ends it.

A reducer that computes without end holds the loop, so nothing that runs on the loop can end it. Whoever hears
of an interrupt elsewhere (a signal's handler, a thread) looks with :func:`call_in` whether a reducer is at
work, and raises :class:`Interrupted` in it. That is no `KeyboardInterrupt`, which is the user's cell's: it
counts as the reducer's own failure, so that the event costs nothing but itself. With functions that queries
call it is the same, and with those that :func:`interruptible` gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

__all__ = ["INTERRUPTS", "Interrupted", "call_in", "interruptible"]

A = TypeVar("A")
R = TypeVar("R")

INTERRUPTS = 2
"""Interrupts after which a reducer is paused."""

_HERE = Path(__file__).parent
_ENGINE = _HERE.parent
_QUERY = _ENGINE.parent / "query"
_CALLERS = (f"{_HERE}{os.sep}", str(_ENGINE / "fold.py"), str(_QUERY / "functions.py"))
_NO_REDUCERS = (f"{_ENGINE}{os.sep}", f"{_QUERY}{os.sep}")  # what callers call besides


class Interrupted(BaseException):
    """Raised in a reducer (or function) that was in one call when an interrupt came, and some time after."""

    def __init__(self) -> None:
        super().__init__("it was interrupted, because it did not come to an end")


def interruptible(function: Callable[[A], R]) -> Callable[[A], R]:
    """The same function, of which each call is found by :func:`call_in`."""

    def call(argument: A) -> R:
        return function(argument)

    return call


def call_in(frame: FrameType | None) -> FrameType | None:
    """The frame of the reducer or function that a thread is in; None: it is in none.

    ``frame`` is the innermost one of the thread. Each call has a frame of its own.
    """
    inner: FrameType | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if inner is not None and file.startswith(_CALLERS):
            return None if inner.f_code.co_filename.startswith(_NO_REDUCERS) else inner
        inner, frame = frame, frame.f_back
    return None
