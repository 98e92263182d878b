"""``lo-kernel replay``: files of events into a workspace."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lo_kernel.app.replaying import replay_at_owner
from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.engine.formats import FORMATS
from lo_kernel.engine.replay import ReplayReport, check_replay, replay
from lo_kernel.kernel.audit.requests import KernelRecord, user_of
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel replay``."""
    parser = OptionParser(
        "replay",
        "Old events into a workspace; reducers see them when they are registered. What is held is skipped.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="FILE", help="study log, JSON lines, xAPI, CSV; .gz, .zst"
    )
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"auto, {', '.join(FORMATS)}")
    parser.add_argument("--learner", metavar="ID", help="this learner's events alone (safe id)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first so many")
    parser.add_argument("--source", metavar="NAME", help="context of events that name none")
    add_settings(parser, only=["workspace", "store"])
    options = parser.parse(arguments)
    settings, _ = settings_from(parser, options)
    chosen = {name: getattr(options, name) for name in ("format", "learner", "limit", "source")}
    where = [str(Path(path).absolute()) for path in options.paths]
    owner = Workspace(settings.workspace_path).find_owner()
    if owner is not None:  # it alone puts events in
        work = replay_at_owner(
            owner, options.paths, user=user_of(os.environ)["name"], on_progress=_shown(), **chosen
        )
    else:
        work = _replay(settings, options.paths, chosen, where)
    print(asyncio.run(work))
    return 0


async def _replay(
    settings: Settings, paths: list[str], chosen: dict[str, object], where: list[str]
) -> ReplayReport:
    record = KernelRecord(settings)
    record.open(os.environ, role="command")
    runtime = Runtime(settings, reads=record.recorder)
    try:
        await runtime.start()
        check_replay(runtime, paths, **chosen)  # type: ignore[arg-type]
        runtime.reads.act("replay", texts={"path": where})
        return await replay(runtime, paths, on_progress=_shown(), **chosen)  # type: ignore[arg-type]
    finally:
        await runtime.stop()
        record.close()


def _shown() -> Callable[[ReplayReport], None] | None:
    return _show if sys.stderr.isatty() else None


def _show(report: ReplayReport) -> None:
    share = report.done / max(report.total, 1)
    end = "\n" if report.ended is not None else ""
    print(f"\r{share:4.0%}  {report.note} ", end=end, file=sys.stderr, flush=True)
