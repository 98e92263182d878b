"""An IPython kernel with a running app.

`LOKernel.start` boots the app before the kernel's sockets are read, so it answers before the first cell can
run. What goes wrong with the app never takes the kernel with it: the cells run, and the banner, the first
cell's output and ``lo.errors`` say what happened.
"""

from __future__ import annotations

import asyncio
import html
import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ipykernel.ipkernel import IPythonKernel
from tornado.ioloop import IOLoop

import lo_kernel
from lo_kernel.errors import LOError
from lo_kernel.kernel.debugging import can_debug, load_debugger
from lo_kernel.kernel.held import keep_events
from lo_kernel.kernel.interrupts import Interrupts
from lo_kernel.kernel.magics import lo_magic, remembered_loop
from lo_kernel.kernel.recording import begin_record, header_of
from lo_kernel.kernel.starting import GivenUp, Starting
from lo_kernel.kernel.tracebacks import cell_of, show_short
from lo_kernel.kernel.traits import SettingsTraits, settings_of, unknown_settings
from lo_kernel.kernel.watch import LoopWatch
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    import logging
    from pathlib import Path
    from types import FrameType

    from lo_kernel.engine.errorlog import ErrorLog
    from lo_kernel.kernel.audit.requests import KernelRecord
    from lo_kernel.kernel.host import AppHost
    from lo_kernel.runtime import Runtime

__all__ = ["LOKernel", "LOWithoutApp", "asyncio_loop_of"]

_HELD_TOO_LONG = 2.0  # s that a cell may keep the app from answering before the kernel says so


def asyncio_loop_of(loop: IOLoop) -> asyncio.AbstractEventLoop:
    """The asyncio loop below a tornado loop; since tornado 6 there is always one."""
    below: asyncio.AbstractEventLoop = loop.asyncio_loop  # type: ignore[attr-defined]
    return below


def _file_of(module: object) -> str:
    return getattr(module, "__file__", None) or ""


class LOWithoutApp:
    """What ``lo`` is where not even the parts of an app could be made; ``errors`` says why."""

    def __init__(self, errors: ErrorLog) -> None:
        self.errors = errors

    def __repr__(self) -> str:
        return "\n".join(["Learning Observer: the app did not start.", *map(str, self.errors)])


class LOKernel(SettingsTraits, IPythonKernel):
    """An `IPythonKernel` that boots a Learning Observer app and puts ``lo`` into the namespace.

    Each field of `lo_kernel.settings.Settings` is a trait: ``--LOKernel.port=8000`` on the command line,
    ``c.LOKernel.port = 8000`` in ``ipython_kernel_config.py``, or ``LO_KERNEL_PORT=8000``.
    """

    settings = Settings()
    runtime: Runtime | None = None
    app_host: AppHost | None = None
    lo: Any = None
    on_started: Callable[[], None] | None = None  # called when the loop turns and messages are read
    record: KernelRecord | None = None
    """What goes on record here; None where the workspace can't be written."""
    _starting: Starting | None = None
    announcement: Path | None = None
    """The file that says that this kernel runs, and where its app answers."""
    failure: str = ""
    """Traceback of what kept the app from starting; empty where it runs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.interrupts = Interrupts(self._app_thread)

    def _app_thread(self) -> int | None:
        return self.app_host.thread_ident if self.app_host is not None else None

    @property
    def kernel_info(self) -> dict[str, Any]:
        """What a client is told about the kernel; it can debug, although debugpy isn't imported yet."""
        info: dict[str, Any] = super().kernel_info
        features = info.setdefault("supported_features", [])
        if "debugger" not in features and can_debug():
            features.append("debugger")
        return info

    async def do_debug_request(self, msg: dict[str, Any]) -> Any:
        """Answer a debugger; with its first question, debugpy is imported."""
        if self.record is None:
            return await self._debug(msg)
        token = self.record.debug(header_of(self, "control"), msg)
        try:
            return await self._debug(msg)
        finally:
            self.record.recorder.end(token)

    async def _debug(self, msg: dict[str, Any]) -> Any:
        load_debugger(self)
        self._debugger_is_there.set()
        return await super().do_debug_request(msg)

    def _publish_debug_event(self, event: dict[str, Any]) -> None:
        if event.get("event") == "stopped":
            self._debugger_stopped = True
        super()._publish_debug_event(event)

    async def poll_stopped_queue(self) -> None:
        """Tell clients where the debugger stopped, as soon as there is one."""
        await self._debugger_is_there.wait()
        await super().poll_stopped_queue()

    def start(self) -> None:
        """Boot the app, then do what every kernel does."""
        loop = asyncio_loop_of(IOLoop.current())
        self._debugger_is_there = asyncio.Event()
        self._kernel_modules = [file for each in list(sys.modules.values()) if (file := _file_of(each))]
        self._unsaid = True
        self._client_interrupted = float("-inf")
        self._watch_cells = True
        self._debugger_stopped = False
        self._log_handler: logging.Handler | None = None
        self._record_errors: list[BaseException] = []
        self.record = begin_record(self, self._record_failed)
        if loop.is_running():  # a kernel in somebody's process: the app comes up as soon as its loop turns
            self._booting = loop.create_task(self._boot())
        else:
            self._boot_first(loop)
        if self.shell is not None:
            self.shell.register_magic_function(lo_magic(self), "line", "lo")
            show_short(self.shell)
        super().start()
        if self.on_started is not None:
            self.io_loop.add_callback(self.on_started)

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: dict[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Run a cell; after it, say what the user has to know.

        Nothing is awaited before ``super()``: there an interrupt would be raised in the loop, and end it.
        """
        record = self.record
        reply: dict[str, Any] = {}
        if record is not None:
            header = header_of(self)
            token = record.execute(
                header,
                code,
                silent=silent,
                history=store_history,
                expressions=user_expressions,
                cell=cell_id,
            )
        try:
            with LoopWatch(asyncio.get_running_loop()) as watch:
                reply = await super().do_execute(
                    code,
                    silent,
                    store_history,
                    user_expressions,
                    allow_stdin,
                    cell_meta=cell_meta,
                    cell_id=cell_id,
                )
        finally:
            self._end_of_cell()
            if record is not None:
                record.executed(token, str(header.get("msg_id", "")), reply)
        if not silent:
            self._after_cell(watch.held, told=store_history, ok=reply.get("status") == "ok")
        return reply

    @contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """As it was: an interrupt cancels a cell that awaits. Meanwhile, reducers run: see `Interrupts`."""
        with super()._cancel_on_sigint(future):
            cancel = signal.getsignal(signal.SIGINT)
            assert callable(cancel)
            signal.signal(
                signal.SIGINT,
                lambda number, frame: None if self.interrupts.came(frame) else cancel(number, frame),
            )
            yield

    def _end_of_cell(self) -> None:
        """From here on an interrupt is no cell's any more: it would only cost the cell its reply."""
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, lambda _, frame: bool(self.interrupts.came(frame)))

    async def interrupt_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """What a client's stop button sends where it can't send a signal."""
        self._client_interrupted = time.monotonic()
        await super().interrupt_request(stream, ident, parent)

    def client_interrupts(self) -> bool:
        """Whether the signal that just came is a client's and not of somebody at the terminal."""
        return time.monotonic() - self._client_interrupted < 1.0

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """Stop the app, so that all it took is on disk before the client hears that the kernel is down.

        Runs on the control thread. Where a cell keeps the app from stopping, it is stopped after the loop.
        """
        await self.stop_app()
        reply: Any = super().do_shutdown(restart)
        content: dict[str, Any] = await reply if inspect.isawaitable(reply) else reply
        return content

    def close_record(self, within: float = 1.0) -> None:
        """The kernel has said its last word: the record ends, in so many seconds."""
        if self.record is not None:
            self.record.close(within)

    def _record_failed(self, error: BaseException) -> None:
        self._record_errors.append(error)
        if self.runtime is not None:
            self.runtime.errors.add("audit", error)

    def keep_events(self, frame: FrameType | None) -> None:
        """Write what waits in the archive's buffer, from a signal's handler that broke in on ``frame``.

        A cell that holds the app's loop keeps it from being written, and may keep the end from coming.
        """
        if self.runtime is not None and self.settings.loop == "kernel":
            keep_events(self.runtime, frame)

    async def stop_app(self) -> None:
        """End the app, from any loop and any number of times; never raises, and takes two seconds at most."""
        from lo_kernel.kernel.host import STOP_WITHIN

        if self.app_host is None:
            return
        try:
            if self.lo is not None and not isinstance(self.lo, LOWithoutApp):
                self.lo._close()
            await asyncio.wait_for(self.app_host.stop(), STOP_WITHIN + 0.1)
        except TimeoutError:
            self.log.warning("The app did not stop within %s s; its port is released anyway.", STOP_WITHIN)
        except Exception:
            self.log.exception("The app failed while it stopped; its port is released anyway.")
        finally:
            if self._log_handler is not None:
                self._log_handler.close()
            if self.announcement is not None:
                self.announcement.unlink(missing_ok=True)

    @property
    def banner(self) -> str:  # type: ignore[override] # the base class's may be None
        """Where the app answers, and with which workspace; then IPython's own banner."""
        own = f"Learning Observer {lo_kernel.__version__}"
        return f"{own}: {self.address_line}\n{self.failure}\n{super().banner or ''}"

    @property
    def address_line(self) -> str:
        """One line: where the app answers, its workspace and who owns that."""
        if self.failure:
            what = self.failure.strip().rpartition("\n")[2]  # a traceback's last line says it
            return f"the app did not start, and the kernel works without it: {what}"
        runtime = self.runtime
        if runtime is None or self.app_host is None:
            return "the app is starting"
        return f"the app answers at {runtime.url}{self._workspace_line(runtime)}"

    def _workspace_line(self, runtime: Runtime) -> str:
        if runtime.started is None:  # an app that is not ours uses no workspace
            return f", app {self.settings.app}"
        where = f", workspace {self.settings.workspace}"
        if runtime.workspace.owner:
            return f"{where} (owned by this kernel)"
        owner = runtime.workspace.find_owner()
        if owner is None and not runtime.workspace.is_owned():
            return f"{where} (its owner has ended; await lo.own() takes it over)"
        whose = f"process {owner.pid} at {owner.url}" if owner else "another process"
        return f"{where} (owned by {whose}; followed here)"

    def _boot_first(self, loop: asyncio.AbstractEventLoop) -> None:
        """Boot the app before the loop runs for the kernel; ends whatever the app does."""
        booting = loop.create_task(self._boot())
        with Starting(loop, booting, self._start_within()) as self._starting:
            while not booting.done():
                try:
                    loop.run_until_complete(booting)
                except GivenUp as error:  # raised between two steps of the loop
                    self._starting.give_up(str(error))
                except (
                    SystemExit,
                    KeyboardInterrupt,
                ):  # of a task of the app: whoever waits for it hears of it
                    continue
        self._starting = None

    def _start_within(self) -> int:
        try:
            return settings_of(self)[0].start_within
        except LOError:  # said where the app is made
            return Settings().start_within

    def give_up_start(self, reason: str) -> None:
        """End the app's start-up, from a signal's handler; nothing where it has started."""
        if self._starting is not None:
            self._starting.give_up(reason)

    async def _boot(self) -> None:
        try:
            await self._start_app()
        except (Exception, GivenUp, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            given_up = self._starting.reason if self._starting is not None else ""
            if isinstance(error, asyncio.CancelledError) and not given_up:
                raise
            why: BaseException = error
            if given_up:
                why = LOError(f"the start of the app was given up: {given_up}")
                why.__cause__ = error
            await self.stop_app()  # where it was served already
            self.app_host = None
            self.failure = "".join(traceback.format_exception(why))
            self.log.error("The app did not start.", exc_info=why)
            self._without_app(why)
        errors = self.runtime.errors if self.runtime is not None else self.lo.errors
        for line in unknown_settings(self):
            errors.add(f"setting {line.split()[0]}", line, kind="UnknownSetting")
        self._offer_lo()

    async def _start_app(self) -> None:
        # imported here: lo_kernel.kernel.launch has done it, with the certificates left for later
        from lo_kernel.bridge import LoopBridge
        from lo_kernel.kernel.apps import app_factory
        from lo_kernel.kernel.host import AppHost, port_candidates
        from lo_kernel.kernel.logs import log_to
        from lo_kernel.kernel.running import Running, announce
        from lo_kernel.notebook.observer import LearningObserver
        from lo_kernel.runtime import Runtime

        self.settings, asked_for = settings_of(self)
        if not self.trait_has_value("loop") and (loop := remembered_loop(self.settings.workspace_path)):
            self.settings = replace(self.settings, loop=loop)
        self._log_handler = log_to(self.settings.workspace_path / "logs")
        self.runtime = runtime = Runtime(
            self.settings, reads=self.record.recorder if self.record is not None else None
        )
        if self.shell is not None:
            runtime.errors.cell_of = partial(cell_of, self.shell)
        for error in self._record_errors:
            runtime.errors.add("audit", error)
        ports = port_candidates(
            self.settings, asked_for="port" in asked_for, last_port=runtime.workspace.last_port
        )
        host = AppHost(self.settings, app_factory(self.settings, runtime), ports=ports, on_bind=runtime.bind)
        await host.start()
        self.app_host = host
        bridge = LoopBridge(host.loop)
        self.lo = LearningObserver(runtime, bridge, kernel=self)
        if self.settings.app == "learning_observer":
            self.lo = import_module("lo_kernel.upstream.observer").DeployedObserver(self.lo, bridge)
        elif self.settings.app != "embedded":
            self.lo = import_module("lo_kernel.notebook.limited").LimitedObserver(self.lo, failed=False)
        self.announcement = announce(
            Running(
                pid=os.getpid(),
                url=runtime.url,
                workspace=self.settings.workspace,
                loop=self.settings.loop,
                connection_file=getattr(self.parent, "abs_connection_file", ""),
                client=0 if getattr(self.parent, "owns_connection_file", False) else os.getppid(),
            )
        )
        self.help_links = [{"text": "Learning Observer", "url": runtime.url}, *self.help_links]

    def _without_app(self, error: BaseException) -> None:
        """An ``lo`` whose ``errors`` say why there is no app: the usual one, or where that fails, a stub."""
        from lo_kernel.bridge import LoopBridge
        from lo_kernel.engine.errorlog import ErrorLog

        where = "start of the app"
        self.lo = LOWithoutApp(ErrorLog())
        self.lo.errors.add(where, error)
        try:
            from lo_kernel.notebook.limited import LimitedObserver
            from lo_kernel.notebook.observer import LearningObserver
            from lo_kernel.runtime import Runtime

            if self.runtime is None:  # the settings can't be used
                self.runtime = Runtime(self.settings)
            self.runtime.errors.add(where, error)
            bridge = LoopBridge(asyncio.get_running_loop())
            self.lo = LimitedObserver(LearningObserver(self.runtime, bridge, kernel=self), failed=True)
        except Exception as broken:
            self.lo.errors.add("lo", broken)

    def _offer_lo(self) -> None:
        """Put ``lo`` where cells see it and ``%who`` doesn't; again after a ``%reset``."""
        if self.lo is not None and self.shell is not None and "lo" not in self.shell.user_ns:
            self.shell.user_ns["lo"] = self.lo
            self.shell.user_ns_hidden["lo"] = self.lo

    def _after_cell(self, held: float, *, told: bool, ok: bool) -> None:
        self._offer_lo()
        if told and self._unsaid and (ok or self.failure):  # under a traceback nobody would look for it
            self._unsaid = False
            if self.failure:
                self._say_error(f"Learning Observer: {self.address_line}\n{self.failure}")
            else:
                self._say(f"Learning Observer: {self.address_line}")
        if told and self.lo is not None and not isinstance(self.lo, LOWithoutApp):
            notices = self.lo._take_notices()
        else:
            notices = []
        if notices:
            self._say_error("Learning Observer: " + "\n  ".join([*notices, "lo.errors tells more"]))
        on_kernel_loop = self.app_host is not None and self.settings.loop == "kernel"
        stopped, self._debugger_stopped = self._debugger_stopped, False  # who stopped it knows
        if self._watch_cells and held > _HELD_TOO_LONG and on_kernel_loop and not stopped:
            self._watch_cells = False
            self._say(
                f"This cell held the kernel's loop for {held:.1f} s. Nothing was lost, but meanwhile the app "
                "answered nobody. To let it answer while cells are busy: %lo loop thread, then restart."
            )

    def _say(self, text: str) -> None:
        """Show a line below the cell's own output, as a display and not as the cell's stdout or stderr."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # the cell's own output first
        style = "color:var(--jp-ui-font-color2,#616161);font-size:12px"
        data = {"text/plain": text, "text/html": f'<div style="{style}">{html.escape(text)}</div>'}
        self.send_response(self.iopub_socket, "display_data", {"data": data, "metadata": {}, "transient": {}})

    def _say_error(self, text: str) -> None:
        sys.stdout.flush()
        self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": text})
