"""What is asked of the reducers' states: a row for each learner of a class."""

from __future__ import annotations

import time
from typing import Any

from lo_kernel.query.language import PROVENANCE_STUDENT, q

__all__ = ["EXECUTION_DAG", "IDLE", "PAUSING", "PRESENCE", "YOUNG", "presence"]

PRESENCE = "lo_kernel.overview.presence"
PAUSING, IDLE = 60, 300
"""Seconds without an event after which a learner pauses, and is idle."""
YOUNG = 180
"""Seconds from the minute of the first event in which ``per_minute`` has a value for each ten seconds."""


def presence(row: dict[str, Any]) -> dict[str, Any]:
    """A learner's row, with how long ago the last event was and what that means. Runs again as time passes.

    The minute that isn't over would look like a fall, so it is left out of ``per_minute``, unless it is all.
    Of who has just begun there would be nothing but that minute: there it has a value for each ten seconds,
    as many events a minute as that is.

    >>> presence({"last": None})["presence"]
    'not seen yet'
    >>> presence({"last": time.time() - 3})["presence"]
    'active'
    """
    row = dict(row)
    lately, last = row.pop("lately", None), row.get("last")
    if last is None:
        return {**row, "idle_minutes": None, "presence": "not seen yet"}
    now = time.time()
    quiet = max(0.0, now - last)
    word = "active" if quiet < PAUSING else "pausing" if quiet < IDLE else "idle"
    series = row.get("per_minute")
    young = series and lately and now < series["start"] + YOUNG
    series = _a_minute(lately, now) if young else _finished(series, now)
    return {**row, "per_minute": series, "idle_minutes": int(quiet // 60), "presence": word}


def _finished(series: dict[str, Any] | None, now: float) -> dict[str, Any] | None:
    """Counts without that of the time that goes on."""
    if not series or len(series["values"]) < 2:
        return series
    over = series["start"] + series["step"] * len(series["values"]) <= now
    return series if over else {**series, "values": series["values"][:-1]}


def _a_minute(series: dict[str, Any], now: float) -> dict[str, Any]:
    """Counts as so many events a minute, without that of the time that goes on, unless it is all.

    Until then there is nothing to count: who thinks for ten seconds has typed nothing in them.
    """
    start, step, values = series["start"], series["step"], series["values"]
    over = max(1, int((now - start) // step))
    values = [*values, *[0] * (over - len(values))][:over]
    return {"start": start, "step": step, "values": [60 * each // step for each in values]}


def _states(reducer: str, fields: dict[str, str]) -> dict[str, Any]:
    keys = q.keys(f"overview.{reducer}", STUDENTS=q.variable("roster"), STUDENTS_path="user_id")
    return q.select(keys, fields)


def _joined(left: str, right: str) -> dict[str, Any]:
    return q.join(q.variable(left), q.variable(right), PROVENANCE_STUDENT, PROVENANCE_STUDENT)


EXECUTION_DAG = {
    "execution_dag": {
        "roster": q.roster(),
        "activity": _states(
            "activity",
            {"events": "events", "last": "last", "per_minute": "per_minute", "lately": "lately"},
        ),
        "time_on_task": _states("time_on_task", {"minutes": "minutes_on_task", "sessions": "sessions"}),
        "writing": _states("writing", {"characters": "characters", "documents": "documents"}),
        "with_time": _joined("activity", "time_on_task"),
        "with_writing": _joined("with_time", "writing"),
        "with_names": q.join(q.variable("with_writing"), q.variable("roster"), PROVENANCE_STUDENT, "user_id"),
        "class": q.map(PRESENCE, q.variable("with_names")),
    },
    "exports": {
        "class": {
            "returns": "class",
            "description": "Each learner's activity, time on task and amount written, and who is idle now.",
            "parameters": ["course_id"],
        },
    },
}
