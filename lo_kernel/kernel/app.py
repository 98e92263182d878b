"""The application that runs `LOKernel`: `IPKernelApp` with our kernel, and an end that loses nothing."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp, kernel_aliases
from tornado.ioloop import IOLoop
from traitlets import Bool, Dict, Type

from lo_kernel.kernel.debugging import postpone_debugpy
from lo_kernel.kernel.ending import Ending, end_signals, leave
from lo_kernel.kernel.held import what_held
from lo_kernel.kernel.kernel import LOKernel, asyncio_loop_of
from lo_kernel.kernel.monitor import Monitor, Sent, set_option
from lo_kernel.settings import Settings

__all__ = ["LOKernelApp"]

_ALIASES = {spec.name.replace("_", "-"): f"LOKernel.{spec.name}" for spec in fields(Settings)}


class LOKernelApp(IPKernelApp):
    """`IPKernelApp` for `LOKernel`; each setting is an option too, such as ``--port=8000``.

    Its name stays ``ipython-kernel``, so that ``ipython_kernel_config.py`` is read.
    """

    aliases = Dict(kernel_aliases | _ALIASES)
    classes = [*IPKernelApp.classes, LOKernel]  # noqa: RUF012 - as the base class has it
    kernel_class = Type(  # type: ignore[assignment] # traitlets types its own Type loosely
        LOKernel, klass="ipykernel.kernelbase.Kernel", help="The kernel that is run."
    ).tag(config=True)
    by_hand = Bool(False, help="Whether a person started it, at a terminal.")
    monitor: Monitor | None = None  # sees all that is published; None where it could not connect
    owns_connection_file = False  # whether we write it; else the client did that starts us
    _running = False  # whether the loop turns
    _over = False  # whether somebody wants the end
    subcommands: dict[str, Any] = {}  # noqa: RUF012 - as above; ipykernel's would install another kernel

    def _ip_default(self) -> str:
        # the base class asks for this machine's interfaces, with an import of psutil, to find "127.0.0.1"
        return super()._ip_default() if self.transport == "ipc" else "127.0.0.1"

    def init_signal(self) -> None:
        """SIGTERM and SIGHUP end the kernel in order; by hand, so does Ctrl-C where no cell runs."""
        numbers = end_signals()
        self._ending = Ending(numbers, self._leave)
        super().init_signal()  # outside of the main thread it raises, and the kernel runs without handlers
        for number in numbers:
            signal.signal(number, self._terminate)
        self._ending.watch()
        if self.by_hand:
            signal.signal(signal.SIGINT, self._interrupt_idle)

    def init_iopub(self, context: Any) -> None:
        """Open the channel, and have the monitor listen before anything is said on it."""
        super().init_iopub(context)
        monitor = None
        try:
            socket, on_thread = self.iopub_thread.socket, self.iopub_thread.io_loop.add_callback
            # without it, a front end that subscribes to what the monitor has subscribed to is not welcomed
            set_option(socket, zmq.XPUB_VERBOSE, 1, on_thread)
            public, secret = (getattr(self, f"curve_{each}key", None) for each in ("public", "secret"))
            separator = "-" if self.transport == "ipc" else ":"
            monitor = Monitor(
                f"{self.transport}://{self.ip}{separator}{self.iopub_port}",
                self.session.key,
                sent=Sent(self.iopub_thread),
                scheme=self.session.signature_scheme,
                curve=(public, secret) if public and secret else None,
            )
            # to subscribers that are here by then, which is the monitor, nothing is ever dropped
            if monitor.connected() and set_option(socket, zmq.SNDHWM, 0, on_thread):
                self.monitor = monitor
        except Exception:
            self.log.warning("No monitor on IOPub: outcomes won't be on record.", exc_info=True)
        if self.monitor is None and monitor is not None:
            monitor.stop()

    def init_connection_file(self) -> None:
        """Find the client's connection file, or the place for one of our own."""
        super().init_connection_file()
        self.owns_connection_file = not Path(self.abs_connection_file).exists()

    def init_kernel(self) -> None:
        """Make the kernel; debugpy waits until somebody debugs."""
        postpone_debugpy()
        super().init_kernel()

    def log_connection_info(self) -> None:
        """By hand, what the base class prints is wrong (Ctrl-C does work), and comes too early to join."""
        if self.by_hand:
            names = ("shell", "iopub", "stdin", "hb", "control")
            self._ports = {name: getattr(self, f"{name}_port") for name in names}
        else:
            super().log_connection_info()

    def _say_how_to_join(self) -> None:
        file = Path(self.abs_connection_file)
        name = file.name if str(file.parent) == self.connection_dir else file
        lines = (
            f"Learning Observer: {self.kernel.address_line}",
            f"connection file: {file}",
            f"jupyter console --existing {name}",
        )
        print("\n".join(lines), file=sys.__stdout__, flush=True)

    def _heed_interrupts(self) -> None:
        """Hear of SIGINT where no cell runs; until the app had started, it gave up the start."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt_idle)
        elif getattr(self.kernel, "saved_sigint_handler", None) is signal.SIG_IGN:  # a message is in work
            self.kernel.saved_sigint_handler = self._interrupt_idle

    def _interrupt_idle(self, number: int, frame: Any) -> None:
        ours = isinstance(self.kernel, LOKernel)
        if ours and self.kernel.interrupts.came(frame):
            return
        # a client's stop button arrives as a signal, too: that one is for a cell, and there is none
        if self.by_hand and not (ours and self.kernel.client_interrupts()):
            self._terminate(number, frame)

    def _leave(self) -> None:
        if isinstance(self.kernel, LOKernel):
            leave(self.kernel, Path(self.abs_connection_file) if self.owns_connection_file else None)

    def _terminate(self, number: int, frame: Any) -> None:
        self._over = True
        self._ending.begin()
        if isinstance(self.kernel, LOKernel):
            self.kernel.keep_events(frame)
        if not self._running:  # the kernel comes up; it ends as soon as it is there
            if isinstance(self.kernel, LOKernel):
                self.kernel.give_up_start("the kernel was told to end")
            return
        loop = asyncio_loop_of(self.io_loop)
        loop.call_soon_threadsafe(loop.stop)
        # ipykernel installs a SIGINT handler for as long as a cell runs, that suits the kind of cell
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt) and interrupt != self._interrupt_idle:
            interrupt(signal.SIGINT, frame)

    def start(self) -> None:
        """Run until the kernel ends, however it does (`exit` in a cell calls no `do_shutdown`)."""
        self.io_loop = IOLoop.current()
        if isinstance(self.kernel, LOKernel):
            self.kernel.on_started = self._started
        try:
            super().start()
        finally:
            self._running = False
            self._ending.loop_over()
            if isinstance(self.kernel, LOKernel):
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing may cut off the last writes
                asyncio_loop_of(self.io_loop).run_until_complete(self.kernel.stop_app())
                if self.kernel.runtime is not None and (said := what_held(self.kernel.runtime)):
                    print(said, file=sys.__stderr__, flush=True)
                self.kernel.close_record(self._ending.left())
            self._ending.all_over()

    def _started(self) -> None:
        self._running = True
        self._heed_interrupts()
        if self._over:
            self.io_loop.stop()
        elif self.by_hand:
            self._say_how_to_join()
