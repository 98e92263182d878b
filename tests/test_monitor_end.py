"""What the monitor owes at the kernel's end, and where it fails itself: the outcome, or a gap."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from conftest import StartKernel
from harness import RunningKernel
from ipykernel.iostream import IOPubThread
from jupyter_client.session import Session
from waiting import until

from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.requests import KernelRecord
from lo_kernel.kernel.audit.verify import verify
from lo_kernel.kernel.monitor import Monitor, Sent
from lo_kernel.settings import Settings

Record = dict[str, Any]

BURST = (
    "from IPython.display import publish_display_data\n"
    "for number in range({count}): publish_display_data({{'application/x-mine': number}})"
)


def records(kernel: RunningKernel) -> list[Record]:
    """All that is on record by now."""
    return list(AuditReader(kernel.workspace).records())


def gaps(kernel: RunningKernel) -> list[Record]:
    """What it knows that it missed."""
    return [record for record in records(kernel) if record["kind"] == "gap"]


def burst(kernel: RunningKernel, count: int) -> str:
    """Run a cell that puts out much, and come back with its reply: the request."""
    kernel.execute("1")
    cell = kernel.send(BURST.format(count=count))
    kernel.client.get_shell_msg(timeout=60)
    return cell


def end(kernel: RunningKernel, how: str) -> float:
    """End a kernel at once; how long it took."""
    began = time.monotonic()
    if how == "sigterm":
        os.kill(kernel.pid, signal.SIGTERM)
    else:
        kernel.client.shutdown(restart=how == "restart")
    until(lambda: not kernel.alive, timeout=10, what="the kernel process ends")
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("count", "how"), [(2_000, "shutdown"), (2_000, "restart"), (2_000, "sigterm"), (10_000, "shutdown")]
)
def test_a_burst_just_before_the_end_is_counted(start_kernel: StartKernel, how: str, count: int) -> None:
    """A kernel that ends right after the reply has the outcome on record; of very much output, or a gap."""
    kernel = start_kernel()
    cell = burst(kernel, count)
    took = end(kernel, how)
    found = [
        record for record in records(kernel) if record["kind"] == "outcome" and record["request"] == cell
    ]
    if found or count == 2_000:
        assert found[0]["outputs"]["application/x-mine"][0] == count
        assert not gaps(kernel)
    else:  # a busy machine
        (gap,) = gaps(kernel)
        assert cell in gap["requests"]
        assert 0 < gap["messages"] <= count + 100
    if count == 2_000:
        assert took < 2
    assert records(kernel)[-1]["kind"] == "end"


def test_more_than_the_end_has_time_for_is_a_gap(start_kernel: StartKernel) -> None:
    """The gap names the request without an outcome, and how many messages are missing."""
    kernel = start_kernel()
    kernel.execute(
        "import time\nmonitor = get_ipython().kernel.parent.monitor\ntake = monitor._take\n"
        "monitor._take = lambda frames: (time.sleep(0.01), take(frames))"
    )
    cell = burst(kernel, 1_000)
    end(kernel, "shutdown")
    (gap,) = gaps(kernel)
    assert gap["requests"] == [cell]
    seen = records(kernel)[-1]["messages"]
    assert 1_000 < gap["messages"] + seen < 1_100
    state = Path(kernel.environment["XDG_STATE_HOME"]) / "lo_kernel" / "audit"
    assert verify(kernel.workspace, state=state).ok


RAISES = """\
import lo_kernel.kernel.monitor as m
before = m._stream
def raises(content):
    m._stream = before
    raise ValueError("no stream that I know")
m._stream = raises
"""
CLOSED = """\
monitor = get_ipython().kernel.parent.monitor
receive = monitor._socket.recv_multipart
def closed(flags=0):
    monitor._socket.close(0)
    return receive(flags)
monitor._socket.recv_multipart = closed
"""


def gap_of(kernel: RunningKernel, words: str) -> Record:
    """Wait for a gap with these words."""
    found = until(
        lambda: next((each for each in gaps(kernel) if words in each["reason"]), None),
        what=f"a gap: {words}; there are {gaps(kernel)}",
    )
    assert found is not None
    return found


def test_a_message_that_it_cannot_take_is_a_gap(start_kernel: StartKernel) -> None:
    """`lo.errors` says so, the cell and those after it go on, and so does the monitor."""
    kernel = start_kernel()
    kernel.execute(RAISES)
    assert kernel.execute("print('too much')").text == "too much\n"
    assert gap_of(kernel, "the monitor failed: ValueError: no stream that I know")["messages"] == 1
    assert "could not take a message" in kernel.execute("print(*lo.errors)").text
    cell = kernel.send("1 + 1")
    assert kernel.collect(cell).value == "2"
    until(
        lambda: any(each["kind"] == "outcome" and each["request"] == cell for each in records(kernel)),
        what="the next cell's outcome",
    )


def test_a_monitor_that_is_dead_is_said(start_kernel: StartKernel) -> None:
    """Its socket is gone: a gap, `lo.errors` has it, cells go on, and the end says how much is missing."""
    kernel = start_kernel()
    kernel.execute(CLOSED)
    assert kernel.execute("1 + 1").value == "2"
    assert gap_of(kernel, "the monitor ended: ZMQError")
    assert "the monitor ended" in kernel.execute("print(*lo.errors)").text
    cell = kernel.send("2 + 2")
    assert kernel.collect(cell).value == "4"
    assert end(kernel, "shutdown") < 2
    last = gap_of(kernel, "the kernel ended before")
    assert cell in last["requests"]
    assert last["messages"] >= 4


# -- the two sides by themselves ---------------------------------------------------------------------


@pytest.fixture
def iopub() -> Iterator[Any]:
    """ipykernel's own side of a channel."""
    with zmq.Context() as context:
        socket = context.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.linger = 0
        socket.bind("tcp://127.0.0.1:*")
        make: Any = IOPubThread  # it has no types
        thread = make(socket, session=Session(key=b"key"))
        thread.start()
        yield thread
        task = thread._event_pipe_gc_task  # it would not wait for it
        thread.io_loop.add_callback(task.cancel)
        until(task.done, what="its own task ends")
        thread.stop()
        thread.close()


def test_both_sides_count_the_same(iopub: Any, tmp_path: Path) -> None:
    """Also where front ends were there before; what the kernel's side can't hand over any more is missing."""
    endpoint = iopub.socket.getsockopt(zmq.LAST_ENDPOINT)
    session = iopub.session
    with zmq.Context() as context, context.socket(zmq.SUB) as front_end:
        front_end.subscribe(b"")
        front_end.connect(endpoint.decode())
        assert front_end.poll(5000)
        sent = Sent(iopub)
        monitor = Monitor(endpoint.decode(), b"key", sent=sent)
        assert monitor.connected()
        record = KernelRecord(Settings(workspace=str(tmp_path / "w")), state=tmp_path / "state")
        record.open({}, monitor=monitor, role="test")
        for _ in range(3):
            session.send(iopub, "status", {"execution_state": "starting"})
        until(lambda: monitor.seen == 3, what="three messages")
        until(lambda: sent.count == 3, what="three counted")
        hold = threading.Event()
        iopub.schedule(hold.wait)
        for _ in range(5):
            session.send(iopub, "status", {"execution_state": "starting"})
        try:
            record.close(within=0.1)
        finally:
            hold.set()
    gap, last = list(record.reader.records())[-2:]
    assert (gap["kind"], gap["messages"], last["kind"], last["messages"]) == ("gap", 5, "end", 3)
