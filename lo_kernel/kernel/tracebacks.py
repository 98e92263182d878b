"""What a cell shows of an error that a verb of ``lo`` raised: the user's lines and what was wrong.

The lines of this package in between are no help to who gave a wrong argument, or stopped a cell that waited;
nor those around a function of one's own that a verb called, as the ``where`` of ``lo.events.filter``.
``%tb`` shows all of them.
"""

from __future__ import annotations

import os
import sys
from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lo_kernel
from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["cell_of", "cut", "show_short"]

_OURS = f"{Path(lo_kernel.__file__).parent}{os.sep}"
_SAID = (LOError, CancelledError)
_ARGUMENTS = (ValueError, TypeError)  # of a verb that is asked for what can't be


def show_short(shell: InteractiveShell) -> None:
    """Have the shell show errors of ours so, from now on."""
    kinds = (Exception, CancelledError)
    shell.set_custom_exc(kinds, _show)  # type: ignore[no-untyped-call] # it has no annotations


def cell_of(shell: InteractiveShell, file: str) -> str | None:
    """``Cell In[3]`` for the file name of a cell's code; None for other files."""
    named = shell.compile.format_code_name(file)
    return f"{named[0]} {named[1]}" if named else None


def cut(shell: InteractiveShell, traceback: TracebackType | None) -> TracebackType | None:
    """Its frames down to the first one of ours, and those of cells below; None where none is ours."""
    found: list[TracebackType] = []
    ours = False
    for each in _frames(traceback):
        ours = ours or _is_ours(each)
        if not ours or cell_of(shell, each.tb_frame.f_code.co_filename):
            found.append(each)
    return _chained(found) if ours else None


def _called(traceback: TracebackType | None) -> TracebackType | None:
    """Its frames without ours, and those between them, where a verb called a function of the user's own."""
    from lo_kernel.engine.errorlog import is_own

    frames = list(_frames(traceback))
    ours = [number for number, each in enumerate(frames) if _is_ours(each)]
    called = frames[ours[-1] + 1 :] if ours else []
    if not called or not is_own(called[0].tb_frame.f_code.co_filename):
        return None
    return _chained([*frames[: ours[0]], *called])


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_ours(traceback: TracebackType) -> bool:
    return traceback.tb_frame.f_code.co_filename.startswith(_OURS)


def _chained(frames: list[TracebackType]) -> TracebackType | None:
    short: TracebackType | None = None
    for each in reversed(frames):
        short = TracebackType(short, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return short


def _show(
    shell: InteractiveShell,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
    tb_offset: int | None = None,
) -> Any:
    if issubclass(kind, SyntaxError) and not any(
        cell_of(shell, each.tb_frame.f_code.co_filename) for each in _frames(traceback)
    ):
        # Of the cell itself, which hasn't run: there are no lines to show.
        shell.showsyntaxerror()  # type: ignore[no-untyped-call] # it has no annotations
        return
    said = issubclass(kind, _SAID) or (issubclass(kind, _ARGUMENTS) and _raised_here(traceback))
    short = cut(shell, traceback) if said else _called(traceback)
    if short is None:
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset, running_compiled_code=True)
        return
    cause, hides = error.__cause__, error.__suppress_context__
    before = cause or (None if hides else error.__context__)
    if said and before is not None and _began_here(before):
        error.__cause__ = None  # which hides what came before it, too
    try:
        shell.showtraceback((kind, error, short), tb_offset=tb_offset, running_compiled_code=True)
    finally:
        error.__cause__, error.__suppress_context__ = cause, hides
        sys.last_traceback = traceback  # for %tb and %debug


def _began_here(error: BaseException) -> bool:
    """Whether it was caught in our own code; else it is the user's."""
    return error.__traceback__ is None or _is_ours(error.__traceback__)


def _raised_here(traceback: TracebackType | None) -> bool:
    frames = list(_frames(traceback))
    return bool(frames) and _is_ours(frames[-1])
