"""How fast the app answers while the kernel is busy, on both loops; and that a busy cell loses no event.

    python benchmarks/busy_cell.py [--seconds 5] [--held 30] [--realtime]

One client asks for ``/webapi/courselist/`` again and again over one connection, while the kernel is idle, or
a cell sleeps, runs pure Python, or pandas. On the kernel's loop nobody is answered before the cell ends: the
first answer takes as long as the cell. Beside the app on a thread, a bare aiohttp handler on another thread
of the same kernel is asked. Then a cell holds the loop for ``--held`` seconds, in which a source sends
events. Prints JSON lines.

The 99th percentile is the scheduler's where other processes want the processors. ``--realtime`` (Linux, root)
goes before all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from _class import SOURCE, percentile
from _common import emit
from _kernel import Kernel, running_kernel

CELLS = {
    "idle": "",
    "sleep": "time.sleep({seconds})",
    "pure Python": "while time.perf_counter() < end: sum(n * n for n in range(1000))",
    "pandas": "while time.perf_counter() < end: frame.groupby('key').mean(); frame.sort_values('a')",
}
PREPARE = """\
import time
try:
    import numpy, pandas
    frame = pandas.DataFrame(numpy.random.rand(200_000, 4), columns=list("abcd"))
    frame["key"] = (frame.a * 100).astype(int)
except ImportError:
    frame = None
print(frame is not None, lo.port, lo.token + "")
"""
COUNT = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    return {"count": state["count"] + (event["client"]["event"] == "keystroke")}, None
print(lo.ingest_url)
"""
BARE = """\
import asyncio, threading
from aiohttp import web
async def answer(request):
    return web.json_response([])
async def serve():
    app = web.Application()
    app.router.add_get("/webapi/courselist/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ports.append(runner.addresses[0][1])
    serving.set()
    await asyncio.Event().wait()
ports, serving = [], threading.Event()
threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
serving.wait()
print(ports[0])
"""
LIMITS = {("thread", "pure Python"): {"limit_p50_ms": 2, "limit_p99_ms": 5}}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each cell")
    parser.add_argument("--held", type=float, default=30.0, help="length of the cell that events come in by")
    parser.add_argument("--realtime", action="store_true", help="before all other processes; needs root")
    options = parser.parse_args(argv)
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory() as folder:
        for loop in ("kernel", "thread"):
            with running_kernel(Path(folder) / loop, env={"LO_KERNEL_LOOP": loop}) as kernel:
                has_pandas, port, token = kernel.run(PREPARE).split()
                ports = {"ours": int(port)}
                if loop == "thread":
                    ports["bare aiohttp"] = int(kernel.run(BARE))
                for name in CELLS:
                    if name == "pandas" and has_pandas != "True":
                        continue
                    for app, its_port in ports.items():
                        times = under(kernel, name, its_port, token, options.seconds)
                        emit(
                            "busy_cell",
                            loop=loop,
                            cell=name,
                            app=app,
                            answers=len(times),
                            p50_ms=round(percentile(times, 50) * 1000, 2),
                            p99_ms=round(percentile(times, 99) * 1000, 2),
                            worst_ms=round(max(times) * 1000, 2),
                            **LIMITS.get((loop, name), {}),
                        )
                sent, seen = held(kernel, options.held)
                emit("busy_cell", loop=loop, cell=f"held for {options.held:g} s", sent=sent, seen=seen)
                if sent != seen:
                    raise SystemExit(f"{sent - seen} events were lost")


def under(kernel: Kernel, name: str, port: int, token: str, seconds: float) -> list[float]:
    """Seconds that each answer took while the cell ran."""
    cell = CELLS[name].format(seconds=seconds)
    message = kernel.start(f"end = time.perf_counter() + {seconds}\nprint('on', flush=True)\n{cell}")
    times = list(answers(port, token, seconds))
    kernel.finish(message)
    return times


def answers(port: int, token: str, seconds: float) -> list[float]:
    """Ask one after the other, for so many seconds; how long each answer took."""
    request = (
        f"GET /webapi/courselist/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            connection.sendall(request)
            status, missing = _read(connection)
            times.append(time.perf_counter() - began)
            if not status.endswith(b"200 OK") or missing:
                raise SystemExit(f"the app answered {status!r}")
            time.sleep(0.002)  # a client that never pauses would measure itself
    return times


def _read(connection: socket.socket) -> tuple[bytes, int]:
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = text.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(body) < length and (more := connection.recv(65536)):
        body += more
    return head.split(b"\r\n")[0], length - len(body)


def held(kernel: Kernel, seconds: float) -> tuple[int, int]:
    """Events that a source sent while a cell held the loop, and those that a reducer saw."""
    url = kernel.run(COUNT).strip()
    connected, over = threading.Event(), threading.Event()
    sent: list[int] = []
    source = threading.Thread(target=lambda: sent.append(asyncio.run(send(url, connected, over))))
    source.start()
    connected.wait(60)
    message = kernel.start(f"print('on', flush=True)\ntime.sleep({seconds})")
    kernel.finish(message)
    over.set()
    source.join()
    seen = "print(sum([(await lo.kvs[key])['count'] for key in await lo.kvs.keys('Internal')]))"
    deadline = time.monotonic() + 30
    while (count := int(kernel.run(seen))) < sent[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    return sent[0], count


async def send(url: str, connected: threading.Event, over: threading.Event) -> int:
    """A source of 50 events a second; how many it sent until it was ``over``."""
    sent = 0
    about = {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": "u0"}
    patient = aiohttp.ClientWSTimeout(ws_close=60.0)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, timeout=patient) as ws:
        await ws.send_str(json.dumps(about))
        connected.set()
        while not over.is_set():
            await ws.send_str(json.dumps({"event": "keystroke", "source": SOURCE, "n": sent}))
            sent += 1
            await asyncio.sleep(0.02)
    return sent


if __name__ == "__main__":
    main()
