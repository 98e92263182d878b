"""``/admin/status`` and ``/metrics``: what is going on, for a person and for a monitor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import lo_kernel
from lo_kernel.app.meter import memory
from lo_kernel.runtime import Runtime

__all__ = ["ACTIVE_SECONDS", "facts", "metrics", "reducer_facts", "status"]

ACTIVE_SECONDS: Final = 60
"""How long after an event a learner counts as active."""


def facts(runtime: Runtime) -> dict[str, Any]:
    """The numbers that pages show; times are seconds since 1970 (UTC)."""
    now = runtime.clock()
    active = sum(1 for name in runtime.learners if now - runtime.learners[name].last_seen < ACTIVE_SECONDS)
    return {
        "now": now,
        "learners": len(runtime.learners),
        "active": active,
        "sources": len(runtime.sources),
        "events": runtime.archive.last,
        "events_per_second": round(runtime.meter.rate, 1),
    }


def reducer_facts(registrations: Iterable[Any]) -> list[dict[str, Any]]:
    """How reducers are doing."""
    return [
        {
            "id": reducer.id,
            "context": reducer.context,
            "status": reducer.status,
            "done": reducer.done,
            "total": reducer.total,
            "behind": reducer.behind,
            "events": reducer.events,
            "errors": reducer.errors,
            "last_error": reducer.last_error,
        }
        for reducer in registrations
    ]


def status(runtime: Runtime) -> dict[str, Any]:
    """What is going on, as JSON data; times are seconds since 1970 (UTC), sizes are bytes."""
    return {
        "version": lo_kernel.__version__,
        "workspace": runtime.workspace.name,
        "owner": runtime.workspace.owner,
        "started": runtime.started,
        **facts(runtime),
        "events_on_disk": runtime.pipeline.synced,
        "rejected": runtime.archive.rejected,
        "memory": memory(),
        "loop_lag": round(runtime.meter.lag, 4),
        "store": {"kind": runtime.store.name, "up": runtime.pipeline.store_up, "bytes": runtime.store.size()},
        "archive": {"bytes": runtime.archive.size()},
        "queries": {"open": len(runtime.live), "readers": runtime.live.readers},
        "dashboards": [{"id": name, "title": runtime.dashboards[name].title} for name in runtime.dashboards],
        "reducers": reducer_facts(runtime.registry),
        "errors": [str(entry) for entry in runtime.errors],
    }


def metrics(runtime: Runtime) -> str:
    """The same in the text format of Prometheus, version 0.0.4.

    Format: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    now = status(runtime)
    lines: list[str] = []

    def add(
        name: str, kind: str, help_text: str, values: Iterable[tuple[Mapping[str, str], float | int]]
    ) -> None:
        lines.extend((f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"))
        lines.extend(
            f"{name}{_labels(labels)} {value:g}"
            if isinstance(value, float)
            else f"{name}{_labels(labels)} {value}"
            for labels, value in values
        )

    def one(name: str, kind: str, help_text: str, value: float | int) -> None:
        add(name, kind, help_text, [({}, value)])

    one("lo_events_total", "counter", "Events in the archive.", now["events"])
    one("lo_events_rejected_total", "counter", "Frames that were no event, since the start.", now["rejected"])
    one("lo_events_per_second", "gauge", "Events per second over the last ten.", now["events_per_second"])
    one("lo_learners", "gauge", "Learners seen.", now["learners"])
    one("lo_learners_active", "gauge", f"Learners seen in the last {ACTIVE_SECONDS} s.", now["active"])
    one("lo_sources", "gauge", "Connections that events come in by.", now["sources"])
    one("lo_queries_open", "gauge", "Queries that are kept up to date.", now["queries"]["open"])
    one("lo_query_readers", "gauge", "Who is told of their changes.", now["queries"]["readers"])
    one("lo_loop_lag_seconds", "gauge", "Worst lag of the loop in ten seconds.", now["loop_lag"])
    one("lo_store_up", "gauge", "Whether the store takes states.", int(now["store"]["up"]))
    one("lo_store_bytes", "gauge", "Size of the store.", now["store"]["bytes"])
    one("lo_archive_bytes", "gauge", "Size of the archive.", now["archive"]["bytes"])
    one("process_resident_memory_bytes", "gauge", "Memory in use.", now["memory"])
    reducers = now["reducers"]
    for name, text in (
        ("events", "Events that a reducer folded, since the start."),
        ("errors", "Events at which it failed, since the start."),
    ):
        add(
            f"lo_reducer_{name}_total",
            "counter",
            text,
            [({"reducer": reducer["id"]}, reducer[name]) for reducer in reducers],
        )
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
