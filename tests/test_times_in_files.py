"""Times in files: read where they are clear, and never made up where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lo_kernel.engine.fold import fold
from lo_kernel.engine.formats import base
from lo_kernel.engine.formats.base import parse_time

CLEAR = {
    "2024-03-01 11:00": 1709290800.0,
    "2024-03-01T11:00:00Z": 1709290800.0,
    "2024/03/01 11:00": 1709290800.0,
    "2024/3/1 9:05:07": 1709283907.0,
    "2024.03.01 11:00:00": 1709290800.0,
    "2024-03-01 11:00:00.5": 1709290800.5,
    "2024-03-01 11:00:00.123456789": 1709290800.123456,
    "2024-03-01 11:00:00,5": 1709290800.5,
    "2024/03/01 11:00:00 PM": 1709334000.0,
    "2024/03/01 12:30 am": 1709253000.0,
    "2024-03-01 12:00 +0100": 1709290800.0,
    "2024-03-01 12:00:00+01:00": 1709290800.0,
    " 2024-03-01 11:00:00 UTC ": 1709290800.0,
    "2024-03-01": 1709251200.0,
    "20240301": 1709251200.0,
    "20240301110000": 1709290800.0,
    "20240301T110000Z": 1709290800.0,
    "2024-W09-5T11:00": 1709290800.0,
    "1709290800": 1709290800.0,
    "1709290800.25": 1709290800.25,
    "1709290800000": 1709290800.0,
    "1712121211012": 1712121211.012,
    "1709290800000000": 1709290800.0,
    "1.7e9": 1.7e9,
    "12.5": 12.5,
}


@pytest.mark.parametrize(("text", "time"), CLEAR.items())
def test_a_clear_time_is_read(text: str, time: float) -> None:
    """ISO with a space, slashes with the year first, and seconds, milli- or microseconds."""
    assert parse_time(text) == time


@pytest.mark.parametrize(
    "text",
    [
        "01/03/2024 11:00", "1.3.2024", "13/01/2024 11:00", "03-01-2024", "2024/13/01", "2024-02-30", "11:00",
        "2024-03/01", "2024/03/01 13:00 PM", "2024/03/01 0:30 am", "2024/03/01 25:00", "1_700_000_000", "nan",
        "inf", "-5", "1e18", "", "noon", "2024/03/01 11:00 CEST",
    ],
)  # fmt: skip
def test_an_unclear_time_is_not_guessed(text: str) -> None:
    """Where day or month come first, or there is no such day, it is no time."""
    assert parse_time(text) is None


@pytest.mark.parametrize("text", ["1709290800.25", " 1709290800 ", "1709290800000", "1.7e9", "12.5"])
def test_a_number_is_not_tried_as_a_date(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay of such a table would take a third longer."""
    tried: list[str] = []
    monkeypatch.setattr(base, "_written", tried.append)
    assert parse_time(text) == CLEAR.get(text, 1709290800.0)
    assert not tried


def times(event: Any, state: Any) -> Any:
    """The times of a learner's events."""
    return [*(state or []), event["server"]["time"]], False


TABLE = (
    "user_id,event,time\n"
    "ann,open,2024-03-01 10:07\n"
    "ann,type,01/03/2024 11:00\n"
    "ann,close,2024/03/01 11:30\n"
    "ann,again,\n"
)
OBJECTS = [
    {"user_id": "ann", "event": "open", "timestamp": "2024-03-01 10:07", "time": "noon"},
    {"event": "type", "timestamp": "01/03/2024 11:00"},
    {"event": "close", "metadata": {"ts": "2024/03/01 11:30"}},
    {"event": "again", "time": "noon"},
]
STATEMENTS = [
    {"actor": {"openid": "ann"}, "verb": {"id": "x/open"}, "timestamp": "2024-03-01T10:07:00Z"},
    {"actor": {"openid": "ann"}, "verb": {"id": "x/type"}, "timestamp": "01/03/2024 11:00"},
    {"actor": {"openid": "ann"}, "verb": {"id": "x/close"}, "stored": "2024-03-01T11:30:00Z"},
    {"actor": {"openid": "ann"}, "verb": {"id": "x/again"}},
]
FILES = {
    "x.csv": TABLE,
    "x.jsonl": "\n".join(map(json.dumps, OBJECTS)),
    "x.xapi": "\n".join(map(json.dumps, STATEMENTS)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("twice", [False, True])
async def test_a_time_that_cannot_be_read_is_named(tmp_path: Path, name: str, twice: bool) -> None:
    """It is left out, with its line; one that has no time at all has that before it, and is counted."""
    path = tmp_path / name
    path.write_text(FILES[name])
    other = tmp_path / "empty"
    other.write_text("")
    folded = await fold(times, [path, other] if twice else path)
    assert list(folded.values()) == [[1709287620.0, 1709292600.0, 1709292600.0]]
    report = folded.report
    assert list(report.skipped) == ["time_unreadable"]
    line = 3 if name == "x.csv" else 2
    assert report.skipped["time_unreadable"].first == [
        f"{path}, line {line}: expected a time such as '2024-03-01 11:00:00' or seconds since 1970, "
        "got '01/03/2024 11:00'"
    ]
    assert report.untimed == 1
    assert "1 left out: time_unreadable" in repr(report)
    assert "1 without a time; they have that of the record before them" in repr(report)


async def test_an_event_without_a_time_keeps_its_own_when_it_is_folded_again(tmp_path: Path) -> None:
    """After an event at which a reducer fails, the events before it are folded with the times they had."""

    def fails(event: Any, state: Any) -> Any:
        if event["client"]["event"] == "fail":
            raise ValueError("no")
        return times(event, state)

    path = tmp_path / "x.json"
    verbs = [("a", 1.7e9), ("b", None), ("c", 1.8e9), ("fail", 1.9e9), ("d", None)]
    statements = [
        {"actor": {"openid": "ann"}, "verb": {"id": name}} | ({} if time is None else {"timestamp": time})
        for name, time in verbs
    ]
    path.write_text("\n".join(map(json.dumps, statements)))
    folded = await fold(fails, path)
    assert list(folded.values()) == [[1.7e9, 1.7e9, 1.8e9, 1.9e9]]
