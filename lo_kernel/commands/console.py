"""``--loconsole``: Jupyter's terminal console with a kernel of its own, which ends with the shell."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from jupyter_console.app import ZMQTerminalIPythonApp
from traitlets import List, Type, Unicode

import lo_kernel
from lo_kernel.kernel.ending import end_signals

__all__ = ["run_console"]


def kernel_command() -> list[str]:
    """The command that starts this very package on this Python, installed or from a checkout."""
    return [sys.executable, str(Path(lo_kernel.__file__).parent), "-f", "{connection_file}"]


class _OwnKernelManager(KernelManager):
    """Starts the kernel of this package, whichever kernel files there are."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=kernel_command(),
            display_name="Learning Observer",
            language="python",
            interrupt_mode="signal",
        )


class _ConsoleApp(ZMQTerminalIPythonApp):  # type: ignore[misc] # jupyter_console has no annotations
    """Jupyter's console around a kernel of its own."""

    kernel_manager_class = Type(_OwnKernelManager, klass=KernelManager)
    kernel_name = Unicode("learning_observer")
    kernel_arguments = List(Unicode())

    def build_kernel_argv(self, argv: object = None) -> None:
        self.kernel_argv = list(self.kernel_arguments)

    def init_banner(self) -> None:
        super().init_banner()
        print(f"Other clients join with: jupyter console --existing {Path(self.connection_file).name}\n")


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run_console(kernel_arguments: Sequence[str]) -> int:
    """Run the console on this terminal until the user leaves it; then the kernel has ended, too."""
    app: Any = _ConsoleApp(kernel_arguments=list(kernel_arguments))
    numbers = end_signals()
    for number in numbers:
        signal.signal(number, _end)
    try:
        app.initialize([])
        app.start()
    finally:
        for number in numbers:  # nothing cuts the kernel's end short
            signal.signal(number, signal.SIG_IGN)
        manager: KernelManager | None = getattr(app, "kernel_manager", None)
        if manager is not None and manager.has_kernel:
            manager.shutdown_kernel()  # waits until the last events are on disk and the process is gone
    return 0
