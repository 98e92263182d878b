"""Erasures that were begun: what is needed to finish one that was cut off.

    erasing-<random>.json    {"student":"tc-testcase-ada","user_id":"testcase-ada","called":[...],"asked":{}}

It is written before anything goes, and deleted when all has gone, with its bytes overwritten; its user alone
can read it. Where one is left, the erasure is done again from its beginning, by the next start or the next
erasure: each of its steps may be done twice.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from lo_kernel.runtime import Runtime
from lo_kernel.workspace import write_private

__all__ = ["Unfinished", "begin", "known", "tidy", "unfinished"]

_FILES = "erasing-*.json"
_WRITING = 60.0  # s that another process may take to write a small file


class Unfinished(msgspec.Struct):
    """Whom to erase: safe id, the id that clients gave, all that they are called; and who asked for it."""

    student: str
    user_id: str
    called: list[str]
    asked: dict[str, Any] = {}
    path: str = ""

    def end(self) -> None:
        """All has gone: so does this."""
        path = Path(self.path)
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)


def unfinished(workspace: Path) -> list[Unfinished]:
    """Those that were begun, in no order."""
    found = []
    for path in workspace.glob(_FILES):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            begun = msgspec.json.decode(path.read_bytes(), type=Unfinished)
            begun.path = str(path)
            found.append(begun)
    return found


def tidy(workspace: Path) -> None:
    """Delete what a process that was killed had half written; only by the owner, between two erasures."""
    for path in workspace.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if path.name.startswith("erasing-") or time.time() - path.stat().st_mtime > _WRITING:
                path.unlink()
    for path in workspace.glob(_FILES):
        if not path.read_bytes().strip(b"\0"):  # all was done, but that this goes
            path.unlink()


def known(runtime: Runtime, student: object) -> bool:
    """Whether there is something to erase of a learner: seen, on record, or not erased to the end."""
    return isinstance(student, str) and (
        student in runtime.learners
        or runtime.reads.knows(student)
        or any(each.student == student for each in unfinished(runtime.workspace.path))
    )


async def begin(runtime: Runtime, student: str, asked: dict[str, Any]) -> Unfinished:
    """Write down that a learner is to be erased; what an earlier try knew of them is kept."""
    learner = runtime.learners.get(student)
    user_id = learner.user_id if learner is not None else unquote_plus(student.partition("-")[2])
    name = (await runtime.rosters.names()).get(student, "")
    called = [student, user_id, name, runtime.made_up.find(student) or ""]
    for earlier in unfinished(runtime.workspace.path):
        if earlier.student == student:
            called += earlier.called
            user_id = earlier.user_id if learner is None else user_id
            path = Path(earlier.path)
            break
    else:
        path = runtime.workspace.path / f"erasing-{secrets.token_hex(8)}.json"
    begun = Unfinished(student, user_id, list(dict.fromkeys(filter(None, called))), asked)
    write_private(path, msgspec.json.encode(begun))
    begun.path = str(path)
    return begun
