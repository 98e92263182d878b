"""``POST /webapi/replay``: files of events into this workspace, for a process that can't put them in itself.

The command line and a kernel that follows ask so; the files are on this machine. The answer has a line of
JSON for each step, and the last one is the report.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from lo_kernel.app.asking import ask_owner
from lo_kernel.app.holding import asked_by
from lo_kernel.app.security import ACCESS
from lo_kernel.engine.files import Paths, check_files
from lo_kernel.engine.replay import ReplayReport, check_replay, replay
from lo_kernel.errors import LOError
from lo_kernel.runtime import Runtime
from lo_kernel.workspace import Owner

__all__ = ["answer", "replay_at_owner"]


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    paths: list[str]
    format: str = "auto"
    learner: str | None = None
    limit: int | None = None
    source: str | None = None


async def replay_at_owner(
    owner: Owner,
    paths: Paths,
    *,
    user: str = "",
    format: str = "auto",
    learner: str | None = None,
    limit: int | None = None,
    source: str | None = None,
    on_progress: Callable[[ReplayReport], None] | None = None,
) -> ReplayReport:
    """As :func:`~lo_kernel.engine.replay.replay`, by the process that owns the workspace.

    ``user`` is who asks for it at the command line, for the owner's record; a kernel keeps one of its own.
    Raises :class:`~lo_kernel.errors.EventError` at once where a file can't be used, and
    :class:`~lo_kernel.errors.LOError` where the owner doesn't answer. Cancelled, it ends there, too.
    """
    found = check_files(paths, format, learner=learner, limit=limit, source=source)
    asked = _Asked([str(path.absolute()) for path, _ in found], format, learner, limit, source)
    began = time.perf_counter()

    def report(line: dict[str, Any]) -> ReplayReport:
        seconds = line.pop("seconds")
        made = msgspec.convert(line, ReplayReport)
        made.started, made.ended = began, None if line["ended"] is None else began + seconds
        return made

    def told(line: dict[str, Any]) -> None:
        if on_progress is not None:
            on_progress(report(dict(line)))

    body = msgspec.to_builtins(asked)
    return report(await ask_owner(owner, "POST", "webapi/replay", user=user, body=body, on_line=told))


async def answer(runtime: Runtime, request: web.Request) -> web.StreamResponse:
    """Replay what was asked for; only for the notebook's own token, which no cookie is."""
    if request[ACCESS].by_cookie:
        return _refused("replaying takes the notebook's own token, not a cookie", 403)
    try:
        asked = msgspec.json.decode(await request.read(), type=_Asked)
        chosen = {name: getattr(asked, name) for name in ("format", "learner", "limit", "source")}
        paths: list[str | Path] = list(asked.paths)
        check_replay(runtime, paths, **chosen)
    except (msgspec.MsgspecError, LOError) as error:
        return _refused(str(error), 400)
    runtime.reads.act("replay", texts={"path": asked.paths}, asked=asked_by(request))
    response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
    await response.prepare(request)
    news = asyncio.Event()
    newest: list[ReplayReport] = []

    def progress(report: ReplayReport) -> None:
        newest[:] = [report]
        news.set()

    work = asyncio.ensure_future(_replayed(runtime, paths, chosen, progress))
    work.add_done_callback(lambda _: news.set())
    try:
        while not work.done():
            await news.wait()
            news.clear()
            if newest and not work.done():
                await response.write(_line(newest[0]))
        await response.write(_line(work.result()))
    finally:
        work.cancel()  # who asked is gone: asked again, it goes on where it was
    return response


async def _replayed(
    runtime: Runtime, paths: Paths, chosen: dict[str, Any], progress: Callable[[ReplayReport], None]
) -> ReplayReport | LOError:
    try:
        return await replay(runtime, paths, on_progress=progress, **chosen)
    except LOError as error:
        return error


def _line(report: ReplayReport | LOError) -> bytes:
    if isinstance(report, LOError):
        return msgspec.json.encode({"error": str(report)}) + b"\n"
    return msgspec.json.encode({**asdict(report), "seconds": report.seconds}) + b"\n"


def _refused(error: str, status: int) -> web.Response:
    return web.json_response({"error": error}, status=status)
