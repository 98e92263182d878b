"""The debugger, asked as JupyterLab asks it: it stops in a cell, and in a reducer, on either loop."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conftest import StartKernel
from harness import Message, RunningKernel
from waiting import until

REDUCER = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    count = state["count"] + 1
    return {"count": count}, {"count": count}
"""
ONE_LEARNER = "await lo.simulate(students=1, seconds=0.25, speed=80, seed=1); print('done')"


class Debugger:
    """Asks a kernel's debugger, as JupyterLab does."""

    def __init__(self, kernel: RunningKernel) -> None:
        self.kernel = kernel
        self.asked = 0

    def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One request; the body of its answer."""
        self.asked += 1
        content = {"type": "request", "seq": self.asked, "command": command, "arguments": arguments}
        message = self.kernel.client.session.msg("debug_request", content)
        self.kernel.client.control_channel.send(message)
        while True:
            reply = self.kernel.client.get_control_msg(timeout=20)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                assert reply["content"]["success"] is True, reply["content"]
                body: dict[str, Any] = reply["content"].get("body") or {}
                return body

    def attach(self) -> None:
        """What a front end says first."""
        about = {"clientID": "test", "adapterID": "", "pathFormat": "path"}
        self("initialize", linesStartAt1=True, columnsStartAt1=True, **about)
        self("attach")

    def stop_at(self, code: str, line: int) -> None:
        """A breakpoint in a cell with this code."""
        source = {"path": self("dumpCell", code=code)["sourcePath"]}
        set_ = self("setBreakpoints", breakpoints=[{"line": line}], source=source)["breakpoints"]
        assert set_[0]["verified"]

    def stopped(self) -> tuple[int, list[dict[str, Any]]]:
        """Wait until it stopped: in which thread, and the frames there, innermost first."""
        event = self.kernel.next_message(_says_stopped, timeout=20)
        thread = event["content"]["body"]["threadId"]
        return thread, self("stackTrace", threadId=thread)["stackFrames"]


def _says_stopped(message: Message) -> bool:
    return bool(message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped")


def test_debugger_stops_in_a_cell(kernel: RunningKernel) -> None:
    """A debugger is offered, debugpy is imported with its first question, and a breakpoint stops the cell."""
    kernel.client.kernel_info()
    assert "debugger" in kernel.client.get_shell_msg(timeout=10)["content"]["supported_features"]
    assert kernel.execute("import sys; 'pydevd' in sys.modules").value == "False"
    ask = Debugger(kernel)
    assert ask("debugInfo")["isStarted"] is False
    ask.attach()
    code = "def double(x):\n    y = x * 2\n    return y\ndouble(21)\n"
    ask.stop_at(code, line=3)
    ask("configurationDone")
    cell = kernel.send(code)
    thread, frames = ask.stopped()
    assert [(frame["name"], frame["line"]) for frame in frames] == [("double", 3), ("<module>", 4)]
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 2.2, what="a cell that is held for longer than the kernel bears")
    ask("continue", threadId=thread)
    result = kernel.collect(cell)
    assert result.value == "42"
    assert "held the kernel's loop" not in str(result.bundles), "who stopped it knows"


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_debugger_stops_in_a_reducer(start_kernel: StartKernel, loop: str) -> None:
    """An event that comes in by the websocket stops at a breakpoint in a reducer, which sees the event."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    ask = Debugger(kernel)
    ask.attach()
    ask.stop_at(REDUCER, line=4)
    ask("configurationDone")
    kernel.execute(REDUCER)
    cell = kernel.send(ONE_LEARNER)
    thread, frames = ask.stopped()
    frame = frames[0]
    assert [(frame["name"], frame["line"]) for frame in frames] == [("seen", 4)], "none of the app's own"
    scope = ask("scopes", frameId=frame["id"])["scopes"][0]["variablesReference"]
    seen = {each["name"]: each["value"] for each in ask("variables", variablesReference=scope)["variables"]}
    assert seen["count"] == "1"
    assert "sim-01" in seen["event"]
    path = ask("dumpCell", code=REDUCER)["sourcePath"]
    ask("setBreakpoints", breakpoints=[], source={"path": path})
    ask("continue", threadId=thread)
    assert kernel.collect(cell).text == "done\n"
    assert int(kernel.execute("rows = await lo.query('seen'); print(rows[0]['count'])").text) > 1
