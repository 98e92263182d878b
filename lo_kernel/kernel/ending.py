"""An end that nothing holds up: a thread sees to it that a process that was told to end is gone in time.

A signal's handler runs in the main thread, between two steps of Python. A cell that swallows what the handler
raises, or that waits in a call into C, keeps it from having any effect, and then the loop never ends. So the
system also writes the signal's number into a socket (`signal.set_wakeup_fd`), at which a thread waits. What
holds the GIL for good, such as a loop in C, holds this thread too: there only SIGKILL helps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lo_kernel.kernel.held import what_holds

if TYPE_CHECKING:
    from pathlib import Path

    from lo_kernel.kernel.kernel import LOKernel

__all__ = ["FORCED", "Ending", "end_signals", "leave"]

FORCED = 128 + signal.SIGTERM
"""Exit code of a process whose main thread would not end."""

_LOOP_WITHIN = 1.0  # s that the main loop gets to end
_ALL_WITHIN = 1.85  # s from the signal to the end of the process
_LEAVE_WITHIN = 0.8  # s that what is done in the place of the main thread may take
_APP_WITHIN = 0.5  # s of these for an app on a thread of its own
_RECORD_WITHIN = 0.2  # s of these for outcomes that are not on record yet, and the least that they get
_RECORDED_WITHIN = 1.0  # s from the signal, or the loop's end, until they have to be


def end_signals() -> list[signal.Signals]:
    """The signals that end a process in order: SIGTERM, and SIGHUP, with which a terminal goes.

    Not SIGHUP where it is ignored: that is what ``nohup`` does.
    """
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hang_up]


class Ending:
    """Ends this process in time once one of the signals ``numbers`` came, or somebody called `begin`.

    ``leave`` does what can be done from another thread, where the main thread doesn't come to it. The main
    thread says with `loop_over` that its loop has ended, and with `all_over` that nothing is left to do.
    """

    def __init__(self, numbers: Iterable[int], leave: Callable[[], None]) -> None:
        self._numbers = frozenset(int(each) for each in numbers)
        self._leave = leave
        self._forking = threading.local()
        self._began = 0.0
        self._loop_over = threading.Event()
        self._all_over = threading.Event()
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="lo_kernel ending", daemon=True)
        for mark in ("pydev_do_not_trace", "is_pydev_daemon_thread"):  # a debugger doesn't stop it
            setattr(self._thread, mark, True)

    def watch(self) -> None:
        """Wait for the signals from now on; call it in the main thread, after their handlers are set."""
        self._thread.start()
        if os.name != "posix":  # there asyncio's own loop needs it
            return
        before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        if before != -1:  # somebody else's: the handlers alone have to do
            signal.set_wakeup_fd(before)
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
        )

    def begin(self) -> None:
        """The process is to end; any number of times, from a signal's handler too."""
        self._began = self._began or time.monotonic()
        with contextlib.suppress(OSError):  # full: it has been told often enough
            self._bell.send(b"\0")

    def loop_over(self) -> None:
        """The main loop has ended."""
        self._began = self._began or time.monotonic()
        self._loop_over.set()

    def left(self) -> float:
        """Seconds that are left for the record."""
        return max(_RECORD_WITHIN, self._began + _RECORDED_WITHIN - time.monotonic())

    def all_over(self) -> None:
        """All is closed: only Python's own end is left, which a thread of the user's can hold up."""
        self._all_over.set()

    # A process that a cell forks has the handlers and the socket too: until it has given them up, no signal
    # may reach it, or the kernel would take the other's end for its own.

    def _before_fork(self) -> None:
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        self._after_fork()

    def _run(self) -> None:
        while not any(number == 0 or number in self._numbers for number in self._ear.recv(64)):
            pass
        over = time.monotonic() + _ALL_WITHIN
        if self._loop_over.wait(_LOOP_WITHIN) and self._all_over.wait(over - time.monotonic()):
            time.sleep(max(0.0, over - time.monotonic()))
            os._exit(0)
        leaving = threading.Thread(target=self._leave, name="lo_kernel leaves", daemon=True)
        leaving.start()
        leaving.join(max(0.1, min(_LEAVE_WITHIN, over - time.monotonic())))
        os._exit(FORCED)


def leave(kernel: LOKernel, connection_file: Path | None = None) -> None:
    """End a kernel from a thread, while its main thread is held by a cell.

    An app on a thread of its own is stopped as always, unless a reducer holds it: somebody is told which one.
    On the kernel's loop nothing of it may be touched from here: its events are on disk, and states are
    brought up to them by the next start. The files that say that the kernel runs go, and the record ends.
    """
    own = kernel.app_host.thread_ident if kernel.app_host is not None else None
    said = what_holds(own or threading.main_thread().ident)
    try:
        _leave_app(kernel, held=bool(said))
    finally:
        for path in (kernel.announcement, connection_file):
            _remove(path)
        if said:
            print(said, file=sys.__stderr__, flush=True)
        kernel.close_record(_RECORD_WITHIN)


def _leave_app(kernel: LOKernel, *, held: bool) -> None:
    host, runtime = kernel.app_host, kernel.runtime
    if host is None or runtime is None:
        return
    if kernel.settings.loop == "thread" and not held:
        with contextlib.suppress(Exception):  # it hangs too: what comes below is all that is left
            host.request_stop().result(_APP_WITHIN)
            return
    if runtime.workspace.owner:  # the lock goes with the process
        _remove(runtime.workspace.path / "owner.json")


def _remove(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()
