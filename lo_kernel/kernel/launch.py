"""The fast way to a running kernel. Nothing heavy is imported before `launch` has made ready for it."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

__all__ = ["launch"]

_IMPORTS = (
    "aiohttp.web",
    "lo_kernel.app.application",
    "lo_kernel.notebook.observer",
    "lo_kernel.runtime",
    "lo_kernel.kernel.apps",
    "lo_kernel.kernel.audit.requests",
    "lo_kernel.kernel.host",
    "lo_kernel.kernel.logs",
    "lo_kernel.kernel.running",
)

_BEFORE_OPENSSL = "aiohttp.connector"  # the module that loads the certificates, at its end
_LOOK_EVERY = 0.001  # s


def launch(argv: Sequence[str], *, by_hand: bool = False) -> None:
    """Run a kernel with ``argv`` (as after ``python -m lo_kernel``) until it ends.

    ``by_hand``: a person started it at a terminal, who is told how to join it.

    Two things make up for most of the time that the app's imports take. The garbage collector, which would
    walk over the growing heap of imported modules again and again (30 ms), waits until all is there. And
    the app's modules are imported by a thread while this one opens the kernel's sockets and its history:
    `aiohttp` loads the machine's CA certificates (20 to 40 ms of OpenSSL's time without the GIL), SQLite
    waits for the disk. Two threads that both only import take the GIL from each other and are slower than
    one: so the thread starts after ipykernel's own imports, and is left alone until it comes to OpenSSL.
    """
    gc.disable()
    try:
        from lo_kernel.kernel.app import LOKernelApp

        importing = threading.Thread(target=_import_app, name="lo_kernel imports", daemon=True)
        importing.start()
        while importing.is_alive() and _BEFORE_OPENSSL not in sys.modules:
            importing.join(_LOOK_EVERY)
        app = LOKernelApp.instance(by_hand=by_hand)
        app.initialize(list(argv))
        importing.join()
    finally:
        gc.freeze()  # what start-up left stays: no collection need look at it again
        gc.enable()
    app.start()


def _import_app() -> None:
    # what can't be imported is met again, and reported, where the app is made
    with contextlib.suppress(Exception):
        for name in _IMPORTS:
            import_module(name)
