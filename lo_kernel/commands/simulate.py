"""``lo-kernel simulate``: a class that types, sent to a running app over its websocket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from lo_kernel.app.simulate import SimulationProgress, simulate_class
from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.errors import LOError
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace

__all__ = ["ingest_url_of", "main"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel simulate``."""
    parser = OptionParser("simulate", "A class that types, sent to a running app. Ctrl-C ends it.")
    parser.add_argument("--students", type=int, default=30, metavar="N", help="learners (default: 30)")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long (default: until Ctrl-C)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed sends the same again")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="2.0: twice as fast")
    parser.add_argument("--url", help="ws:// address of the app's /wsapi/in/, token included")
    add_settings(parser, only=["workspace"])
    options = parser.parse(arguments)
    settings, _ = settings_from(parser, options)
    try:
        work = simulate_class(
            options.url or ingest_url_of(settings),
            students=options.students,
            seconds=options.seconds,
            seed=options.seed,
            speed=options.speed,
            on_progress=_show if sys.stderr.isatty() else None,
        )
    except ValueError as error:
        parser.error(str(error))
    result = asyncio.run(work)
    print(f"{result.students} learners sent {result.events} events (seed {result.seed})")
    return 0


def ingest_url_of(settings: Settings) -> str:
    """Where the app that owns the workspace takes events; an `LOError` where none runs."""
    owner = Workspace(settings.workspace_path).find_owner()
    if owner is None:
        raise LOError(
            f"no app runs in the workspace {settings.workspace!r}: start one with lo-kernel, or open a "
            "notebook; or give the address of another one with --url"
        )
    return owner.ingest_url


def _show(progress: SimulationProgress) -> None:
    text = f"\r{progress.connected} of {progress.students} connected, {progress.events} events "
    print(text, end="", file=sys.stderr, flush=True)
