"""What is kept of each learner. Times are seconds since 1970 (UTC), as the server stamped the events.

A reducer is a plain function of an event and a state, so it can be tested by calling it:

>>> import asyncio
>>> event = {"client": {"event": "keystroke"}, "server": {"time": 1_700_000_000.0}}
>>> state = {"events": 0, "first": None, "last": None, "per_minute": None, "lately": None}
>>> asyncio.run(activity(event, state))[0]["events"]
1
"""

from __future__ import annotations

from typing import Any

from lo_kernel import student_event_reducer

__all__ = ["MINUTES", "PAUSE", "TENS", "activity", "time_on_task", "writing"]

MINUTES = 30
"""How many minutes of activity are kept."""

TENS = 18
"""How many times ten seconds of activity are kept: of who has just begun, a minute says too little."""

PAUSE = 60.0
"""Seconds without an event after which a learner is not at work any more."""


@student_event_reducer(
    null_state={"events": 0, "first": None, "last": None, "per_minute": None, "lately": None}
)
async def activity(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count events: in all, by the minute (the last half hour), by ten seconds (the last three minutes)."""
    now = event["server"]["time"]
    state["events"] += 1
    state["first"] = now if state["first"] is None else state["first"]
    state["last"] = max(now, state["last"] or now)
    state["per_minute"] = _counted(state["per_minute"], now, 60, MINUTES)
    state["lately"] = _counted(state["lately"], now, 10, TENS)
    return state, None


@student_event_reducer(null_state={"seconds": 0.0, "minutes": 0.0, "sessions": 0, "last": None})
async def time_on_task(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Add up the time between events that follow each other within a minute."""
    now, last = event["server"]["time"], state["last"]
    if last is None or now - last > PAUSE:
        state["sessions"] += 1
    elif now > last:
        state["seconds"] += now - last
    state["minutes"] = round(state["seconds"] / 60, 1)
    state["last"] = now if last is None else max(now, last)
    return state, None


@student_event_reducer(null_state={"characters": 0, "typed": 0, "deleted": 0, "documents": 0, "last_doc": ""})
async def writing(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count the characters that were typed and deleted in ``google_docs_save`` events."""
    client = event["client"]
    bundles = client.get("bundles")
    if client.get("event") != "google_docs_save" or not isinstance(bundles, list):
        return False, False  # nothing to note: the state stays as it is
    for bundle in bundles:
        for command in bundle.get("commands", ()):
            if command.get("ty") == "is":
                state["typed"] += len(command.get("s", ""))
            elif command.get("ty") == "ds":
                state["deleted"] += max(0, command.get("ei", 0) - command.get("si", 1) + 1)
    state["characters"] = max(0, state["typed"] - state["deleted"])
    document = client.get("doc_id") or ""
    if document != state["last_doc"]:
        state["documents"] += 1
        state["last_doc"] = document
    return state, None


def _counted(series: dict[str, Any] | None, now: float, step: int, most: int) -> dict[str, Any]:
    """One event more in a series of counts, each of ``step`` seconds, that ends with the newest one."""
    begins = int(now // step) * step
    if series is None:
        return {"start": begins, "step": step, "values": [1]}
    values = series["values"]
    place = (begins - series["start"]) // step
    if place < 0:  # older than all that is kept
        return series
    if place >= len(values):
        gap = place - len(values)
        if gap >= most:
            return {"start": begins, "step": step, "values": [1]}
        values.extend([0] * gap)
        values.append(0)
        over = max(0, len(values) - most)
        del values[:over]
        series["start"] += step * over
        place -= over
    values[place] += 1
    return series
