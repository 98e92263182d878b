"""Kill -9 at random moments under load: is anything missing that was acknowledged, is anything there twice?

A server in a process of its own, clients that ask for acknowledgements and resend from where they are told
to; after so many rounds the archive is held against what the clients sent, and the states against a plain
fold of the archive. JSON lines out; exit 1 where anything is wrong.

    python benchmarks/recovery.py [--rounds 50] [--clients 4] [--seed 1] [--store sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from lo_kernel.app.application import create_app
from lo_kernel.engine.archive import Archive, Senders
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.kernel.host import bind_first
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SOURCE = "bench.recovery"


@kvs_pipeline(null_state={"n": 0, "sum": 0}, module_override="bench", qualname_override="count")
async def count(event: Any, state: Any) -> Any:
    """Counts, in place."""
    state["n"] += 1
    state["sum"] += event["client"].get("number", 0)
    return state, state


@kvs_pipeline(
    null_state=[],
    scope=Scope([KeyField.STUDENT, EventField("doc")]),
    module_override="bench",
    qualname_override="last",
)
def last(event: Any, state: Any) -> Any:
    """The last ten numbers in a document; fails now and then."""
    number = event["client"]["number"]
    state.append(number)
    if number % 17 == 0:
        raise ValueError("seventeen")
    return (state[-10:], False) if number % 13 else (False, False)


@kvs_pipeline(null_state=0, module_override="bench", qualname_override="slow")
async def slow(event: Any, state: Any) -> Any:
    """Gives up the loop between reading and writing."""
    await asyncio.sleep(0.001 if event["client"].get("number", 1) % 50 == 0 else 0)
    return state + 1, None


REDUCERS = {"count": count, "last": last, "slow": slow}


def register(runtime: Runtime) -> list[Any]:
    """The reducers of this benchmark."""
    return [
        runtime.add_reducer(name, function, module="bench", context=SOURCE)
        for name, function in REDUCERS.items()
    ]


async def serve(folder: str, store: str) -> None:
    """The server: prints where events go in, and runs until it is killed."""
    runtime = Runtime(Settings(workspace=folder, port=0, store=store))
    sock = bind_first("127.0.0.1", ())
    runtime.bind("127.0.0.1", sock.getsockname()[1])
    runner = web.AppRunner(create_app(runtime))
    await runner.setup()
    await web.SockSite(runner, sock).start()
    register(runtime)
    print(runtime.ingest_url, flush=True)
    await asyncio.Event().wait()


class Client:
    """One learner's source: what it sent, and what it knows to be on disk."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.user = f"u{number % 3}"  # some share a learner
        self.stream = f"stream-{number}"
        self.chance = chance
        self.log: list[str] = []  # the text of every event, bad ones too
        self.told = 0
        self.problems: list[str] = []

    def make(self) -> str:
        """A new event, or something that is none."""
        number = len(self.log)
        if self.chance.random() < 0.03:
            text = f"nonsense {self.stream} {number}"
        else:
            text = json.dumps({"event": "k", "number": number, "stream": self.stream, "doc": number % 5})
        self.log.append(text)
        return text

    async def run(self, url: str) -> None:
        """Send until the connection breaks, or it is time for a new one."""
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            fields = {"source": SOURCE, "user_id": self.user}
            await ws.send_json({"event": "lock_fields", "fields": fields, "ack": {"stream": self.stream}})
            at = await self._ack(ws)
            listener = asyncio.create_task(self._listen(ws))
            try:
                until = time.monotonic() + self.chance.uniform(0.1, 1.0)
                while time.monotonic() < until and not ws.closed:
                    if self.chance.random() < 0.2 and at == len(self.log):
                        array = [text for text in (self.make() for _ in range(5)) if text[0] == "{"]
                        self.log[at:] = array  # an array is sent whole, and without nonsense
                        await ws.send_str(f"[{','.join(array)}]")
                        at += len(array)
                        continue
                    text = self.log[at] if at < len(self.log) else self.make()
                    await ws.send_str(text)
                    at += 1
                    if self.chance.random() < 0.05:
                        await asyncio.sleep(self.chance.uniform(0, 0.02))
            finally:
                listener.cancel()

    async def _ack(self, ws: aiohttp.ClientWebSocketResponse) -> int:
        while True:
            message = json.loads(await ws.receive_str())
            if message.get("status") == "ack":
                self._know(message["n"])
                return int(message["n"])

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(TypeError):
            while True:
                await self._ack(ws)

    def _know(self, n: int) -> None:
        if n < self.told:
            self.problems.append(f"{self.stream}: told {n} after {self.told}")
        if n > len(self.log):
            self.problems.append(f"{self.stream}: told {n} of {len(self.log)} sent")
        self.told = n

    async def live(self, url: str) -> None:
        """Connect again and again while there is a server."""
        while True:
            try:
                await self.run(url)
            except (aiohttp.ClientError, ConnectionError, TypeError, OSError):
                await asyncio.sleep(0.01)


async def rounds(folder: str, args: argparse.Namespace) -> list[Client]:
    """Start, load, kill; so many times."""
    chance = random.Random(args.seed)
    clients = [Client(number, random.Random(chance.random())) for number in range(args.clients)]
    for number in range(args.rounds):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--serve",
            folder,
            "--store",
            args.store,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        ready = time.perf_counter() - started
        tasks = [asyncio.create_task(client.live(url)) for client in clients]
        await asyncio.sleep(chance.uniform(0.05, args.seconds))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sent = sum(len(client.log) for client in clients)
        print(json.dumps({"round": number + 1, "start_s": round(ready, 2), "sent": sent}), flush=True)
    return clients


def check_archive(folder: str, clients: list[Client]) -> dict[str, int]:
    """Hold archive and rejections against what was sent."""
    held: dict[str, Counter[int]] = {client.stream: Counter() for client in clients}
    logs = {client.stream: client.log for client in clients}
    wrong = 0
    archive = Archive(Path(folder), ErrorLog())
    archive.open(writable=False)
    senders = Senders()
    events = 0
    for record in archive.read():
        stream = senders.of(record).mark["stream"]
        assert record.s is not None
        held[stream][record.s] += 1
        wrong += bytes(record.body).decode() != logs[stream][record.s - 1]
        events += 1
    rejected = Path(folder) / "rejected" / "rejected.jsonl"
    for line in rejected.read_bytes().splitlines() if rejected.exists() else []:
        entry = json.loads(line)
        if "s" in entry:
            held[entry["stream"]][entry["s"]] += 1
            wrong += entry["text"] != logs[entry["stream"]][entry["s"] - 1]
    missing = sum(1 for client in clients for n in range(1, client.told + 1) if not held[client.stream][n])
    double = sum(n - 1 for counter in held.values() for n in counter.values() if n > 1)
    return {
        "events": events,
        "acknowledged": sum(client.told for client in clients),
        "missing": missing,
        "double": double,
        "wrong": wrong,
    }


async def check_states(folder: str, store: str) -> int:
    """How many states differ from a plain fold over the archive."""
    runtime = Runtime(Settings(workspace=folder, port=0, store=store))
    await runtime.start()
    try:
        for registration in register(runtime):
            await registration.ready()
        for run in runtime.pipeline.runs:
            await run.waiting.room(0)
        expected = await plain_fold(runtime)
        keys = await runtime.registry.keys("Internal,bench.")
        found = dict(zip(keys, await runtime.registry.read(keys), strict=True))
        return sum(found.get(key) != expected.get(key) for key in {*found, *expected})
    finally:
        await runtime.stop()


async def plain_fold(runtime: Runtime) -> dict[str, Any]:
    """States as a loop makes them that knows nothing of the engine."""
    states: dict[str, str] = {}
    senders = Senders()
    for record in runtime.archive.read():
        for name, function in REDUCERS.items():
            event = senders.of(record).event(json.loads(bytes(record.body)), record.t)
            student = event["client"]["auth"]["safe_user_id"]
            doc = f"EventField.doc:{event['client']['doc']}," if name == "last" else ""
            key = f"Internal,bench.{name},{doc}STUDENT:{student}"
            null = json.dumps({"count": {"n": 0, "sum": 0}, "last": [], "slow": 0}[name])
            try:
                result: Any = function(event, json.loads(states.get(key, null)))
                internal, _ = await result if asyncio.iscoroutine(result) else result
            except ValueError:
                continue
            if internal is not False:
                states[key] = json.dumps(internal)
    return {key: json.loads(text) for key, text in states.items()}


async def main(args: argparse.Namespace) -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        clients = await rounds(folder, args)
        differ = await check_states(folder, args.store)
        report = check_archive(folder, clients) | {"states_that_differ": differ}
        report["told_wrong"] = sum(len(client.problems) for client in clients)
        print(
            json.dumps({"benchmark": "recovery", "rounds": args.rounds, "seed": args.seed} | report),
            flush=True,
        )
        for client in clients:
            for problem in client.problems[:5]:
                print(json.dumps({"problem": problem}))
        bad = ("missing", "double", "wrong", "states_that_differ", "told_wrong")
        return int(any(report[name] for name in bad))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="longest time between a start and a kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.store))
    else:
        sys.exit(asyncio.run(main(given)))
