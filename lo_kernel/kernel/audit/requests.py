"""A kernel's own record: what it is asked, as it takes each request, and what the monitor saw of it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final

import lo_kernel
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.attribution import ASKING, Asking, inherit_in_threads
from lo_kernel.kernel.audit.chain import text_of
from lo_kernel.kernel.audit.files import DELETING, list_logs
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from lo_kernel.kernel.audit.reading import AuditReader
    from lo_kernel.kernel.monitor import Monitor, Outcome
    from lo_kernel.settings import Settings

__all__ = ["KernelRecord", "user_of"]

_NAMED: Final = 100  # requests that a gap names
_LONGEST: Final = 65_536  # characters of a comm's or a debugger's data that are kept
_GONE: Final = "(it named a learner who was erased meanwhile)"
_POLLS: Final = frozenset({"debugInfo", "initialize", "modules", "threads"})
_COMMS: Final = ("comm_open", "comm_msg", "comm_close")


def user_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Who runs this process, and who says so: JupyterHub, or the system.

    >>> user_of({"JUPYTERHUB_USER": "ada"})
    {'name': 'ada', 'from': 'jupyterhub'}
    """
    if name := environ.get("JUPYTERHUB_USER"):
        return {"name": name, "from": "jupyterhub"}
    import getpass

    try:
        return {"name": getpass.getuser(), "from": "system"}
    except (OSError, KeyError, ImportError):  # no name for this user id
        return {"name": str(os.getuid() if hasattr(os, "getuid") else ""), "from": "system"}


class KernelRecord:
    """What one kernel puts on record; ``recorder`` is the app's ``ReadLog``.

    It is the monitor's ``Sink``: see :class:`lo_kernel.kernel.monitor.Sink`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_error: Callable[[BaseException], None] | None = None,
        state: Path | None = None,
    ) -> None:
        self.log = AuditLog(settings.workspace_path, state=state)
        self.recorder = Recorder(self.log, on_error=on_error)
        self.monitor: Monitor | None = None
        self._contents = settings.audit_outputs
        self._days = settings.audit_days
        self._replies: dict[str, str] = {}
        self._running = 0
        self._closing = threading.Lock()

    # -- from start to end ---------------------------------------------------------------------

    def open(
        self,
        environ: Mapping[str, str],
        *,
        session: Any = None,
        transport: str = "",
        curve: bool = False,
        monitor: Monitor | None = None,
        role: str = "kernel",
    ) -> None:
        """Begin: who runs what; ``OSError`` where the workspace can't be written."""
        self.log.open()
        self._finish_deleting()
        fields: dict[str, Any] = {
            "role": role,
            "user": user_of(environ),
            "pid": os.getpid(),
            "lo_kernel": lo_kernel.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "outputs": self._contents,
        }
        if role == "kernel":
            fields |= {"session": getattr(session, "session", ""), "transport": transport, "curve": curve}
            fields["monitor"] = monitor is not None
        texts = []
        if notebook := environ.get("JPY_SESSION_NAME"):
            texts.append(text_of(notebook))
            fields["notebook"] = f"text:{texts[0].hash}"
        self.recorder.write("run", fields, texts)
        if role == "kernel":
            inherit_in_threads()
        self.monitor = monitor
        if monitor is not None:
            monitor.contents = self._contents
            monitor.report_to(self)
        elif role == "kernel":
            self.recorder.write("gap", {"reason": "no monitor: outcomes are not on record"})
        self._tidy_later()

    @property
    def reader(self) -> AuditReader:
        """What reads it again."""
        from lo_kernel.kernel.audit.reading import AuditReader

        return AuditReader(self.log.workspace)

    def close(self, within: float = 1.0) -> None:
        """The kernel ends, and the monitor has ``within`` s for what it has not seen yet; twice is harmless.

        What it can't see by then is a gap, with the requests whose outcome is not on record.
        """
        with self._closing:
            if not self.log.is_open:
                return
            seen = {}
            if self.monitor is not None:
                missing = self.monitor.stop(within)
                seen = {"messages": self.monitor.seen}
                if missing:
                    reason = "the kernel ended before all of its messages were counted"
                    pending = list(self.recorder.pending)[:_NAMED]
                    self.recorder.write("gap", {"reason": reason, "messages": missing, "requests": pending})
            self.recorder.write("end", seen)
            self.log.close()

    # -- requests ------------------------------------------------------------------------------

    def execute(
        self,
        header: Mapping[str, Any],
        code: str,
        *,
        silent: bool,
        history: bool,
        expressions: Mapping[str, str] | None,
        cell: str | None,
    ) -> Token[Asking | None]:
        """A cell, or code that a client runs for itself; what it gives is for :meth:`executed`."""
        fields: dict[str, Any] = {"silent": silent, "history": history}
        if cell:
            fields["cell"] = cell
        self._running += 1
        texts: dict[str, Any] = {"code": code}
        if expressions:
            texts["expressions"] = expressions
        return self.recorder.begin("execute", header, fields, texts)

    def executed(self, token: Token[Asking | None], request: str, reply: Mapping[str, Any]) -> None:
        """It ran, and the kernel answers so."""
        self._running -= 1
        self.recorder.end(token)
        if reply.get("status") == "error" and request in self.recorder.pending:
            self._replies[request] = str(reply.get("ename", ""))

    def comm(self, header: Mapping[str, Any], content: Mapping[str, Any]) -> Token[Asking | None]:
        """A message for a widget, or another comm."""
        fields = {"comm": str(content.get("comm_id", ""))}
        if target := content.get("target_name"):
            fields["target"] = str(target)
        kind = str(header.get("msg_type", "comm_msg"))
        return self.recorder.begin(kind, header, fields, {"data": _json(content.get("data"))})

    def debug(self, header: Mapping[str, Any], content: Mapping[str, Any]) -> Token[Asking | None]:
        """A debugger's request: it may hold an expression or a cell, and then runs code.

        How the debugger is doing, which front ends ask all the time, is not on record.
        """
        fields = {"command": str(content.get("command", ""))}
        if fields["command"] in _POLLS:
            return ASKING.set(ASKING.get())
        return self.recorder.begin("debug", header, fields, {"arguments": _json(content.get("arguments"))})

    def shell_line(self, command: str) -> None:
        """A line for the system's shell, as it is run."""
        self.recorder.within("shell", {"code": command})

    # -- what the monitor saw ------------------------------------------------------------------

    def outcome(self, outcome: Outcome) -> None:
        """A request is over, or something came after."""
        request = outcome.request
        kind = None if outcome.late else self.recorder.pending.pop(request, None)
        aborted = kind is None and outcome.type == "execute_request" and not outcome.late
        if kind is None and not aborted and not outcome.outputs:
            return
        error = outcome.error or self._replies.pop(request, "")
        fields: dict[str, Any] = {"request": request, "type": kind or outcome.type.removesuffix("_request")}
        if outcome.late:
            fields["late"] = True
        else:
            fields["status"] = "aborted" if aborted else "error" if error else "ok"
        if error:
            fields["error"] = error
        if outcome.seconds is not None:
            fields["ms"] = round(outcome.seconds * 1000, 3)
        if outcome.outputs:
            fields["outputs"] = {name: list(count) for name, count in outcome.outputs.items()}
        withholds = self.recorder.withholds
        texts = [text_of(_GONE if withholds(request, said) else said) for _, said in outcome.contents]
        if texts:
            fields["contents"] = [
                {"type": name, "content": f"text:{text.hash}"}
                for (name, _), text in zip(outcome.contents, texts, strict=True)
            ]
        self.recorder.write("outcome", fields, texts)

    def state(self, state: str) -> None:
        """The kernel said how it is."""
        self.recorder.write("state", {"state": state})

    def gap(self, reason: str, messages: int) -> None:
        """Messages could not be counted."""
        self.recorder.write("gap", {"reason": reason, "messages": messages})

    def failed(self, error: BaseException, *, ended: bool) -> None:
        """The monitor failed, at one message or for good: a gap, and `lo.errors` says so."""
        what = f"{type(error).__name__}: {error}"
        self.gap(f"the monitor {'ended' if ended else 'failed'}: {what}", 1)
        if ended:
            said = f"the monitor ended ({what}): outcomes are not on record until the kernel is restarted"
        else:
            said = f"the monitor could not take a message ({what}): the record has a gap there"
        trouble = LOError(said)
        trouble.__cause__ = error
        self.recorder.note(trouble)

    def idle(self) -> None:
        """Nothing happens: time to have all on disk."""
        self.log.sync()

    def busy(self) -> bool:
        """Whether a cell runs."""
        return self._running > 0

    # -- housekeeping --------------------------------------------------------------------------

    def _finish_deleting(self) -> None:
        if (self.log.folder / DELETING).exists():
            from lo_kernel.kernel.audit.erasing import finish_deleting

            try:
                finish_deleting(self.log)
            except (OSError, ValueError) as error:
                self.recorder.note(error)

    def _tidy_later(self) -> None:
        """Compress closed files, and delete what is too old, beside everything else."""
        self.log.on_rotate = self._tidy_later
        if len(list_logs(self.log.folder)) > 1:
            threading.Thread(target=self._tidy, name="lo_kernel record", daemon=True).start()

    def _tidy(self) -> None:
        from lo_kernel.kernel.audit.erasing import pack, retain

        try:
            retain(self.log, self._days)
            pack(self.log)
        except OSError as error:  # it can be done the next time
            self.recorder.note(error)


def _json(data: Any) -> str:
    text = json.dumps(data, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
