"""Events in by websocket: this app, with archive and SQLite, beside a bare handler that decodes and counts.

The server runs in a process of its own; clients are threads that push ready-made frames. Rounds of the two
alternate, so that what else the machine does hits both; ratio of the medians. The clock of this app stops
when the last event is on disk and in a committed state. JSON lines out.

    python benchmarks/ingest.py [--events 200000] [--rounds 5] [--connections 8] [--batch 1 10] [--reducers 1]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
from _common import emit
from aiohttp import web

SOURCE = "org.mitros.writing_analytics"


async def bare(events: int) -> None:
    """Decode, count in a dict, nothing else."""
    decode = msgspec.json.Decoder().decode
    counts: dict[str, int] = {}
    total = 0
    first: tuple[float, float] | None = None
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        nonlocal total, first
        ws = web.WebSocketResponse(max_msg_size=16 << 20, decode_text=False)
        await ws.prepare(request)
        async for message in ws:
            if first is None:
                first = _now()
            body: Any = decode(message.data)
            for each in body if type(body) is list else (body,):
                user = each.get("doc_id", "")
                counts[user] = counts.get(user, 0) + 1
                total += 1
            if total >= events:
                done.set()
        return ws

    app = web.Application()
    app.add_routes([web.get("/wsapi/in/", handler)])
    runner = web.AppRunner(app)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    print(f"ws://127.0.0.1:{sock.getsockname()[1]}/wsapi/in/", flush=True)
    await done.wait()
    assert first is not None
    _report(first)
    os._exit(0)


async def ours(events: int, folder: str, reducers: int, store: str) -> None:
    """The app as it is served, with counting reducers."""
    from lo_kernel.app.application import create_app
    from lo_kernel.engine.reducers import student_event_reducer
    from lo_kernel.kernel.host import bind_first
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

    runtime = Runtime(Settings(workspace=folder, port=0, store=store))
    sock = bind_first("127.0.0.1", ())
    runtime.bind("127.0.0.1", sock.getsockname()[1])
    runner = web.AppRunner(create_app(runtime))
    await runner.setup()
    await web.SockSite(runner, sock).start()

    def counting(number: int) -> Any:
        async def count(event: Any, state: Any) -> Any:
            state["n"] += 1
            return state, state

        return student_event_reducer({"n": 0}, module_override="bench", qualname_override=f"c{number}")(count)

    for number in range(reducers):
        await runtime.add_reducer(f"c{number}", counting(number), module="bench").ready()
    print(runtime.ingest_url, flush=True)
    pipeline = runtime.pipeline
    begun, over = asyncio.Event(), asyncio.Event()

    def look(synced: int) -> None:
        if pipeline.accepted:
            begun.set()
        if synced >= events:
            over.set()

    pipeline.on_synced.append(look)
    await begun.wait()
    first, late = _now(), pipeline.accepted
    await over.wait()
    await pipeline.commit()
    _report(first, late)
    os._exit(0)


def _report(first: tuple[float, float], late: int = 0) -> None:
    """``late``: events that had come when the clock was started."""
    seconds, cpu = (now - then for now, then in zip(_now(), first, strict=True))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "late": late}), flush=True)


def _now() -> tuple[float, float]:
    """Time, and the time that this process has computed, in seconds."""
    return time.perf_counter(), time.process_time()


def frame(text: bytes) -> bytes:
    """A text frame of a client, under a mask of zeros."""
    head = bytes([0x81])
    if len(text) < 126:
        head += bytes([0x80 | len(text)])
    elif len(text) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack("!H", len(text))
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(text))
    return head + bytes(4) + text


def event(user: int, number: int) -> bytes:
    """A keystroke as the field sends it: about 650 bytes."""
    commands = [{"ibi": number % 500, "s": "a", "ty": "is", "sugid": "x" * 40} for _ in range(4)]
    body = {
        "event": "google_docs_save",
        "source": SOURCE,
        "doc_id": f"doc-{user}",
        "origin": "bench",
        "timestamp": 1_700_000_000_000 + number,
        "bundles": [{"commands": commands, "sid": "s" * 30, "reqId": number}],
        "metadata": {"iso_ts": "2026-01-01T00:00:00.000Z", "ts": number, "sessionTag": "t" * 60},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def push(url: str, user: int, count: int, batch: int) -> None:
    """One connection: says who it is, and sends its events as fast as they are taken."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80)) as sock:
        key = base64.b64encode(os.urandom(16)).decode()
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {parts.hostname}:{parts.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in sock.recv(4096):
            pass
        who = {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": f"u{user}"}
        sock.sendall(frame(json.dumps(who).encode()))
        texts = [event(user, number) for number in range(1000)]
        if batch == 1:
            frames = [frame(text) for text in texts]
        else:
            frames = [
                frame(b"[" + b",".join(texts[start : start + batch]) + b"]")
                for start in range(0, 1000, batch)
            ]
        block = b"".join(frames)
        for _ in range((count - 1) // 1000):
            sock.sendall(block)
        time.sleep(3600)  # until the process ends: a close is no part of this


def one_round(
    kind: str, events: int, connections: int, batch: int, args: argparse.Namespace
) -> dict[str, float]:
    """Events a second, and microseconds of server CPU each, of one server."""
    each = events // connections // 1000 * 1000 + 1  # and the one that says who it is
    total = each * connections
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--serve", kind, "--events", str(total), "--folder", folder]
        command += ["--reducers", str(args.reducers), "--store", args.store]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            for user in range(connections):
                threading.Thread(target=push, args=(url, user, each, batch), daemon=True).start()
            report = json.loads(process.stdout.readline())
    timed = total - report["late"]
    return {"rate": timed / report["seconds"], "cpu_us": report["cpu"] / timed * 1e6}


def main(args: argparse.Namespace) -> None:
    """All rounds of all sizes."""
    for batch in args.batch:
        found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
        for _ in range(args.rounds):
            for kind, results in found.items():
                results.append(one_round(kind, args.events, args.connections, batch, args))
        rates = {kind: statistics.median(each["rate"] for each in results) for kind, results in found.items()}
        cpu = {kind: statistics.median(each["cpu_us"] for each in results) for kind, results in found.items()}
        ratios = [o["rate"] / b["rate"] for o, b in zip(found["ours"], found["bare"], strict=True)]
        emit(
            "ingest",
            batch=batch,
            connections=args.connections,
            events=args.events,
            rounds=args.rounds,
            reducers=args.reducers,
            store=args.store,
            bare_events_per_s=round(rates["bare"]),
            ours_events_per_s=round(rates["ours"]),
            bare_cpu_us=round(cpu["bare"], 2),
            ours_cpu_us=round(cpu["ours"], 2),
            ratio=round(rates["ours"] / rates["bare"], 3),
            cpu_ratio=round(cpu["bare"] / cpu["ours"], 3),
            ratios=[round(ratio, 3) for ratio in ratios],
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--reducers", type=int, default=1)
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--serve", choices=["bare", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve == "bare":
        asyncio.run(bare(given.events))
    elif given.serve:
        asyncio.run(ours(given.events, given.folder, given.reducers, given.store))
    else:
        main(given)
        os._exit(0)  # the clients' threads wait
