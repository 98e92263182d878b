"""An interrupt while a reducer computes without end: it ends the call, or the app would be held for good.

A reducer runs on the app's loop. Where that is the kernel's, no cell begins as long as it runs, and what an
interrupt does to a cell comes to nothing: a cell that awaits is cancelled by the loop. So a signal's handler
looks whether a reducer is at work. One that still is at the same event half a second later is ended. A
shorter one isn't touched, so an interrupt that was meant for a cell costs no event.

On the kernel's loop another signal ends it: that also wakes what sleeps in C. On a thread of its own the
exception is put to the thread, and comes when Python is at work there again: what waits in C for good
can't be ended so.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

__all__ = ["Interrupts"]

_PATIENCE = 0.5  # s that a reducer may go on after an interrupt
_REDUCERS = "lo_kernel.engine.run"  # what calls them; a kernel comes up sooner without it


class Interrupts:
    """Ends reducers that go on after an interrupt.

    ``app_thread`` gives the identifier of the thread that the app's loop runs on, where it is another one.
    """

    def __init__(self, app_thread: Callable[[], int | None]) -> None:
        self._app_thread = app_thread
        self._watched: set[FrameType] = set()  # calls, each with a thread that waits for its end
        self._doomed: FrameType | None = None

    def came(self, frame: FrameType | None) -> bool:
        """Called in a signal's handler, with what it broke in on; whether that is all there is to do.

        Raises `Interrupted` where that is a reducer whose time is over.
        """
        if _REDUCERS not in sys.modules:
            return False
        from lo_kernel.engine.run.interrupting import Interrupted, call_in

        doomed, self._doomed = self._doomed, None
        call, thread = call_in(frame), threading.get_ident()
        if doomed is not None:  # the signal is the one that was sent below
            if call is doomed:
                raise Interrupted
            return True
        other = self._app_thread()
        if call is None and other is not None:
            call, thread = call_in(sys._current_frames().get(other)), other
        if call is not None and call not in self._watched:
            self._watched.add(call)
            threading.Thread(
                target=self._watch, args=(call, thread), name="lo_kernel interrupts", daemon=True
            ).start()
        return False

    def _watch(self, call: FrameType, thread: int) -> None:
        from lo_kernel.engine.run.interrupting import Interrupted, call_in

        def goes_on() -> bool:
            return call_in(sys._current_frames().get(thread)) is call

        try:
            time.sleep(_PATIENCE)
            if not goes_on():
                return
            if thread == self._app_thread():
                put_to, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(thread)
                put_to(ident, ctypes.py_object(Interrupted))
                if not goes_on():  # it ended between the question and this, or was ended by it
                    put_to(ident, None)  # what wasn't raised yet is taken back
                return
            self._doomed = call
            if os.name == "posix":
                signal.pthread_kill(thread, signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)
        finally:
            self._watched.discard(call)
