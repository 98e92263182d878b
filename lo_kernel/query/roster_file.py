"""Courses and learners from a file: CSV, TSV or JSON, and what of it can't be used."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from lo_kernel.errors import SettingsError
from lo_kernel.query.ports import JSON

__all__ = ["EVERYONE", "Course", "Member", "member_of", "read_roster"]

EVERYONE: Final = "everyone"
"""Id of the one course that there is without a roster file, and of learners in it who are in no course."""

_ID_COLUMNS: Final = ("user_id", "safe_user_id", "student_id", "student", "id")
_COURSE_COLUMNS: Final = ("course_id", "course", "class")
_NAME_COLUMNS: Final = ("name", "full_name")
_KNOWN: Final = frozenset({*_ID_COLUMNS, *_COURSE_COLUMNS, *_NAME_COLUMNS, "course_name", "profile"})
_SEPARATORS: Final = ",;\t|"
_LONGEST: Final = 131_072  # characters of a value: csv's own limit is one of the process, which others raise


@dataclass(frozen=True, slots=True)
class Member:
    """A learner in a course. ``user_id`` is the safe id under which states are stored."""

    user_id: str
    profile: dict[str, JSON] = field(default_factory=dict)


@dataclass(slots=True)
class Course:
    """A course and its learners, by safe id."""

    id: str
    name: str
    members: dict[str, Member] = field(default_factory=dict)


def read_roster(path: Path, problems: list[str] | None = None) -> dict[str, Course]:
    """Read courses and learners from a file, by its ending.

    ``.csv``, ``.tsv``: a header line; a column ``user_id`` (or ``student``), and, where there are several
    courses, ``course_id``; ``course_name``, ``name`` and any others are optional and go into the profile.
    The header shows what the columns are parted by: commas, semicolons, tabs or bars.
    ``.json``: a list of such rows, or ``{"courses": [{"id", "name", "students": [row, ...]}]}``.

    An id without a provenance (``u0`` instead of ``tc-testcase-u0``) is taken as it is, quoted as keys
    quote it. A row that can't be used is left out, as is one of a learner whom the course has already with
    another profile; ``problems`` get what is wrong with it, with file and line, and without what else is in
    the row. Raises :class:`SettingsError` for a file that is no roster.
    """
    problems = [] if problems is None else problems
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"roster: expected a readable UTF-8 file, got {path.name}: {error}") from None
    kind = path.suffix.lower()
    if kind == ".json":
        return _from_json(text, path.name, problems)
    if kind not in (".csv", ".tsv"):
        raise SettingsError(f"roster: expected a .csv, .tsv or .json file, got {path.name!r}")
    return _from_table(text, path.name, "\t" if kind == ".tsv" else ",", problems)


def member_of(row: Any, where: str) -> Member:
    """The learner of a row; a :class:`SettingsError` that begins with ``where`` for a row without an id."""
    if not isinstance(row, Mapping):
        raise SettingsError(f"{where}: expected an object with 'user_id', got {_kind(row)}")
    given = _first(row, _ID_COLUMNS)
    user_id = given.strip() if isinstance(given, str) else given
    if not isinstance(user_id, str | int) or user_id is True or not str(user_id):
        came = "none" if user_id in (None, "") else _kind(user_id)
        raise SettingsError(f"{where}: expected a learner's id under 'user_id', got {came}")
    profile: dict[str, JSON] = {}
    if isinstance(row.get("profile"), Mapping):
        profile.update(row["profile"])
    profile.update(
        {
            key: value
            for key, value in row.items()
            if key is not None and key not in _KNOWN and value not in (None, "")
        }
    )
    name = _first(row, _NAME_COLUMNS)
    if name:
        profile["name"] = name if isinstance(name, Mapping) else {"full_name": str(name)}
    # Ids in keys are URL-quoted; one that is quoted already stays as it is.
    return Member(quote_plus(str(user_id), safe="@%+"), profile)


def _from_table(text: str, name: str, separator: str, problems: list[str]) -> dict[str, Course]:
    first_line = text.partition("\n")[0]
    for candidate in dict.fromkeys((separator, *_SEPARATORS)):
        if not _columns(first_line, candidate).isdisjoint(_ID_COLUMNS):
            separator = candidate
            break
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    courses: dict[str, Course] = {}
    line = 1
    try:
        header = [_column(column) for column in rows.fieldnames or ()]
        if not any(column in header for column in _ID_COLUMNS):
            came = f"{len(header)} that are called otherwise" if header else "an empty file"
            raise SettingsError(f"roster: {name}, line 1: expected a column 'user_id', got {came}")
        rows.fieldnames = header
        line = rows.line_num + 1
        for row in rows:
            if any(len(value) > _LONGEST for value in row.values() if value):
                raise csv.Error(f"field larger than field limit ({_LONGEST})")
            if any(row.values()):
                _add(courses, row, f"roster: {name}, line {rows.line_num}", problems)
            line = rows.line_num + 1
    except csv.Error as error:
        problems.append(f"roster: {name}, line {line} and all after it: expected rows of a table: {error}")
    return courses


def _columns(line: str, separator: str) -> set[str]:
    return {_column(column.strip('"')) for column in line.strip().split(separator)}


def _column(name: str) -> str:
    plain = name.strip()
    return plain.lower() if plain.lower() in _KNOWN else plain


def _from_json(text: str, name: str, problems: list[str]) -> dict[str, Course]:
    try:
        data = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"roster: {name}: expected JSON: {error}") from None
    courses: dict[str, Course] = {}
    if isinstance(data, Mapping) and isinstance(data.get("courses"), list):
        for place, course in enumerate(data["courses"], 1):
            _add_course(courses, course, f"roster: {name}, course {place}", problems)
        return courses
    if not isinstance(data, list):
        raise SettingsError(
            f"roster: {name}: expected a list of rows or {{'courses': [...]}}, got {_kind(data)}"
        )
    for number, row in enumerate(data, 1):
        _add(courses, row, f"roster: {name}, row {number}", problems)
    return courses


def _add_course(courses: dict[str, Course], course: Any, where: str, problems: list[str]) -> None:
    if not isinstance(course, Mapping) or "id" not in course:
        problems.append(f"{where}: expected an object with 'id', got {_kind(course)}")
        return
    key = str(course["id"])
    made = courses.setdefault(key, Course(key, str(course.get("name", key))))
    students = course.get("students", [])
    if not isinstance(students, list):
        problems.append(f"{where}: expected a list of rows under 'students', got {_kind(students)}")
        return
    for number, row in enumerate(students, 1):
        place = f"{where}, student {number}"
        try:
            member = member_of(row, place)
        except SettingsError as error:
            problems.append(str(error))
        else:
            _enter(made, member, place, problems)


def _add(courses: dict[str, Course], row: Any, where: str, problems: list[str]) -> None:
    try:
        member = member_of(row, where)
    except SettingsError as error:
        problems.append(str(error))
        return
    key = str(_first(row, _COURSE_COLUMNS) or EVERYONE)
    _enter(courses.setdefault(key, Course(key, str(row.get("course_name") or key))), member, where, problems)


def _enter(course: Course, member: Member, where: str, problems: list[str]) -> None:
    """Put a learner into a course; the first of two rows stays."""
    if course.members.setdefault(member.user_id, member) != member:
        problems.append(f"{where}: expected a learner once in a course, got one again with another profile")


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _kind(value: Any) -> str:
    """What came instead; not the value itself, which may be somebody's name."""
    if isinstance(value, Mapping):
        return "an object without it"
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
