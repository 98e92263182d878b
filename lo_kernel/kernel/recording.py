"""Where a kernel's requests meet its record: the one place that knows both.

All of it is synchronous and in front of what the kernel does, so that the intent is on record before the code
runs. None of it raises: without a record the kernel works, and ``lo.errors`` says why there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lo_kernel.kernel.traits import settings_of

if TYPE_CHECKING:
    from lo_kernel.kernel.audit.requests import KernelRecord
    from lo_kernel.kernel.kernel import LOKernel

__all__ = ["begin_record", "header_of"]

_SHELL = ("system_piped", "system_raw", "getoutput")  # what runs `!command` and `x = !command`
_COMMS = ("comm_open", "comm_msg", "comm_close")


def header_of(kernel: LOKernel, channel: str = "shell") -> dict[str, Any]:
    """The header of the request that the kernel works on; empty where there is none."""
    try:
        header: dict[str, Any] = kernel.get_parent(channel)["header"]  # type: ignore[no-untyped-call]
    except (KeyError, LookupError, TypeError):
        return {}
    return header


def begin_record(kernel: LOKernel, on_error: Callable[[BaseException], None]) -> KernelRecord | None:
    """The record of a kernel that is about to start; ``None`` where its workspace can't be written."""
    record = None
    try:
        from lo_kernel.kernel.audit.requests import KernelRecord

        app: Any = kernel.parent
        record = KernelRecord(settings_of(kernel)[0], on_error=on_error)
        record.open(
            os.environ,
            session=kernel.session,
            transport=getattr(app, "transport", ""),
            curve=getattr(app, "curve_publickey", None) is not None,
            monitor=getattr(app, "monitor", None),
        )
        for name in _COMMS:
            if name in kernel.shell_handlers:
                kernel.shell_handlers[name] = partial(_comm, record, kernel.shell_handlers[name])
        if kernel.shell is not None:
            expand = kernel.shell.var_expand
            kernel.shell.var_expand = partial(_expand, record, expand)
    except Exception as error:
        on_error(error)
        if record is not None and not record.log.is_open:
            record = None
    monitor = getattr(kernel.parent, "monitor", None)
    if record is None and monitor is not None:
        monitor.stop()  # nobody takes what it would see
    return record


def _comm(record: KernelRecord, handler: Callable[..., Any], stream: Any, ident: Any, message: Any) -> Any:
    token = record.comm(message["header"], message["content"])
    try:
        return handler(stream, ident, message)
    finally:
        record.recorder.end(token)


def _expand(
    record: KernelRecord, expand: Callable[..., str], command: str, depth: int = 0, *args: Any, **options: Any
) -> str:
    """Fill variables into a command, as IPython does before it runs one, and put what becomes of it on
    record.

    Here and not around what runs it: IPython looks for the variables in its callers' frames.
    """
    expanded = expand(command, depth + 1, *args, **options)
    if sys._getframe(1).f_code.co_name in _SHELL:
        record.shell_line(expanded)
    return expanded
