"""``lo.reveal``, ``lo.export_student`` and ``lo.erase``: what is about one person, or says who they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from lo_kernel.errors import LOError, NotOwnerError
from lo_kernel.notebook.verbs import Verbs
from lo_kernel.workspace import check_out, write_out

if TYPE_CHECKING:
    from lo_kernel.app.erasing import Erased
    from lo_kernel.notebook.jobs import Job
    from lo_kernel.query.rows import Rows
    from lo_kernel.runtime import Runtime

__all__ = ["PersonVerbs", "export_student", "write_held"]


class PersonVerbs(Verbs):
    """The verbs of ``lo`` that are about one person."""

    def reveal(self, *, reason: str) -> Job[Rows]:
        """The roster's names, here and wherever this notebook shows names, from now on; it goes on record,
        with the reason.

        That is in rows of queries, in charts, and in pages inside the notebook, open ones too. Without it a
        notebook sees safe ids and made-up names. Who comes into the roster later needs another one. Where
        there is no roster, there are no names.
        """
        if not isinstance(reason, str) or len(reason.strip()) < 3:
            raise LOError(f"reveal: expected a reason in words, as reason='consent forms', got {reason!r}")
        runtime = self._runtime

        async def work() -> Rows:
            from lo_kernel.query.rows import Rows

            names = await runtime.rosters.names()
            runtime.reads.act("reveal", learners=names, texts={"reason": reason})
            runtime.rosters.reveal(names)
            return Rows({"student": student, "name": name} for student, name in names.items())

        return self._job("names", work())

    def export_student(self, student: str, path: str | PathLike[str] | None = None) -> Job[Path]:
        """All that is held of one learner (a safe id), in one JSON file, which its user alone can read.

        Profile, events, rejected frames, states, blobs, values of your own that name them, and what the
        record says of them. ``path`` is by default the id and ``.json``, beside the notebook. What is not
        in it is named there: states that belong to several learners, for one.
        """
        _check(self._runtime, student)
        record = getattr(getattr(self, "audit", None), "of", None)
        target = check_out(Path(path) if path is not None else Path(f"{student}.json"))
        return self._job(f"export of {student}", export_student(self._runtime, student, target, record))

    def erase(self, student: str) -> Job[Erased]:
        """Remove a learner (a safe id) everywhere: events, states, names; it can't be undone.

        The archive's segments are written anew, with the numbers of their events kept; reducers run again
        over what is left, so that states of a class or a teacher are without them, too. On record the alias
        is nobody's any more, and texts that name them are deleted. Gives what was done, and what is out of
        reach. Where it is cut off, it is finished with the next start, or with the next try. In a kernel that
        follows, the owner of the workspace does it.
        """
        from lo_kernel.app.unfinished import known

        if not known(self._runtime, student):  # also one whose erasure was cut off
            _check(self._runtime, student)
        return self._job(f"erasing {student}", _erase(self._runtime, student))


def _check(runtime: Runtime, student: str) -> None:
    if not isinstance(student, str) or student not in runtime.learners:
        some = ", ".join(list(runtime.learners)[:3]) or "nobody was seen yet"
        raise LOError(f"expected the safe id of a learner who was seen ({some}), got {student!r}")


async def _erase(runtime: Runtime, student: str) -> Erased:
    from lo_kernel.app.erasing import Erased, erase

    if runtime.takes_events:
        return await erase(runtime, student)
    owner = runtime.workspace.find_owner()
    if owner is None:
        raise NotOwnerError(
            "erase: the owner of the workspace has ended, and it alone can: take it over with lo.own() first"
        )
    from lo_kernel.app.asking import ask_owner

    path = f"webapi/learner/{quote(student, safe='')}"
    return Erased(**await ask_owner(owner, "DELETE", path, user=""))


async def export_student(runtime: Runtime, student: str, path: Path, record: Any = None) -> Path:
    """Write what is held of a learner to ``path``; on the app's loop."""
    owner = None if runtime.takes_events else runtime.workspace.find_owner()
    if owner is None:
        from lo_kernel.app.holding import held

        data = await held(runtime, student)
    else:  # it has the store
        from lo_kernel.app.asking import ask_owner

        data = await ask_owner(owner, "GET", f"webapi/learner/{quote(student, safe='')}/held", user="")
    data["record"] = [] if record is None else await asyncio.to_thread(record, student)
    await asyncio.to_thread(write_held, path, data)
    return path


def write_held(path: Path, data: Mapping[str, Any]) -> None:
    """Write it as JSON that a person can read, and nobody but the user."""
    write_out(path, msgspec.json.format(msgspec.json.encode(data), indent=2))
