"""``lo-kernel erase`` and ``lo-kernel export-student``: what is about one person."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lo_kernel.app import erasing, holding
from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.requests import KernelRecord, user_of
from lo_kernel.notebook import persons
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings
from lo_kernel.workspace import Owner, Workspace

__all__ = ["erase", "export_student"]

_CONNECT = 5.0  # s
_ERASING = 3600.0  # s that the owner may take: its reducers run over the whole past


def erase(arguments: Sequence[str]) -> int:
    """``lo-kernel erase``."""
    parser = OptionParser("erase", "Remove a learner everywhere: events, states, names. It can't be undone.")
    parser.add_argument("student", help="safe id, such as tc-testcase-ada")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    add_settings(parser, only=["workspace", "store"])
    options = parser.parse(arguments)
    settings, _ = settings_from(parser, options)
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
        print(erasing.Erased(**asyncio.run(_ask(owner, "DELETE", _path(options.student)))))
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
    target = options.output or Path(f"{options.student}.json")

    async def work(runtime: Runtime, record: KernelRecord) -> Any:
        def of(student: str) -> Any:
            return record.reader.events(student=student)

        return await persons.export_student(runtime, options.student, target, of)

    owner = Workspace(settings.workspace_path).find_owner()
    if owner is not None:
        data = asyncio.run(_ask(owner, "GET", f"{_path(options.student)}/held"))
        data["record"] = AuditReader(settings.workspace_path).events(student=options.student)
        persons.write_held(target, data)
        print(target)
    else:
        print(asyncio.run(_with_runtime(settings, options.student, work)))
    return 0


def _path(student: str) -> str:
    return f"webapi/learner/{quote(student, safe='')}"


async def _ask(owner: Owner, method: str, path: str) -> dict[str, Any]:
    """Have the process that owns the workspace do it: it alone writes there, and has all states."""
    import aiohttp

    headers = {
        "Authorization": f"Bearer {owner.token}",
        holding.USER: quote(user_of(os.environ)["name"]),
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_ERASING)
    who = f"the process {owner.pid}, which owns the workspace and answers at {owner.url},"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False) as client,
            client.request(method, owner.url + path) as response,
        ):
            answer = await response.json(content_type=None)
            if response.status == 200:
                return dict(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError) as error:
        raise LOError(
            f"{who} does not answer ({type(error).__name__}: {error}). A cell that runs there may hold it: "
            "try again when it is over, do it there, with lo, or end that process first"
        ) from None
    raise LOError(f"{who} refuses: {answer.get('error', answer) if isinstance(answer, dict) else answer}")


async def _with_runtime(
    settings: Settings, student: str, work: Callable[[Runtime, KernelRecord], Awaitable[Any]]
) -> Any:
    record = KernelRecord(settings)
    record.open(os.environ, role="command")
    runtime = Runtime(settings, reads=record.recorder)
    try:
        await runtime.start()
        if student not in runtime.learners:
            raise LOError(f"{student!r} is not the safe id of a learner who was seen in this workspace")
        return await work(runtime, record)
    finally:
        await runtime.stop()
        record.close()
