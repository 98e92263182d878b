"""A terminal that is closed (SIGHUP) ends what runs in it, in order; so does SIGTERM to the console."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from test_kernel_ends import is_locked
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Where these tests run under nohup, what they start would ignore SIGHUP as they do."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def files(environment: dict[str, str], workspace: Path) -> list[str]:
    """Names of what says that something runs."""
    runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
    found = [*runtime.glob("lo-kernel-*"), *runtime.glob("kernel-*"), *workspace.glob("owner.json")]
    return sorted(path.name for path in found)


def kinds(workspace: Path) -> list[str]:
    """What is on record, in order."""
    logs = sorted((workspace / "audit").glob("log-*.jsonl"))
    return [json.loads(line)["kind"] for log in logs for line in log.read_text().splitlines()]


@pytest.mark.parametrize("mode", ["serve", "--lokernel"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_server_and_a_kernel_end_in_order(
    mode: str, number: signal.Signals, environment: dict[str, str], workspace: Path
) -> None:
    """In less than 2 s no file is left, the workspace is free, and the record has its end."""
    command = [sys.executable, "-m", "lo_kernel", mode]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for _ in range(3 if mode == "--lokernel" else 1):
            process.stdout.readline()
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=5)
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert not files(environment, workspace)
    assert not is_locked(workspace)
    assert kinds(workspace)[-1] == "end"


@pytest.mark.parametrize("mode", ["serve", "--lokernel"])
def test_nohup_keeps_them_alive(mode: str, environment: dict[str, str]) -> None:
    """Where SIGHUP was ignored it stays so."""
    command = ["nohup", sys.executable, "-m", "lo_kernel", mode]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("this system doesn't tell which signals a process ignores")
        ignored = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn:"))
        assert int(ignored.split()[1], 16) & 1 << (signal.SIGHUP - 1)
    finally:
        process.terminate()
        process.communicate(timeout=5)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a cell"])
def test_the_console_takes_its_kernel_along(
    number: signal.Signals, busy: bool, environment: dict[str, str], workspace: Path
) -> None:
    """Whatever ends the console ends its kernel, in order."""
    shell = pexpect.spawn(
        sys.executable,
        ["-m", "lo_kernel", "--loconsole"],
        env={**environment, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=25,
    )
    try:
        shell.expect(r"In \[1\]:")
        if busy:
            shell.sendline("import time; print('go' + 'ing'); time.sleep(60)")
            shell.expect("going")
        os.kill(shell.pid, number)
        until(lambda: not shell.isalive(), timeout=10, what="the console to end")
    finally:
        shell.close(force=True)
    until(lambda: not is_locked(workspace), timeout=5)
    assert not files(environment, workspace)
    assert kinds(workspace)[-1] == "end"


_APP = """\
import asyncio, time
from pathlib import Path
from aiohttp import web
Path(__file__).with_name("begun").touch()
def hangs():
    async def up(app):
        await asyncio.sleep(3600)
    app = web.Application()
    app.on_startup.append(up)
    return app
def holds():
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize("app", ["hangs", "holds"])
def test_a_server_whose_app_hangs_can_be_ended(app: str, environment: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM ends a server that is still starting, in less than 2 s."""
    (tmp_path / "awkward.py").write_text(_APP)
    env = environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "lo_kernel", "serve", "--app", f"awkward:{app}"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "begun").exists(), timeout=20)
        began = time.monotonic()
        process.terminate()
        process.wait(5)
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
