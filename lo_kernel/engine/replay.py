"""Replay: the events of files into the archive, and so through the reducers.

Each record is known by the digest of its file's content and its number in it: the sender's mark has the
one, the archive's line (``s``) the other. What the archive holds of a file is found in its indexes, so a
replay that was cancelled, or cut off by a crash, goes on where it was, and a second one adds nothing. So does
one of what was exported from here: the journal says which event each of its records is. A log that has
grown since begins with what it was: its old part is recognised, and the new part added.

Who was erased doesn't come back with a file that was known before, unless they are asked for by name. With
one that wasn't known they do, and the report says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.archive.marks import merged as merged_ranges
from lo_kernel.engine.events import Arrival
from lo_kernel.engine.files import Deadline, EventFile, Paths, check_files, grouped, merged
from lo_kernel.engine.formats import Fingerprint, Format, fingerprint
from lo_kernel.engine.journal import Journal, held_records, journal_of
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.replays import Replays
from lo_kernel.engine.report import ReplayReport
from lo_kernel.engine.turns import give_way
from lo_kernel.errors import EventError, NotOwnerError
from lo_kernel.workspace import Workspace

__all__ = ["ReplayInto", "ReplayReport", "check_replay", "replay"]

_AT_ONCE = 50  # events taken in one step
_TELL_EVERY = 0.1  # seconds between two calls of `on_progress`


class ReplayInto(Protocol):
    """The parts that a replay needs; a runtime has them."""

    archive: Archive
    pipeline: Pipeline
    workspace: Workspace
    replays: Replays


def check_replay(
    runtime: ReplayInto,
    paths: Paths,
    *,
    format: str = "auto",
    learner: str | None = None,
    limit: int | None = None,
    source: str | None = None,
) -> list[tuple[Path, type[Format]]]:
    """Check the arguments of :func:`replay` without doing anything; gives the files and their formats.

    Raises :class:`~lo_kernel.errors.NotOwnerError` in a process that follows another's workspace, and
    :class:`~lo_kernel.errors.EventError` where an argument or a file can't be used.
    """
    if not runtime.workspace.owner:
        owner = runtime.workspace.find_owner()
        if owner is None and not runtime.workspace.is_owned():
            raise NotOwnerError(
                f"the process that owned the workspace {runtime.workspace.path} has ended, so no events go "
                "in: take it over with await lo.own(), and replay then"
            )
        who = f"process {owner.pid}, which answers at {owner.url}" if owner else "another process"
        raise NotOwnerError(
            f"the workspace {runtime.workspace.path} belongs to {who}: events go in there. Replay there, or "
            "use a workspace of your own"
        )
    found = check_files(paths, format, learner=learner, limit=limit, source=source)
    own = runtime.archive.folder.resolve()
    for path, _ in found:
        if own in path.resolve().parents:
            raise EventError(
                f"{path} is a part of this workspace's own archive: its events are here already",
                reason="own_archive",
            )
    return found


async def replay(
    runtime: ReplayInto,
    paths: Paths,
    *,
    format: str = "auto",
    learner: str | None = None,
    limit: int | None = None,
    source: str | None = None,
    on_progress: Callable[[ReplayReport], None] | None = None,
) -> ReplayReport:
    """Put the events of files into the archive, and so through the reducers; what is held is skipped.

    ``learner`` (a safe id) takes that learner's events alone, ``limit`` the first so many, held ones
    counted. ``source`` is the context of events that name none. Several files are merged by the times of
    their events. Never ends at a bad record: the report says where they are. The events are on disk when it
    returns; cancelled, it goes on where it was when it is called again.
    """
    found = check_replay(runtime, paths, format=format, learner=learner, limit=limit, source=source)
    report = ReplayReport(files=[str(path) for path, _ in found])
    report.total = sum(path.stat().st_size for path, _ in found)
    archive, pipeline, replays = runtime.archive, runtime.pipeline, runtime.replays
    files: list[EventFile] = []
    with contextlib.ExitStack() as stack:
        deadline = Deadline()
        erased = stack.enter_context(replays.going())
        async with replays.preparing:
            journal = await asyncio.to_thread(Journal, journal_of(archive.folder.parent))
            prints = await _prints([path for path, _ in found], journal, replays)
            for what in prints:
                replays.digests.add(what.digest)
                stack.callback(replays.digests.discard, what.digest)
            await asyncio.to_thread(journal.replayed, prints, report.files)
        erasures = _Erasures(journal, prints, erased, learner, report)
        for (path, kind), what in zip(found, prints, strict=True):
            if archive.unwritten:
                archive.write()
            digests = _relatives(what, journal)
            held = await asyncio.to_thread(archive.ordinals, *(f"file:{digest}" for digest in digests))
            own = [run for digest in (what.digest, *what.grown_from) for run in journal.own.get(digest, ())]
            if own:  # an export of this archive
                first, last = min(run[1] for run in own), max(run[1] + run[2] - 1 for run in own)
                numbers = await asyncio.to_thread(archive.numbers, first, last)
                held = merged_ranges([*held, *held_records(own, numbers)])
            format_ = kind(mark={"file": what.digest}, source=source, time=path.stat().st_mtime)
            files.append(EventFile(path, format_, report, deadline, held, learner))
            stack.callback(files[-1].close)
        try:
            await _feed(pipeline, files, report, deadline, limit, erasures, on_progress)
        finally:
            report.done = sum(file.bytes.read for file in files)
            pipeline.wake()
        await pipeline.sync()
    report.ended = perf_counter()
    if on_progress is not None:
        on_progress(report)
    return report


async def _prints(paths: Sequence[Path], journal: Journal, replays: Replays) -> list[Fingerprint]:
    """What the files are; :class:`EventError` where one's content is going in already, or twice."""
    known = {length: set(digests) for length, digests in journal.known.items()}
    prints: dict[Path, Fingerprint] = {}
    # from the smallest on, as a rule: what another one has grown from is known then
    for path in sorted(paths, key=lambda path: path.stat().st_size):
        what = prints[path] = await asyncio.to_thread(fingerprint, path, known)
        known.setdefault(what.length, set()).add(what.digest)
    for place, path in enumerate(list(prints)):
        if any(other.length < prints[path].length for other in list(prints.values())[place + 1 :]):
            prints[path] = await asyncio.to_thread(fingerprint, path, known)  # a compressed one
    seen: dict[str, Path] = {}
    for path in paths:
        what = prints[path]
        if what.digest in seen:
            raise EventError(
                f"{path} and {seen[what.digest]} have the same content: leave one of them out",
                reason="twice",
            )
        seen[what.digest] = path
    for path, what in prints.items():
        for part in set(what.grown_from) & seen.keys():
            raise EventError(
                f"{path} begins with all that {seen[part]} has: leave {seen[part]} out", reason="twice"
            )
        if what.digest in replays.digests:
            raise EventError(f"the content of {path} is being replayed already", reason="already_replaying")
        if not replays.digests.isdisjoint(_relatives(what, journal)):
            raise EventError(
                f"{path}, or an earlier or later state of that file, is being replayed already: replay it "
                "once that has ended",
                reason="already_replaying",
            )
    return [prints[path] for path in paths]


def _relatives(what: Fingerprint, journal: Journal) -> list[str]:
    """The contents whose records have the same numbers: its own, earlier ones, and what it has grown to."""
    return [what.digest, *what.grown_from, *journal.grown.get(what.digest, ())]


class _Erasures:
    """Which of a replay's events are of learners who were erased: earlier, or since it began."""

    def __init__(
        self,
        journal: Journal,
        prints: Sequence[Fingerprint],
        since: set[str],
        learner: str | None,
        report: ReplayReport,
    ) -> None:
        self._journal = journal
        self._digests = {what.digest: (what.digest, *what.grown_from) for what in prints}
        self._since = since
        self._learner = learner
        self._report = report
        self._left_out: dict[tuple[str, str], bool] = {}

    def __bool__(self) -> bool:
        return bool(self._journal.salts or self._since)

    def without(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Those that may go in; the report has who was left out, and who is back."""
        kept = []
        for arrival in arrivals:
            sender = arrival[0]
            key = sender.student, sender.mark["file"]
            left_out = self._left_out.get(key)
            if left_out is None:
                left_out = self._left_out[key] = self._is_left_out(*key)
            if left_out or sender.student in self._since:
                self._report.erased += 1
            else:
                kept.append(arrival)
        return kept

    def _is_left_out(self, student: str, digest: str) -> bool:
        if student != self._learner and self._journal.erased_since(student, self._digests[digest]):
            return True
        if student not in self._report.back and self._journal.was_erased(student):
            self._report.back.append(student)
        return False


async def _feed(
    pipeline: Pipeline,
    files: list[EventFile],
    report: ReplayReport,
    deadline: Deadline,
    limit: int | None,
    erasures: _Erasures,
    on_progress: Callable[[ReplayReport], None] | None,
) -> None:
    if len(files) > 1:
        batches = grouped(merged(files), files, _AT_ONCE, limit)
    elif limit is None and files[0].learner is None and files[0].format.takes:
        batches = files[0].arrivals(_AT_ONCE)
    else:
        # what is held can be passed over unread, unless it has to be counted
        early = limit is None and files[0].learner is None
        batches = grouped(files[0].events(early=early), files, _AT_ONCE, limit)
    tell_at = 0.0
    for batch in batches:
        # from here to where they are taken there is no pause in which somebody could be erased
        arrivals = erasures.without(batch) if erasures else batch
        if arrivals:
            report.events += len(arrivals)
            pipeline.take_many(arrivals, later=True)
            if pipeline.full:
                await pipeline.room()
                deadline.renew()
        if perf_counter() > deadline.at:
            report.done = sum(file.bytes.read for file in files)
            if on_progress is not None and perf_counter() > tell_at:
                tell_at = perf_counter() + _TELL_EVERY
                on_progress(report)
            await give_way()
            deadline.renew()
