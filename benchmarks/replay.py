"""How fast files are folded and replayed, beside a bare decode-and-await loop in the same run.

    python benchmarks/replay.py [--events 1000000] [--rounds 5] [--reducer counter|median]

One JSON line a measure: events a second (the median), its share of the bare loop's over the plain file, and
the target. Each round runs in a process of its own; ``peak_mb`` is the memory over what that had before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

TARGETS = {"fold": 0.65, "fold_gz": 0.55, "fold_zst": 0.55, "replay": 0.45}
LEARNERS = 1000
MEASURES = ("bare", "fold", "fold_gz", "fold_zst", "replay")


def make(path: Path, events: int) -> None:
    """Write a study log of ``events`` keystrokes by 1,000 learners, about 650 bytes each."""
    chance = random.Random(1)
    auths = [
        {
            "sec": "unauthenticated",
            "user_id": f"testcase-u{number}",
            "safe_user_id": f"tc-testcase-u{number}",
            "providence": "tc",
        }
        for number in range(LEARNERS)
    ]
    encode = msgspec.json.Encoder(order="deterministic").encode
    with path.open("wb") as file:
        for number in range(events):
            auth = auths[chance.randrange(LEARNERS)]
            moment = 1_700_000_000 + number / 100
            event = {
                "client": {
                    "auth": auth,
                    "bundles": [{"commands": [{"ibi": number, "s": "a", "ty": "is"}], "reqId": number}],
                    "doc_id": f"doc-{number % 7}",
                    "event": "google_docs_save",
                    "origin": "stream_test_script",
                    "source": "org.mitros.writing_analytics",
                    "timestamp": int(moment * 1000),
                },
                "metadata": {"auth": auth, "source": "org.mitros.writing_analytics"},
                "server": {"agent": "", "executable": "aio_webapp", "ip": "", "origin": "", "time": moment},
            }
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
            file.write(encode(event) + b"\t" + stamp.encode() + b".000000\n")


async def counter(event: dict[str, Any], state: Any) -> Any:
    """Count events."""
    state = state or {"count": 0}
    state["count"] += 1
    return state, state


async def median(event: dict[str, Any], state: Any) -> Any:
    """A realistic reducer: a window of 10 gaps, sorted, and counters."""
    if state is None:
        state = {"count": 0, "last": None, "gaps": [], "median": None, "documents": {}}
    moment = event["server"]["time"]
    state["count"] += 1
    if state["last"] is not None:
        gaps = [*state["gaps"], moment - state["last"]][-10:]
        state["gaps"] = gaps
        state["median"] = sorted(gaps)[len(gaps) // 2]
    state["last"] = moment
    document = event["client"]["doc_id"]
    state["documents"][document] = state["documents"].get(document, 0) + 1
    return state, state


REDUCERS: dict[str, Callable[..., Any]] = {"counter": counter, "median": median}


async def bare(reducer: Callable[..., Any], path: Path) -> int:
    """Decode each line and await the reducer: what there is to do, and nothing else."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
    states: dict[str, Any] = {}
    count = 0
    with path.open("rb") as file:
        for line in file:
            event = decode(line.rpartition(b"\t")[0])
            student = event["client"]["auth"]["safe_user_id"]
            internal, _ = await reducer(event, states.get(student))
            states[student] = internal
            count += 1
    assert sum(state["count"] for state in states.values()) == count
    return count


async def folded(reducer: Callable[..., Any], path: Path) -> int:
    """`fold` over the file."""
    from lo_kernel.engine.fold import fold

    states = await fold(reducer, path)
    count: int = sum(state["count"] for state in states.values())
    assert count == states.report.events, states.report
    return count


async def replayed(reducer: Callable[..., Any], path: Path) -> int:
    """`replay` of the file into a new workspace, with the reducer registered, archive and SQLite on."""
    from lo_kernel.engine.replay import replay
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        runtime = Runtime(Settings(workspace=folder, port=0))
        runtime.bind("127.0.0.1", 0)
        await runtime.start()
        try:
            registration = runtime.add_reducer("bench", reducer, module="bench")
            await registration.ready()
            began = time.perf_counter()
            report = await replay(runtime, path)
            seconds = time.perf_counter() - began
            assert registration.events == report.events, report
        finally:
            await runtime.stop()
    folded.__dict__["seconds"] = seconds  # the start and the end of a runtime are no part of it
    return int(report.events)


def peak_kb() -> int:
    """The most memory that this process has had by now, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def one(measure: str, reducer: str, folder: Path) -> None:
    """Run one measure in this process, and print it."""
    path = folder / {"fold_gz": "events.study.log.gz", "fold_zst": "events.study.log.zst"}.get(
        measure, "events.study.log"
    )
    run = {"bare": bare, "replay": replayed}.get(measure, folded)
    import lo_kernel.engine.fold
    import lo_kernel.engine.replay
    import lo_kernel.runtime  # noqa: F401 - what is imported is no part of the measure

    gc.collect()
    before = peak_kb()
    began = time.perf_counter()
    count = asyncio.run(run(REDUCERS[reducer], path))
    seconds = folded.__dict__.get("seconds", time.perf_counter() - began)
    peak = (peak_kb() - before) / 1024
    print(json.dumps({"events": count, "seconds": seconds, "peak_mb": peak}))


def main() -> None:
    """Run all measures, in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reducer", choices=REDUCERS, action="append")
    parser.add_argument("--measure", choices=MEASURES, action="append")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], Path(options.one[2]))
        return
    measures = [each for each in MEASURES if each == "bare" or each in (options.measure or MEASURES)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "events.study.log", options.events)
        data = (folder / "events.study.log").read_bytes()
        (folder / "events.study.log.gz").write_bytes(gzip.compress(data, 6))
        from zstandard import ZstdCompressor

        (folder / "events.study.log.zst").write_bytes(ZstdCompressor().compress(data))
        size = len(data) / options.events
        del data
        for reducer in options.reducer or list(REDUCERS):
            found: dict[str, list[dict[str, float]]] = {each: [] for each in measures}
            for _ in range(options.rounds):
                for measure in measures:
                    command = [sys.executable, __file__, "--one", measure, reducer, name]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[measure].append(json.loads(done.stdout))
            ceiling = statistics.median(each["events"] / each["seconds"] for each in found["bare"])
            for measure, rounds in found.items():
                rate = statistics.median(each["events"] / each["seconds"] for each in rounds)
                line = {
                    "benchmark": "replay",
                    "measure": measure,
                    "reducer": reducer,
                    "events": options.events,
                    "bytes_per_event": round(size),
                    "events_per_s": round(rate),
                    "of_bare": round(rate / ceiling, 3),
                    "target": TARGETS.get(measure),
                    "peak_mb": round(max(each["peak_mb"] for each in rounds), 1),
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
