"""A roster file that is read again: what was told of it isn't told anew, what is new is."""

from __future__ import annotations

from pathlib import Path

import pytest
from query_parts import People
from test_roster_files import HEADER, ids, rosters

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.query.rosters import Rosters


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks has the file as it is."""
    monkeypatch.setattr("lo_kernel.query.rosters._LOOK_SECONDS", 0.0)


def save(file: Path, text: str) -> None:
    """Write the rows of a roster."""
    file.write_text(HEADER + text)


async def reading(file: Path, text: str, *seen: str) -> tuple[Rosters, ErrorLog, People, list[str]]:
    """A roster from a file, what it said, and the kinds of what somebody was told."""
    roster, errors, people = rosters(*seen)
    told: list[str] = []
    errors.subscribe(lambda entry: told.append(entry.kind))
    save(file, text)
    await roster.load(file)
    return roster, errors, people, told


async def again(roster: Rosters, file: Path, text: str) -> None:
    """Change the file and have it read."""
    save(file, text)
    await ids(roster)


@pytest.mark.parametrize(
    ("text", "seen", "kind"),
    [
        ("c1,tc-u0,Ada\n", ["tc-u0", "tc-u1"], "NotInRoster"),
        ("c1,tc-u0,Ada\nc1,u5,Bo\n", ["tc-u0", "tc-u5"], "LookAlike"),
        ("c1,ada,Ada\n", ["tc-u0", "tc-u1", "tc-u2"], "NobodySeen"),
        ("c1,tc-u0,Ada\nc1,,Bo\n", ["tc-u0"], "LeftOut"),
    ],
)
async def test_an_unchanged_finding_is_told_once(
    tmp_path: Path, text: str, seen: list[str], kind: str
) -> None:
    """Each new row makes the file be read; whoever is told of troubles hears of the same one once."""
    file = tmp_path / "r.csv"
    roster, errors, _, told = await reading(file, text, *seen)
    more = ""
    for number in range(3):
        more += f"c1,tc-new-{number},New\n"
        await again(roster, file, text + more)
        assert f"tc-new-{number}" in await ids(roster)
    await roster.load(file)
    assert told == [kind]
    assert [(entry.kind, entry.count) for entry in errors] == [(kind, 1)]
    roster.close()


async def test_a_finding_about_somebody_else_is_told(tmp_path: Path) -> None:
    """A reading that leaves one more out is news; one that takes one in is not, and the text is kept true."""
    file = tmp_path / "r.csv"
    both = "c1,tc-u0,Ada\nc1,tc-u1,Bo\n"
    roster, errors, people, told = await reading(file, both, "tc-u0", "tc-u1", "tc-u2")
    await again(roster, file, "c1,tc-u0,Ada\n")
    assert told == ["NotInRoster"] * 2
    assert errors[0].message.startswith("2 learners have sent events")
    await again(roster, file, both)
    assert told == ["NotInRoster"] * 2
    assert errors[0].message.startswith("1 learner has sent events")
    people.add("tc-u3")
    await again(roster, file, both + "c1,tc-u9,Di\n")
    assert told == ["NotInRoster"] * 2
    assert errors[0].message.startswith("2 learners have sent events")
    roster.close()


async def test_a_finding_that_was_mended_is_told_when_it_comes_back(tmp_path: Path) -> None:
    """Where a reading finds all well, the entry goes; the same mistake later is a new one."""
    file = tmp_path / "r.csv"
    wrong, right = "c1,tc-u0,Ada\nc1,u5,Bo\n", "c1,tc-u0,Ada\nc1,tc-u5,Bo\n"
    roster, errors, _, told = await reading(file, wrong, "tc-u0", "tc-u5")
    assert told == ["LookAlike"]
    await again(roster, file, right)
    assert not len(errors)
    await again(roster, file, wrong)
    assert told == ["LookAlike"] * 2
    assert len(errors) == 1
    roster.close()


async def test_another_file_tells_all_of_its_own(tmp_path: Path) -> None:
    """A roster of another name is another finding, though it leaves out the same learner."""
    text = "c1,tc-u0,Ada\n"
    roster, errors, _, told = await reading(tmp_path / "r.csv", text, "tc-u0", "tc-u1")
    (tmp_path / "s.csv").write_text(HEADER + text)
    await roster.load(tmp_path / "s.csv")
    assert told == ["NotInRoster"] * 2
    assert "s.csv" in errors[0].message
    roster.close()


async def test_a_file_that_stays_unreadable_is_told_once(tmp_path: Path) -> None:
    """Saved again with the same mistake it is the same news; mended and broken anew it is told."""
    file = tmp_path / "r.csv"
    roster, errors, _, told = await reading(file, "c1,tc-u0,Ada\n", "tc-u0")
    for text in ("pupil\n1\n", "pupil\n1\n2\n"):
        file.write_text(text)
        assert await ids(roster) == ["tc-u0"]
    assert told == ["NotRead"]
    await again(roster, file, "c1,tc-u0,Ada\nc1,tc-u1,Bo\n")
    assert not len(errors)
    file.write_text("pupil\n1\n")
    await ids(roster)
    assert told == ["NotRead"] * 2
    roster.close()
