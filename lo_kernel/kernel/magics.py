"""``%lo``: what a user says about the kernel itself, as opposed to what is in it (that is ``lo``)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lo_kernel.errors import SettingsError

if TYPE_CHECKING:
    from lo_kernel.kernel.kernel import LOKernel

__all__ = ["LOOPS", "lo_magic", "remembered_loop"]

LOOPS = ("kernel", "thread")
_FILE = "loop"  # in the workspace's folder


def remembered_loop(workspace: Path) -> str | None:
    """The loop that ``%lo loop`` chose for this workspace; None where nobody did, or it can't be read."""
    try:
        chosen = (workspace / _FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return chosen if chosen in LOOPS else None


def _remember_loop(workspace: Path, loop: str) -> None:
    workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = workspace / f".{_FILE}.{os.getpid()}"
    try:
        beside.write_text(loop + "\n", encoding="utf-8")
        beside.replace(workspace / _FILE)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def lo_magic(kernel: LOKernel) -> Callable[[str], None]:
    """The ``%lo`` of a kernel."""

    def lo(line: str) -> None:
        """Show where the app answers, or choose the loop that it runs on.

        %lo                 the app's address, workspace and loop
        %lo loop            the loop that it runs on, and the other one
        %lo loop thread     from the next restart on a thread of its own: it answers while cells are busy
        %lo loop kernel     from the next restart on the kernel's loop: a debugger stops in it
        """
        match line.split():
            case []:
                print(f"{kernel.address_line}, loop {kernel.settings.loop!r}")
            case ["loop"]:
                print(f"loop {kernel.settings.loop!r}; there are {' and '.join(LOOPS)}: %lo loop NAME")
            case ["loop", name] if name in LOOPS:
                _choose(kernel, name)
            case ["loop", *rest]:
                raise SettingsError(f"%lo loop: expected one of {', '.join(LOOPS)}, got {' '.join(rest)!r}")
            case words:
                raise SettingsError(f"%lo: expected nothing or 'loop [NAME]', got {' '.join(words)!r}")

    return lo


def _choose(kernel: LOKernel, name: str) -> None:
    _remember_loop(kernel.settings.workspace_path, name)
    if kernel.trait_has_value("loop"):
        print(
            f"Noted, but the kernel's command line or configuration file says "
            f"loop={kernel.settings.loop!r}, which wins: change it there."
        )
    elif name == kernel.settings.loop:
        print(f"The app runs with loop={name!r} already, and will after a restart.")
    else:
        print(f"From the next restart of the kernel the app runs with loop={name!r}.")
