"""Copies that were cut off: what is there is taken, and the report says that something is missing."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ingest_parts import running
from zstandard import COMPRESSOBJ_FLUSH_BLOCK, ZstdCompressor

from lo_kernel.engine.fold import fold
from lo_kernel.engine.formats import opened
from lo_kernel.engine.replay import replay
from lo_kernel.settings import Settings

LINES = [
    json.dumps({"event": "x", "i": number, "source": "a", "user_id": "u1"}).encode() + b"\n"
    for number in range(1000)
]


def in_blocks(**options: Any) -> tuple[bytes, bytes]:
    """The lines in two blocks of one frame, as a copy that was cut off between them has them, and all."""
    pack = ZstdCompressor(**options).compressobj()
    first = pack.compress(b"".join(LINES[:500])) + pack.flush(COMPRESSOBJ_FLUSH_BLOCK)
    return first, first + pack.compress(b"".join(LINES[500:])) + pack.flush()


@pytest.mark.parametrize("checksum", [False, True])
async def test_a_cut_behind_a_block_is_seen(settings: Settings, tmp_path: Path, checksum: bool) -> None:
    """A frame that never ends is damaged, even where the cut falls behind a whole block and a whole line."""
    path = tmp_path / "cut.jsonl.zst"
    first, whole = in_blocks(write_checksum=checksum)
    path.write_bytes(first)
    async with running(settings) as runtime:
        report = await replay(runtime, path)
        assert report.events == 500
        assert list(report.skipped) == ["damaged_file"]
        path.write_bytes(whole)
        report = await replay(runtime, path)
        assert (report.events, report.held, len(report.skipped)) == (500, 500, 0)
    path.write_bytes(first)
    folded = await fold(lambda event, state: (state, state), path)
    assert list(folded.report.skipped) == ["damaged_file"]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("sized", [False, True])
def test_every_cut_is_seen(tmp_path: Path, checksum: bool, sized: bool) -> None:
    """Wherever a file of several frames is cut, but between two of them, it counts as damaged."""
    pack = ZstdCompressor(write_checksum=checksum, write_content_size=sized)
    frames = [pack.compress(b"".join(LINES[:100])), pack.compress(b"a" * 200_000), in_blocks()[1]]
    frames.insert(1, struct.pack("<II", 0x184D2A53, 10) + b"skip me...")
    data = b"".join(frames)
    whole = {sum(map(len, frames[:count])) for count in range(1, len(frames) + 1)}
    path = tmp_path / "x.zst"
    step = max(1, len(data) // 300)
    for cut in sorted(
        {*range(5, len(data), step), *whole, *(end - 1 for end in whole), *(end + 3 for end in whole)}
    ):
        path.write_bytes(data[:cut])
        source = opened(path)
        for _ in source:
            pass
        assert bool(source.problem) == (min(cut, len(data)) not in whole), cut
        assert source.read <= len(data)
        source.close()


def test_gzip_says_it_too(tmp_path: Path) -> None:
    """A gzip file that was cut off gives what it has, and says so."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"".join(LINES))[:-20])
    source = opened(path)
    assert b"".join(source).count(b"\n") > 900
    assert "can't be read any further" in source.problem
    source.close()
