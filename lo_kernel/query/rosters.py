"""Who is in which course: everyone seen, a file, or a Python function."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from lo_kernel.errors import QueryError, SettingsError
from lo_kernel.query.functions import Function, FunctionContext, Functions, invoke
from lo_kernel.query.language import COURSE_ROSTER
from lo_kernel.query.naming import NOTEBOOK, Naming, NotebookNames, name_of
from lo_kernel.query.ports import JSON, Learners, MadeUpNames

__all__ = ["EVERYONE", "Course", "Member", "Rosters", "read_roster"]

EVERYONE: Final = "everyone"
"""Id of the one course that there is without a roster file."""

_ID_COLUMNS: Final = ("user_id", "safe_user_id", "student_id", "student", "id")
_COURSE_COLUMNS: Final = ("course_id", "course", "class")
_NAME_COLUMNS: Final = ("name", "full_name")

RosterFunction = Callable[
    [str | None], "Iterable[Mapping[str, Any]] | Awaitable[Iterable[Mapping[str, Any]]]"
]


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


class Rosters:
    """Courses and learners, for queries and for ``/webapi``.

    Without a file or a function there is one course, everyone seen so far, and every course id means it (as
    dashboards of the deployed Learning Observer ask for ids of their own). With one, a course id that is left
    out means all its courses.

    ``made_up`` gives the names that notebooks see in place of the roster's, until :meth:`reveal`; without it
    they see none.
    """

    def __init__(self, learners: Learners, functions: Functions, made_up: MadeUpNames | None = None) -> None:
        self.notebook_names = NotebookNames(made_up)
        self._learners = learners
        self._functions = functions
        self._courses: dict[str, Course] | None = None
        self._function: RosterFunction | None = None
        self._everyone: dict[str, tuple[dict[str, JSON], dict[str, JSON]]] = {}
        self._unsubscribe = learners.subscribe(self._changed)
        functions.publish(
            COURSE_ROSTER,
            description="The learners of a course: [{user_id, profile}].",
            columns=("user_id", "profile"),
            mark=False,
        )(self._courseroster)

    def close(self) -> None:
        """Hear no more of new learners."""
        self._unsubscribe()

    @property
    def source(self) -> str:
        """``everyone``, ``file`` or ``function``."""
        if self._function is not None:
            return "function"
        return "everyone" if self._courses is None else "file"

    async def load(self, path: str | Path) -> None:
        """Take courses and learners from a CSV, TSV or JSON file; see :func:`read_roster`."""
        self._courses = await asyncio.to_thread(read_roster, Path(path))
        self._function = None
        self.notebook_names.start_anew()
        for course in self._courses.values():
            for member in course.members.values():
                self.notebook_names.note(member.user_id, member.profile)
        self._changed()

    def use(self, function: RosterFunction | None) -> None:
        """Take rosters from ``function(course_id)``, sync or async; ``None``: everyone seen again.

        It gives rows with ``user_id`` and, if wanted, ``name`` or ``profile``; ``course_id`` is ``None``
        for all.
        """
        if function is not None and not callable(function):
            raise QueryError(f"roster: expected a function of course_id, got {function!r}")
        self._function = function
        self._courses = None
        self.notebook_names.start_anew()
        self._changed()

    def courses(self) -> list[dict[str, JSON]]:
        """The courses as ``/webapi/courselist/`` gives them: ``[{"id": ..., "name": ...}]``."""
        if self._courses is None:
            return [{"id": EVERYONE, "name": "Everyone seen"}]
        return [{"id": course.id, "name": course.name} for course in self._courses.values()]

    async def roster(self, course_id: str | None = None, *, names: Naming = False) -> list[dict[str, JSON]]:
        """The learners of a course: ``[{"user_id": safe id, "profile": {...}}]``.

        Without ``names`` each profile is empty; with ``"notebook"`` it holds the made-up name of who has one
        in the roster. Raises :class:`QueryError` for a course that isn't there.
        """
        if self._function is not None:
            asked = Function(COURSE_ROSTER, self._function)
            given = await invoke(asked, [course_id], {}, FunctionContext(names))
            members = [_member(row, f"roster row {place}") for place, row in enumerate(given, 1)]
            for member in members:
                self.notebook_names.note(member.user_id, member.profile)
            return [self._row(member, names) for member in members]
        if self._courses is not None:
            return self._of_courses(course_id, names)
        rows = []
        for safe_id in self._learners:
            pair = self._everyone.get(safe_id)
            if pair is None:
                member = Member(safe_id, {"name": {"full_name": self._learners[safe_id].user_id}})
                pair = self._everyone[safe_id] = (_row(member, False), _row(member, True))
            rows.append(pair[names is True])  # a notebook sees the id: there is no name to make one up for
        return rows

    async def names(self) -> dict[str, str]:
        """Names of learners by safe id, where the roster has them; for who may see them."""
        if self.source == "everyone":
            return {}
        rows = await self.roster(names=True)
        found = {}
        for row in rows:
            if name := name_of(row["profile"]):
                found[row["user_id"]] = name
        return found

    def reveal(self, names: Mapping[str, str]) -> None:
        """From now on, notebooks see these names (by safe id), open queries too."""
        self.notebook_names.reveal(names)
        self._changed()

    def _row(self, member: Member, names: Naming) -> dict[str, JSON]:
        if names != NOTEBOOK:
            return _row(member, bool(names))
        name = self.notebook_names.get(member.user_id)
        return {"user_id": member.user_id, "profile": {"name": {"full_name": name}} if name else {}}

    def _of_courses(self, course_id: str | None, names: Naming) -> list[dict[str, JSON]]:
        courses = self._courses or {}
        if course_id in (None, "", EVERYONE):
            everyone = {who: member for course in courses.values() for who, member in course.members.items()}
            return [self._row(member, names) for member in everyone.values()]
        course = courses.get(str(course_id))
        if course is None:
            raise QueryError(
                f"there is no course {course_id!r} in the roster; there are: {', '.join(courses)}"
            )
        return [self._row(member, names) for member in course.members.values()]

    async def _courseroster(self, runtime: JSON = None, course_id: JSON = None) -> list[dict[str, JSON]]:
        names = runtime.naming if isinstance(runtime, FunctionContext) else False
        return await self.roster(None if course_id is None else str(course_id), names=names)

    def _changed(self, *_: object) -> None:
        if len(self._everyone) > len(self._learners):  # someone was erased
            self._everyone.clear()
        self._functions.touch(COURSE_ROSTER)


def read_roster(path: Path) -> dict[str, Course]:
    """Read courses and learners from a file, by its ending.

    ``.csv``, ``.tsv``: a header line; a column ``user_id`` (or ``student``), and, where there are several
    courses, ``course_id``; ``course_name``, ``name`` and any others are optional and go into the profile.
    ``.json``: a list of such rows, or ``{"courses": [{"id", "name", "students": [row, ...]}]}``.

    An id without a provenance (``u0`` instead of ``tc-testcase-u0``) is taken as it is, quoted as keys
    quote it. Raises :class:`SettingsError`, which names line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"roster: expected a readable UTF-8 file, got {path.name}: {error}") from None
    kind = path.suffix.lower()
    if kind == ".json":
        return _from_json(text, path.name)
    if kind not in (".csv", ".tsv"):
        raise SettingsError(f"roster: expected a .csv, .tsv or .json file, got {path.name!r}")
    rows = csv.DictReader(io.StringIO(text), delimiter="\t" if kind == ".tsv" else ",")
    header = rows.fieldnames or []
    if not any(column in header for column in _ID_COLUMNS):
        raise SettingsError(
            f"roster: {path.name}, line 1: expected a column 'user_id', "
            f"got {', '.join(header) or 'an empty file'}"
        )
    courses: dict[str, Course] = {}
    for row in rows:
        if any(row.values()):
            _add(courses, row, f"roster: {path.name}, line {rows.line_num}")
    return courses


def _from_json(text: str, name: str) -> dict[str, Course]:
    try:
        data = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"roster: {name}: expected JSON: {error}") from None
    courses: dict[str, Course] = {}
    if isinstance(data, Mapping) and isinstance(data.get("courses"), list):
        for place, course in enumerate(data["courses"], 1):
            where = f"roster: {name}, course {place}"
            if not isinstance(course, Mapping) or "id" not in course:
                raise SettingsError(f"{where}: expected an object with 'id', got {course!r:.80}")
            key = str(course["id"])
            made = courses.setdefault(key, Course(key, str(course.get("name", key))))
            for number, row in enumerate(course.get("students", []), 1):
                member = _member(row, f"{where}, student {number}")
                made.members[member.user_id] = member
        return courses
    if not isinstance(data, list):
        raise SettingsError(
            f"roster: {name}: expected a list of rows or {{'courses': [...]}}, got {data!r:.80}"
        )
    for number, row in enumerate(data, 1):
        _add(courses, row, f"roster: {name}, row {number}")
    return courses


def _add(courses: dict[str, Course], row: Any, where: str) -> None:
    member = _member(row, where)
    key = str(_first(row, _COURSE_COLUMNS) or EVERYONE)
    course = courses.setdefault(key, Course(key, str(row.get("course_name") or key)))
    course.members[member.user_id] = member


def _member(row: Any, where: str) -> Member:
    if not isinstance(row, Mapping):
        raise SettingsError(f"{where}: expected an object with 'user_id', got {row!r:.80}")
    user_id = _first(row, _ID_COLUMNS)
    if not user_id:
        raise SettingsError(f"{where}: expected a learner's id under 'user_id', got {dict(row)!r:.80}")
    profile: dict[str, JSON] = {}
    if isinstance(row.get("profile"), Mapping):
        profile.update(row["profile"])
    known = {*_ID_COLUMNS, *_COURSE_COLUMNS, *_NAME_COLUMNS, "course_name", "profile", None}
    profile.update({key: value for key, value in row.items() if key not in known and value not in (None, "")})
    name = _first(row, _NAME_COLUMNS)
    if name:
        profile["name"] = name if isinstance(name, Mapping) else {"full_name": str(name)}
    # Ids in keys are URL-quoted; one that is quoted already stays as it is.
    return Member(quote_plus(str(user_id), safe="@%+"), profile)


def _row(member: Member, names: bool) -> dict[str, JSON]:
    return {"user_id": member.user_id, "profile": member.profile if names else {}}


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
