"""``offline`` and ``incoming_student_event``: events from files and lists, through the archive.

What the field runs through a reducer and keeps in a store of its own goes into the archive here, under the
learner and the context that are given, and so through the reducers. A reducer that changes sees it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lo_kernel.engine.events import Identity, Sender
from lo_kernel.engine.formats.base import LATEST
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.engine.registration import Registration
from lo_kernel.errors import EventError, LOError, ReducerError

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["incoming_student_event", "offline", "pipeline_of"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_TIME = re.compile(rb"\t[0-9T:.+\-]+Z?\s*$")  # what a study log appends to each line
_STUDY_LOG = re.compile(r"\.study\.log(\.gz)?$")
_GZIP = b"\x1f\x8b"


def offline(field: Field) -> dict[str, Any]:
    """``offline``."""

    def init(settings: Mapping[str, Any] | None = None) -> None:
        """Take settings of modules; the app runs already."""
        if settings is not None:
            field.settings.clear()
            field.settings.update(settings)

    async def process_file(
        file_path: str | None = None,
        events_list: Sequence[Any] | None = None,
        source: str | None = None,
        userid: str | None = None,
        pipeline: Any = None,
    ) -> tuple[int, str, str]:
        """Take the events of a file (or a list) as those of one learner; gives how many, context, learner.

        A study log (gzipped or not) or a log of one JSON object per line. ``source`` is that of the first
        event where it isn't given, ``userid`` is made up. With a ``pipeline``, that reducer gets them, under
        whatever context it is registered; one that isn't registered is, for ``source``. The same file for
        the same learner again adds nothing.
        """
        if (file_path is None) == (events_list is None):
            raise AttributeError("process_file: expected file_path or events_list, one of them")
        if file_path is not None:
            data = await asyncio.to_thread(Path(file_path).read_bytes)
            events: Iterable[Any] = _lines(data, file_path)
            mark = hashlib.sha256(data).hexdigest()
        else:
            events, mark = list(events_list or ()), secrets.token_hex(16)
        return await field.bridge.run(_process(field, list(events), mark, source, userid, pipeline))

    async def process_files(files: Iterable[str]) -> int:
        """All events of several files, each file for a learner of its own; gives how many."""
        return sum([(await process_file(file_path=str(path)))[0] for path in files])

    async def process_dir(path: str) -> tuple[int, int]:
        """The study logs of a folder; gives how many files, and how many events."""
        files = await asyncio.to_thread(_study_logs, path)
        return len(files), await process_files(files)

    async def reset() -> None:
        """Begin with empty states; events stay archived."""
        from lo_kernel.compat.storing import FieldStore

        await FieldStore(field).clear()

    async def default_aggregation(function: Any) -> dict[str, Any]:
        """The states of one reducer, a row for each learner."""
        registration = field.registration_of(function)
        if registration is None:
            raise ReducerError(f"{function!r} is not registered")
        rows = await field.bridge.run(field.runtime.executor.rows(registration.id))
        return {"student_data": list(rows)}

    return {
        "default_aggregation": default_aggregation,
        "init": init,
        "process_dir": process_dir,
        "process_file": process_file,
        "process_files": process_files,
        "reset": reset,
    }


def incoming_student_event(field: Field) -> dict[str, Any]:
    """``incoming_student_event``."""

    async def student_event_pipeline(metadata: Mapping[str, Any]) -> Callable[[Any], Awaitable[None]]:
        """What takes events of one learner (``metadata["auth"]``) and context (``metadata["source"]``)."""
        source, userid = metadata["source"], _user_of(metadata)

        async def pipeline(event: Any) -> None:
            mark = secrets.token_hex(16)
            await field.bridge.run(_process(field, [event], mark, source, userid, None))

        return pipeline

    return {"student_event_pipeline": student_event_pipeline}


async def pipeline_of(field: Field, reducer: Any, metadata: Mapping[str, Any]) -> Callable[..., Any]:
    """What a reducer gives that is called with metadata: a function that takes events."""
    userid = _user_of(metadata)

    async def process_event(event: Any, event_fields: Any = None) -> Any:
        """Let the reducer have an event; gives its external state."""
        mark = secrets.token_hex(16)
        await field.bridge.run(_process(field, [event], mark, metadata.get("source"), userid, reducer))
        key = f"External,{declaration_of(reducer).key_name},STUDENT:{userid}"
        await field.bridge.run(field.runtime.pipeline.commit())
        return (await field.bridge.run(field.runtime.registry.read([key])))[0]

    return process_event


def _study_logs(folder: str) -> list[str]:
    return [str(each) for each in sorted(Path(folder).iterdir()) if _STUDY_LOG.search(each.name)]


def _user_of(metadata: Mapping[str, Any] | None) -> str:
    auth = (metadata or {}).get("auth") or {}
    return str(auth.get("safe_user_id") or auth.get("user_id") or "[guest]")


def _lines(data: bytes, name: str) -> Iterator[Any]:
    if data.startswith(_GZIP):
        import gzip

        data = gzip.decompress(data)
    for number, line in enumerate(data.split(b"\n"), 1):  # an event may hold a carriage return
        if not line.strip():
            continue
        text = _TIME.sub(b"", line)
        try:
            yield _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EventError(
                f"{name}, line {number}: expected a JSON object, in a study log with a tab and a time behind "
                f"it: {error}",
                reason="not_json",
            ) from None


async def _process(
    field: Field, events: list[Any], mark: str, source: str | None, userid: str | None, pipeline: Any
) -> tuple[int, str, str]:
    runtime = field.runtime
    if not runtime.takes_events:
        raise LOError("another process owns this workspace: events come in there")
    if source is None:
        if not events:
            raise ValueError("process_file: there is no event to take the source from; give source=...")
        source = _source_of(events[0])
    userid = userid or f"learner-{secrets.token_hex(3)}"
    registration = _registered(field, pipeline, source) if pipeline is not None else None
    if registration is not None:
        await registration.ready()
    failed = registration.errors if registration is not None else 0
    context = registration.context if registration is not None else source
    file = hashlib.sha256(f"{mark}\n{userid}\n{context}".encode()).hexdigest()
    if runtime.archive.unwritten:
        runtime.archive.write()
    held = runtime.archive.ordinals(f"file:{file}")
    feed = _Feed(runtime, Identity(userid, userid, "offline", "none"), context, file)
    for number, event in enumerate(events, 1):
        if not any(start <= number <= end for start, end in held):
            await feed.take(event, number)
    await runtime.pipeline.sync()
    await feed.folded()
    if registration is not None and registration.errors > failed:
        raise ReducerError(
            f"the reducer {registration.id!r} failed at {registration.errors - failed} of {len(events)} "
            f"events: {registration.last_error}. lo.errors has the tracebacks"
        )
    return len(events), source, userid


def _source_of(event: Any) -> str:
    client = event.get("client", event) if isinstance(event, dict) else {}
    source = client.get("source")
    if not isinstance(source, str):
        raise ValueError("process_file: the first event names no source; give source=...")
    return source


def _registered(field: Field, reducer: Any, source: str) -> Registration:
    found = field.registration_of(reducer)
    if found is not None:
        return found
    return field.add({"function": reducer, "context": source, "module": "offline"})


class _Feed:
    """Puts events of one learner and file into the archive."""

    def __init__(self, runtime: Any, identity: Identity, context: str, file: str) -> None:
        self.runtime = runtime
        self.identity = identity
        self.context = context
        self.mark = {"file": file}
        self.last = 0
        self._senders: dict[bytes, Sender] = {}

    async def take(self, event: Any, number: int) -> None:
        """Take one: as it is in a study log, or its client's part alone."""
        if not isinstance(event, dict):
            raise EventError(
                f"process_file, event {number}: expected an object, got {type(event).__name__}",
                reason="not_an_object",
            )
        whole = isinstance(event.get("client"), dict)
        body = dict(event["client"] if whole else event)
        body.pop("auth", None)
        server = dict(event.get("server") or {}) if whole else {}
        time = server.pop("time", None)
        meta = dict(event.get("metadata") or {}) if whole else {}
        meta.pop("auth", None)
        # its own source holds unless the reducer that is to get it hears another context
        lock = {"source": self.context} if body.get("source", self.context) != self.context else {}
        key = _encode([server, meta, lock])
        sender = self._senders.get(key)
        if sender is None:
            sender = Sender(self.identity, self.context, server, lock, meta, self.mark)
            self._senders[key] = sender
        known = isinstance(time, int | float) and 0 <= time < LATEST
        at = float(time) if known else self.runtime.clock()
        self.last = await self.runtime.pipeline.accept(sender, body, _encode(body), at, number)

    async def folded(self) -> None:
        """Wait until all of it is in the states."""
        while self.runtime.pipeline.low < self.last:  # noqa: ASYNC110 - nothing tells of single events
            await asyncio.sleep(0.005)
