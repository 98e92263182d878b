"""Erasing a learner where it is less simple: damaged files, a process that owns the workspace, Redis."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from conftest import StartKernel
from harness import RedisServer, RunningKernel
from page_parts import send
from waiting import until

from lo_kernel.app.erasing import erase
from lo_kernel.engine.archive import Archive
from lo_kernel.engine.archive.erasing import erase_from_damaged
from lo_kernel.engine.archive.index import read_index
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.keys import EventField, Scope
from lo_kernel.engine.reducers import kvs_pipeline, student_event_reducer
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.verify import verify
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

ADA, BEN = "tc-testcase-ada", "tc-testcase-ben"
SETUP = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    return {"count": state["count"] + 1}, None
await lo.simulate(students=2, seconds=0.25, speed=80, seed=1)
"""


@student_event_reducer(null_state={"count": 0}, module_override="erasing")
async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count."""
    return {"count": state["count"] + 1}, None


@kvs_pipeline(scope=Scope([EventField("event")]), null_state={"who": []}, module_override="erasing")
async def everyone(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Who was seen."""
    return {"who": sorted({*state["who"], event["client"]["auth"]["safe_user_id"]})}, None


def sender(name: str) -> Sender:
    """Somebody's events."""
    identity = identify({"user_id": name})
    assert identity is not None
    return Sender(identity, "my.source")


async def filled(folder: Path, events: int = 4000) -> Archive:
    """An archive with every fourth event of Ada's, in compressed segments."""
    archive = Archive(folder, ErrorLog(), segment_bytes=400_000)
    archive.open(writable=True)
    ada, ben = sender("ada"), sender("ben")
    for number in range(events):
        by = ben if number % 4 else ada
        body = json.dumps({"event": "x", "word": "w" * 300, "n": number}).encode()
        archive.append(by, body, 1000.0 + number)
        if number % 500 == 499:
            await archive.flush()
    return archive


def lo_kernel(kernel: RunningKernel, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, beside a kernel."""
    return subprocess.run(
        [sys.executable, "-m", "lo_kernel", *arguments],
        env=kernel.environment,
        cwd=kernel.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def ada_in(path: Path) -> bool:
    """Whether a file names her, also where it is compressed."""
    from zstandard import ZstdDecompressor

    data = path.read_bytes()
    if path.suffix == ".zst":
        data = ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return b"ada" in data


async def test_a_damaged_line_that_was_set_aside_is_erased(tmp_path: Path) -> None:
    """Her lines there go, whole ones and torn ones; others' stay; what nobody can read is named."""
    archive = await filled(tmp_path, 40)
    archive.close()
    (segment,) = archive.segments()
    aside = archive.folder / "damaged"
    aside.mkdir()
    lines = segment.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:-30] + b"\n"  # of Ada's: no JSON any more, but it names her
    lines[5] = b"\xff" * 50 + b"\n"
    (aside / segment.path.name).write_bytes(b"".join(lines))
    gone, unread = erase_from_damaged(aside, ADA, "testcase-ada", 5000.0)
    assert gone == 10
    assert unread == [(aside / segment.path.name, "1 of its lines")]
    after = (aside / segment.path.name).read_bytes()
    assert b"ada" not in after
    assert after.count(b"ben") == b"".join(lines).count(b"ben")
    assert erase_from_damaged(aside, ADA, "testcase-ada", 5000.0)[0] == 0


async def test_damaged_blocks_that_were_set_aside_are_erased(tmp_path: Path) -> None:
    """Of a compressed segment, each block that can be read and names her is emptied; the rest is named."""
    archive = await filled(tmp_path)
    archive._keep()
    segments = archive.segments()
    until(lambda: any(each.packed for each in archive.segments()), what="a compressed segment")
    if archive._keeper is not None:
        await archive._keeper
    archive.close()
    segment = next(each for each in archive.segments() if each.packed)
    assert segments
    blocks = read_index(segment.plain).blocks
    data = bytearray(segment.path.read_bytes())
    data[blocks[0].at + blocks[0].size // 2] ^= 0xFF
    aside = archive.folder / "damaged"
    aside.mkdir()
    path = aside / segment.path.name
    path.write_bytes(data)
    gone, ((named, what),) = erase_from_damaged(aside, ADA, "testcase-ada", 5000.0)
    assert gone == len(blocks) - 1
    assert named == path
    assert what == f"{blocks[0].size:,} of its {len(data):,} bytes"


async def test_a_damaged_segment_does_not_keep_her_from_being_erased(tmp_path: Path) -> None:
    """A block that can't be read, found only now: its segment is set aside, the rest erased."""
    archive = await filled(tmp_path)
    archive._keep()
    until(lambda: any(each.packed for each in archive.segments()), what="a compressed segment")
    if archive._keeper is not None:
        await archive._keeper
    segment = next(each for each in archive.segments() if each.packed)
    block = read_index(segment.plain).blocks[0]
    data = bytearray(segment.path.read_bytes())
    data[block.at + block.size // 2] ^= 0xFF
    segment.path.write_bytes(data)
    events, _ = await archive.erase(ADA, "testcase-ada", 5000.0)
    if archive._keeper is not None:
        await archive._keeper
    assert 0 < events < 1000
    assert not [each.path.name for each in archive.segments() if ada_in(each.path)]
    assert (archive.folder / "damaged" / segment.path.name).exists()
    archive.close()


async def test_the_report_names_what_cannot_be_searched(settings: Settings) -> None:
    """A damaged store's file, a log and a value of one's own: each with what to do about it."""
    async with running_app(settings) as runtime:
        await seen_by_all(runtime)
        await runtime.registry.set("flagged", {"who": [ADA]})
        await runtime.registry.set(f"note,STUDENT:{ADA}", "a note")
        await runtime.registry.set(f"note,STUDENT:{ADA}line", "of somebody else")
        folder = runtime.workspace.path
        (folder / "states.sqlite.damaged-20260101T000000").write_bytes(b"SQLite")
        (folder / "logs").mkdir(exist_ok=True)
        (folder / "logs" / "old.log").write_text(f"no answer for {ADA}\n")
        runtime.errors.add("a test", ValueError(f"what {ADA} sent"))
        report = await erase(runtime, ADA)
        assert report.states == 1
        told = "\n".join(report.left)
        assert [each in told for each in ("damaged-2026", "old.log", "'flagged'")] == [True] * 3
        assert "left, for you to see to" in repr(report)
        assert await runtime.store.keys(0) == ["flagged", f"note,STUDENT:{ADA}line"]
        assert not [entry for entry in runtime.errors if ADA in str(entry)]


async def seen_by_all(runtime: Runtime) -> None:
    """Two learners, seen by a reducer of each and one of all."""
    runtime.add_reducer("count", count, module="erasing")
    runtime.add_reducer("everyone", everyone, module="erasing")
    await send(runtime, "ada", "ben", "ada")
    await runtime.pipeline.commit()


@pytest.mark.redis
async def test_erased_in_redis(settings: Settings, redis_server: RedisServer) -> None:
    """No key and no value of a real Redis names her any more; shared states are made anew without her."""
    from redis import Redis

    async with running_app(replace(settings, store=redis_server.url)) as runtime:
        await seen_by_all(runtime)
        await runtime.registry.set(f"note,STUDENT:{ADA}", "a note")
        await runtime.pipeline.commit()
        with Redis(port=redis_server.port) as client:
            assert naming(client, "ada")
            report = await erase(runtime, ADA)
            assert (report.events, report.states, report.left) == (2, 1, [])
            assert naming(client, "ada") == []
            assert naming(client, "ben")
        (row,) = await runtime.executor.rows("count")
        assert (row["student"], row["count"]) == (BEN, 1)
        key = next(each for each in await runtime.registry.keys("Internal") if "everyone" in each)
        assert await runtime.registry.read([key]) == [{"who": [BEN]}]


def naming(client: Any, word: str) -> list[str]:
    """The keys of Redis in which, or in whose value, a word stands."""
    found = []
    for key in client.scan_iter("*"):
        value = key + (client.dump(key) or b"") + repr(contents(client, key)).encode()
        if word.encode() in value:
            found.append(key.decode())
    return found


def contents(client: Any, key: bytes) -> Any:
    """What a key holds, of whatever type."""
    kind = client.type(key).decode()
    reading = {"string": client.get, "hash": client.hgetall, "set": client.smembers}
    return reading[kind](key) if kind in reading else client.dump(key)


@pytest.fixture
def study(start_kernel: StartKernel) -> RunningKernel:
    """A kernel that owns its workspace, with a reducer and two learners."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": "thread"})
    kernel.execute(SETUP)
    return kernel


def test_the_command_asks_the_owner(study: RunningKernel) -> None:
    """While a kernel runs, it erases; the report is the same, and the record says who asked from where."""
    who = "tc-testcase-sim-01"
    said = lo_kernel(study, "erase", who, "--yes")
    assert said.returncode == 0, said.stderr
    assert "erased:" in said.stdout
    assert "computed anew without them: seen" in said.stdout
    assert "out of reach:" in said.stdout
    assert study.execute("print([row['student'] for row in await lo.query('seen')])").text == (
        "['tc-testcase-sim-02']\n"
    )
    deed = next(each for each in AuditReader(study.workspace).events() if each["what"] == "erase")
    assert deed["by"] == "command line"
    assert deed["user"]
    assert deed["run"] == next(
        each["run"] for each in AuditReader(study.workspace).events() if each["what"] == "kernel"
    )
    again = lo_kernel(study, "erase", who, "--yes")
    assert again.returncode != 0
    assert "is not the safe id of a learner" in again.stderr


def test_the_command_exports_what_the_owner_holds(study: RunningKernel) -> None:
    """While a kernel runs, a learner's file has the states of its reducers, and the record who asked."""
    who = "tc-testcase-sim-01"
    study.execute("rows = await lo.query('seen')")
    said = lo_kernel(study, "export-student", who, "--output", "one.json")
    assert said.returncode == 0, said.stderr
    data = json.loads((study.root / "one.json").read_text())
    assert [state["count"] for state in data["states"].values()] == [len(data["events"])]
    assert [each["code"] for each in data["record"] if each["kind"] == "execute"] == [
        "rows = await lo.query('seen')"
    ]
    assert stat.S_IMODE((study.root / "one.json").stat().st_mode) == 0o600
    deed = next(each for each in AuditReader(study.workspace).events() if each["what"] == "export student")
    assert (deed["by"], deed["learners"]) == ("command line", 1)


def test_an_owner_that_does_not_answer_is_named(study: RunningKernel) -> None:
    """The message says which process, and what to do; nothing is erased."""
    owner = json.loads((study.workspace / "owner.json").read_text())
    owner["url"] = "http://127.0.0.1:9/"
    (study.workspace / "owner.json").write_text(json.dumps(owner))
    said = lo_kernel(study, "erase", "tc-testcase-sim-01", "--yes")
    assert said.returncode != 0
    assert f"the process {owner['pid']}" in said.stderr
    assert "does not answer" in said.stderr
    assert "end that process first" in said.stderr
    assert study.execute("print(len(await lo.query('seen')))").text == "2\n"


def test_only_the_notebooks_token_erases(study: RunningKernel, run: Any) -> None:
    """Nor gives all that is held: no token of a page or a source does, and no cookie, whatever its kind."""
    url = study.execute("print(lo.url)").text.strip()
    tokens = json.loads((study.workspace / "secrets.json").read_text())["tokens"]
    port = url.rstrip("/").rsplit(":", 1)[1]

    async def statuses() -> list[int]:
        found = []
        address = f"{url}webapi/learner/tc-testcase-sim-01"
        async with aiohttp.ClientSession() as session:
            for kind in ("read", "ingest"):
                headers = {"Authorization": f"Bearer {tokens[kind]}"}
                async with session.delete(address, headers=headers) as answer:
                    found.append(answer.status)
                async with session.get(f"{address}/held", headers=headers) as answer:
                    found.append(answer.status)
            headers = {
                "Cookie": f"lo_kernel_{port}={tokens['notebook']}",
                "Origin": url.rstrip("/"),
            }
            async with session.delete(address, headers=headers) as answer:
                found.append(answer.status)
            async with session.get(f"{address}/held", headers=headers) as answer:
                found.append(answer.status)
            async with session.delete(address) as answer:
                found.append(answer.status)
        return found

    assert run(statuses()) == [403] * 6 + [401]
    assert study.execute("print(len(await lo.query('seen')))").text == "2\n"


def test_a_replay_is_on_record_wherever_it_was_asked_for(study: RunningKernel) -> None:
    """From a cell, and from the command line; with the file, by whom, and as an act of that cell."""
    line = {"event": "x", "source": "my.source", "user_id": "u7", "timestamp": 1700000000.0}
    for name in ("cell.jsonl", "command.jsonl"):
        (study.root / name).write_text(json.dumps(line | {"name": name}) + "\n")
    study.execute(f"await lo.replay({str(study.root / 'cell.jsonl')!r})")
    study.stop()
    said = lo_kernel(study, "replay", str(study.root / "command.jsonl"))
    assert said.returncode == 0, said.stderr
    reader = AuditReader(study.workspace)
    first, second = (each for each in reader.records() if each.get("what") == "replay")
    assert "cell.jsonl" in str(first["path"])
    assert first["by"] == "request"
    assert second["path"] == [str(study.root / "command.jsonl")]
    runs = {each["run"]: each for each in reader.records() if each["kind"] == "run"}
    assert runs[second["run"]]["role"] == "command"
    assert runs[second["run"]]["user"]["name"]
    assert verify(study.workspace, state=Path(study.environment["XDG_STATE_HOME"]) / "lo_kernel/audit").ok
