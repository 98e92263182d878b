"""An erasure that is cut off: the next start finishes it, or the next try, from wherever it was."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from page_parts import send
from test_erasing import ADA, BEN, count, everyone
from waiting import auntil

from lo_kernel.app.application import create_app
from lo_kernel.app.erasing import erase
from lo_kernel.app.unfinished import known, unfinished
from lo_kernel.errors import ArchiveError
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.requests import KernelRecord
from lo_kernel.kernel.audit.verify import verify
from lo_kernel.kernel.host import AppHost
from lo_kernel.lock import FileLock
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

STEPS = [
    "archive.erase",
    "erasing._anew",
    "erasing._own_values",
    "learners.forget",
    "erasing._checkpoint",
    "made_up.forget",
    "erasing._files_left",
    "reads.forget",
    "aliases.write_over",
    "audit.write_over",
    "reads.act",
    "begun.end",
]


@asynccontextmanager
async def recorded_app(folder: Path) -> AsyncIterator[Runtime]:
    """The app on a real store, with its record."""
    settings = Settings(workspace=str(folder), port=0)
    record = KernelRecord(settings, state=folder.parent / "state")
    record.open({}, role="server")
    runtime = Runtime(settings, reads=record.recorder)
    host = AppHost(settings, lambda: create_app(runtime), on_bind=runtime.bind)
    await host.start()
    try:
        yield runtime
    finally:
        await host.stop()
        record.close()


async def fill(runtime: Runtime) -> None:
    """Two learners with events, states, a shared state, values, a made-up name, an alias, a cell."""
    runtime.add_reducer("count", count, module="erasing")
    runtime.add_reducer("everyone", everyone, module="erasing")
    await send(runtime, "ada", "ben", "ada")
    await runtime.registry.set(f"note on {ADA}", 1)
    await runtime.registry.set(f"note on {ADA}-2", 1)
    runtime.made_up.of([ADA, BEN])
    runtime.reads.record("query", "count", [ADA, BEN])
    recorder = runtime.reads
    for number, who in enumerate((ADA, BEN)):
        token = recorder.begin("execute", {"msg_id": f"m{number}"}, {}, {"code": f"x = {who!r}"})  # type: ignore[attr-defined]
        recorder.end(token)  # type: ignore[attr-defined]
    await runtime.pipeline.commit()


async def erase_and_die(folder: Path, step: str) -> None:
    """Fill a workspace, and be killed as the erasure comes to a step of its own."""
    import os
    import signal

    from lo_kernel.app import erasing
    from lo_kernel.app.unfinished import Unfinished
    from lo_kernel.kernel.audit import aliases
    from lo_kernel.kernel.audit import erasing as audit

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async with recorded_app(folder) as runtime:
        await fill(runtime)
        where, name = step.split(".")
        places = {"erasing": erasing, "aliases": aliases, "audit": audit, "begun": Unfinished, "os": os}
        setattr(places.get(where) or getattr(runtime, where), name, die)
        await erase(runtime, ADA)


def killed_at(folder: Path, step: str) -> None:
    """A process that is."""
    code = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_erase_cut_off import erase_and_die
asyncio.run(erase_and_die(Path({str(folder)!r}), {step!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=40
    )
    assert done.returncode == -9, done.stderr


def contents(path: Path) -> bytes:
    """What stands in a file, also where it is compressed."""
    from zstandard import ZstdDecompressor

    data = path.read_bytes()
    return (
        ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        if path.suffix == ".zst"
        else data
    )


def whole_without_ada(folder: Path) -> None:
    """No file names her, a namesake is there, and the record is whole."""
    found = {path.name: re.search(rb"testcase-ada(?!-2)", contents(path)) for path in folder.rglob("*.*")}
    assert [name for name, match in found.items() if match] == []
    assert f"{ADA}-2".encode() in contents(folder / "states.sqlite")
    assert not list(folder.glob("erasing-*"))
    verdict = verify(folder, state=folder.parent / "state")
    assert verdict.ok, verdict
    codes = [each.get("code") for each in AuditReader(folder).records()]
    assert f"x = {BEN!r}" in codes
    assert f"x = {ADA!r}" not in codes


def of_file(path: Path) -> tuple[int, str]:
    """Who may read what was begun, and whom it names."""
    return path.stat().st_mode & 0o777, json.loads(path.read_text())["student"]


@pytest.mark.parametrize("step", STEPS)
async def test_the_next_start_finishes_it(workspace: Path, step: str) -> None:
    """Killed before any step: the app's next start erases what is left, and the record was whole always."""
    await asyncio.to_thread(killed_at, workspace, step)
    verdict = verify(workspace, state=workspace.parent / "state")
    assert verdict.ok, verdict
    async with recorded_app(workspace) as runtime:
        await auntil(lambda: not unfinished(workspace), what="the erasure to be finished")
        assert ADA not in runtime.learners
        assert BEN in runtime.learners
        assert not known(runtime, ADA)
        assert not list(runtime.errors)
    whole_without_ada(workspace)


async def test_what_was_not_begun_leaves_nothing(workspace: Path) -> None:
    """Killed while the file is written that says whose erasure it is: nothing has gone, and no file stays."""
    await asyncio.to_thread(killed_at, workspace, "os.replace")
    assert left_behind(workspace)
    async with recorded_app(workspace) as runtime:
        await auntil(lambda: not left_behind(workspace), what="the file to be deleted")
        assert ADA in runtime.learners
        assert (await erase(runtime, ADA)).events == 2
    whole_without_ada(workspace)


async def test_killed_with_the_last_step(workspace: Path) -> None:
    """All has gone, and the file that says whose erasure it was is overwritten: it goes, too."""
    await asyncio.to_thread(killed_at, workspace, "begun.end")
    for begun in unfinished(workspace):
        overwrite(Path(begun.path))
    async with recorded_app(workspace) as runtime:
        await auntil(lambda: not left_behind(workspace), what="the file to be deleted")
        assert ADA not in runtime.learners
    whole_without_ada(workspace)


def overwrite(path: Path) -> None:
    """As :meth:`Unfinished.end` does before it deletes a file."""
    path.write_bytes(bytes(path.stat().st_size))


def left_behind(folder: Path) -> list[str]:
    """Files of an erasure."""
    return [path.name for path in folder.glob("erasing-*")]


async def test_the_next_try_finishes_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle: the learner can be erased again, though nobody is seen any more."""
    async with recorded_app(workspace) as runtime:
        await fill(runtime)
        forget = runtime.reads.forget

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(runtime.reads, "forget", full)
        with pytest.raises(OSError, match="No space"):
            await erase(runtime, ADA)
        assert ADA not in runtime.learners
        assert known(runtime, ADA)
        assert of_file(Path(unfinished(workspace)[0].path)) == (0o600, ADA)
        monkeypatch.setattr(runtime.reads, "forget", forget)
        report = await erase(runtime, ADA)
        assert report.texts == 1
        assert not known(runtime, ADA)
    whole_without_ada(workspace)


async def test_another_process_at_the_names_is_waited_for(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is done by then, and would be done again; where it takes too long, the next try goes on."""
    async with recorded_app(workspace) as runtime:
        await fill(runtime)
        other, forget, tries = FileLock(workspace / "names.lock"), runtime.made_up.forget, []

        def tried(student: str) -> bool:
            tries.append(student)
            return forget(student)

        monkeypatch.setattr(runtime.made_up, "forget", tried)
        assert other.acquire()
        erasing = asyncio.ensure_future(erase(runtime, ADA))
        await auntil(lambda: len(tries) > 3 or erasing.done())
        other.release()
        await erasing
        assert tries[:4] == [ADA] * 4
        assert runtime.made_up.find(ADA) is None
        assert not left_behind(workspace)

        monkeypatch.setattr("lo_kernel.app.erasing._NAME_WITHIN", 0.0)
        assert other.acquire()
        with pytest.raises(TimeoutError, match="try again"):
            await erase(runtime, BEN)
        assert left_behind(workspace)
        other.release()
        await erase(runtime, BEN)
        assert runtime.made_up.find(BEN) is None


async def test_erasing_another_finishes_it_too(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever erasure comes next in this process; the archive's part may be what failed."""
    async with recorded_app(workspace) as runtime:
        await fill(runtime)
        await send(runtime, "cleo")
        await runtime.pipeline.commit()
        real = runtime.archive.erase

        async def broken(*_: object) -> tuple[int, int]:
            raise ArchiveError("it can't be written anew")

        monkeypatch.setattr(runtime.archive, "erase", broken)
        with pytest.raises(ArchiveError):
            await erase(runtime, ADA)
        monkeypatch.setattr(runtime.archive, "erase", real)
        await erase(runtime, "tc-testcase-cleo")
        assert list(runtime.learners) == [BEN]
    whole_without_ada(workspace)
