"""Erasing a learner: everywhere in the workspace, and what is out of reach said at the end.

Each step may be done twice, and is, where the first time was cut off (:mod:`lo_kernel.app.unfinished`).

``DELETE /webapi/learner/{safe_user_id}`` is for the command line, which asks the process that owns the
workspace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from lo_kernel.app.holding import asked_by, by_key, naming
from lo_kernel.app.security import ACCESS
from lo_kernel.app.unfinished import Unfinished, begin, known, tidy, unfinished
from lo_kernel.engine.archive import Search, Senders
from lo_kernel.engine.errorlog import ErrorEntry
from lo_kernel.engine.journal import journal_of, note_erased
from lo_kernel.engine.learners import Learners, mentions
from lo_kernel.engine.registration import Registration
from lo_kernel.engine.store import PLAIN
from lo_kernel.query.language import COURSE_ROSTER
from lo_kernel.runtime import Runtime

__all__ = ["OUT_OF_REACH", "Erased", "answer", "erase", "finish"]

OUT_OF_REACH: Final = (
    "the roster: while it lists them, they are shown without data",
    "files that were exported, and modules",
    "saved notebooks and their outputs, variables of a kernel that runs, and what it prints of them",
    "histories of what was typed: IPython's (history.sqlite in its profile's folder), a terminal's",
    "kernels that follow this workspace: they forget with their restart",
    "copies and backups of the workspace",
    "the source that the events came from: as long as it sends, they come again",
)

Named = Callable[[str], bool]
_SHOWN: Final = 20  # numbers of events that the report names
_NAME_WITHIN: Final = 10.0  # s that another process may be at the file of made-up names
_OLD_STATES: Final = 60.0  # s that the deletion of old states may take before the report says so


@dataclass(frozen=True)
class Erased:
    """What was erased of a learner, what is left all the same, and what is out of reach."""

    student: str
    events: int = 0
    rejected: int = 0
    aside: int = 0
    """Lines and blocks of segments that had been set aside as damaged."""
    states: int = 0
    reducers: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    texts: int = 0
    left: list[str] = field(default_factory=list)
    """What may still name them, and what to do."""

    def __repr__(self) -> str:
        counts = {
            "events": self.events,
            "rejected frames": self.rejected,
            "parts of damaged segments": self.aside,
            "values of the store": self.states,
            "texts on record": self.texts,
        }
        went = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "events")
        lines = [f"erased: {went}, the alias and the made-up name"]
        if self.reducers:
            lines.append(f"computed anew without them: {', '.join(self.reducers)}")
        if self.paused:
            lines.append(f"states deleted, made again when registered: {', '.join(self.paused)}")
        if self.left:
            lines += ["left, for you to see to:", *(f"  {each}" for each in self.left)]
        return "\n".join([*lines, "out of reach:", *(f"  {each}" for each in OUT_OF_REACH)])


async def answer(runtime: Runtime, request: web.Request) -> web.Response:
    """Erase whom the command line names; only with the notebook's own token, which no cookie is."""
    if request[ACCESS].by_cookie:
        return _json({"error": "erasing takes the notebook's own token, not a cookie"}, 403)
    student = request.match_info["safe_user_id"]
    if not known(runtime, student):
        return _json({"error": f"{student!r} is not the safe id of a learner who was seen here"}, 404)
    if not runtime.takes_events:
        return _json({"error": "this app follows its workspace; its owner alone can erase"}, 421)
    # to its end, also where the command line is gone meanwhile
    work = asyncio.get_running_loop().create_task(erase(runtime, student, asked=asked_by(request)))
    return _json(asdict(await asyncio.shield(work)))


async def erase(runtime: Runtime, student: str, **asked: Any) -> Erased:
    """Remove a learner everywhere; on the app's loop, and only where events come in.

    ``asked={"user": ..., "at": ...}`` says who asks for it and from where, if that isn't the request at hand.
    Where it fails or is cut off, it goes on with the next try, or the next start (:func:`finish`).
    """
    async with runtime.erasing:
        done = await _erase(runtime, await begin(runtime, student, asked))
    await finish(runtime)
    return done


async def finish(runtime: Runtime) -> None:
    """Finish the erasures that were cut off; what keeps one from it is told in ``lo.errors``."""
    if not runtime.takes_events:
        return
    async with runtime.erasing:
        for begun in unfinished(runtime.workspace.path):
            try:
                await _erase(runtime, begun)
            except Exception as error:
                runtime.errors.add("erasing a learner, which was cut off", error)
        tidy(runtime.workspace.path)


async def _erase(runtime: Runtime, begun: Unfinished) -> Erased:
    student, user_id, now = begun.student, begun.user_id, time.time()
    named = mentions([each for each in begun.called if each not in (student, user_id)], [student, user_id])
    left: list[str] = []
    before = await _begun(runtime, student)
    events, rejected = await runtime.archive.erase(student, user_id, now, runtime.pipeline.streams.written)
    aside, unread = await asyncio.to_thread(_damaged, runtime, student, user_id, now)
    left += [
        f"{path}: {what} can't be read and may be theirs; the rest is in the archive: delete that file"
        for path, what in unread
    ]
    left += await asyncio.to_thread(_events_of_others, runtime, [student, user_id], named)
    again, paused, failed = await _anew(runtime)
    left += [f"the states of {each}, which could not be computed anew: see lo.errors" for each in failed]
    await runtime.pipeline.commit()
    own = await _own_values(runtime, named, left)
    await _forget(runtime, student, before)
    await _old_states(runtime, left)
    await _checkpoint(runtime, left)
    await _forget_name(runtime, student)
    runtime.rosters.notebook_names.forget(student)
    for entry in await asyncio.to_thread(_errors_naming, runtime, named):
        runtime.errors.drop(entry)
    left += await asyncio.to_thread(_files_left, runtime.workspace.path, named)
    texts = await asyncio.to_thread(runtime.reads.forget, student, named)
    runtime.functions.touch(COURSE_ROSTER)
    runtime.reads.act("erase", events=events, **begun.asked)
    begun.end()
    return Erased(student, events, rejected, aside, own, [each.id for each in again], paused, texts, left)


async def _begun(runtime: Runtime, student: str) -> int:
    """Have no file that is known here bring them back, and no count of a stream go back with what they sent.

    Gives the number of the newest event by now.
    """
    await asyncio.to_thread(note_erased, journal_of(runtime.workspace.path), student)
    runtime.replays.leave_out(student)
    await runtime.pipeline.streams.keep(runtime.store)
    return runtime.archive.last


async def _forget(runtime: Runtime, student: str, before: int) -> None:
    """Know them no more, but for events that came meanwhile, with a number above ``before``."""
    archive, pipeline = runtime.archive, runtime.pipeline
    async with pipeline.committing:
        counted = pipeline.routed
        await runtime.learners.forget(student, runtime.store)
    archive.write()

    def later() -> Learners:
        found = Learners()
        for record, sender in archive.search(Search(learner=student), Senders(), before):
            if record.n <= counted:
                found.seen(sender.identity, record.t)
        return found

    if found := await asyncio.to_thread(later):
        runtime.learners.join(found)


async def _forget_name(runtime: Runtime, student: str) -> None:
    """Delete the made-up name; ``TimeoutError`` where another process is at the file all the time."""
    end = time.monotonic() + _NAME_WITHIN
    while True:
        try:
            runtime.made_up.forget(student)
            return
        except TimeoutError:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.005)


def _events_of_others(runtime: Runtime, ids: list[str], named: Named) -> list[str]:
    """Events that another learner, or a teacher, has sent, and that name them."""
    needles = [each.encode() for each in ids]
    numbers = [
        record.n
        for record in runtime.archive.read()
        if any(needle in bytes(record.body) for needle in needles)
        and named(bytes(record.body).decode("utf-8", "replace"))
    ]
    if not numbers:
        return []
    some = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
    return [f"events that others have sent, which name them: {len(numbers):,} (number {some})"]


def _damaged(runtime: Runtime, student: str, user_id: str, now: float) -> tuple[int, list[tuple[Path, str]]]:
    from lo_kernel.engine.archive.erasing import erase_from_damaged

    gone, unread = erase_from_damaged(runtime.archive.folder / "damaged", student, user_id, now)
    # a store's file that was set aside holds states as they were; all of them can be made anew
    stores = sorted(runtime.workspace.path.glob("states.sqlite.damaged-*"))
    return gone, [*unread, *((path, "the states in it") for path in stores)]


async def _anew(runtime: Runtime) -> tuple[list[Registration], list[str], list[str]]:
    """Run all reducers over what is left: those that did, those without code here, those that failed."""
    paused = [row.id for row in list(runtime.registry.paused.values()) if row.id not in runtime.registry]
    for reducer_id in paused:
        await runtime.registry.remove(reducer_id)
    started = []
    for old in runtime.registry.all():
        if old.run is None and old.status in ("cancelled", "failed"):
            continue  # it has no states, and would go again where somebody has stopped it
        if old.run is not None:
            old.run.code = ""  # as after a change of its code: all of the past runs through it again
        started.append(
            runtime.add_reducer(
                old.id,
                old.function,
                module=old.module,
                scope=old.scope,
                context=old.context,
                default=old.default,
                release=_release_of(runtime, old),
            )
        )
    again, failed = [], []
    for registration in started:
        try:
            await registration.ready()
            again.append(registration)
        except Exception as error:  # the others' states are not to wait for it
            runtime.errors.add(f"reducer '{registration.id}'", error)
            failed.append(registration.id)
    return again, paused, failed


def _release_of(runtime: Runtime, registration: Registration) -> str:
    """The version of the module that a reducer is from, which counts as its code does; empty for others."""
    module = runtime.modules.get(registration.module)
    return module.version if module is not None and registration.id in module.reducers else ""


async def _own_values(runtime: Runtime, named: Named, left: list[str]) -> int:
    """Delete values of one's own whose key names a learner; those that name one inside are told."""
    keys = await runtime.store.keys(PLAIN)
    own, rest = await asyncio.to_thread(by_key, keys, named)
    await runtime.store.remove(PLAIN, own)
    texts = await runtime.store.get_many(PLAIN, rest)
    for key in await asyncio.to_thread(naming, rest, texts, named):
        left.append(f"the value {key!r} of the store, which names them: set it anew, with lo.kvs.set")
    return len(own)


async def _old_states(runtime: Runtime, left: list[str]) -> None:
    """Wait until those that were computed before are gone: they are deleted beside the loop."""
    store, end = runtime.store, time.monotonic() + _OLD_STATES
    while True:
        kept = {row.generation for row in await store.rows()}
        if not [each for each in await store.generations() if each > PLAIN and each not in kept]:
            return
        if time.monotonic() > end:
            left.append(
                "states as they were before, which are still being deleted: look again with a restart"
            )
            return
        await asyncio.sleep(0.02)


def _errors_naming(runtime: Runtime, named: Named) -> list[ErrorEntry]:
    return [
        entry
        for entry in runtime.errors
        if named(
            " ".join((entry.where, entry.message, *entry.other_messages, entry.traceback, repr(entry.event)))
        )
    ]


def _files_left(workspace: Path, named: Named) -> list[str]:
    """Files of the workspace, beside those that were seen to, in which a learner is named."""
    found = []
    for folder in ("logs", "injected"):
        for path in sorted((workspace / folder).rglob("*")):
            if path.is_file() and named(path.read_text("utf-8", "replace")):
                found.append(f"{path}, which names them: delete it, or what it says of them")
    return found


async def _checkpoint(runtime: Runtime, left: list[str]) -> None:
    """Have nothing of it in SQLite's log: in the file, what was deleted is overwritten already."""
    path = getattr(runtime.store, "path", None)
    if path is None:
        return

    def checkpoint() -> bool:
        import sqlite3

        connection = sqlite3.connect(path, timeout=5)
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        finally:
            connection.close()

    if not await asyncio.to_thread(checkpoint):
        left.append(f"{path}-wal, which another program reads: it is emptied when the last one closes it")


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
