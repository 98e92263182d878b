"""Tables as programs in other countries write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lo_kernel.engine.fold import fold
from lo_kernel.engine.formats import detect

ROWS = [
    ("event", "user_id", "timestamp", "value"),
    ("x", "u1", "1600000000000", "5"),
    ("x", "u2", "1600000000000", "a;b,c"),
]


def values(event: Any, state: Any) -> Any:
    """What was written."""
    return [*(state or []), event["client"]["value"]], False


@pytest.mark.parametrize("format", ["auto", "csv"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";"])
async def test_semicolons_are_known(tmp_path: Path, delimiter: str, mark: str, format: str) -> None:
    """A table with semicolons is read as one with commas, with a byte order mark or without."""
    path = tmp_path / "events.csv"
    lines = [delimiter.join(f'"{cell}"' if "b" in cell else cell for cell in row) for row in ROWS]
    path.write_text(mark + "\n".join(lines) + "\n")
    assert detect(path).name == "csv"
    folded = await fold(values, path, format=format)
    assert list(folded.values()) == [["5"], ["a;b,c"]]
    assert folded.report.skipped == {}
