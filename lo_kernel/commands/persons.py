"""``lo-kernel erase`` and ``lo-kernel export-student``: what is about one person."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lo_kernel.app import erasing
from lo_kernel.app.asking import ask_owner
from lo_kernel.app.unfinished import known
from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.commands.places import existing_workspace
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.requests import KernelRecord, user_of
from lo_kernel.notebook import persons
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace, check_out

__all__ = ["erase", "export_student"]


def erase(arguments: Sequence[str]) -> int:
    """``lo-kernel erase``."""
    parser = OptionParser("erase", "Remove a learner everywhere: events, states, names. It can't be undone.")
    parser.add_argument("student", help="safe id, such as tc-testcase-ada")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    add_settings(parser, only=["workspace", "store"])
    options = parser.parse(arguments)
    settings, _ = settings_from(parser, options)
    existing_workspace(parser, settings)
    if not options.yes:
        if not sys.stdin.isatty():
            parser.error("erase: expected --yes, as nobody can be asked")
        if input(f"Erase {options.student} from {settings.workspace}? It can't be undone (yes/no) ") != "yes":
            print("nothing was erased")
            return 1

    async def work(runtime: Runtime, record: KernelRecord) -> Any:
        if not runtime.takes_events:  # it began to own it a moment ago
            raise LOError("another process has just taken the workspace: try again")
        return await erasing.erase(runtime, options.student)

    owner = Workspace(settings.workspace_path).find_owner()
    if owner is not None:
        print(erasing.Erased(**asyncio.run(ask_owner(owner, "DELETE", _path(options.student), user=_user()))))
    else:
        print(asyncio.run(_with_runtime(settings, options.student, work)))
    return 0


def export_student(arguments: Sequence[str]) -> int:
    """``lo-kernel export-student``."""
    parser = OptionParser("export-student", "All that is held of one learner, in one JSON file.")
    parser.add_argument("student", help="safe id, such as tc-testcase-ada")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to (default: the id and .json)")
    add_settings(parser, only=["workspace", "store"])
    options = parser.parse(arguments)
    settings, _ = settings_from(parser, options)
    existing_workspace(parser, settings)
    target = check_out(options.output or Path(f"{options.student}.json"))

    async def work(runtime: Runtime, record: KernelRecord) -> Any:
        def of(student: str) -> Any:
            return record.reader.events(student=student)

        return await persons.export_student(runtime, options.student, target, of)

    owner = Workspace(settings.workspace_path).find_owner()
    if owner is not None:
        data = asyncio.run(ask_owner(owner, "GET", f"{_path(options.student)}/held", user=_user()))
        data["record"] = AuditReader(settings.workspace_path).events(student=options.student)
        persons.write_held(target, data)
        print(target)
    else:
        print(asyncio.run(_with_runtime(settings, options.student, work, seen=True)))
    return 0


def _path(student: str) -> str:
    return f"webapi/learner/{quote(student, safe='')}"


def _user() -> str:
    return user_of(os.environ)["name"]


async def _with_runtime(
    settings: Settings,
    student: str,
    work: Callable[[Runtime, KernelRecord], Awaitable[Any]],
    *,
    seen: bool = False,
) -> Any:
    record = KernelRecord(settings)
    record.open(os.environ, role="command")
    runtime = Runtime(settings, reads=record.recorder)
    try:
        await runtime.start()
        if student not in runtime.learners and (seen or not known(runtime, student)):
            raise LOError(f"{student!r} is not the safe id of a learner who was seen in this workspace")
        return await work(runtime, record)
    finally:
        await runtime.stop()
        record.close()
