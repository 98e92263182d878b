"""Roster files with something wrong in them: what can be used is used, and the rest is said."""

from __future__ import annotations

import asyncio
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from query_parts import Parts, People

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.errors import SettingsError
from lo_kernel.query.functions import Functions
from lo_kernel.query.language import q
from lo_kernel.query.rosters import Rosters
from lo_kernel.settings import Settings

HEADER = "course_id,user_id,name\n"


def rosters(*seen: str) -> tuple[Rosters, ErrorLog, People]:
    """Rosters, what they say, and who has been seen."""
    errors, people = ErrorLog(), People(*seen)
    return Rosters(people, Functions(), None, errors), errors, people


async def ids(roster: Rosters, course: str | None = None) -> list[str]:
    """Who is in a course."""
    return [str(row["user_id"]) for row in await roster.roster(course)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "r.csv",
            f"{HEADER}c1,tc-u0,Ada\nc1,,Bea Bell\nc1,tc-u1,Cy\n",
            "r.csv, line 3: expected a learner's id under 'user_id', got none. This row is left out",
        ),
        (
            "r.json",
            json.dumps(
                [{"user_id": "tc-u0"}, 5, {"name": "Bea Bell"}, {"user_id": []}, {"user_id": "tc-u1"}]
            ),
            "r.json, row 2: expected an object with 'user_id', got a number; r.json, row 3: expected "
            "a learner's id under 'user_id', got none; r.json, row 4: expected "
            "a learner's id under 'user_id', got a list. "
            "These 3 rows are left out",
        ),
        (
            "r.json",
            json.dumps(
                {
                    "courses": [
                        {"name": "Bea's"},
                        {"id": 1, "students": [{"user_id": "tc-u0"}, {"user_id": None}]},
                        {"id": 2, "students": "Bea"},
                        {"id": 3, "students": [{"user_id": "tc-u1"}]},
                    ]
                }
            ),
            "r.json, course 1: expected an object with 'id', got an object without it; r.json, course 2, "
            "student 2: expected a learner's id under 'user_id', got none; r.json, course 3: expected "
            "a list of rows under 'students', got text. These 3 rows are left out",
        ),
    ],
)
async def test_rows_that_cannot_be_used_are_left_out_and_named(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    """The good rows are used; file and line of the others are in the errors, without a name of anybody."""
    (tmp_path / name).write_text(text)
    roster, errors, _ = rosters()
    await roster.load(tmp_path / name)
    assert await ids(roster) == ["tc-u0", "tc-u1"]
    (entry,) = errors
    assert (entry.where, entry.message) == ("roster", said)
    assert "Bea" not in entry.message
    (tmp_path / name).write_text(
        json.dumps([{"user_id": "tc-u0"}]) if name.endswith("json") else "id\ntc-u0\n"
    )
    await roster.load(tmp_path / name)
    assert not len(errors)


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("r.csv", f"{HEADER}c1,tc-u0,Ada\nc2,tc-u0,Bea\nc1,tc-u0,Ada\nc1,tc-u0,Bea\n", "r.csv, line 5"),
        (
            "r.json",
            json.dumps(
                {"courses": [{"id": "c1", "students": [{"id": "tc-u0", "name": n} for n in ("Ada", "Bea")]}]}
            ),
            "r.json, course 1, student 2",
        ),
    ],
)
async def test_a_learner_who_is_in_a_course_twice_is_told(
    tmp_path: Path, name: str, text: str, where: str
) -> None:
    """The first row stays, the line of another profile is said; of the same row again, nothing is."""
    (tmp_path / name).write_text(text)
    roster, errors, _ = rosters()
    await roster.load(tmp_path / name)
    assert [row["profile"] for row in await roster.roster("c1", names=True)] == [
        {"name": {"full_name": "Ada"}}
    ]
    (entry,) = errors
    assert entry.message == (
        f"{where}: expected a learner once in a course, got one again with another profile. "
        "This row is left out"
    )


async def test_many_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    """Five are named; of the others it is said how many there are."""
    (tmp_path / "r.csv").write_text(HEADER + "c1,,A\n" * 9)
    roster, errors, _ = rosters()
    await roster.load(tmp_path / "r.csv")
    assert errors[0].message.count("line") == 5
    assert errors[0].message.endswith("; and 4 more. These 9 rows are left out")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["r.csv", "r.tsv"])
async def test_what_parts_the_columns_is_found_out(tmp_path: Path, name: str, separator: str) -> None:
    """Commas, semicolons, tabs and bars part columns in files of either ending, with blanks around."""
    rows = ['Course_ID,"course_name", User_ID ,name,group', "c1,Bio,tc-u0 ,Ada,x", "c1,Bio,tc-u1,Cy,y"]
    (tmp_path / name).write_text("\r\n".join(rows).replace(",", separator), newline="")
    roster, errors, _ = rosters()
    await roster.load(tmp_path / name)
    assert roster.courses() == [{"id": "c1", "name": "Bio"}]
    assert await roster.roster("c1", names=True) == [
        {"user_id": "tc-u0", "profile": {"group": "x", "name": {"full_name": "Ada"}}},
        {"user_id": "tc-u1", "profile": {"group": "y", "name": {"full_name": "Cy"}}},
    ]
    assert not len(errors)


@pytest.mark.parametrize("limit", [131_072, 16 << 20])
async def test_a_field_without_an_end_is_named_by_its_line(tmp_path: Path, limit: int) -> None:
    """What is no table any more is said with its line, and the rows before are used.

    Whatever limit the process has by now: who reads events has raised it.
    """
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-u0,Ada\nc1,tc-u1,{'x' * 200_000}\n")
    roster, errors, _ = rosters()
    before = csv.field_size_limit(limit)
    try:
        await roster.load(tmp_path / "r.csv")
    finally:
        csv.field_size_limit(before)
    assert await ids(roster) == ["tc-u0"]
    assert "r.csv, line 3 and all after it: expected rows of a table: field" in errors[0].message


async def test_ids_that_nobody_has_are_said(tmp_path: Path) -> None:
    """A roster of ids without their provenance names one of its own and the safe id that is meant."""
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,sim-01,Ada\nc1,sim-02,Bo\n")
    roster, errors, people = rosters()
    await roster.load(tmp_path / "r.csv")
    people.add("tc-stranger")
    assert not len(errors)
    people.add("tc-testcase-sim-02")
    (entry,) = errors
    assert "nobody in r.csv has been seen" in entry.message
    assert "'sim-02' stands there, and ids here are as 'tc-testcase-sim-02'" in entry.message
    people.add("sim-01")
    assert [entry.kind for entry in errors] == ["LookAlike", "NotInRoster"]
    people.remove("tc-stranger")
    people.add("sim-02")
    assert [entry.kind for entry in errors] == ["NotInRoster"]


async def test_one_wrong_id_among_good_ones_is_said(tmp_path: Path) -> None:
    """Though others match, an id that nobody has gets a hint where its look-alike was seen."""
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-testcase-sim-01,Ada\nc1,sim-05,Bo\n")
    roster, errors, people = rosters("tc-testcase-sim-01", "tc-testcase-sim-05")
    await roster.load(tmp_path / "r.csv")
    (entry,) = errors
    assert entry.message.startswith("'sim-05' stands in r.csv and wasn't seen, 'tc-testcase-sim-05' was: ")
    people.remove("tc-testcase-sim-05")
    assert not len(errors)


async def test_who_is_not_in_the_roster_is_counted(tmp_path: Path) -> None:
    """Learners with events whom the roster leaves out are one entry, which goes on counting."""
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-u0,Ada\n")
    roster, errors, people = rosters("tc-u0")
    await roster.load(tmp_path / "r.csv")
    assert not len(errors)
    people.add("tc-u1")
    people.add("tc-u2")
    (entry,) = errors
    assert (entry.kind, entry.count) == ("NotInRoster", 1)
    assert entry.message.startswith("2 learners have sent events and can't be found in r.csv")


async def test_a_roster_of_others_is_said_once_three_are_seen(tmp_path: Path) -> None:
    """Where ids don't look alike, three strangers make it known; one learner of the roster ends it."""
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-ada,Ada\n")
    roster, errors, people = rosters("tc-u0", "tc-u1")
    await roster.load(tmp_path / "r.csv")
    assert not len(errors)
    people.add("tc-u2")
    assert [entry.kind for entry in errors] == ["NobodySeen"]
    people.add("tc-u3")
    assert errors[0].count == 1
    roster.use(None)
    assert not len(errors)
    people.add("tc-ada")
    await roster.load(tmp_path / "r.csv")
    people.add("tc-u4")
    assert [entry.kind for entry in errors] == ["NotInRoster"]


@pytest.mark.parametrize(
    ("text", "there", "said"),
    [
        (
            f"{HEADER}c1,tc-testcase-u0,Ada\nc1,,Bo\n",
            ["tc-testcase-u0"],
            "roster: LeftOut: r.csv, line 3: expected",
        ),
        (
            "course;pupil\n1;2\n",
            [],
            "roster: NotRead: r.csv, line 1: expected a column 'user_id', got 1 that",
        ),
        (None, [], "roster: NotRead: expected a readable UTF-8 file, got r.csv"),
    ],
)
async def test_an_app_starts_whatever_its_roster_is(
    settings: Settings, tmp_path: Path, text: str | None, there: list[Any], said: str
) -> None:
    """A roster with a mistake, or none at all, takes no app down: it is in the errors."""
    file = tmp_path / "r.csv"
    if text is not None:
        file.write_text(text)
    async with running_app(replace(settings, roster=str(file))) as runtime:
        assert await ids(runtime.rosters) == there
        assert any(str(entry).startswith(said) for entry in runtime.errors)


async def test_a_query_of_a_class_needs_only_the_good_rows(tmp_path: Path) -> None:
    """The class of a file with a bad row is asked for like any other."""
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-u0,Ada\nc1,,Bo\n")
    parts = Parts(people=1)
    await parts.rosters.load(tmp_path / "r.csv")
    assert [row["user_id"] for row in await parts.rosters.roster("c1")] == ["tc-u0"]


async def test_a_file_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks next has it; one that can't be read leaves the roster as it was, and is in the errors."""
    monkeypatch.setattr("lo_kernel.query.rosters._LOOK_SECONDS", 0.0)
    file = tmp_path / "r.csv"
    file.write_text(f"{HEADER}c1,tc-u0,Ada\n")
    roster, errors, _ = rosters()
    await roster.load(file)
    file.write_text(f"{HEADER}c1,tc-u0,Ada\nc2,tc-u1,Bo\n")
    assert await ids(roster) == ["tc-u0", "tc-u1"]
    assert await ids(roster, "c2") == ["tc-u1"]
    file.write_text("pupil\n1\n")
    assert await ids(roster) == await ids(roster) == ["tc-u0", "tc-u1"]
    (entry,) = errors
    assert (entry.kind, entry.count) == ("NotRead", 1)
    assert entry.message.endswith(". Until then the roster is as it was")
    file.unlink()
    assert await ids(roster) == ["tc-u0", "tc-u1"]
    assert "expected a readable" in errors[0].message
    file.write_text(f"{HEADER}c1,tc-u2,Cy\n")
    assert await ids(roster) == ["tc-u2"]
    assert not len(errors)
    roster.use(None)
    file.write_text(f"{HEADER}c1,tc-u2,Cy\nc1,tc-u3,Di\n")
    assert await ids(roster) == []
    roster.close()


async def test_a_file_that_is_there_only_later_is_read_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then everyone seen is in one course."""
    monkeypatch.setattr("lo_kernel.query.rosters._LOOK_SECONDS", 0.0)
    roster, _, _ = rosters("tc-u0")
    with pytest.raises(SettingsError):
        await roster.load(tmp_path / "r.csv")
    assert await ids(roster) == ["tc-u0"]
    (tmp_path / "r.csv").write_text(f"{HEADER}c1,tc-u1,Ada\n")
    assert await ids(roster) == ["tc-u1"]
    roster.close()


async def test_a_file_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who ask at once cost one look."""
    file = tmp_path / "r.csv"
    file.write_text(f"{HEADER}c1,tc-u0,Ada\n")
    roster, _, _ = rosters()
    await roster.load(file)
    monkeypatch.setattr("lo_kernel.query.rosters._LOOK_SECONDS", 3600.0)
    file.write_text(f"{HEADER}c1,tc-u0,Ada\nc1,tc-u1,Bo\n")
    assert await ids(roster) == await ids(roster) == ["tc-u0"]
    roster.close()


async def test_a_live_query_sees_a_roster_that_changed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks on gets the new learner without asking again."""
    monkeypatch.setattr("lo_kernel.query.rosters._LOOK_SECONDS", 0.02)
    file = tmp_path / "r.csv"
    file.write_text(f"{HEADER}c1,tc-u0,Ada\n")
    async with running_app(replace(settings, roster=str(file))) as runtime:
        watch = runtime.live.watch(q.roster())
        assert [row["student"] for row in await anext(watch)] == ["tc-u0"]
        file.write_text(f"{HEADER}c1,tc-u0,Ada\nc1,tc-u1,Bo\n")
        assert "tc-u1" in [row["student"] for row in await asyncio.wait_for(anext(watch), 10)]
