"""A quick look whether any module is installed; each start of an app takes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

__all__ = ["GROUP", "may_have_modules"]

GROUP = "lo_modules"


def may_have_modules(paths: Iterable[str] | None = None) -> bool:
    """Whether any distribution on the path names the group; asked at each start, so a quick look must do.

    ``importlib.metadata`` parses the files of all distributions, which takes five times as long; it is asked
    only where there is something to find.
    """
    return any(GROUP.encode() in text for text in _entry_points(sys.path if paths is None else paths))


def _entry_points(paths: Iterable[str]) -> Iterator[bytes]:
    for path in dict.fromkeys(paths):
        try:
            entries = os.scandir(path or ".")
        except OSError:  # no folder: an archive, or nothing
            continue
        with entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    try:
                        with open(os.path.join(entry.path, "entry_points.txt"), "rb") as file:  # noqa: PTH118, PTH123 - a Path costs more than the rest
                            yield file.read()
                    except OSError:
                        continue
