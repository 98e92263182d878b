"""Names that a new module can't have, since what is imported under them would be another one."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

__all__ = ["whose_name"]

_OURS: Final = ("lo_kernel", "learning_observer")
_INSTALLED: Final = ("site-packages", "dist-packages")  # folders that pip and distributions install into


def whose_name(name: str) -> str:
    """A sentence that says whose a package's name is already; empty for one that a new module can have.

    A module of the Learning Observer that is installed under this name stands in no way: it is an earlier
    version of the new one.

    >>> whose_name("json")
    "'json' is a module of Python's own or of many others; choose another name"
    >>> whose_name("msgspec")
    "'msgspec' is a package that is installed here; choose another name"
    >>> whose_name("my_module")
    ''
    """
    if name in sys.stdlib_module_names or name == "tests":
        return f"{name!r} is a module of Python's own or of many others; choose another name"
    if name in _OURS or (_is_installed(name) and not _is_module(name)):
        return f"{name!r} is a package that is installed here; choose another name"
    return ""


def _is_installed(name: str) -> bool:
    folders = [folder for folder in sys.path if Path(folder).name in _INSTALLED]
    return PathFinder.find_spec(name, folders) is not None


def _is_module(name: str) -> bool:
    points = metadata.entry_points(group="lo_modules")
    return any(point.module.partition(".")[0] == name for point in points)
