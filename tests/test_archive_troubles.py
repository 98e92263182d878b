"""What the archive says where files are damaged, or not what they should be."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ingest_parts import connect, count, expect, key_of, running, say, typed, who
from waiting import auntil

from lo_kernel.engine.archive import Archive, Search, Senders, lines
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.errors import ArchiveError
from lo_kernel.settings import Settings


@pytest.mark.parametrize("name", ["archive", "rejected"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    """A workspace in which a file stands where events go is refused in a sentence."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ArchiveError, match=f"{name} has to be a folder"):
        Archive(tmp_path, ErrorLog()).open(writable=True)


async def test_damage_is_told_once_in_few_words(tmp_path: Path) -> None:
    """Blocks that lie side by side are one range, and reading them again is not another damage."""
    errors = ErrorLog()
    archive = Archive(tmp_path, errors, segment_bytes=2_000_000)
    archive.open(writable=True)
    sender: Any = Sender(identify({"user_id": "u0"}), "a")  # type: ignore[arg-type]
    for number in range(30_000):
        archive.append(sender, b'{"event":"x","text":"%d%d"}' % (number, number**5), 1.5)
        if number % 1000 == 0:
            await archive.flush()
    await archive.flush()
    await archive.keep()
    packed = sorted(archive.folder.glob("*.zst"))[0]
    data = bytearray(packed.read_bytes())
    data[200:-200] = bytes(len(data) - 400)
    packed.write_bytes(data)
    for _ in range(3):
        assert sum(1 for _ in archive.read()) < 30_000
    blocks = errors.of(f"archive {packed.name}")[0].count
    assert errors.of(f"archive {packed.name}")[0].kind == "CorruptSegment"
    await archive.keep()
    found = {entry.kind: entry for entry in errors.of(f"archive {packed.name}")}
    assert found["CorruptSegment"].count == blocks > 1
    assert "the events 1 to " in found["SetAside"].message
    assert found["SetAside"].message.count(" to ") == 1
    archive.close()


async def test_each_new_file_has_its_name_on_disk_before_its_events_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is synced for each file that is new in it, and not with every flush."""
    synced: list[str] = []
    monkeypatch.setattr(lines, "sync_folder", lambda folder: synced.append(folder.name))
    archive = Archive(tmp_path, ErrorLog(), segment_bytes=1000)
    archive.open(writable=True)
    sender: Any = Sender(identify({"user_id": "u0"}), "a")  # type: ignore[arg-type]
    for expected in (["archive"], [], ["archive"]):
        archive.append(sender, b'{"event":"x","text":"%b"}' % (b"x" * 500), 1.5)
        await archive.flush()
        assert synced == expected
        synced.clear()
    archive.reject(sender, b"x", 1.5, "not_json", "expected JSON")
    await archive.flush()
    assert synced == ["rejected"]
    archive.close()


@pytest.mark.parametrize("packed", [False, True])
async def test_an_event_with_a_carriage_return_is_erased_whole(tmp_path: Path, packed: bool) -> None:
    """One may stand between the parts of a JSON text, and is no end of a line."""
    errors = ErrorLog()
    archive = Archive(tmp_path, errors, segment_bytes=1000)
    archive.open(writable=True)
    for user in ("u0", "u1", "u0"):
        sender: Any = Sender(identify({"user_id": user}), "a")  # type: ignore[arg-type]
        archive.append(sender, b'{"event":"x",\r "text":"of %b"%b}' % (user.encode(), b" " * 700), 1.5)
        archive.reject(sender, b'{"text":\r"testcase-u0"', 1.5, "not_json", "expected JSON")
        await archive.flush()
    if packed:
        await archive.keep()
    assert await archive.erase("tc-testcase-u0", "testcase-u0", 2.0) == (2, 3)
    texts = [bytes(record.body) for record in archive.read() if record.gone is None]
    assert len(texts) == 1
    assert b"of u1" in texts[0]
    assert not list(errors)
    for file in (*archive.folder.glob("*.jsonl"), archive.rejected_path):
        assert b"of u0" not in file.read_bytes()
    archive.close()


async def test_lines_that_are_no_events_are_passed_over_by_whoever_reads(settings: Settings) -> None:
    """Neither a start, nor a reducer on its way, a search or a follower stops at them; good ones count."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), typed(), typed())
            await auntil(lambda: runtime.pipeline.synced == 3)
        path = next(runtime.archive.folder.glob("events-*.jsonl"))
    line = json.loads(path.read_bytes().splitlines()[-1])
    wrong: list[dict[str, Any]] = [
        {"by": {}},
        {"body": [1]},
        {"by": 5},
        {"by": {**line["by"], "auth": None}},
        {"body": None},
    ]
    texts = [json.dumps({**line, "n": number, **each}) for number, each in enumerate(wrong, 4)]
    spoilt = json.dumps({**line, "n": 9, "body": {"event": "?"}}).encode().replace(b"?", b"\xff")
    path.write_bytes(b"\n".join([path.read_bytes() + "\n".join(texts).encode(), spoilt, b""]))
    async with running(settings) as runtime, running(settings) as follower:
        assert runtime.learners["tc-testcase-u0"].events == 6  # those too whose sender alone can be read
        assert runtime.archive.last == 9
        for each in (runtime, follower):
            await each.add_reducer("count", count, module="tests").ready()
            await expect(each, key_of("u0"), {"n": 2})
            assert "event 4 can't be read" in str(each.errors.of(f"archive {path.name}"))
        assert [record.n for record in runtime.archive.tail(5)] == [1, 2, 3]
        found = runtime.archive.search(Search(learner="tc-testcase-u0"), Senders())
        assert [record.n for record, _ in found] == [1, 2, 3]
        path.write_bytes(path.read_bytes() + texts[0].replace('"n": 4', '"n": 10').encode() + b"\n")
        runtime.archive.last = 10
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), typed())
            for each in (runtime, follower):
                await expect(each, key_of("u0"), {"n": 3})


async def test_a_torn_line_is_cut_off_on_a_full_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start needs no room: what the line was is kept in memory until there is some."""
    sender: Any = Sender(identify({"user_id": "u0"}), "a")  # type: ignore[arg-type]
    archive = Archive(tmp_path, ErrorLog())
    archive.open(writable=True)
    archive.append(sender, b'{"event":"x"}', 1.5)
    await archive.flush()
    archive.close()
    path = next(archive.folder.glob("events-*"))
    path.write_bytes(path.read_bytes() + b'{"n":2,"t":1.5,"by"')

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lines.LineFile, "append", full)
        archive.open(writable=True)
        assert archive.last == 1
        assert archive.errors.of(f"archive {path.name}")[0].kind == "TornLine"
    await archive.flush()
    assert '{\\"n\\":2' in archive.rejected_path.read_text()
    archive.close()


def _at_depth(depth: int, work: Callable[[], Any]) -> Any:
    return work() if depth == 0 else _at_depth(depth - 1, work)


async def test_what_was_taken_however_deep_is_read_from_any_depth(tmp_path: Path) -> None:
    """A source may nest to the limit that its place on the stack has; a reader's own is another."""

    def nested(depth: int) -> bytes:
        return b'{"x":%b%b}' % (b"[" * depth, b"]" * depth)

    def is_read(depth: int) -> bool:
        try:
            msgspec.json.decode(nested(depth))
        except RecursionError:
            return False
        return True

    deepest = bisect.bisect(range(20_000), False, key=lambda depth: not is_read(depth)) - 1
    sender: Any = Sender(identify({"user_id": "u0"}), "a")  # type: ignore[arg-type]
    archive = Archive(tmp_path, ErrorLog())
    archive.open(writable=True)
    for depth in (1, deepest, 1):
        archive.append(sender, nested(depth), 1.5)
    await archive.flush()
    archive.close()
    _at_depth(200, lambda: archive.open(writable=True))
    assert archive.last == 3
    found = _at_depth(200, lambda: [record.n for record in archive.read()])
    assert found == [1, 2, 3] or "nested too deep" in str(archive.errors)
    archive.close()
