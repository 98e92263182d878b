"""Puts the ready-made class overview (:mod:`lo_kernel.overview`) into a running app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.engine.registry import Registration

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["add_overview"]


def add_overview(
    runtime: Runtime, *, context: str | None = None, course: str | None = None
) -> tuple[Dashboard, list[Registration]]:
    """Register the overview's reducers (on record), functions and queries, and its dashboard.

    Only on the app's loop.

    ``context`` is the ``source`` of the events that it is about, by default the one that reducers have.
    Twice does no harm: the reducers' code is the same, so they go on. The registrations may still be going
    through the past.
    """
    from lo_kernel.overview import module

    declared: list[dict[str, Any]] = module.REDUCERS
    registrations = [
        runtime.add_reducer(
            each["id"], each["function"], context=context or each["context"], module=module.ID
        )
        for each in declared
    ]
    for name, published in module.FUNCTIONS.items():
        runtime.functions.publish(name, mark=False)(published)
    runtime.catalog.add(module.ID, module.EXECUTION_DAG)
    for name, seconds in module.TICKS.items():
        runtime.dashboards.tick(name, seconds)
    dashboard = Dashboard.from_json({**module.DASHBOARD, "course": course}, source=module.NAME)
    return runtime.dashboards.add(dashboard), registrations
