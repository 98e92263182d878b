"""``lo.events``: the archive as a notebook sees it."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from lo_kernel.engine.archive import Search, Senders
from lo_kernel.engine.archive.counting import EventCounter
from lo_kernel.engine.events import Event
from lo_kernel.engine.run.interrupting import interruptible
from lo_kernel.engine.turns import Turns
from lo_kernel.errors import EventError

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.jobs import Job
    from lo_kernel.runtime import Runtime

__all__ = ["Events"]

Moment = datetime | str | float | None

_NEWEST = 2000  # events whose contexts a note names
_KINDS = 20  # names of events that are remembered for one
_SHOWN = 8  # names in one
_NO_EVENT = {"n": 0, "time": 0.0, "learner": "", "source": "", "event": ""}  # for the columns alone
_A_DATE = (-62_135_596_800, 253_402_300_799)  # seconds since 1970 of the years 1 to 9999
_NEEDED = (("n",), ("server", "time"), ("client", "auth", "safe_user_id"))  # what a row of a frame is made of
_AT_ONCE = 1000  # events that a thread reads before the loop looks at them: 2 ms or so


class Events:
    """The events so far, oldest first; each as a reducer gets it, with its archive number under ``"n"``.

    ``lo.events.count()``, ``lo.events.tail(5)``, ``lo.events.filter(learner=..., context=..., event=...)``,
    ``lo.events.to_frame()``, ``lo.events.export("class.study.log.gz")``. An event is here a moment (at most
    50 ms) after it was accepted. What is asked for of one learner, one context or some hours is found by the
    archive's index.

    These give their result at once: the cell is busy until they have read it, and so is an app on its loop,
    a second and more for each million events. ``await lo.events.read(...)`` reads the same while the app goes
    on.
    """

    def __init__(self, runtime: Runtime, bridge: LoopBridge | None = None) -> None:
        self._runtime = runtime
        self._bridge = bridge
        self._counter = EventCounter(runtime.archive.folder)

    def count(
        self,
        *,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        since: Moment = None,
        until: Moment = None,
    ) -> int:
        """How many there are, all of them or those that :meth:`filter` would give.

        Where there are none since nobody and nothing is called as was asked, a warning says what there is.
        """
        if all(each is None for each in (learner, context, event, where, since, until)):
            return self._runtime.archive.last - self._counter.missing()
        kinds: dict[str, None] = {}
        search = _search(learner, context, since, until)
        found = sum(1 for _ in self._chosen(search, _wanted(event, where, kinds)))
        if not found:
            self._warn(search, event, kinds, stacklevel=3)
        return found

    def tail(self, n: int = 10) -> list[Event]:
        """The newest ``n``, oldest of them first."""
        if not isinstance(n, int) or n < 0:
            raise EventError(f"n: expected a number from 0 on, got {_given(n)}", reason="bad_argument")
        senders = Senders()
        found = []
        for record in self._runtime.archive.tail(n):
            sender = senders.of(record)
            found.append({"n": record.n, **sender.event(msgspec.json.decode(record.body), record.t)})
        self._note({item["client"]["auth"]["safe_user_id"] for item in found})
        return found

    def filter(
        self,
        *,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Those of a learner (safe id), a context, a kind (the body's ``event``), a time, or as you say.

        ``since`` and ``until`` (itself left out) are a ``datetime``, an ISO text, or seconds since 1970;
        without a zone they are UTC. ``where`` is asked with each event that the others let through; ``limit``
        ends the search early. ``context`` is the event's ``source``; a field ``context`` of its body, as
        xAPI statements have, is another thing. Where there are none since nobody and nothing is called as was
        asked, a warning says what there is.
        """
        return self._filter(learner, context, event, where, since, until, limit)

    def _filter(
        self,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int | None = None,
    ) -> list[Event]:
        _check_limit(limit)
        kinds: dict[str, None] = {}
        search = _search(learner, context, since, until)
        chosen = self._chosen(search, _wanted(event, where, kinds))
        found = list(islice(chosen, limit)) if limit != 0 else []
        if not found and limit != 0:
            self._warn(search, event, kinds, stacklevel=4)
        return found

    def read(
        self,
        *,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int | None = None,
    ) -> Job[list[Event]]:
        """What :meth:`filter` gives, for many events: the app goes on while they are read.

        ``events = await lo.events.read(event="answer")``, and ``lo.events.to_frame(events)`` makes a frame of
        them. The archive is read on a thread; ``where`` is asked on the app's loop, as a reducer is. Gives a
        :class:`~lo_kernel.notebook.jobs.Job`.
        """
        from lo_kernel.notebook.jobs import Job

        _check_limit(limit)
        kinds: dict[str, None] = {}
        search, wanted = _search(learner, context, since, until), _wanted(event, where, kinds)
        if self._bridge is None:
            raise EventError("a job needs a running app: use lo.events of a kernel", reason="no_app")
        job: Job[list[Event]] | None = None
        asked = sys._getframe(1)
        caller = asked.f_code.co_filename, asked.f_lineno
        del asked  # a frame holds all that is in it

        async def work() -> list[Event]:
            found: list[Event] = []
            seen: set[str] = set()
            items, last, turns = self._items(search), self._runtime.archive.last, Turns()
            try:
                while limit != 0 and (some := await asyncio.to_thread(lambda: [*islice(items, _AT_ONCE)])):
                    for student, item in some:
                        if turns.over:
                            await turns.give()
                        seen.add(student)
                        if wanted is None or wanted(item):
                            found.append(item)
                            if len(found) == limit:
                                return found
                    if job is not None:
                        job.progress(item["n"], last, f"events, {len(found):,} found")
            finally:
                self._note(seen)
            if not found and limit != 0 and (note := self._nothing(search, event, kinds)):
                warnings.warn_explicit(note, UserWarning, *caller)
            return found

        job = Job("reading events", work(), self._bridge, errors=self._runtime.errors)
        return job

    def to_frame(self, events: Iterable[Event] | None = None, **filters: Any) -> Any:
        """A data frame, one row an event.

        Its columns: ``n``; ``time`` in seconds since 1970 (UTC), as reducers get it; ``learner``;
        ``datetime``, the same time as a date (UTC); ``source``, the event's context, by which ``context=``
        chooses; and the fields of the event's body (``event``, and a field ``context`` that is its own, as
        xAPI statements have). With pandas or polars, whichever is installed
        (:class:`~lo_kernel.errors.MissingExtraError` otherwise); filters as for :meth:`filter`, or ``events``
        that one of the others gave.
        """
        from lo_kernel.query.rows import Rows

        if events is not None and filters:
            raise EventError(
                f"to_frame: expected events or filters, got both ({', '.join(filters)})",
                reason="bad_argument",
            )
        chosen = self._filter(**filters) if events is None else _checked(events)
        rows = [_row(item) for item in chosen]
        frame = Rows(rows or [_NO_EVENT]).to_frame()
        return _dated(frame if rows else frame.head(0), [row["time"] for row in rows])

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        identity: bool = True,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        since: Moment = None,
        until: Moment = None,
    ) -> Job[int]:
        """Write events to a file: ``*.study.log`` as the field has it, or ``*.jsonl``; ``.gz``, ``.zst`` too.

        ``identity=False`` writes bodies alone (``*.jsonl``), without who sent them. Filters as for
        :meth:`filter`. Gives a :class:`~lo_kernel.notebook.jobs.Job` of the number of events; ``lo.replay``
        reads the file in another workspace. In this one its events are held already, as long as the content
        is what was written, with lines added at the end or not: of a file that was cut or edited that can't
        be known, and its events would count twice.
        """
        from lo_kernel.engine.export import check_export, export_events
        from lo_kernel.notebook.jobs import Job

        target = check_export(path, identity=identity)
        search = _search(learner, context, since, until)
        if self._bridge is None:
            raise EventError("an export needs a running app: use lo.events of a kernel", reason="no_app")
        seen: set[str] = set()
        job: Job[int] | None = None

        def progress(done: int, total: int) -> None:
            if job is not None:
                job.progress(done, total)

        async def work() -> int:
            try:
                return await export_events(
                    self._runtime.archive,
                    target,
                    search=search,
                    wanted=_wanted(event, where),
                    identity=identity,
                    on_progress=progress,
                    on_learner=seen.add,
                )
            finally:
                self._note(seen, "export")

        job = Job(f"export to {target.name}", work(), self._bridge, errors=self._runtime.errors)
        return job

    def _chosen(self, search: Search, wanted: Callable[[Event], bool] | None) -> Iterator[Event]:
        seen: set[str] = set()
        try:
            for student, item in self._items(search):
                seen.add(student)
                if wanted is None or wanted(item):
                    yield item
        finally:
            self._note(seen)

    def _items(self, search: Search) -> Iterator[tuple[str, Event]]:
        """Whose each event is, and the event."""
        for record, sender in self._runtime.archive.search(search, Senders()):
            body = msgspec.json.decode(record.body)
            if search.context is None or sender.context(body) == search.context:
                yield sender.student, {"n": record.n, **sender.event(body, record.t)}

    def _warn(self, search: Search, event: str | None, kinds: Collection[str], stacklevel: int) -> None:
        note = self._nothing(search, event, kinds)
        if note:
            warnings.warn(note, stacklevel=stacklevel)

    def _nothing(self, search: Search, event: str | None, kinds: Collection[str]) -> str:
        """Why nothing was found, where something that was asked for isn't there at all; empty elsewhere."""
        learners = self._runtime.learners
        if search.learner is not None and search.learner not in learners:
            some = list(islice(learners, _SHOWN + 1))
            self._note(set(some[:_SHOWN]), "the list of learners")
            return f"no learner has the safe id {search.learner!r}; there are: {_some(some)}"
        if search.context is not None:
            senders, newest = Senders(), self._runtime.archive.tail(_NEWEST)
            found = {senders.of(each).context(msgspec.json.decode(each.body)) for each in newest}
            if search.context not in found:
                there = _some(sorted(repr(each) for each in found if each))
                return f"no event has the context {search.context!r}; the newest have: {there}"
        if event is None or event in kinds or not kinds:
            return ""
        return f"none of these events is called {event!r}; there are: {_some(map(repr, kinds))}"

    def _note(self, learners: set[str], what: str = "archive") -> None:
        self._runtime.reads.record("events", what, learners)

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"<{self.count():,} events; lo.events.tail(5) shows the newest>"


def _search(learner: str | None, context: str | None, since: Moment, until: Moment) -> Search:
    for name, value in (("learner", learner), ("context", context)):
        if value is not None and not isinstance(value, str):
            raise EventError(f"{name}: expected a text, got {_given(value)}", reason="bad_argument")
    return Search(
        learner=learner, context=context, since=_moment("since", since), until=_moment("until", until)
    )


def _check_limit(limit: int | None) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise EventError(f"limit: expected a number from 0 on, got {_given(limit)}", reason="bad_argument")


def _wanted(
    event: str | None, where: Callable[[Event], bool] | None, kinds: dict[str, None] | None = None
) -> Callable[[Event], bool] | None:
    """What tells the events that are wanted; ``kinds`` takes the first so many names that came by."""
    if where is not None and not callable(where):
        raise EventError(
            f"where: expected a function of an event, got {_given(where)}", reason="bad_argument"
        )
    where = where and interruptible(where)
    if event is None:
        return where
    seen: dict[str, None] = {} if kinds is None else kinds

    def wanted(item: Event) -> bool:
        its = item["client"].get("event")
        if its == event:
            seen[event] = None
            return where is None or bool(where(item))
        if len(seen) < _KINDS and type(its) is str:
            seen[its] = None
        return False

    return wanted


def _given(value: Any) -> str:
    """What came, in a few words: a plain value itself, of all else what kind it is."""
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else type(value).__name__


def _checked(events: Any) -> Iterator[Event]:
    """These events, each as an archive gives it."""
    expected = "expected events as lo.events.filter(...) gives them"
    if isinstance(events, Awaitable):
        hint = "write lo.events.to_frame(await lo.events.read(...))"
        raise EventError(f"to_frame: {expected}, got {_given(events)}: {hint}", reason="bad_argument")
    if not isinstance(events, Iterable):
        raise EventError(f"to_frame: {expected}, got {_given(events)}", reason="bad_argument")
    for number, item in enumerate(events, 1):
        if not isinstance(item, Mapping):
            got = _given(item)
        elif lacking := next((path for path in _NEEDED if not _has(item, path)), None):
            got = f"one without {'.'.join(lacking)}"
        else:
            yield dict(item)
            continue
        raise EventError(f"to_frame: {expected}, got {got} (number {number})", reason="bad_argument")


def _has(item: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        item = item.get(name) if isinstance(item, Mapping) else None
    return item is not None


def _some(names: Iterable[str]) -> str:
    """The first few of some names."""
    first = list(islice(names, _SHOWN + 1))
    return ", ".join([*first[:_SHOWN], *(["..."] if len(first) > _SHOWN else [])]) or "none yet"


def _moment(name: str, value: Moment) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    moment = value
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            moment = value
    if not isinstance(moment, datetime):
        raise EventError(
            f"{name}: expected a datetime, a text such as '2026-05-04 09:30', or seconds since 1970, "
            f"got {_given(value)}",
            reason="bad_argument",
        )
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _row(item: Event) -> dict[str, Any]:
    body = item["client"]
    row = {"n": item["n"], "time": item["server"]["time"], "learner": body["auth"]["safe_user_id"]}
    row["source"] = body.get("source", (item.get("metadata") or {}).get("source"))
    for name, value in body.items():
        if name not in ("auth", "source"):
            row[f"event.{name}" if name in ("n", "time", "learner", "datetime") else name] = value
    return row


def _dated(frame: Any, times: list[float]) -> Any:
    """The frame with a column ``datetime`` behind ``learner``; blank where no date can say it."""
    if type(frame).__module__.startswith("polars"):
        import polars  # type: ignore[import-not-found,unused-ignore]

        dates = [round(time * 1e6) if _A_DATE[0] <= time <= _A_DATE[1] else None for time in times]
        column = polars.Series("datetime", dates, dtype=polars.Int64).cast(polars.Datetime("us", "UTC"))
        return frame.insert_column(3, column)
    import pandas

    # What nanoseconds can say: 1677 to 2262. Beyond, what `to_datetime` does depends on its version.
    first, last = pandas.Timestamp.min.value // 10**9 + 1, pandas.Timestamp.max.value // 10**9
    inside = pandas.Series([first <= time <= last for time in times], dtype="bool")
    micro = [round(time * 1e6) if fits else 0 for time, fits in zip(times, inside, strict=True)]
    moments = pandas.to_datetime(pandas.Series(micro, dtype="int64"), unit="us", utc=True)
    frame.insert(3, "datetime", moments.astype("datetime64[ns, UTC]").where(inside))
    return frame
