"""What is known of a reducer that was registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lo_kernel.engine.keys import EventField, KeyField, Scope, ScopeField, reducer_prefix
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import Reducer
from lo_kernel.engine.run import Run
from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.engine.store import ReducerRow
from lo_kernel.errors import ReducerError

__all__ = ["Registration"]


@dataclass(eq=False)
class Registration:
    """A reducer that was registered, and how far it is.

    ``status`` is ``waiting``, ``catching up``, ``live``, ``failed``, ``cancelled``, ``replaced``,
    ``removed``, or ``paused`` (in the store, and not registered by this process). While it is catching up,
    ``done`` of ``total`` events have been gone through.
    """

    id: str
    context: str
    function: Reducer
    scope: Scope
    key_name: str
    null_state: Any
    default: Any
    module: str
    code: str
    status: str = "waiting"
    done: int = 0
    total: int = 0
    run: Run | None = field(default=None, repr=False)  # the one that answers: until the swap, the old one
    pipeline: Pipeline | None = field(default=None, repr=False)
    successor: Registration | None = field(default=None, repr=False)
    stood_at: int | None = None  # of a paused one: the newest event that is in its states
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def qualname(self) -> str:
        """The middle part of its keys, ``<module>.<function>``."""
        return self.key_name

    @property
    def prefix(self) -> str:
        """What its internal keys start with."""
        return reducer_prefix(self.key_name)

    @property
    def events(self) -> int:
        """Events folded since it was registered, the past ones among them."""
        return self.run.events if self.run else 0

    @property
    def errors(self) -> int:
        """Events at which it failed."""
        return self.run.failed if self.run else 0

    @property
    def last_error(self) -> str:
        """What it failed with last; empty where it didn't."""
        return self.run.last_failure if self.run else ""

    def why_stateless(self, key: str) -> str:
        """Why there is no state under a key; see :meth:`Run.why_stateless`."""
        return self.run.why_stateless(key) if self.run is not None else ""

    @property
    def position(self) -> int:
        """Number of the newest archived event that is in its committed states."""
        return self.run.position if self.run else self.stood_at or 0

    @property
    def behind(self) -> int:
        """Events that came and are not in its states yet."""
        if self.pipeline is not None and self.stood_at is not None:
            return max(0, self.pipeline.routed - self.stood_at)
        if self.run is None or self.pipeline is None:
            return 0
        return max(0, self.pipeline.routed - self.run.low(self.pipeline.routed))

    @property
    def answering(self) -> bool:
        """Whether states can be read now: its own, or those of the one that it is to replace."""
        run = self.run
        return run is not None and run.key_name == self.key_name and run.scope == self.scope

    @property
    def replacing(self) -> bool:
        """Whether the states that answer are those of other code, which this one is to replace."""
        return self.answering and self.run is not None and self.run.code != self.code

    async def ready(self, on_replaced: Callable[[], None] | None = None) -> Registration:
        """Wait until it has seen all of the past, or what replaced it has; raises what it failed with.

        ``on_replaced`` is called where another one takes its place on the way, before that one is waited for.
        """
        task = self._task
        if task is not None and (loop := task.get_loop()) is not asyncio.get_running_loop():
            ready = self.ready(on_replaced)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ready, loop))
        if task is not None:
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():  # it is the caller who was cancelled
                    raise
                if self.successor is not None:
                    if on_replaced is not None:
                        on_replaced()
                    return await self.successor.ready()
                raise ReducerError(
                    f"the reducer {self.id!r} was {self.status} before it had gone through the past"
                ) from None
        return self

    def cancel(self) -> None:
        """Stop going through the past: the old reducer, where there is one, stays in place."""
        if self._task is not None and self.status in ("waiting", "catching up"):
            self._task.cancel()

    def advance(self, done: int, total: int) -> None:
        """Say how far it is."""
        self.done, self.total = done, total

    def row_maker(self, generation: int) -> Callable[[int, dict[str, int]], ReducerRow]:
        """What makes the row that is stored beside states, from a position and the keys ahead of it."""
        null_state = msgspec.Raw(encode_state(self.null_state))

        def row(position: int, ahead: dict[str, int]) -> ReducerRow:
            return ReducerRow(
                id=self.id,
                key_name=self.key_name,
                context=self.context,
                scope=list(self.scope.names),
                code=self.code,
                generation=generation,
                position=position,
                ahead=ahead,
                null_state=null_state,
                module=self.module,
            )

        return row

    @classmethod
    def paused(cls, row: ReducerRow, pipeline: Pipeline) -> Registration:
        """What the store knows of a reducer that nobody has registered in this process.

        Its states answer, as they stood; no event goes through it.
        """
        null_state = decode_state(row.null_state)
        stood = cls(
            row.id,
            row.context,
            _no_code,
            Scope(_field_named(name) for name in row.scope),
            row.key_name,
            null_state,
            null_state,
            row.module,
            row.code,
            status="paused",
            pipeline=pipeline,
        )
        stood.stood_at = row.position
        return stood

    def __repr__(self) -> str:
        if self.status == "paused":
            return f"<reducer {self.id!r} of {self.context}: {self.paused_text}>"
        progress = f", {self.done:,} of {self.total:,}" if self.status == "catching up" else ""
        count = f"{_events(self.events)} since the start"
        return f"<reducer {self.id!r} of {self.context}: {self.status}{progress}, {count}{self.failed_text}>"

    @property
    def paused_text(self) -> str:
        """Of a paused one: how far its states are, and what to do."""
        stands = f"{_events(self.behind)} behind" if self.behind else "with all events so far in its states"
        return f"paused, {stands}; {self.to_go_on} to go on"

    @property
    def to_go_on(self) -> str:
        """What to do where its code isn't there: that of the ready-made overview stands in no cell."""
        return "call lo.overview()" if self.module == "overview" else "run the cell that defines it"

    @property
    def failed_text(self) -> str:
        """At how many events it failed, to be said behind their count; empty where it didn't."""
        return f", and it failed at {_events(self.errors)} (see lo.errors)" if self.errors else ""


def _events(number: int) -> str:
    return f"{number:,} event{'s'[: number != 1]}"


async def _no_code(event: dict[str, Any], state: Any) -> tuple[bool, bool]:
    """In the place of a function that this process doesn't have."""
    return False, False


def _field_named(name: str) -> ScopeField:
    prefix = "EventField."
    return EventField(name[len(prefix) :]) if name.startswith(prefix) else KeyField[name]
