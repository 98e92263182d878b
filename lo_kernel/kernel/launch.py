"""The fast way to a running kernel. Nothing heavy is imported before `launch` has made ready for it."""

from __future__ import annotations

import contextlib
import gc
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


def launch(argv: Sequence[str], *, by_hand: bool = False) -> None:
    """Run a kernel with ``argv`` (as after ``python -m lo_kernel``) until it ends.

    ``by_hand``: a person started it at a terminal, who is told how to join it.

    Two things save time. The garbage collector, which would walk over the growing heap of imported modules
    again and again (30 ms), waits until all is there. And `aiohttp` is imported without the machine's CA
    certificates (40 ms), which come with the first TLS connection.
    """
    gc.disable()
    try:
        from lo_kernel.kernel.app import LOKernelApp

        _import_app()
        app = LOKernelApp.instance(by_hand=by_hand)
        app.initialize(list(argv))
    finally:
        gc.freeze()  # what start-up left stays: no collection need look at it again
        gc.enable()
    app.start()


def _import_app() -> None:
    from lo_kernel.kernel.certificates import certificates_later

    # what can't be imported is met again, and reported, where the app is made
    with contextlib.suppress(Exception), certificates_later():
        for name in _IMPORTS:
            import_module(name)
