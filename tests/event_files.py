"""Files of events for tests, as others write them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["compressed", "study_event", "study_log", "study_text"]

SOURCE = "org.mitros.writing_analytics"


def study_event(number: int, learner: str = "u0", /, **more: Any) -> dict[str, Any]:
    """An event as the deployed system logs it; its time is ``1700000000 + number``."""
    auth = {
        "sec": "unauthenticated",
        "user_id": f"testcase-{learner}",
        "safe_user_id": f"tc-testcase-{learner}",
        "providence": "tc",
    }
    return {
        "client": {"event": "keystroke", "source": SOURCE, "i": number, "auth": auth, **more},
        "server": {
            "time": 1_700_000_000.25 + number,
            "origin": "",
            "agent": "x",
            "ip": "",
            "executable": "aio_webapp",
        },
        "metadata": {"source": SOURCE, "auth": auth, "event": "metadata_finished"},
    }


def study_text(event: dict[str, Any], *, compact: bool = False) -> str:
    """The line of an event in a study log."""
    separators = (",", ":") if compact else (", ", ": ")
    stamp = datetime.fromtimestamp(event["server"]["time"], UTC).replace(tzinfo=None).isoformat()
    return json.dumps(event, sort_keys=True, separators=separators) + "\t" + stamp + "\n"


def study_log(
    path: Path, numbers: range, learners: int = 3, *, compact: bool = False, start: int = 0
) -> Path:
    """Write a study log with an event for each of ``numbers``."""
    path.write_text(
        "".join(
            study_text(study_event(number + start, f"u{number % learners}"), compact=compact)
            for number in numbers
        )
    )
    return path


def compressed(path: Path, how: str) -> Path:
    """A copy of a file, compressed with ``gz`` or ``zst`` in two frames, under a name that doesn't say so."""
    from zstandard import ZstdCompressor

    data = path.read_bytes()
    pack = gzip.compress if how == "gz" else ZstdCompressor().compress
    target = path.with_name(f"{path.name}-{how}")
    target.write_bytes(pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :]))
    return target
