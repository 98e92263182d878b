"""The archive: nothing that was accepted is lost, nothing half is seen, and little is read for little."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from waiting import auntil, until

from lo_kernel.engine.archive import Archive, Record, Search, Senders, lines, sealing, segments
from lo_kernel.engine.archive.index import index_path, read_index
from lo_kernel.engine.archive.lines import LineFile
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.errors import ArchiveError, NotOwnerError


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_REST", 0.0)


def sender(name: str, source: str | None = "my.source", **mark: Any) -> Sender:
    """A sender called ``name``."""
    identity = identify({"user_id": name})
    assert identity is not None
    return Sender(identity, source, mark=mark)


def opened(folder: Path, *, segment_bytes: int = 20_000, writable: bool = True) -> Archive:
    """An archive with small segments."""
    archive = Archive(folder, ErrorLog(), segment_bytes=segment_bytes)
    archive.open(writable=writable)
    return archive


def body(number: int, size: int = 50) -> bytes:
    """The text of an event."""
    return b'{"event":"keystroke","i":%d,"text":"%b"}' % (number, b"x" * size)


async def fill(archive: Archive, count: int, *, batch: int = 20, learners: int = 7, size: int = 50) -> None:
    """Put in ``count`` events, and have them on disk, a batch at a time."""
    senders = [sender(f"u{number}") for number in range(learners)]
    for number in range(archive.last + 1, archive.last + count + 1):
        archive.append(senders[number % learners], body(number, size), 1000.0 + number)
        if number % batch == 0:
            await archive.flush()
    await archive.flush()


async def sealed(archive: Archive) -> None:
    """Wait until all segments but the newest are compressed."""
    await auntil(lambda: all(each.packed for each in archive.segments()[:-1]))
    await auntil(lambda: archive._keeper is None or archive._keeper.done())


def numbers(archive: Archive, after: int = 0) -> list[int]:
    """The numbers of all events."""
    return [record.n for record in archive.read(after)]


async def test_what_was_flushed_is_there_after_a_crash(tmp_path: Path) -> None:
    """Events come back in order, with sender, time and body as they were, without a close in between."""
    archive = opened(tmp_path)
    await fill(archive, 300)
    again = opened(tmp_path, writable=False)
    records = list(again.read())
    assert [record.n for record in records] == list(range(1, 301))
    assert again.last == 300
    assert bytes(records[41].body) == body(42)
    assert Sender.decode(records[41].by).student == "tc-testcase-u0"
    assert records[41].t == 1042.0
    archive.close()
    again.close()


async def test_a_flush_syncs_what_was_written_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that flush gives is on disk, also when `write` had handed the events over already."""
    synced: list[int] = []
    monkeypatch.setattr(LineFile, "sync", lambda file: synced.append(file.size))
    archive = opened(tmp_path)
    archive.append(sender("u0"), body(1), 1.0)
    archive.write()
    size = archive.size()
    assert await archive.flush() == 1
    assert synced == [size]
    await archive.flush()
    assert synced == [size], "nothing new: nothing to sync"
    archive.close()


async def test_a_failed_sync_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a disk error the next flush syncs the same file, before it says that anything is safe."""
    archive = opened(tmp_path)
    calls: list[str] = []

    def failing(file: LineFile) -> None:
        calls.append(file.path.name)
        if len(calls) == 1:
            raise OSError(5, "no disk")

    monkeypatch.setattr(LineFile, "sync", failing)
    archive.append(sender("u0"), body(1), 1.0)
    with pytest.raises(ArchiveError, match="no disk"):
        await archive.flush()
    assert await archive.flush() == 1
    assert len(calls) == 2
    archive.close()


async def test_a_full_disk_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half way leaves whole lines, and the same events go in once there is room."""
    archive = opened(tmp_path)
    await fill(archive, 5)
    write = os.write
    state = {"left": 100}

    def short(descriptor: int, data: Any) -> int:
        if state["left"] <= 0:
            raise OSError(28, "No space left on device")
        done = write(descriptor, bytes(data)[: state["left"]])
        state["left"] -= done
        return done

    monkeypatch.setattr(os, "write", short)
    for number in (6, 7, 8):
        archive.append(sender("u0"), body(number), 1.0)
    with pytest.raises(ArchiveError, match="Nothing is lost"):
        await archive.flush()
    assert numbers(archive) == [1, 2, 3, 4, 5]
    assert archive.unwritten == 3
    monkeypatch.setattr(os, "write", write)
    await archive.flush()
    assert numbers(archive) == list(range(1, 9))
    archive.close()


@pytest.mark.parametrize("cut", [1, 17, 60])
def test_a_torn_last_line_is_cut_off_and_reported(tmp_path: Path, cut: int, run: Any) -> None:
    """Half a line at the end goes to rejected/, the number is given again, and the log says so."""
    archive = opened(tmp_path)
    run(fill(archive, 10))
    archive.close()
    path = archive.segments()[-1].path
    path.write_bytes(path.read_bytes()[:-cut])
    again = opened(tmp_path)
    assert numbers(again) == list(range(1, 10))
    assert again.errors[0].kind == "TornLine"
    assert "torn_line" in again.rejected_path.read_text()
    assert again.append(sender("u1"), body(10), 1.0) == 10
    again.close()
    assert numbers(again) == list(range(1, 11))


def test_a_reader_that_saw_half_a_line_reads_what_took_its_place(tmp_path: Path, run: Any) -> None:
    """A follower that looked at a torn line goes on rightly after a new owner has cut it off."""
    archive = opened(tmp_path)
    run(fill(archive, 3))
    archive.close()
    path = archive.segments()[-1].path
    with path.open("ab") as file:
        file.write(b'{"n":4,"t":1.0,"by":{"auth":{"sec":')
    follower = opened(tmp_path, writable=False)
    cursor = follower.cursor()
    assert [record.n for record in cursor.read()] == [1, 2, 3]
    assert cursor.read() == []
    owner = opened(tmp_path)
    run(fill(owner, 2))
    assert [record.n for record in cursor.read()] == [4, 5]
    assert not follower.errors
    cursor.close()
    owner.close()


async def test_closed_segments_are_compressed_with_an_index(tmp_path: Path) -> None:
    """A closed segment becomes zstd beside the loop; its index has checksum, ranges, learners, contexts."""
    archive = opened(tmp_path)
    await fill(archive, 500)
    await sealed(archive)
    closed = archive.segments()[:-1]
    assert len(closed) >= 3
    for segment in closed:
        index = read_index(segment.plain)
        data = _unpacked(segment.path)
        assert hashlib.sha256(data).hexdigest() == index.sha256
        held = [msgspec.json.decode(line, type=Record) for line in data.splitlines()]
        assert (index.first, index.last, index.events) == (held[0].n, held[-1].n, len(held))
        assert (index.since, index.until) == (held[0].t, held[-1].t)
        assert index.contexts == {"my.source": len(held)}
        assert sum(index.learners.values()) == len(held)
        assert segment.path.stat().st_mode & 0o077 == index_path(segment.plain).stat().st_mode & 0o077 == 0
        assert not segment.plain.exists()
    assert numbers(archive) == list(range(1, 501))
    assert await archive.verify() == []
    archive.close()


def _unpacked(path: Path) -> bytes:
    from zstandard import ZstdDecompressor

    with path.open("rb") as file:
        return ZstdDecompressor().stream_reader(file, read_across_frames=True).read()


async def test_a_cursor_survives_the_compression_of_what_it_reads(tmp_path: Path) -> None:
    """A cursor in the middle of a segment that is compressed gives each event once, and goes on."""
    archive = opened(tmp_path, segment_bytes=2_000_000)
    await fill(archive, 8000, batch=1000)
    cursor = archive.cursor(100)
    seen = [record.n for record in cursor.read()]
    assert 100 < seen[-1] < 8000
    archive.segment_bytes = 1
    await fill(archive, 2)
    await sealed(archive)
    while records := cursor.read():
        seen += [record.n for record in records]
    await fill(archive, 3)
    while records := cursor.read():
        seen += [record.n for record in records]
    assert seen == list(range(101, 8006))
    cursor.close()
    archive.close()


async def test_readers_never_see_a_half_state(tmp_path: Path) -> None:
    """While segments close, are compressed and replaced, readers see every event, in order."""
    archive = opened(tmp_path, segment_bytes=5_000)
    ended = threading.Event()
    wrong: list[str] = []
    rounds: list[int] = []

    def reader() -> None:
        other = opened(tmp_path, writable=False)
        while not ended.is_set():
            got = numbers(other)
            found = [record.n for record, _ in other.search(Search(learner="tc-testcase-u0"), Senders())]
            if got != list(range(1, len(got) + 1)):
                wrong.append(f"{got[:3]}..{got[-3:]} of {len(got)}")
            if found != list(range(7, found[-1] + 1, 7)) if found else False:
                wrong.append(f"learner: {found}")
            wrong.extend(str(entry) for entry in other.errors)
            rounds.append(len(got))

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        await fill(archive, 50, batch=10)
        await asyncio.sleep(0)
    await sealed(archive)
    until(lambda: len(rounds) > 5)
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert numbers(archive) == list(range(1, 2001))
    archive.close()


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("number", range(8))
def test_a_crash_in_the_middle_of_compression_leaves_a_good_archive(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    """Wherever compressing a segment is cut off, the next start has every event, and finishes the work."""
    archive = opened(tmp_path, segment_bytes=10_000_000)
    run(fill(archive, 100))
    archive.close()
    steps = iter(range(100))

    def crashing(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(steps) == number:
                raise Crash
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crashing(os.fsync))
        patch.setattr(Path, "replace", crashing(Path.replace))
        patch.setattr(Path, "unlink", crashing(Path.unlink))
        patch.setattr(sealing, "write_whole", crashing(segments.write_whole))
        try:
            sealing.seal(archive.segments()[0], lambda: False, rest=0)
            crashed = False
        except Crash:
            crashed = True
    assert crashed or number >= 6
    before = numbers(opened(tmp_path, writable=False))
    again = opened(tmp_path, segment_bytes=1)
    assert before == numbers(again) == list(range(1, 101))
    run(_go_on(again))
    assert numbers(again) == list(range(1, 103))
    assert not list(again.folder.glob("*.tmp"))
    assert not again.errors


async def _go_on(archive: Archive) -> None:
    await fill(archive, 2, batch=1)
    await sealed(archive)
    assert await archive.verify() == []
    archive.close()


async def test_a_damaged_segment_is_named_and_set_aside(tmp_path: Path) -> None:
    """Of a segment with a flipped bit, the good blocks are used; the original lies in damaged/."""
    archive = opened(tmp_path, segment_bytes=1_300_000)
    await fill(archive, 12_000, batch=500)
    await sealed(archive)
    segment = archive.segments()[0]
    blocks = read_index(segment.plain).blocks
    assert len(blocks) >= 3
    data = bytearray(segment.path.read_bytes())
    data[blocks[1].at + blocks[1].size // 2] ^= 0xFF
    segment.path.write_bytes(data)
    lost = set(range(blocks[1].first, blocks[1].last + 1))
    assert set(range(1, 12_001)) - set(numbers(archive)) == lost
    entry = next(entry for entry in archive.errors if entry.kind == "CorruptSegment")
    assert segment.path.name in entry.where
    assert f"{blocks[1].first} to {blocks[1].last}" in entry.message
    await fill(archive, 1)
    await auntil(lambda: archive._keeper is not None and archive._keeper.done())
    aside = archive.folder / "damaged" / segment.path.name
    assert aside.read_bytes() == bytes(data)
    assert any(entry.kind == "SetAside" and str(aside) in entry.message for entry in archive.errors)
    assert set(range(1, 12_002)) - set(numbers(archive)) == lost
    archive._untidy = True
    await fill(archive, 1)
    await sealed(archive)
    assert await archive.verify() == []
    assert set(range(1, 12_003)) - set(numbers(archive)) == lost
    archive.close()


async def test_unreadable_lines_are_passed_over_and_set_aside(tmp_path: Path) -> None:
    """A line that is no JSON costs that line alone; the segment as it was is kept in damaged/."""
    archive = opened(tmp_path, segment_bytes=1_000_000)
    await fill(archive, 50)
    archive.close()
    path = archive.segments()[0].path
    parts = path.read_bytes().split(b"\n")
    parts[20] = b"\xff" * len(parts[20])
    path.write_bytes(b"\n".join(parts))
    again = opened(tmp_path, segment_bytes=1)
    expected = [number for number in range(1, 51) if number != 21]
    assert numbers(again) == expected
    assert [entry.kind for entry in again.errors] == ["CorruptLine"]
    await fill(again, 1)
    await sealed(again)
    assert numbers(again) == [*expected, 51]
    assert (again.folder / "damaged" / path.name).exists()
    again.close()


async def test_a_lost_index_is_made_again(tmp_path: Path) -> None:
    """Without its index, or with a damaged one, a compressed segment is read all the same."""
    archive = opened(tmp_path)
    await fill(archive, 500)
    await sealed(archive)
    archive.close()
    first, second = archive.segments()[:2]
    index_path(first.plain).unlink()
    index_path(second.plain).write_bytes(b"{")
    again = opened(tmp_path)
    assert numbers(again) == list(range(1, 501))
    found = await again.verify()
    assert len(found) == 2
    await auntil(lambda: again._keeper is not None and again._keeper.done())
    assert await again.verify() == []
    assert not (again.folder / "damaged").exists()
    again.close()


async def test_a_search_reads_only_what_the_index_says(tmp_path: Path) -> None:
    """One learner's, one context's and one hour's events come from those blocks alone that hold them."""
    archive = opened(tmp_path, segment_bytes=700_000)
    rare, common = sender("rare", "other.source"), sender("common")
    for number in range(1, 10_001):
        archive.append(rare if number in (4000, 9000) else common, body(number), 1000.0 + number)
        if number % 500 == 0:
            await archive.flush()
    await sealed(archive)

    def looked_up(search: Search) -> tuple[list[int], int]:
        read: list[int] = []
        block = segments.PackedReader.block

        def counted(reader: segments.PackedReader, each: Any) -> bytes:
            read.append(each.first)
            return block(reader, each)

        segments.PackedReader.block = counted  # type: ignore[method-assign,assignment]
        try:
            found = [record.n for record, _ in archive.search(search, Senders())]
        finally:
            segments.PackedReader.block = block  # type: ignore[method-assign]
        return found, len(read)

    assert looked_up(Search(learner="tc-testcase-rare")) == ([4000, 9000], 1), "9000 is in no index yet"
    everything, blocks = looked_up(Search(context="my.source"))
    assert len(everything) == 10_000
    assert blocks >= 4
    assert looked_up(Search(context="other.source"))[1] == 1
    hour, blocks = looked_up(Search(since=2000.0, until=2010.0))
    assert hour == list(range(1000, 1010))
    assert blocks == 1
    assert looked_up(Search(learner="tc-nobody")) == ([], 0)
    archive.close()


async def test_the_tail_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest events, and any place in the middle, are found without reading from the start."""
    archive = opened(tmp_path, segment_bytes=20_000_000)
    await fill(archive, 30_000, batch=5000)
    read: list[int] = []
    line_at = lines.line_at

    def counted(descriptor: int, offset: int, size: int) -> bytes:
        found = line_at(descriptor, offset, size)
        read.append(len(found))
        return found

    monkeypatch.setattr(segments, "line_at", counted)
    assert [record.n for record in archive.tail(3)] == [29_998, 29_999, 30_000]
    assert archive.cursor(15_000).read()[0].n == 15_001
    assert sum(read) < archive.size() / 5
    assert archive.tail(0) == []
    archive.close()


async def test_erased_events_keep_their_number(tmp_path: Path) -> None:
    """A line that says `gone` is passed over, compressed or not, and no number is given twice."""
    archive = opened(tmp_path)
    await fill(archive, 5)
    archive.close()
    path = archive.segments()[-1].path
    parts = path.read_bytes().split(b"\n")
    parts[1] = b'{"n":2,"t":1002.0,"gone":1795400000.0}'
    parts[4] = b'{"n":5,"t":1005.0,"gone":1795400000.0}'
    path.write_bytes(b"\n".join(parts))
    again = opened(tmp_path, segment_bytes=1)
    assert numbers(again) == [1, 3, 4]
    assert again.last == 5
    assert [record.n for record in again.tail(2)] == [3, 4]
    await fill(again, 1)
    await sealed(again)
    assert numbers(again) == [1, 3, 4, 6]
    assert not again.errors
    again.close()


async def test_a_body_is_apart_from_who_sent_it(tmp_path: Path) -> None:
    """A line's body is the text that came, and has nothing of the authenticated identity in it."""
    archive = opened(tmp_path)
    raw = b'{"event":"keystroke" ,\r "z":1,"a":[1.50]}'
    archive.append(sender("secret-name"), raw, 1.0)
    await archive.flush()
    (record,) = archive.read()
    assert bytes(record.body) == raw
    assert b"secret-name" in bytes(record.by)
    archive.close()


async def test_ordinals_are_found_in_indexes_and_in_what_has_none(tmp_path: Path) -> None:
    """Which records of a file are held is answered as ranges, compressed or not."""
    archive = opened(tmp_path)
    a, b = sender("u0", file="aaa"), sender("u1", file="aaa")
    other = sender("u2", stream="aaa")
    for number in range(1, 401):
        archive.append((a, b)[number % 2], body(number), 1.0, number if number < 300 else number + 10)
        archive.append(other, body(number), 1.0, number)
        if number % 20 == 0:
            await archive.flush()
    await sealed(archive)
    assert len(archive.segments()) > 3
    assert archive.ordinals("file:aaa") == [(1, 299), (310, 410)]
    assert archive.ordinals("stream:aaa") == [(1, 400)]
    assert archive.ordinals("file:bbb") == []
    archive.close()


async def test_numbers_go_on_behind_what_states_stand_for(tmp_path: Path) -> None:
    """Where the archive's end was lost, no number is given to an event that a state has counted already."""
    archive = opened(tmp_path)
    await fill(archive, 5)
    archive.at_least(20)
    assert archive.errors[0].kind == "LostEvents"
    assert archive.append(sender("u0"), body(1), 1.0) == 21
    await archive.flush()
    assert numbers(archive) == [1, 2, 3, 4, 5, 21]
    archive.close()


def test_a_follower_writes_nothing(tmp_path: Path, run: Any) -> None:
    """Who doesn't own the archive can't write it, and changes no file."""
    archive = opened(tmp_path)
    run(fill(archive, 5))
    archive.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    follower = opened(tmp_path, writable=False)
    assert numbers(follower) == [1, 2, 3, 4, 5]
    with pytest.raises(NotOwnerError, match="follows"):
        follower.write()
    follower.close()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


async def test_a_reader_can_become_the_writer(tmp_path: Path) -> None:
    """A follower that takes over goes on with the numbers, and its cursors go on."""
    owner = opened(tmp_path)
    await fill(owner, 30)
    follower = opened(tmp_path, writable=False)
    cursor = follower.cursor()
    assert len(cursor.read()) == 30
    owner.close()
    follower.open(writable=True)
    await fill(follower, 3)
    assert [record.n for record in cursor.read()] == [31, 32, 33]
    cursor.close()
    follower.close()


async def test_any_order_of_work_gives_every_event_once(tmp_path: Path) -> None:
    """Random appends, flushes, restarts, crashes and readers: all that was appended is there."""
    chance = random.Random(4)
    archive = opened(tmp_path, segment_bytes=3000)
    safe = 0
    for _ in range(150):
        what = chance.random()
        if what < 0.6:
            for _ in range(chance.randrange(1, 30)):
                archive.append(sender(f"u{chance.randrange(4)}"), body(archive.last + 1), 1.0)
        elif what < 0.9:
            safe = await archive.flush()
        elif what < 0.95:
            archive.close()
            safe = archive.last
            archive = opened(tmp_path, segment_bytes=3000)
        else:  # a crash: what wasn't written is lost
            if archive._keeper is not None:
                archive._stop.set()
                await asyncio.wait([archive._keeper])
            archive._buffer = []
            archive.close()
            archive = opened(tmp_path, segment_bytes=3000)
            assert archive.last >= safe
        start = chance.randrange(0, archive.last + 1)
        got = numbers(archive, start)
        assert got == list(range(start + 1, archive.last - archive.unwritten + 1))
    assert not archive.errors
    archive.close()


async def test_rejections_are_on_disk_with_the_flush(tmp_path: Path) -> None:
    """What was refused is a line of rejected.jsonl, readable by its user alone, text or not."""
    archive = opened(tmp_path)
    archive.reject(sender("u0"), b"{", 1.0, "not_json", "expected JSON")
    archive.reject(None, b"\xff\xfe", 2.0, "not_json", "expected JSON")
    await archive.flush()
    first, second = (json.loads(line) for line in archive.rejected_path.read_text().splitlines())
    assert (first["text"], first["reason"]) == ("{", "not_json")
    assert second["base64"] == "//4="
    assert archive.rejected_path.stat().st_mode & 0o077 == 0
    archive.close()


async def test_what_comes_while_a_learner_is_erased_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the disk is waited for, a segment is written anew or the rejected frames are."""
    archive, ada, bob = opened(tmp_path), sender("ada"), sender("bob")
    loop = asyncio.get_running_loop()
    came = 0

    async def come() -> None:
        nonlocal came
        came += 1
        archive.append(bob, b'{"event":"x"}', 1.5)
        archive.reject(bob, b"?%d" % came, 1.5, "not_json", "expected JSON")
        archive.write()

    def beside() -> None:
        asyncio.run_coroutine_threadsafe(come(), loop).result(5)

    def slow_sync(files: list[LineFile]) -> None:
        beside()
        for file in files:
            file.sync()

    def slow_write(path: Path, data: bytes) -> None:
        beside()
        segments.write_whole(path, data)

    archive.append(ada, b'{"event":"y"}', 1.5)
    archive.reject(ada, b"?", 1.5, "not_json", "expected JSON")
    await archive.flush()
    monkeypatch.setattr(archive, "_sync", slow_sync)
    monkeypatch.setattr("lo_kernel.engine.archive.erasing.write_whole", slow_write)
    assert await archive.erase(ada.student, "ada", 2.0) == (1, 1)
    monkeypatch.undo()
    await archive.flush()
    archive.close()
    assert came == 3
    assert [record.n for record in archive.read()] == [2, 3, 4]
    kept = archive.rejected_path.read_text().splitlines()
    assert [json.loads(line)["text"] for line in kept] == ["?1", "?2", "?3"]


@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_disk_refused_is_written_again_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """A disk may say once that it failed, drop what it had, and say at the next try that all is well."""
    archive, ada = opened(tmp_path), sender("ada")
    archive.append(ada, b'{"event":"safe"}', 1.5)
    await archive.flush()
    file = archive._file
    assert file is not None
    safe, real = file.size, lines._sync
    failing = True

    def sync(descriptor: int) -> None:
        nonlocal failing
        if failing:
            failing = False
            if lost:
                os.truncate(file.path, safe)  # and with zeros where the pages were
                os.truncate(file.path, file.size)
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(lines, "_sync", sync)
    for number in range(3):
        archive.append(ada, b'{"event":"%d"}' % number, 1.5)
    with pytest.raises(ArchiveError, match="No space left"):
        await archive.flush()
    again = []
    monkeypatch.setattr(lines, "_sync", lambda descriptor: again.append(descriptor))
    archive.append(ada, b'{"event":"later"}', 1.5)
    if lost:
        for _ in range(2):
            with pytest.raises(ArchiveError, match=f"lost what was written to .* behind byte {safe}, which"):
                await archive.flush()
        assert again == []
        return
    before = file.path.read_bytes()
    assert await archive.flush() == 5
    assert len(again) == 2  # what was refused, and then the file
    assert file.path.read_bytes().startswith(before)
    assert [record.n for record in archive.read()] == [1, 2, 3, 4, 5]
    archive.close()


async def test_what_another_process_left_unsynced_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process may have written events that no disk has yet: who goes on from them sees to it."""
    first, ada = opened(tmp_path, segment_bytes=100), sender("ada")
    for number in range(3):
        first.append(ada, b'{"event":"%d"}' % number, 1.5)
        first.write()
    first.reject(ada, b"?", 1.5, "not_json", "expected JSON")
    first.write()
    synced: list[str] = []
    real = LineFile.sync

    def sync(file: LineFile) -> None:
        synced.append(file.path.name)
        real(file)

    monkeypatch.setattr(LineFile, "sync", sync)
    second = opened(tmp_path)
    assert await second.flush() == 3
    assert sorted(synced) == [*(f"events-{number:012d}.jsonl" for number in (1, 2, 3)), "rejected.jsonl"]
    second.close()
    first.close()


async def test_an_archive_given_up_in_the_middle_of_a_sync_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files go when nobody is at them any more; what was not written then isn't later."""
    archive, ada = opened(tmp_path), sender("ada")
    archive.append(ada, b'{"event":"x"}', 1.5)
    begun, go, real = threading.Event(), threading.Event(), lines._sync

    def slow(descriptor: int) -> None:
        begun.set()
        go.wait(5)
        real(descriptor)

    monkeypatch.setattr(lines, "_sync", slow)
    flushed = asyncio.ensure_future(archive.flush())
    await auntil(begun.is_set)
    archive.append(ada, b'{"event":"waits"}', 1.5)
    given_up = asyncio.ensure_future(archive.give_up())
    await asyncio.sleep(0)
    with pytest.raises(NotOwnerError):
        archive.append(ada, b'{"event":"late"}', 1.5)
    go.set()
    await given_up
    assert await flushed == 1
    archive.open(writable=True)
    archive.append(ada, b'{"event":"y"}', 1.5)
    assert await archive.flush() == 2
    assert [record.n for record in archive.read()] == [1, 2]
    archive.close()


async def test_what_was_found_and_refused_by_the_disk_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that a killed process left are not taken for safe before a sync has gone well."""
    first, ada = opened(tmp_path), sender("ada")
    first.append(ada, b'{"event":"x"}', 1.5)
    first.write()
    archive = opened(tmp_path)
    written: list[int] = []
    fails, again = iter([True]), LineFile._write_again

    def sync(descriptor: int) -> None:
        if next(fails, False):
            raise OSError(5, "Input/output error")

    def write_again(file: LineFile, size: int) -> None:
        written.append(size - file._safe)
        again(file, size)

    monkeypatch.setattr(lines, "_sync", sync)
    monkeypatch.setattr(LineFile, "_write_again", write_again)
    with pytest.raises(ArchiveError, match="Input/output"):
        await archive.flush()
    assert await archive.flush() == 1
    assert written == [archive.segments()[0].path.stat().st_size]
    archive.close()
    first.close()
