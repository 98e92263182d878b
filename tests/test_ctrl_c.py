"""Ctrl-C (SIGINT) ends the app that stands alone, in order and at once; no reducer holds it up."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from conftest import Run
from field_parts import add_metadata
from test_kernel_ends import is_free, is_locked
from waiting import auntil

SOURCE = "org.mitros.writing_analytics"
SPINS = """\
from pathlib import Path
from lo_kernel import student_event_reducer

NAME = "One that spins"

@student_event_reducer(null_state={"n": 0})
async def spins(event, state):
    if "at" in event["client"]:
        Path(event["client"]["at"]).touch()
        while True:
            pass
    return {"n": state["n"] + 1}, None

REDUCERS = [{"function": spins, "context": None}]
"""


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


@pytest.mark.parametrize(
    ("mode", "loop"), [("serve", ""), ("--lokernel", "kernel"), ("--lokernel", "thread")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reducer_that_spins_holds_up_no_end(
    mode: str,
    loop: str,
    number: signal.Signals,
    environment: dict[str, str],
    workspace: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    """In 2.5 s it has ended and said of which; what was acknowledged is there, and no file is left."""
    (tmp_path / "spinner.py").write_text(SPINS)
    add_metadata(tmp_path, "spinner", "spinner")
    process = subprocess.Popen(
        [sys.executable, "-m", "lo_kernel", mode],
        env=environment | {"PYTHONPATH": str(tmp_path), "LO_KERNEL_LOOP": loop or "kernel"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    at = tmp_path / "at work"

    async def end() -> float:
        async with aiohttp.ClientSession() as session, session.ws_connect(owner["ingest_url"]) as ws:
            lock = {"event": "lock_fields", "fields": {"source": SOURCE}}
            await ws.send_json({**lock, "ack": {"stream": "7f8d0a4e-3b6c-4b1e-9d55-0123456789ab"}})
            await ws.send_json({"event": "test_framework_fake_identity", "user_id": "u0"})
            for number_ in range(20):
                await ws.send_json({"event": "keystroke", "number": number_})
            while (await ws.receive_json()).get("n") != 21:
                pass
            await ws.send_json({"event": "keystroke", "at": str(at)})
            await auntil(at.exists, what="it to spin")
            began = time.monotonic()
            process.send_signal(number)
            await asyncio.to_thread(process.wait, timeout=5)
            return time.monotonic() - began

    try:
        assert process.stdout is not None
        for _ in range(3 if mode == "--lokernel" else 1):
            process.stdout.readline()
        owner = json.loads((workspace / "owner.json").read_text())
        assert run(end()) < 2.5
    finally:
        process.kill()
        _, said = process.communicate()
    interrupted = mode == "--lokernel" and number == signal.SIGINT
    named = "reducer 'spinner.spins'" if interrupted else "'spins' (spinner.py, line "
    assert said.count(named) == said.count("did not come to an end") == 1, said
    events = b"".join(path.read_bytes() for path in (workspace / "archive").glob("events-*.jsonl"))
    kept = events.count(b'"keystroke"')
    assert kept == 21 or (loop == "thread" and kept == 20), "the one that it spins at was not acknowledged"
    assert not is_locked(workspace)
    assert not (workspace / "owner.json").exists()
    assert not list(Path(environment["JUPYTER_RUNTIME_DIR"]).glob("lo-kernel-*"))
    log = "".join(path.read_text() for path in sorted((workspace / "audit").glob("log-*.jsonl")))
    assert json.loads(log.splitlines()[-1])["kind"] == "end"
