"""The debugger, when somebody debugs: debugpy is imported with the first debug request, and not before.

ipykernel imports debugpy in every kernel that starts, which takes 35 ms and 10 MB.
Where debugpy is missing it does without, and that path is used: `postpone_debugpy` makes ipykernel's module
come up as if debugpy weren't installed, and `load_debugger` has it look again, now that it is needed.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lo_kernel.kernel.kernel import LOKernel

__all__ = ["can_debug", "load_debugger", "postpone_debugpy"]

_MODULE = "ipykernel.debugger"
_OURS = str(Path(__file__).parents[1] / "**")  # our files, those not imported yet and `__main__` included


def can_debug() -> bool:
    """Whether debugpy is installed."""
    return sys.modules.get("debugpy") is not None or find_spec("debugpy") is not None


def postpone_debugpy() -> None:
    """Have ipykernel find no debugpy for now; unless it, or somebody, has imported it already."""
    if _MODULE in sys.modules or "debugpy" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["debugpy"] = None  # Python's own way to say "can't be imported"; it ends with this function
    try:
        importlib.import_module(_MODULE)
    finally:
        del modules["debugpy"]


def load_debugger(kernel: LOKernel) -> None:
    """Give ``kernel`` the debugger that `IPythonKernel.__init__` would have; a second call does nothing.

    On the control thread, where debug requests are handled.
    """
    if getattr(kernel, "debugger", None) is not None:
        return
    module = importlib.import_module(_MODULE)
    if not module._is_debugpy_available:
        module = importlib.reload(module)
    if not module._is_debugpy_available:
        return
    arguments = {
        "log": kernel.log,
        "debugpy_stream": kernel.debugpy_stream,
        "event_callback": kernel._publish_debug_event,
        "shell_socket": kernel.debug_shell_socket,
        "session": kernel.session,
        "kernel_modules": [*kernel._kernel_modules, _OURS],
        "just_my_code": kernel.debug_just_my_code,
        "filter_internal_frames": kernel.filter_internal_frames,
    }
    factory: Any = kernel.debugger_class
    takes = inspect.signature(factory).parameters
    kernel.debugger = factory(**{name: value for name, value in arguments.items() if name in takes})
