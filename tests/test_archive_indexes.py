"""An index that is missing, damaged, or another file's costs no event that the segment itself holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_archive import fill, numbers, opened, sealed
from waiting import auntil

from lo_kernel.engine.archive import Archive, Search, Senders, sealing
from lo_kernel.engine.archive.counting import EventCounter
from lo_kernel.engine.archive.index import SegmentIndex, index_path, index_text, read_index
from lo_kernel.engine.archive.marks import find_numbers
from lo_kernel.engine.archive.segments import Segment

EVENTS = 6_000
ALL = list(range(1, EVENTS + 1))


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_REST", 0.0)


async def two_segments(folder: Path) -> tuple[Segment, Segment]:
    """An archive of two compressed segments of several blocks, and one that is plain; nobody has it open."""
    archive = opened(folder, segment_bytes=1_300_000)
    await fill(archive, EVENTS, batch=500, size=400)
    await sealed(archive)
    archive.close()
    first, second, *_ = archive.segments()
    assert first.packed
    assert second.packed
    assert len(read_index(first.plain).blocks) >= 3
    return first, second


def of_the_other(first: Segment, second: Segment) -> None:
    """As where files were mixed up in a copy."""
    index_path(first.plain).write_bytes(index_path(second.plain).read_bytes())


def too_short(first: Segment, second: Segment) -> None:
    """As an older, or a half written one would be, from a hand that knows no checksum."""
    index: SegmentIndex = read_index(first.plain)
    index.blocks = index.blocks[:2]
    index_path(first.plain).write_bytes(b'{"format"' + index_text(index).partition(b'"format"')[2])


def one_digit(first: Segment, second: Segment) -> None:
    """As a flipped bit leaves it: still JSON."""
    text = index_path(first.plain).read_bytes()
    last = b",%d," % read_index(first.plain).blocks[1].last
    index_path(first.plain).write_bytes(text.replace(last, b",1,"))


def missing(first: Segment, second: Segment) -> None:
    """As in a backup that leaves out small files."""
    index_path(first.plain).unlink()


@pytest.mark.parametrize("spoil", [of_the_other, too_short, one_digit, missing])
async def test_an_index_that_is_wrong_costs_nothing(tmp_path: Path, spoil: Any) -> None:
    """Every event is read, counted and found; it is told once, and the keeper makes the index anew."""
    first, second = await two_segments(tmp_path)
    before = index_path(first.plain).read_bytes()
    spoil(first, second)
    reader = opened(tmp_path, writable=False)
    for _ in range(2):
        assert numbers(reader) == ALL
    assert [entry.kind for entry in reader.errors] == ["CorruptIndex"]
    assert reader.errors[0].count == 1
    assert "index" in reader.errors[0].message
    assert EventCounter(reader.folder).missing() == 0
    assert find_numbers(reader.folder) == [(1, EVENTS)]
    assert sum(1 for _ in reader.search(Search(context="my.source"), Senders())) == EVENTS
    reader.close()
    owner = opened(tmp_path)
    assert len(await owner.verify()) == 1
    await _kept(owner)
    assert index_path(first.plain).read_bytes() == before
    assert numbers(owner) == ALL
    assert await owner.verify() == []
    assert not (owner.folder / "damaged").exists()
    owner.close()


async def test_a_reader_has_the_keeper_make_a_wrong_index_anew(tmp_path: Path) -> None:
    """Nobody has to ask for a check of the whole archive first."""
    first, second = await two_segments(tmp_path)
    of_the_other(first, second)
    owner = opened(tmp_path)
    assert numbers(owner) == ALL
    await fill(owner, 2, batch=1)
    await _kept(owner)
    assert read_index(first.plain).first == 1
    assert not (owner.folder / "damaged").exists()
    owner.close()


@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_without_an_index_a_damaged_block_costs_itself_alone(tmp_path: Path, place: str) -> None:
    """What lies behind it is read, the events that are missing are named, and stay so named."""
    first, _ = await two_segments(tmp_path)
    blocks = read_index(first.plain).blocks
    block = blocks[{"first": 0, "middle": 1, "last": -1}[place]]
    index_path(first.plain).unlink()
    data = bytearray(first.path.read_bytes())
    data[block.at + block.size // 2] ^= 0xFF
    first.path.write_bytes(data)
    left = [*range(1, block.first), *range(block.last + 1, EVENTS + 1)]
    owner = opened(tmp_path)
    assert numbers(owner) == left
    told = {entry.kind: entry.message for entry in owner.errors}
    assert "its index is missing" in told["CorruptIndex"]
    assert f"of the events {block.first} to {block.last} nothing" in told["CorruptSegment"]
    assert EventCounter(owner.folder).missing() == block.last - block.first + 1
    found = owner.search(Search(learner="tc-testcase-u1"), Senders())
    assert {record.n for record, _ in found} <= set(left)
    await fill(owner, 2, batch=1)
    await _kept(owner)
    aside = next(entry for entry in owner.errors if entry.kind == "SetAside")
    assert f"the events {block.first} to {block.last} can't be read" in aside.message
    assert (owner.folder / "damaged" / first.path.name).read_bytes() == bytes(data)
    assert numbers(owner) == [*left, EVENTS + 1, EVENTS + 2]
    owner.close()


async def test_a_segment_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Also where it ends with a whole block, and its index says what is missing."""
    first, _ = await two_segments(tmp_path)
    last = read_index(first.plain).blocks[-1]
    os.truncate(first.path, last.at)
    owner = opened(tmp_path)
    assert numbers(owner) == [*range(1, last.first), *range(last.last + 1, EVENTS + 1)]
    told = {entry.kind: entry.message for entry in owner.errors}
    assert "its index is of a file with" in told["CorruptIndex"]
    assert f"of the events {last.first} to {last.last} nothing" in told["CorruptSegment"]
    owner.close()


async def test_bytes_behind_a_segment_cost_no_event(tmp_path: Path) -> None:
    """They are told, and go with the original into damaged/."""
    first, _ = await two_segments(tmp_path)
    with first.path.open("ab") as file:
        file.write(b"\x28\xb5\x2f\xfd of something else")
    owner = opened(tmp_path)
    assert numbers(owner) == ALL
    assert any("no event is missing" in entry.message for entry in owner.errors)
    await fill(owner, 2, batch=1)
    await _kept(owner)
    assert numbers(owner) == [*ALL, EVENTS + 1, EVENTS + 2]
    assert await owner.verify() == []
    owner.close()


async def _kept(archive: Archive) -> None:
    await auntil(lambda: archive._keeper is not None and archive._keeper.done())
