"""Events out of the archive, into files: study logs as the field has them, or JSON lines.

``*.study.log`` (or any ``*.log``) is the deployed system's format; ``*.jsonl`` has one event a line, as a
reducer gets it, or its body alone, without who sent it. ``.gz`` or ``.zst`` at the end compresses.
"""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import IO, Any, Final

import msgspec

from lo_kernel.engine.archive import Archive, Search, Senders
from lo_kernel.engine.events import Event
from lo_kernel.engine.formats import study_line
from lo_kernel.engine.journal import Exported, journal_of
from lo_kernel.errors import ArchiveError

__all__ = ["IDENTIFYING", "check_export", "export_events", "shared_body"]

IDENTIFYING: Final = ("auth", "user_id", "user_tag", "chrome_identity", "hash")
"""Fields of a body by which a client says who it is."""

_SLICE: Final = 0.004  # seconds that it holds the loop at a time
_encode = msgspec.json.Encoder().encode


def shared_body(body: dict[str, Any]) -> dict[str, Any]:
    """A body as it can be shared: without the fields by which a client says who it is.

    >>> shared_body({"event": "x", "user_id": "u0", "score": 3})
    {'event': 'x', 'score': 3}
    """
    return {name: value for name, value in body.items() if name not in IDENTIFYING}


def check_export(path: str | os.PathLike[str], *, identity: bool = True) -> Path:
    """The path of an export; :class:`~lo_kernel.errors.ArchiveError` says which names there are."""
    target = Path(path).expanduser()
    name = target.name.removesuffix(".gz").removesuffix(".zst")
    if not name.endswith((".log", ".jsonl")):
        raise ArchiveError(
            f"expected a name that ends with .study.log or .jsonl (and .gz or .zst), got {target.name!r}"
        )
    if not identity and not name.endswith(".jsonl"):
        raise ArchiveError("a study log says who sent each event: without identity, export to .jsonl")
    if not target.parent.is_dir():
        raise ArchiveError(f"the folder {target.parent} is not there")
    return target


async def export_events(
    archive: Archive,
    path: str | os.PathLike[str],
    *,
    search: Search | None = None,
    wanted: Callable[[Event], bool] | None = None,
    identity: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    on_learner: Callable[[str], object] | None = None,
) -> int:
    """Write events to a file, whole or not at all; gives how many.

    ``search`` and ``wanted`` choose them; without ``identity`` there are bodies alone. ``on_progress`` gets
    the number of the event at hand and of the last one.
    """
    target = check_export(path, identity=identity)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    as_log = target.name.removesuffix(".gz").removesuffix(".zst").endswith(".log")
    senders, count, pause = Senders(), 0, perf_counter() + _SLICE
    search = search if search is not None else Search()
    last, exported = archive.last, Exported()
    try:
        with ExitStack() as stack:
            file = _writer(stack, temporary, target.suffix)
            for record, sender in archive.search(search, senders):
                if perf_counter() > pause:
                    if on_progress is not None:
                        on_progress(record.n, last)
                    await asyncio.sleep(0)
                    pause = perf_counter() + _SLICE
                body = msgspec.json.decode(record.body)
                if search.context is not None and sender.context(body) != search.context:
                    continue
                bare = shared_body(body) if not identity else None
                event = sender.event(body, record.t)
                if wanted is not None and not wanted(event):
                    continue
                if on_learner is not None:
                    on_learner(sender.student)
                if bare is not None:
                    line = _encode(bare) + b"\n"
                else:
                    line = study_line(event) if as_log else _encode(event) + b"\n"
                file.write(line)
                exported.add(line, record.n)
                count += 1
        await asyncio.to_thread(temporary.replace, target)
        try:  # also from a process that follows: the owner reads the journal at each replay
            await asyncio.to_thread(exported.note, journal_of(archive.folder.parent), target.name)
        except OSError as error:
            archive.errors.add(
                "export",
                f"{target} is whole, and could not be noted in this workspace ({error}): replayed here, its "
                "events would count twice",
                kind="NotNoted",
            )
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _writer(stack: ExitStack, path: Path, suffix: str) -> IO[bytes]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    file: Any = stack.enter_context(os.fdopen(descriptor, "wb"))
    if suffix == ".gz":
        file = stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
    elif suffix == ".zst":
        from zstandard import ZstdCompressor

        file = stack.enter_context(ZstdCompressor().stream_writer(file, closefd=False))
    return file  # type: ignore[no-any-return]
