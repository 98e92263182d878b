"""``lo.events``: the archive as a notebook sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from lo_kernel.engine.events import Event, Sender

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["Events"]


class Events:
    """The events so far, oldest first; each as a reducer gets it, with its archive number under ``"n"``.

    ``lo.events.count()``, ``lo.events.tail(5)``, ``lo.events.filter(learner=..., context=..., event=...)``,
    ``lo.events.to_frame()``. An event is here a moment (at most 50 ms) after it was accepted.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def count(self) -> int:
        """How many there are."""
        return self._runtime.archive.last

    def tail(self, n: int = 10) -> list[Event]:
        """The newest ``n``, oldest of them first."""
        start = max(0, self._runtime.archive.last - n)
        return list(deque(self._read(start), maxlen=n))

    def filter(
        self,
        *,
        learner: str | None = None,
        context: str | None = None,
        event: str | None = None,
        where: Callable[[Event], bool] | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Those of a learner (safe id), of a context, of a kind (the body's ``event``), or as you say.

        ``where`` is asked with each event that the others let through; ``limit`` ends the search early.
        """
        found: list[Event] = []
        for item in self._read(0, learner=learner, context=context):
            if event is not None and item["client"].get("event") != event:
                continue
            if where is not None and not where(item):
                continue
            found.append(item)
            if limit is not None and len(found) >= limit:
                break
        return found

    def to_frame(self, **filters: Any) -> Any:
        """A data frame, one row an event: ``n``, ``time``, ``learner``, ``context``, and the body's fields.

        With pandas or polars, whichever is installed; filters as for :meth:`filter`.
        """
        from lo_kernel.query.rows import Rows

        rows = Rows(
            {
                "n": item["n"],
                "time": item["server"]["time"],
                "learner": item["client"]["auth"]["safe_user_id"],
                **{name: value for name, value in item["client"].items() if name != "auth"},
            }
            for item in self.filter(**filters)
        )
        return rows.to_frame()

    def _read(self, after: int, learner: str | None = None, context: str | None = None) -> Iterator[Event]:
        senders: dict[bytes, Sender] = {}
        seen: set[str] = set()
        for record in self._runtime.archive.read(after):
            key = bytes(record.by)
            sender = senders.get(key)
            if sender is None:
                if len(senders) > 5000:
                    senders.clear()
                sender = senders[key] = Sender.decode(key)
            if learner is not None and sender.student != learner:
                continue
            body = msgspec.json.decode(record.body)
            if context is not None and sender.context(body) != context:
                continue
            seen.add(sender.student)
            yield {"n": record.n, **sender.event(body, record.t)}
        self._runtime.reads.record("events", "archive", seen)

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"<{self.count():,} events; lo.events.tail(5) shows the newest>"
