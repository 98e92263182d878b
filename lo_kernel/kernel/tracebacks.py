"""What a cell shows of an error that a verb of ``lo`` raised: the user's lines and what was wrong.

The lines of this package in between are no help to who gave a wrong argument, or stopped a cell that waited.
``%tb`` shows all of them.
"""

from __future__ import annotations

import os
import sys
from asyncio import CancelledError
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lo_kernel
from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["cell_of", "cut", "show_short"]

_OURS = f"{Path(lo_kernel.__file__).parent}{os.sep}"
_ARGUMENTS = (ValueError, TypeError)  # of a verb that is asked for what can't be


def show_short(shell: InteractiveShell) -> None:
    """Have the shell show errors of ours so, from now on."""
    kinds = (LOError, *_ARGUMENTS, CancelledError)
    shell.set_custom_exc(kinds, _show)  # type: ignore[no-untyped-call] # it has no annotations


def cell_of(shell: InteractiveShell, file: str) -> str | None:
    """``Cell In[3]`` for the file name of a cell's code; None for other files."""
    named = shell.compile.format_code_name(file)
    return f"{named[0]} {named[1]}" if named else None


def cut(shell: InteractiveShell, traceback: TracebackType | None) -> TracebackType | None:
    """Its frames down to the first one of ours, and those of cells below; None where none is ours."""
    found: list[TracebackType] = []
    ours = False
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        ours = ours or file.startswith(_OURS)
        if not ours or cell_of(shell, file):
            found.append(traceback)
        traceback = traceback.tb_next
    if not ours:
        return None
    short: TracebackType | None = None
    for each in reversed(found):
        short = TracebackType(short, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return short


def _show(
    shell: InteractiveShell,
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
    tb_offset: int | None = None,
) -> Any:
    short = cut(shell, traceback)
    if short is None or (issubclass(kind, _ARGUMENTS) and not _raised_here(traceback)):
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset, running_compiled_code=True)
        return
    cause, hides = error.__cause__, error.__suppress_context__
    before = cause or (None if hides else error.__context__)
    if before is not None and _began_here(before):
        error.__cause__ = None  # which hides what came before it, too
    try:
        shell.showtraceback((kind, error, short), tb_offset=tb_offset, running_compiled_code=True)
    finally:
        error.__cause__, error.__suppress_context__ = cause, hides
        sys.last_traceback = traceback  # for %tb and %debug


def _began_here(error: BaseException) -> bool:
    """Whether it was caught in our own code; else it is the user's."""
    traceback = error.__traceback__
    return traceback is None or traceback.tb_frame.f_code.co_filename.startswith(_OURS)


def _raised_here(traceback: TracebackType | None) -> bool:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_OURS)
