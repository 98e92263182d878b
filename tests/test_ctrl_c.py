"""Ctrl-C (SIGINT) ends the app that stands alone, in order and at once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
from conftest import Run
from test_kernel_ends import is_free, is_locked


def test_ctrl_c_ends_it_in_two_seconds(environment: dict[str, str], workspace: Path, run: Run) -> None:
    """Also while a source and a page are connected: port and workspace are free, no file is left."""
    command = [sys.executable, "-m", "lo_kernel"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        base, _, token = address.partition("?")

        async def end() -> float:
            async with aiohttp.ClientSession() as session:
                async with session.get(address) as page:
                    assert page.status == 200
                async with session.ws_connect(f"{base}wsapi/in/?{token}"):
                    began = time.monotonic()
                    process.send_signal(signal.SIGINT)
                    await asyncio.to_thread(process.communicate, timeout=5)
                    return time.monotonic() - began

        assert run(end()) < 2
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert is_free(int(base.rstrip("/").rpartition(":")[2]))
    assert not is_locked(workspace)
    assert not (workspace / "owner.json").exists()
    assert not list(Path(environment["JUPYTER_RUNTIME_DIR"]).glob("lo-kernel-*"))
