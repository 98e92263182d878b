"""The app by itself, until Ctrl-C, SIGTERM, or the end of its terminal (SIGHUP)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.commands.production import add_production, check_modules, log_lines, token_path, use_file
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.kernel import kernelspec
from lo_kernel.kernel.apps import app_factory, check_app
from lo_kernel.kernel.audit.requests import KernelRecord
from lo_kernel.kernel.ending import Ending, end_signals
from lo_kernel.kernel.held import keep_events, what_holds
from lo_kernel.kernel.host import AppHost, bind_first, port_candidates
from lo_kernel.kernel.logs import log_to
from lo_kernel.kernel.running import Running, announce
from lo_kernel.query.strangers import WHO
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

__all__ = ["main", "serve"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel serve``."""
    parser = OptionParser("serve", "The app by itself; prints its address. Ctrl-C ends it.")
    add_settings(parser)
    add_production(parser)
    options = parser.parse(arguments)
    use_file(parser, options)
    settings, asked_for = settings_from(parser, options)
    check_modules(parser, settings)
    with log_lines(options.json_logs):
        return serve(settings, asked_for)


def serve(settings: Settings, asked_for: frozenset[str] = frozenset()) -> int:
    """Run the app in this process until a signal ends it; the exit code.

    The kernel file is written if it is missing or stale; where that isn't possible it says so and goes on.
    """
    _check(settings)
    if message := kernelspec.ensure().message:
        print(message, file=sys.stderr)
    # there is no cell here that could block the loop: a thread beside it would only cost
    asyncio.run(_serve(replace(settings, loop="kernel"), "port" in asked_for))
    return 0


def _check(settings: Settings) -> None:
    """Raise `SettingsError` for what no server can start with, before anything is made."""
    check_app(settings)
    bind_first(settings.host, ()).close()
    if settings.roster:
        from lo_kernel.query.rosters import read_roster

        read_roster(Path(settings.roster))


async def _serve(settings: Settings, port_asked_for: bool) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, *end_signals()]
    announcement: Path | None = None
    runtime: Runtime | None = None
    record: KernelRecord | None = None

    def leave() -> None:
        if announcement is not None:
            announcement.unlink(missing_ok=True)

    def leave_held() -> None:
        said = what_holds(threading.main_thread().ident)
        if runtime is not None and runtime.workspace.owner:  # the lock goes with the process
            (runtime.workspace.path / "owner.json").unlink(missing_ok=True)
        leave()
        if said:
            print(said, file=sys.stderr, flush=True)
        if record is not None:
            record.close()

    ending = Ending(numbers, leave_held)

    def end(number: int, frame: FrameType | None) -> None:
        ending.begin()
        if runtime is not None:
            keep_events(runtime, frame)
        loop.call_soon_threadsafe(over.set)

    for number in numbers:
        signal.signal(number, end)
    ending.watch()
    log = log_to(settings.workspace_path / "logs")
    record, failures = _record(settings)
    runtime = Runtime(settings, reads=record.recorder if record is not None else None)
    for failure in failures:
        runtime.errors.add("audit", failure)
    host = AppHost(
        settings,
        app_factory(settings, runtime),
        ports=port_candidates(settings, asked_for=port_asked_for, last_port=runtime.workspace.last_port),
        on_bind=runtime.bind,
    )
    try:
        if not await _unless(over, host.start()):
            return
        announcement = announce(
            Running(pid=os.getpid(), url=runtime.url, workspace=settings.workspace, loop="kernel")
        )
        token = runtime.workspace.tokens.get("notebook")
        print(f"{runtime.url}?token={token}" if token else runtime.url, flush=True)
        if runtime.started is not None and not runtime.workspace.owner:
            print("The workspace belongs to another process, which this one follows.", file=sys.stderr)
        if settings.allow_inject:
            print(f"Modules may be put in with the token in {token_path(settings)}", file=sys.stderr)
        for notice in _of_roster(runtime.errors):
            print(notice, file=sys.stderr, flush=True)
        await over.wait()
    finally:
        ending.loop_over()
        await host.stop()
        log.close()
        if record is not None:
            record.close()
        leave()
        ending.all_over()


def _of_roster(errors: ErrorLog) -> list[str]:
    """What is wrong with the roster, a line each; no learner's id, which no erasure would find in a log."""
    found = [f"roster: {entry.message}" for entry in errors.of("roster")]
    if errors.of(WHO):
        found.append("roster: its ids and those that were seen don't fit together; /admin/status says more")
    return found


async def _unless(over: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work``, and give whether it was done before the end was asked for; then it is cancelled."""
    doing, ending = asyncio.create_task(work), asyncio.create_task(over.wait())
    await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not doing.done():
        doing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doing
        return False
    await doing
    return True


def _record(settings: Settings) -> tuple[KernelRecord | None, list[BaseException]]:
    """What clients read goes on record here; without one the app works, and its errors say why."""
    failures: list[BaseException] = []
    record = KernelRecord(settings, on_error=failures.append)
    try:
        record.open(os.environ, role="server")
    except OSError as error:
        return None, [error]
    return record, failures
