"""Who is in which course: everyone seen, a file, or a Python function."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.errors import QueryError, SettingsError
from lo_kernel.query.functions import Function, FunctionContext, Functions, invoke
from lo_kernel.query.language import COURSE_ROSTER
from lo_kernel.query.naming import NOTEBOOK, Naming, NotebookNames, name_of
from lo_kernel.query.ports import JSON, Learners, MadeUpNames
from lo_kernel.query.roster_file import EVERYONE, Course, Member, member_of, read_roster
from lo_kernel.query.strangers import WHO, Strangers

__all__ = ["EVERYONE", "Course", "Member", "Rosters", "read_roster"]

_LOOK_SECONDS: Final = 1.0
"""Least time between two looks whether the file has changed."""

_NAMED: Final = 5
"""How many rows that can't be used are named one by one."""

RosterFunction = Callable[
    [str | None], "Iterable[Mapping[str, Any]] | Awaitable[Iterable[Mapping[str, Any]]]"
]


class Rosters:
    """Courses and learners, for queries and for ``/webapi``.

    Without a file or a function there is one course, everyone seen so far, and every course id means it (as
    dashboards of the deployed Learning Observer ask for ids of their own). With one, a course id that is left
    out means all its courses. A file that has changed is read again, when somebody asks, and every second
    while ``watched`` says that somebody goes on looking.

    ``made_up`` gives the names that notebooks see in place of the roster's, until :meth:`reveal`; without it
    they see none. ``errors`` hear which rows can't be used, and of a roster in which nobody is who was seen.
    """

    def __init__(
        self,
        learners: Learners,
        functions: Functions,
        made_up: MadeUpNames | None = None,
        errors: ErrorLog | None = None,
    ) -> None:
        self.notebook_names = NotebookNames(made_up)
        self.watched: Callable[[], bool] = lambda: False
        self._file: Path | None = None
        self._state: tuple[int, int] | None = None  # of the file, when it was last read: time and size
        self._looked = 0.0
        self._next_look: asyncio.TimerHandle | None = None
        self._look_task: asyncio.Task[None] | None = None
        self._errors = errors
        self._strangers: Strangers | None = None
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
        """Hear no more of new learners, and look at the file no more."""
        self._unsubscribe()
        self._file = None
        if self._next_look is not None:
            self._next_look.cancel()

    @property
    def source(self) -> str:
        """``everyone``, ``file`` or ``function``."""
        if self._function is not None:
            return "function"
        return "everyone" if self._courses is None else "file"

    async def load(self, path: str | Path) -> None:
        """Take courses and learners from a CSV, TSV or JSON file; see :func:`read_roster`.

        Rows that can't be used are left out, and named in ``errors``. Raises :class:`SettingsError` for a
        file that can't be used at all; the roster stays what it was, until the file has changed.
        """
        self._file, self._looked = Path(path), time.monotonic()
        self._state = await asyncio.to_thread(_state_of, self._file)
        await self._read(self._file)

    async def _read(self, path: Path) -> None:
        problems: list[str] = []
        courses = await asyncio.to_thread(read_roster, path, problems)
        if self._file != path:  # another roster was chosen meanwhile
            return
        self._courses = courses
        self._function = None
        self.notebook_names.start_anew()
        ids = set()
        for course in self._courses.values():
            for member in course.members.values():
                self.notebook_names.note(member.user_id, member.profile)
                ids.add(member.user_id)
        if self._errors is not None:
            self._tell("LeftOut", _in_short(problems) if problems else "")
            self._strangers = Strangers(path.name, ids, self._errors, self._strangers)
            self._strangers.saw(self._learners)
        self._changed()

    async def _look(self) -> None:
        """Read the file again where it has changed; one that can't be read leaves the roster as it is."""
        path, now = self._file, time.monotonic()
        if path is None:
            return
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_later)
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        state = await asyncio.to_thread(_state_of, path)
        if state == self._state or path != self._file:
            return
        self._state = state
        try:
            await self._read(path)
        except SettingsError as error:
            said = str(error).removeprefix("roster: ")
            self._tell("NotRead", f"{said}. Until then the roster is as it was")

    def _tell(self, kind: str, said: str) -> None:
        """Say what is wrong with the file, once, and take back what isn't any more."""
        if self._errors is None:
            return
        there = self._errors.of("roster")
        for entry in there:
            if entry.message != said and (entry.kind == kind or kind == "LeftOut"):  # then the file was read
                self._errors.drop(entry)
        if said and all(entry.message != said for entry in there):
            self._errors.add("roster", said, kind=kind)

    def _look_later(self) -> None:
        self._next_look = None
        if self._file is not None and self.watched():
            self._look_task = asyncio.get_running_loop().create_task(self._look())

    def use(self, function: RosterFunction | None) -> None:
        """Take rosters from ``function(course_id)``, sync or async; ``None``: everyone seen again.

        It gives rows with ``user_id`` and, if wanted, ``name`` or ``profile``; ``course_id`` is ``None``
        for all.
        """
        if function is not None and not callable(function):
            raise QueryError(f"roster: expected a function of course_id, got {function!r}")
        self._function = function
        self._courses = None
        self._file = None
        self._strangers = None
        if self._errors is not None:
            self._errors.forget("roster")
            self._errors.forget(WHO)
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
        await self._look()
        if self._function is not None:
            asked = Function(COURSE_ROSTER, self._function)
            given = await invoke(asked, [course_id], {}, FunctionContext(names))
            members = [member_of(row, f"roster row {place}") for place, row in enumerate(given, 1)]
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

    def _changed(self, *changed: Any) -> None:
        if changed and self._strangers is not None:
            who = changed[0].safe_user_id
            if who in self._learners:
                self._strangers.saw([who])
            else:
                self._strangers.forget(who)
        if len(self._everyone) > len(self._learners):  # someone was erased
            self._everyone.clear()
        self._functions.touch(COURSE_ROSTER)


def _in_short(problems: list[str]) -> str:
    said = [problem.removeprefix("roster: ") for problem in problems[:_NAMED]]
    more = len(problems) - len(said)
    rows = "This row is" if len(problems) == 1 else f"These {len(problems):,} rows are"
    return "; ".join(said) + (f"; and {more:,} more" if more else "") + f". {rows} left out"


def _state_of(path: Path) -> tuple[int, int] | None:
    """Time and size of a file; ``None`` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _row(member: Member, names: bool) -> dict[str, JSON]:
    return {"user_id": member.user_id, "profile": member.profile if names else {}}
