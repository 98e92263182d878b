"""A kernel that is told to end does, whatever a cell does about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import StartKernel
from test_kernel_ends import COUNT, COUNTED, TYPE, is_free, is_locked, left, says_on
from waiting import until

_SWALLOWS = """\
import time
print("on", flush=True)
while True:
    try:
        time.sleep(1)
    except BaseException:
        pass
"""
_AWAITS = """\
await lo.kvs.set("mine", 1)
print("on", flush=True)
while True:
    await lo.kvs["mine"]
"""
_IN_C = """\
import hashlib
print("on", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)
"""
_THREAD = """\
import threading, time
threading.Thread(target=time.sleep, args=(30,)).start()
print("on", flush=True)
"""


_LAST_EVENT = """\
from lo_kernel.engine.events import Identity, Sender
sender = Sender(Identity(user_id="u0", safe_user_id="tc-u0", providence="test"))
lo._runtime.archive.append(sender, b'{"event": "the last one"}', 1.0)
"""


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(_SWALLOWS, id="swallows all that is raised"),
        pytest.param(_AWAITS, id="awaits without a pause"),
        pytest.param(_IN_C, id="waits for a call into C"),
        pytest.param(_THREAD, id="has left a thread that goes on"),
    ],
)
def test_sigterm_needs_no_help_of_the_cell(
    start_kernel: StartKernel, workspace: Path, cell: str, loop: str
) -> None:
    """In less than 2 s the kernel has ended, port and workspace are free, no file is left, no event lost."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop}, workspace=workspace)
    port = int(kernel.execute(f"print(lo.port)\n{COUNT}").text)
    events = kernel.execute(TYPE).text
    kernel.send(cell)
    kernel.next_message(says_on)
    began = time.monotonic()
    os.kill(kernel.pid, signal.SIGTERM)
    until(lambda: not kernel.alive, timeout=5, what="the kernel process ends")
    assert time.monotonic() - began < 2
    assert is_free(port)
    assert not is_locked(workspace)
    assert not left(kernel)
    verified = subprocess.run(
        [sys.executable, "-m", "lo_kernel", "audit", "verify"],
        env=kernel.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout.startswith("whole:"), verified.stdout + verified.stderr
    after = start_kernel(workspace=workspace)
    after.execute(COUNT)
    assert after.execute(COUNTED).text == events


@pytest.mark.parametrize("cell", [_SWALLOWS, _AWAITS], ids=["swallows", "awaits"])
def test_events_that_wait_are_kept_where_a_cell_holds_the_loop(
    start_kernel: StartKernel, workspace: Path, cell: str
) -> None:
    """What came just before a cell that never lets go of the kernel's loop is in the archive afterwards."""
    kernel = start_kernel(workspace=workspace)
    kernel.send(cell.replace("print(", _LAST_EVENT + "print(", 1))
    kernel.next_message(says_on)
    os.kill(kernel.pid, signal.SIGTERM)
    until(lambda: not kernel.alive, timeout=5, what="the kernel process ends")
    text = b"".join(path.read_bytes() for path in (workspace / "archive").glob("events-*.jsonl"))
    assert b"the last one" in text


_FORKED = """\
import multiprocessing, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: a fork beside threads
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
child.start()
child.terminate()
child.join(5)
print(child.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_process_ends_alone(start_kernel: StartKernel) -> None:
    """SIGTERM to a process that a cell forked ends that one, as in any Python, and not the kernel."""
    kernel = start_kernel()
    assert kernel.execute(_FORKED).text == f"{-signal.SIGTERM}\n"
    assert kernel.execute("print(6 * 7)").text == "42\n"


_ON_A_THREAD = """\
import asyncio, sys, threading
from jupyter_client.blocking.client import BlockingKernelClient
from lo_kernel.kernel.app import LOKernelApp
ready, over = threading.Event(), threading.Event()
def run():
    asyncio.set_event_loop(asyncio.new_event_loop())
    app = LOKernelApp.instance()
    app.initialize(["-f", sys.argv[1]])
    ready.set()
    app.start()
    over.set()
threading.Thread(target=run).start()
assert ready.wait(20)
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels()
client.wait_for_ready(20)
client.execute_interactive("print(lo.port > 0)", timeout=20)
client.shutdown()
print("over", over.wait(10), file=sys.__stdout__)
client.stop_channels()
"""


def test_a_kernel_on_a_thread_of_somebodys_process(environment: dict[str, str], tmp_path: Path) -> None:
    """It has no signals there, and starts and ends as any other."""
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_THREAD, str(tmp_path / "kernel.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.endswith("over True\n"), done.stdout + done.stderr
