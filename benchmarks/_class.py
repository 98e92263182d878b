"""The app in a process of its own, with one counting reducer: what the benchmarks of queries talk to.

`python benchmarks/_class.py LEARNERS` serves it, prints one line of JSON with its addresses, and ends with
its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "org.mitros.writing_analytics"


@dataclass(frozen=True)
class ClassApp:
    """Where the app answers."""

    ingest_url: str
    query_url: str
    pid: int


@contextlib.contextmanager
def class_app(learners: int) -> Iterator[ClassApp]:
    """Serve the app with so many learners, who have typed a little."""
    command = [sys.executable, __file__, str(learners)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield ClassApp(pid=process.pid, **json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(20)


def percentile(values: list[float], percent: float) -> float:
    """The value that so many percent of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def milliseconds(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of seconds, in milliseconds."""
    named = {"p50_ms": percentile(values, 50), "p95_ms": percentile(values, 95), "worst_ms": max(values)}
    return {name: round(value * 1000, 2) for name, value in named.items()}


async def _serve(learners: int, folder: str) -> None:
    from lo_kernel.app.application import create_app
    from lo_kernel.engine.events import Sender, identify
    from lo_kernel.engine.reducers import student_event_reducer
    from lo_kernel.kernel.host import AppHost
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

    @student_event_reducer(null_state={"count": 0}, module_override="bench")
    async def counter(event: dict[str, Any], state: dict[str, Any]) -> Any:
        return {"count": state["count"] + 1}, None

    settings = Settings(workspace=folder, port=0)
    runtime = Runtime(settings)
    host = AppHost(settings, lambda: create_app(runtime), on_bind=runtime.bind)
    await host.start()
    runtime.catalog.add_reducer(runtime.registry.add("counter", counter, module="bench"), "bench")
    await runtime.registry.get("counter").ready()
    body = {"event": "keystroke", "source": SOURCE}
    for number in range(learners):
        identity = identify({"event": "test_framework_fake_identity", "user_id": f"u{number}"})
        assert identity is not None
        await runtime.pipeline.accept(Sender(identity=identity), body, json.dumps(body).encode(), time.time())
    token = runtime.security.ticket()
    query_url = f"{runtime.url}wsapi/communication_protocol?token={token}"
    print(json.dumps({"ingest_url": runtime.ingest_url, "query_url": query_url}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await host.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(_serve(int(sys.argv[1]), str(Path(root) / "workspace")))
