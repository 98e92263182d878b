"""Replay: the events of files into the archive, and so through the reducers.

Each record is known by the digest of its file's content and its number in it: the sender's mark has the
one, the archive's line (``s``) the other. What the archive holds of a file is found in its indexes, so a
replay that was cancelled, or cut off by a crash, goes on where it was, and a second one adds nothing. So does
one of what was exported from here: the journal says which event each of its records is. A log that has
grown since begins with what it was: its old part is recognised, and the new part added.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Protocol

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.archive.marks import merged as merged_ranges
from lo_kernel.engine.files import Deadline, EventFile, Paths, check_files, grouped, merged
from lo_kernel.engine.formats import Fingerprint, Format, fingerprint
from lo_kernel.engine.journal import Journal, held_records, journal_of
from lo_kernel.engine.pipeline import Pipeline
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
    archive, pipeline = runtime.archive, runtime.pipeline
    files: list[EventFile] = []
    prints: list[Fingerprint] = []
    with contextlib.ExitStack() as stack:
        deadline = Deadline()
        journal = await asyncio.to_thread(Journal, journal_of(archive.folder.parent))
        for path, kind in found:
            what = await asyncio.to_thread(fingerprint, path, journal.known)
            if what.digest in archive.replaying:
                raise EventError(
                    f"the content of {path} is being replayed already", reason="already_replaying"
                )
            archive.replaying.add(what.digest)
            stack.callback(archive.replaying.discard, what.digest)
            prints.append(what)
            if archive.unwritten:
                archive.write()
            marks = [f"file:{digest}" for digest in (what.digest, *what.grown_from)]
            held = await asyncio.to_thread(archive.ordinals, *marks)
            own = [run for digest in (what.digest, *what.grown_from) for run in journal.own.get(digest, ())]
            if own:  # an export of this archive
                numbers = await asyncio.to_thread(archive.numbers)
                held = merged_ranges([*held, *held_records(own, numbers)])
            format_ = kind(mark={"file": what.digest}, source=source, time=path.stat().st_mtime)
            files.append(EventFile(path, format_, report, deadline, held, learner))
            stack.callback(files[-1].close)
        await asyncio.to_thread(journal.replayed, prints, report.files)
        try:
            await _feed(pipeline, files, report, deadline, limit, on_progress)
        finally:
            report.done = sum(file.bytes.read for file in files)
            pipeline.wake()
        await pipeline.sync()
    report.ended = perf_counter()
    if on_progress is not None:
        on_progress(report)
    return report


async def _feed(
    pipeline: Pipeline,
    files: list[EventFile],
    report: ReplayReport,
    deadline: Deadline,
    limit: int | None,
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
    for arrivals in batches:
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
