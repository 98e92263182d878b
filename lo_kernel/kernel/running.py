"""Which kernels and servers of ours run on this machine: a small file for each, in Jupyter's runtime folder.

A file goes when its process ends in order; one that a killed process left goes when the next one looks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from lo_kernel.workspace import write_private

__all__ = ["Running", "announce", "running"]

_PATTERN = "lo-kernel-*.json"


class Running(msgspec.Struct, kw_only=True):
    """A process with an app: where that answers, and how to join the kernel (empty: a server without one).

    ``since`` is in seconds since 1970 (UTC).
    """

    pid: int
    url: str
    workspace: str
    loop: str
    connection_file: str = ""
    since: float = 0.0


def announce(process: Running) -> Path:
    """Put ``process`` on the list; removing the file that this gives takes it off."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"lo-kernel-{process.pid}.json"
    process.since = process.since or time.time()
    write_private(path, msgspec.json.encode(process))
    return path


def running() -> list[Running]:
    """What runs now, oldest first; entries of processes that are gone are removed."""
    found: list[Running] = []
    for path in _folder().glob(_PATTERN):
        try:
            process = msgspec.json.decode(path.read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            continue
        if _is_alive(process.pid):
            found.append(process)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda process: process.since)


def _folder() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir())


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # there os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
