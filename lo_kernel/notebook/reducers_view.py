"""``lo.reducers``: what is registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lo_kernel.notebook.jobs import Job

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.engine.registry import Registration
    from lo_kernel.runtime import Runtime

__all__ = ["Reducers"]


class Reducers(Mapping[str, "Registration"]):
    """The reducers by id; ``lo.reducers[id]``, ``await lo.reducers.remove(id)``."""

    def __init__(self, runtime: Runtime, bridge: LoopBridge) -> None:
        self._runtime = runtime
        self._bridge = bridge

    def __getitem__(self, reducer_id: str) -> Registration:
        return self._runtime.registry.get(reducer_id)

    def __iter__(self) -> Iterator[str]:
        return iter([registration.id for registration in self._runtime.registry])

    def __len__(self) -> int:
        return len(self._runtime.registry)

    def __contains__(self, reducer_id: object) -> bool:
        return reducer_id in self._runtime.registry

    def remove(self, reducer_id: str) -> Job[None]:
        """Take a reducer out, its states with it; the events stay."""
        self._runtime.registry.get(reducer_id)
        work = self._runtime.remove_reducer(reducer_id)
        return Job(f"removing {reducer_id!r}", work, self._bridge, errors=self._runtime.errors)

    def __repr__(self) -> str:
        lines = [self._line(registration) for registration in self._runtime.registry]
        for row in self._runtime.registry.paused.values():
            if row.id not in self._runtime.registry:
                lines.append(repr(self._runtime.registry.get(row.id))[1:-1])
        return "\n".join(lines) or "no reducers yet: declare one with @lo.reducer(...)"

    def _line(self, registration: Registration) -> str:
        """How one is doing: what it folded since the start, and up to which event its states hold all."""
        if registration.status != "live":
            return repr(registration)[1:-1]
        newest, at = self._runtime.archive.last, self._runtime.pipeline.routed - registration.behind
        where = f"at event {at:,}, the archive's newest is {newest:,}"
        if at == newest:
            where = f"at the archive's newest event ({at:,})" if at else "the archive is empty"
        count = f"{registration.events:,} event{'s'[: registration.events != 1]} since the start"
        count += registration.failed_text
        return f"reducer {registration.id!r} of {registration.context}: live, {count}, {where}"
