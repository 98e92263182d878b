"""A file of the archive is removed, replaced or cut off while events go into it: acknowledged ones stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ingest_parts import SOURCE, connect, hear, running, say, typed
from test_archive import body, fill, numbers, opened, sender
from waiting import auntil

from lo_kernel.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere a file that is open can't be removed")


async def test_a_removed_segment_is_written_anew(settings: Settings) -> None:
    """What is acknowledged is in a file that has a name, with what was in it before; lo.errors says so."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            lock = {"event": "lock_fields", "fields": {"source": SOURCE, "user_id": "u0"}}
            await say(ws, lock | {"ack": {"stream": "s"}}, *[typed(number) for number in range(10)])
            while (await hear(ws, "ack"))["n"] < 10:
                pass
            path = runtime.archive.segments()[0].path
            path.unlink()
            await say(ws, *[typed(number) for number in range(5)])
            while (await hear(ws, "ack"))["n"] < 15:
                pass
            assert len(path.read_bytes().splitlines()) == runtime.archive.last
        told = runtime.errors.of(f"archive {path.name}")
        assert [entry.kind for entry in told] == ["Removed"]
        assert "nothing is lost" in told[0].message
    async with running(settings) as runtime:
        assert [record.s for record in runtime.archive.read()][-15:] == list(range(1, 16))


async def test_it_is_written_anew_where_nothing_comes_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end of the process, of whatever kind, finds it on disk."""
    monkeypatch.setattr("lo_kernel.runtime._GUARD_EVERY", 0.02)
    async with running(settings) as runtime:
        await fill(runtime.archive, 10)
        path = runtime.archive.segments()[0].path
        path.unlink()
        await auntil(path.exists)
        assert len(path.read_bytes().splitlines()) == 10


async def test_the_end_finds_it_removed(tmp_path: Path) -> None:
    """Also with the folder that it was in, and while others read it."""
    archive = opened(tmp_path, segment_bytes=1_000_000)
    await fill(archive, 100)
    reader = opened(tmp_path, writable=False)
    cursor = reader.cursor()
    assert len(cursor.read()) == 100
    archive.folder.rename(archive.folder.with_name("elsewhere"))
    archive.close()
    again = opened(tmp_path, segment_bytes=1_000_000)
    assert numbers(again) == list(range(1, 101))
    await fill(again, 5)
    assert [record.n for record in cursor.read()] == list(range(101, 106))
    assert cursor.read() == []
    for each in (cursor, reader, again):
        each.close()


async def test_what_came_goes_behind_a_file_that_was_put_in_the_place(tmp_path: Path) -> None:
    """As where somebody brings back an older copy: what this process wrote is behind it, and is read once."""
    archive = opened(tmp_path, segment_bytes=1_000_000)
    await fill(archive, 50)
    path = archive.segments()[0].path
    older = path.read_bytes()
    archive.close()
    archive = opened(tmp_path, segment_bytes=1_000_000)
    await fill(archive, 20)
    follower = archive.cursor()
    assert len(follower.read()) == 70
    path.with_name("copy").write_bytes(older + b'{"n":')
    path.with_name("copy").replace(path)
    await fill(archive, 10)
    assert [entry.kind for entry in archive.errors] == ["Replaced"]
    assert numbers(archive) == list(range(1, 81))
    assert [record.n for record in follower.read()] == list(range(71, 81))
    await fill(archive, 10)
    assert numbers(archive) == list(range(1, 91))
    follower.close()
    archive.close()


@pytest.mark.parametrize("half", [0, 20])
async def test_a_file_that_is_cut_off_is_told(tmp_path: Path, half: int) -> None:
    """What is gone can't be brought back; what comes is written behind the last whole line that is left."""
    archive = opened(tmp_path, segment_bytes=1_000_000)
    await fill(archive, 50)
    path = archive.segments()[0].path
    ends = [index for index, byte in enumerate(path.read_bytes()) if byte == 10]
    os.truncate(path, ends[29] + 1 + half)
    await fill(archive, 10)
    assert [entry.kind for entry in archive.errors] == ["CutOff"]
    assert numbers(archive) == [*range(1, 31), *range(51, 61)]
    archive.close()


async def test_what_an_erasure_writes_anew_is_not_taken_for_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it took out comes back, also of a segment that was closed as it began."""
    archive = opened(tmp_path, segment_bytes=1_000)
    flush = archive.flush

    async def and_more() -> int:
        found = await flush()
        for number in range(1, 101):
            archive.append(sender(f"u{number % 2}"), body(number), 1.0)
            archive.write()
        monkeypatch.undo()
        return found

    monkeypatch.setattr(archive, "flush", and_more)
    await archive.erase("tc-testcase-u0", "testcase-u0", 2.0)
    await fill(archive, 1)
    assert not archive.errors
    assert sum(record.gone is None for record in archive.read()) == 51
    assert all(b"u0" not in file.read_bytes() for file in archive.folder.glob("*.jsonl"))
    archive.close()
