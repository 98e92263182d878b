"""``lo.reveal``, ``lo.export_student`` and ``lo.erase``: what is about one person, or says who they are."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lo_kernel.errors import LOError, NotOwnerError
from lo_kernel.notebook.verbs import Verbs

if TYPE_CHECKING:
    from lo_kernel.notebook.jobs import Job
    from lo_kernel.query.rows import Rows
    from lo_kernel.runtime import Runtime

__all__ = ["Erased", "PersonVerbs", "erase", "export_student"]


_ROSTER = "learning_observer.courseroster"
OUT_OF_REACH = (
    "files that were exported, and modules",
    "saved notebooks and their outputs",
    "kernels that follow this workspace: they forget with their restart",
    "copies and backups of the workspace",
    "the source that the events came from: as long as it sends, they come again",
)


@dataclass(frozen=True)
class Erased:
    """What was erased of a learner, and what is out of reach."""

    student: str
    events: int = 0
    rejected: int = 0
    states: int = 0
    reducers: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    texts: int = 0

    def __repr__(self) -> str:
        counts = {
            "events": self.events,
            "rejected frames": self.rejected,
            "values of the store": self.states,
            "texts on record": self.texts,
        }
        went = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        lines = [f"erased: {went}, the alias"]
        if self.reducers:
            lines.append(f"computed anew without them: {', '.join(self.reducers)}")
        if self.paused:
            lines.append(f"states deleted, made again when registered: {', '.join(self.paused)}")
        return "\n".join([*lines, "out of reach:", *(f"  {each}" for each in OUT_OF_REACH)])


class PersonVerbs(Verbs):
    """The verbs of ``lo`` that are about one person."""

    def reveal(self, *, reason: str) -> Job[Rows]:
        """The roster's names, here and in the rows of queries from now on; it goes on record, with the
        reason.

        Without it a notebook sees safe ids. Where there is no roster, there are no names.
        """
        if not isinstance(reason, str) or len(reason.strip()) < 3:
            raise LOError(f"reveal: expected a reason in words, as reason='consent forms', got {reason!r}")
        runtime = self._runtime

        async def work() -> Rows:
            from lo_kernel.query.rows import Rows

            names = await runtime.rosters.names()
            runtime.reads.act("reveal", learners=names, texts={"reason": reason})
            self._names = names
            return Rows({"student": student, "name": name} for student, name in names.items())

        return self._job("names", work())

    def export_student(self, student: str, path: str | PathLike[str] | None = None) -> Job[Path]:
        """All that is held of one learner (a safe id), in one JSON file, which its user alone can read.

        Profile, events, states, and what the record says of them. ``path`` is by default the id and
        ``.json``, beside the notebook. States that belong to several learners are not in it.
        """
        _check(self._runtime, student)
        record = getattr(getattr(self, "audit", None), "of", None)
        target = Path(path) if path is not None else Path(f"{student}.json")
        return self._job(f"export of {student}", export_student(self._runtime, student, target, record))

    def erase(self, student: str) -> Job[Erased]:
        """Remove a learner (a safe id) everywhere: events, states, names; it can't be undone.

        The archive's segments are written anew, with the numbers of their events kept; reducers run again
        over what is left, so that states of a class or a teacher are without them, too. On record the alias
        is nobody's any more, and texts that name them are deleted. Gives what was done, and what is out of
        reach.
        """
        _check(self._runtime, student)
        if not self._runtime.takes_events:
            raise NotOwnerError(
                "erase: the workspace belongs to another process, which alone can: run it there, or end that"
            )
        return self._job(f"erasing {student}", erase(self._runtime, student))


def _check(runtime: Runtime, student: str) -> None:
    if not isinstance(student, str) or student not in runtime.learners:
        some = ", ".join(list(runtime.learners)[:3]) or "nobody was seen yet"
        raise LOError(f"expected the safe id of a learner who was seen ({some}), got {student!r}")


async def export_student(runtime: Runtime, student: str, path: Path, record: Any = None) -> Path:
    """Write what is held of a learner to ``path``; on the app's loop."""
    from lo_kernel.engine.archive import Search, Senders

    learner = runtime.learners[student]
    profile = [row for row in await runtime.rosters.roster(names=True) if row["user_id"] == student]

    def events() -> list[Any]:
        found = runtime.archive.search(Search(learner=student), Senders())
        return [{"n": each.n, "t": each.t, "by": each.by, "body": each.body} for each, _ in found]

    keys = [key for key in await runtime.registry.keys("") if f"STUDENT:{student}" in key.split(",")]
    states = dict(zip(keys, await runtime.registry.read(keys), strict=True))
    data = {
        "learner": learner,
        "profile": profile[0]["profile"] if profile else {},
        "events": await asyncio.to_thread(events),
        "states": states,
        "record": [] if record is None else await asyncio.to_thread(record, student),
        "not_here": "states that belong to several learners, such as those of a class",
    }
    runtime.reads.act("export student", learners=[student])
    text = msgspec.json.format(msgspec.json.encode(data), indent=2)

    def write() -> None:
        path.touch(mode=0o600)
        path.write_bytes(text)

    await asyncio.to_thread(write)
    return path


async def erase(runtime: Runtime, student: str) -> Erased:
    """Remove a learner everywhere; on the app's loop, and only where events come in."""
    user_id = runtime.learners[student].user_id
    events, rejected = await runtime.archive.erase(student, user_id, time.time())
    paused = [row.id for row in list(runtime.registry.paused.values()) if row.id not in runtime.registry]
    for reducer_id in paused:
        await runtime.registry.remove(reducer_id)
    again = []
    for old in runtime.registry.all():
        if old.run is not None:
            old.run.code = ""  # as after a change of its code: all of the past runs through it again
        again.append(
            runtime.add_reducer(
                old.id,
                old.function,
                module=old.module,
                scope=old.scope,
                context=old.context,
                default=old.default,
            )
        )
    for registration in again:
        await registration.ready()
    await runtime.pipeline.commit()
    own = [key for key in await runtime.store.keys(0) if student in key]
    await runtime.store.remove(0, own)
    await runtime.learners.forget(student, runtime.store)
    await _checkpoint(runtime)
    texts = await asyncio.to_thread(runtime.reads.forget, student, [user_id])
    runtime.functions.touch(_ROSTER)
    runtime.reads.act("erase", events=events)
    return Erased(student, events, rejected, len(own), [each.id for each in again], paused, texts)


async def _checkpoint(runtime: Runtime) -> None:
    """Have nothing of it in SQLite's log: in the file, what was deleted is overwritten already."""
    path = getattr(runtime.store, "path", None)
    if path is None:
        return

    def checkpoint() -> None:
        import sqlite3

        connection = sqlite3.connect(path, timeout=5)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()

    await asyncio.to_thread(checkpoint)
