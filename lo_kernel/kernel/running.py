"""Which kernels and servers of ours run on this machine: a small file for each, in Jupyter's runtime folder.

A file goes when its process ends in order. What a killed one left, its connection file too, goes when the
next one starts or somebody looks.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from lo_kernel.workspace import write_private

__all__ = ["Running", "announce", "running"]

_PATTERN = "lo-kernel-*.json"


class Running(msgspec.Struct, kw_only=True):
    """A process with an app: where that answers, and how to join the kernel (empty: a server without one).

    ``client`` is the process whose connection file it is, which may start another kernel with it; 0: the
    kernel's own. ``since`` is in seconds since 1970 (UTC).
    """

    pid: int
    url: str
    workspace: str
    loop: str
    connection_file: str = ""
    client: int = 0
    since: float = 0.0


def announce(process: Running) -> Path:
    """Put ``process`` on the list, and clear up; removing the file that this gives takes it off."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"lo-kernel-{process.pid}.json"
    process.since = process.since or time.time()
    write_private(path, msgspec.json.encode(process), lasting=False)
    running()
    return path


def running() -> list[Running]:
    """What runs now, oldest first; what processes left that are gone is removed."""
    found: list[Running] = []
    gone: list[Running] = []
    for path in _folder().glob(_PATTERN):
        try:
            process = msgspec.json.decode(path.read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            continue
        if _is_alive(process.pid):
            found.append(process)
        else:
            gone.append(process)
            path.unlink(missing_ok=True)
    _clear_up(gone, in_use={process.connection_file for process in found})
    return sorted(found, key=lambda process: process.since)


def _clear_up(gone: list[Running], *, in_use: set[str]) -> None:
    """Remove connection files that no process has, and nobody will start a kernel with."""
    for process in gone:
        file = process.connection_file
        if file and file not in in_use and not (process.client and _is_alive(process.client)):
            with contextlib.suppress(OSError):
                Path(file).unlink(missing_ok=True)


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
    try:  # in a container an orphan that has ended may keep its number: nobody asks how it went
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2]
    except OSError:
        return True
    return not state.startswith("Z")
