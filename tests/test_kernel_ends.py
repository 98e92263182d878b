"""Every end of a kernel, and what the next one finds: nothing lost, nothing held, nothing left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import aiohttp
import pytest
from conftest import StartKernel
from harness import Message, RunningKernel
from ingest_parts import typed, who
from jupyter_client.blocking.client import BlockingKernelClient
from waiting import until

from lo_kernel.lock import FileLock

COUNT = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    return ({"count": state["count"] + 1},) * 2
"""
TYPE = "await lo.simulate(students=3, seconds=0.2, speed=50, seed=1); print(len(lo.events))"
COUNTED = "print(sum([(await lo.kvs[key])['count'] for key in await lo.kvs.keys('Internal')]))"
BUSY = "import time; print('on', flush=True); time.sleep(30)"


def says_on(message: Message) -> bool:
    """Whether the cell of `BUSY` has begun."""
    return bool(message["msg_type"] == "stream" and message["content"]["text"] == "on\n")


def first_output(kernel: RunningKernel) -> str:
    """What the kernel says with its first cell."""
    return "\n".join(str(bundle.get("text/plain", "")) for bundle in kernel.execute("None").bundles)


def is_locked(workspace: Path) -> bool:
    """Whether a process owns the workspace."""
    probe = FileLock(workspace / "owner.lock")
    free = probe.acquire()
    probe.release()
    return not free


def is_free(port: int) -> bool:
    """Whether a new server could take ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def left(kernel: RunningKernel) -> list[str]:
    """Names of what says that a kernel runs."""
    runtime = Path(kernel.environment["JUPYTER_RUNTIME_DIR"])
    return sorted(path.name for path in (*runtime.glob("lo-kernel-*"), *kernel.workspace.glob("owner.json")))


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize("end", ["shutdown", "exit", "sigterm", "sigterm in a cell", "shutdown in a cell"])
def test_an_end_takes_less_than_two_seconds_and_loses_nothing(
    start_kernel: StartKernel, workspace: Path, end: str, loop: str
) -> None:
    """The next kernel finds the last events in its states, port and workspace are free, no file is left."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop}, workspace=workspace)
    port = int(kernel.execute(f"print(lo.port)\n{COUNT}").text)
    events = kernel.execute(TYPE).text
    if end.endswith("in a cell"):
        kernel.send(BUSY)
        kernel.next_message(says_on)
    began = time.monotonic()
    if end == "exit":
        kernel.execute("exit")
    elif end.startswith("sigterm"):
        os.kill(kernel.pid, signal.SIGTERM)
    else:
        if end == "shutdown in a cell":
            kernel.interrupt()  # as every client does: a busy kernel would not hear the rest
        kernel.client.shutdown()
    until(lambda: not kernel.alive, timeout=5, what="the kernel process ends")
    assert time.monotonic() - began < 2
    assert is_free(port)
    assert not is_locked(workspace)
    assert not left(kernel)
    if end != "shutdown in a cell":  # whose reply may find its socket closed, in any kernel
        assert "Traceback" not in kernel.tail().replace("KeyboardInterrupt", "")
    after = start_kernel(workspace=workspace)
    assert after.execute(COUNTED).text == events


def test_a_kernel_of_its_own_takes_its_connection_file_away(environment: dict[str, str]) -> None:
    """`--lokernel` writes it for its user alone and removes it; of a killed one, the next start does."""
    runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
    command = [sys.executable, "-m", "lo_kernel", "--lokernel"]

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        return process, runtime / said[2].split()[-1]

    def end(process: subprocess.Popen[str], number: int) -> None:
        process.send_signal(number)
        process.communicate(timeout=5)

    killed, stale = start()
    assert stale.stat().st_mode & 0o077 == 0
    end(killed, signal.SIGKILL)
    assert stale.exists()
    assert list(runtime.glob("lo-kernel-*.json"))
    process, file = start()
    assert not stale.exists()
    assert [path.name for path in runtime.glob("lo-kernel-*.json")] == [f"lo-kernel-{process.pid}.json"]
    end(process, signal.SIGTERM)
    assert not file.exists()
    assert not list(runtime.glob("lo-kernel-*.json"))


def test_after_a_kill_the_next_kernel_owns_the_workspace_and_has_all(
    start_kernel: StartKernel, workspace: Path
) -> None:
    """SIGKILL leaves an owner file: the next start isn't held up by it, and every event counts."""
    kernel = start_kernel(workspace=workspace)
    kernel.execute(COUNT)
    events = kernel.execute(TYPE).text
    ingest = kernel.execute("print(lo.ingest_url)").text
    kernel.stop(now=True)
    assert (workspace / "owner.json").exists()
    after = start_kernel(workspace=workspace)
    assert "owned by this kernel" in first_output(after)
    assert json.loads((workspace / "owner.json").read_text())["pid"] == after.pid
    assert after.execute("print(lo.ingest_url)").text == ingest
    after.execute(COUNT)
    assert after.execute(COUNTED).text == events


_PARENT = """
import os, subprocess, sys, time
kernel = subprocess.Popen([sys.executable, "-m", "lo_kernel", "-f", sys.argv[1]],
                          env=os.environ | {"JPY_PARENT_PID": str(os.getpid())})
print(kernel.pid, flush=True)
sys.stdin.read()
"""


def test_when_its_parent_is_gone_it_ends_and_the_next_start_clears_up(
    environment: dict[str, str], tmp_path: Path, start_kernel: StartKernel, workspace: Path
) -> None:
    """A kernel whose Jupyter was killed goes too; its files go with the next start."""
    file = Path(environment["JUPYTER_RUNTIME_DIR"]) / "kernel-of-one-who-dies.json"
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    until(lambda: (workspace / "owner.json").exists(), timeout=20)
    parent.kill()
    parent.communicate()
    until(lambda: not is_locked(workspace), timeout=10, what="the kernel to notice and end")
    assert (workspace / "owner.json").exists()
    after = start_kernel(workspace=workspace, env={"JUPYTER_RUNTIME_DIR": str(file.parent)})
    assert "owned by this kernel" in first_output(after)
    assert not file.exists()
    assert not (file.parent / f"lo-kernel-{pid}.json").exists()


class Typist:
    """A source of events that knows an address, and comes back to it by itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0
        self.connections = 0
        self.over = False

    async def run(self) -> None:
        """Connect, say who it is, send; again after each end, until it is over."""
        async with aiohttp.ClientSession() as session:
            while not self.over:
                try:
                    async with session.ws_connect(self.url) as ws:
                        self.connections += 1
                        await self._type(ws)
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.02)

    async def _type(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.send_str(json.dumps(who("u0")))
        before = self.connections
        while not self.over and not ws.closed and before == self.connections:
            await ws.send_str(json.dumps(typed(self.sent)))
            self.sent += 1
            try:
                await ws.receive(timeout=0.02)  # notices the end of the server
            except TimeoutError:
                continue


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_a_restart_keeps_address_tokens_and_states(start_kernel: StartKernel, loop: str) -> None:
    """A source that only knows the address goes on after a restart, and the states go on where they stood."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    kernel.execute(COUNT)
    url = kernel.execute("print(lo.ingest_url)").text.strip()
    typist = Typist(url)
    thread = threading.Thread(target=lambda: asyncio.run(typist.run()))
    thread.start()
    try:
        until(lambda: typist.sent > 20)
        kernel.restart()
        assert kernel.execute("print(lo.ingest_url)").text.strip() == url
        before = int(kernel.execute(COUNTED).text)
        assert before >= 20
        kernel.execute(COUNT)
        until(lambda: typist.connections > 1, timeout=20)
        until(lambda: int(kernel.execute(COUNTED).text) > before + 10, timeout=20)
    finally:
        typist.over = True
        thread.join()
    states = COUNTED.removeprefix("print(").removesuffix(")")
    until(lambda: kernel.execute(f"print({states} == len(lo.events))").text == "True\n")


@pytest.mark.timeout(120)
def test_ten_kernels_at_once(environment: dict[str, str], tmp_path: Path, workspace: Path) -> None:
    """Each has a port of its own, one owns the workspace, and each says so under its first cell."""
    wanted = environment | {"LO_KERNEL_PORT": "9999"}
    files = [tmp_path / f"kernel-{number}.json" for number in range(10)]
    started = []
    for file in files:  # which aren't there yet: each kernel takes ports that are free, and writes them down
        command = [sys.executable, "-m", "lo_kernel", "-f", str(file)]
        started.append(subprocess.Popen(command, env=wanted, stdout=subprocess.DEVNULL))
    try:
        said = {each.pid: _first_words(file) for each, file in zip(started, files, strict=True)}
    finally:
        for each in started:
            each.terminate()
        ends = [each.wait(20) for each in started]
    assert ends == [0] * 10
    assert len({text.split("http://127.0.0.1:")[1].split("/")[0] for text in said.values()}) == 10
    assert all(str(workspace) in text for text in said.values())
    (owner,) = [pid for pid, text in said.items() if "owned by this kernel" in text]
    followed = f"owned by process {owner} at http://127.0.0.1:"
    assert sum(followed in text and "followed here" in text for text in said.values()) == 9
    assert not is_locked(workspace)


def _first_words(file: Path) -> str:
    """What a kernel says under its first cell."""
    said: list[str] = []

    def hear(message: Message) -> None:
        if message["msg_type"] == "display_data":
            said.append(message["content"]["data"]["text/plain"])

    until(lambda: file.exists() and file.read_text().endswith("}"), timeout=40, what="all of its file")
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        client.execute_interactive("None", output_hook=hear, timeout=20)
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)
    return "\n".join(said)
