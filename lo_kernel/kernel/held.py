"""A process that is to end while a reducer holds its loop: what can be kept is, and somebody is told why.

A reducer that doesn't come to an end keeps the loop from ending. The process ends all the same
(:mod:`lo_kernel.kernel.ending`), and a person at the terminal, or who reads a service's log, hears which one
it was. The event is in the archive, and the next start folds it again; one that was interrupted at it, as
Jupyter does before it ends a kernel, leaves it out of its states.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import lo_kernel
from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["keep_events", "what_held", "what_holds"]

_ARCHIVE = os.path.join(lo_kernel.__path__[0], "engine", "archive", "")  # noqa: PTH118 - a text to compare
_REDUCERS = "lo_kernel.engine.run"  # what calls them; a kernel comes up sooner without it
_JUST_NOW = 3.0  # s; a client interrupts first, and asks for the end when the kernel is still there


def keep_events(runtime: Runtime, frame: FrameType | None) -> None:
    """Write what waits in the archive's buffer, from a signal's handler that broke in on ``frame``.

    What holds the app's loop keeps it from being written, and may keep the end from coming.
    """
    if not runtime.archive.writable:
        return
    while frame is not None:
        if frame.f_code.co_filename.startswith(_ARCHIVE):  # it may be in the middle of the same
            return
        frame = frame.f_back
    try:
        runtime.archive.write()
    except LOError as error:
        runtime.errors.add("archive", error)


def what_holds(thread: int | None) -> str:
    """What to say where the process ends in the middle of a reducer, or of a function that a query calls.

    ``thread`` is the identifier of the one that the app's loop runs on. Empty where it is in none.
    """
    if _REDUCERS not in sys.modules:
        return ""
    from lo_kernel.engine.run.interrupting import call_in

    call = call_in(sys._current_frames().get(thread or 0))
    if call is None:
        return ""
    where = f"{Path(call.f_code.co_filename).name}, line {call.f_lineno}"
    return (
        f"{call.f_code.co_name!r} ({where}) did not come to an end: this process ended in the middle of it. "
        "Events that were acknowledged are kept; mend it before the next start, which folds them again."
    )


def what_held(runtime: Runtime) -> str:
    """What to say where a reducer was interrupted just before this process ended; empty where none was."""
    since = runtime.clock() - _JUST_NOW
    held = [each.where for each in runtime.errors if each.kind == "Interrupted" and each.last > since]
    return (
        f"{' and '.join(held)} did not come to an end, and was interrupted as this process ended: the event "
        "is left out of its states. Events that were acknowledged are kept."
        if held
        else ""
    )
