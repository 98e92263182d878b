"""An app that doesn't come up: it ends the process, it hangs, it is given up. The kernel works without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import StartKernel
from harness import RunningKernel
from waiting import until

_APPS = """\
import asyncio, sys, time
from pathlib import Path
from aiohttp import web

Path(__file__).with_name("begun").touch()

def exits():
    sys.exit(3)

def interrupts():
    raise KeyboardInterrupt

def _on_start(work):
    app = web.Application()
    app.on_startup.append(work)
    return app

def exits_in_a_task():
    async def leave():
        sys.exit(4)
    async def up(app):
        await asyncio.create_task(leave())
    return _on_start(up)

def hangs():
    async def up(app):
        await asyncio.sleep(3600)
    return _on_start(up)

def swallows():
    async def up(app):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    return _on_start(up)

def holds():
    while True:
        time.sleep(0.1)
"""


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """A folder with the module `awkward` of apps that don't come up."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "awkward.py").write_text(_APPS)
    return folder


def settings(apps: Path, app: str, loop: str, **more: str) -> dict[str, str]:
    """The environment of a kernel with the app."""
    path = os.pathsep.join(filter(None, [str(apps), os.environ.get("PYTHONPATH", "")]))
    return {"LO_KERNEL_APP": f"awkward:{app}", "LO_KERNEL_LOOP": loop, "PYTHONPATH": path} | more


def works_without(kernel: RunningKernel) -> str:
    """What a kernel without an app says under its first cell and in `lo.errors`."""
    first = kernel.execute("6 * 7")
    assert first.value == "42"
    assert "the app did not start" in first.stderr
    assert "start of the app" in kernel.execute("print(lo.errors)").text
    return first.stderr


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("exits", "SystemExit(3)"),
        ("interrupts", "KeyboardInterrupt()"),
        ("exits_in_a_task", "SystemExit(4)"),
    ],
)
def test_an_app_that_ends_the_process_does_not(
    start_kernel: StartKernel, apps: Path, app: str, said: str, loop: str
) -> None:
    """`sys.exit` in an app's start-up is an error like any other, on both loops."""
    assert said in works_without(start_kernel(env=settings(apps, app, loop)))


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize("app", ["hangs", "swallows", "holds"])
def test_an_app_that_never_comes_up_is_given_up(
    start_kernel: StartKernel, apps: Path, app: str, loop: str
) -> None:
    """After `start_within` seconds the kernel goes on, and says that it waited in vain."""
    kernel = start_kernel(env=settings(apps, app, loop, LO_KERNEL_START_WITHIN="1"))
    said = works_without(kernel)
    assert "start within 1 s" in said or "more than 1 s" in said
    kernel.stop()


def begin(apps: Path, app: str, loop: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a kernel, and wait until the module of its app is imported."""
    command = [sys.executable, "-m", "lo_kernel", "-f", str(apps / "kernel.json")]
    env = environment | settings(apps, app, loop)
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (apps / "begun").exists(), timeout=20, what="the app's module to be imported")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize("app", ["hangs", "holds"])
def test_sigterm_ends_a_start_that_hangs(
    apps: Path, app: str, loop: str, environment: dict[str, str]
) -> None:
    """In less than 2 s, and the kernel's own connection file goes too."""
    process = begin(apps, app, loop, environment)
    try:
        began = time.monotonic()
        process.terminate()
        process.wait(5)
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
    assert not (apps / "kernel.json").exists()


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize("app", ["hangs", "holds"])
def test_an_interrupt_gives_up_a_start_that_hangs(
    apps: Path, app: str, loop: str, environment: dict[str, str]
) -> None:
    """The stop button, pressed while the app hangs, gives a kernel without it."""
    from jupyter_client.blocking.client import BlockingKernelClient

    process = begin(apps, app, loop, environment)
    client = BlockingKernelClient(connection_file=str(apps / "kernel.json"))
    try:
        process.send_signal(signal.SIGINT)
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=15)
        said: list[str] = []
        client.execute_interactive("6 * 7", output_hook=lambda message: said.append(str(message)), timeout=10)
        assert "it was interrupted" in "".join(said)
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)
        process.kill()
        process.wait()
