"""The command line: ``lo-kernel``, ``python -m lo_kernel`` and, from a checkout, ``python lo_kernel/``.

This module finds out what is wanted, and imports only that: a kernel's start goes straight to the kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

__all__ = ["main"]

_COMMANDS = {
    "serve": ("lo_kernel.commands.serve", "main"),
    "install": ("lo_kernel.commands.specs", "install"),
    "uninstall": ("lo_kernel.commands.specs", "uninstall"),
    "status": ("lo_kernel.commands.status", "main"),
    "simulate": ("lo_kernel.commands.simulate", "main"),
    "replay": ("lo_kernel.commands.replay", "main"),
    "erase": ("lo_kernel.commands.persons", "erase"),
    "export-student": ("lo_kernel.commands.persons", "export_student"),
    "audit": ("lo_kernel.commands.audit", "main"),
    "lab": ("lo_kernel.commands.lab", "main"),
    "new": ("lo_kernel.commands.new", "main"),
    "inject": ("lo_kernel.commands.inject", "main"),
    "export": ("lo_kernel.commands.export", "main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` says (default: this process's arguments); the exit code.

    0: done. 1: it went wrong. 2: the options are wrong, and nothing was started.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if _is_launch(arguments):
        from lo_kernel.kernel.launch import launch

        launch(arguments)
        return 0
    return _run(arguments)


def _is_launch(arguments: Sequence[str]) -> bool:
    """Whether a Jupyter client starts a kernel: ``-f FILE``, and none of the modes that a person types."""
    if not arguments or arguments[0] in _COMMANDS or "-f" not in arguments:
        return False
    return not any(each.partition("=")[0] in ("--loconsole", "--lokernel") for each in arguments)


def _run(arguments: list[str]) -> int:
    from lo_kernel.errors import LOError, SettingsError

    try:
        if arguments and arguments[0] in _COMMANDS:
            module, name = _COMMANDS[arguments[0]]
            command: Callable[[list[str]], int] = getattr(import_module(module), name)
            return command(arguments[1:])
        from lo_kernel.commands.modes import run

        return run(arguments, tuple(_COMMANDS))
    except LOError as error:
        print(f"lo-kernel: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 130
