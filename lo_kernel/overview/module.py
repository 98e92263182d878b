"""The module as it is found: what a package names in its entry point of the group ``lo_modules``."""

from __future__ import annotations

from lo_kernel.overview.queries import EXECUTION_DAG, PRESENCE, presence
from lo_kernel.overview.reducers import activity, time_on_task, writing

__all__ = ["COURSE_DASHBOARDS", "DASHBOARD", "EXECUTION_DAG", "FUNCTIONS", "NAME", "REDUCERS", "TICKS"]

NAME = "Class overview"
ID = "overview"

REDUCERS = [
    {"context": None, "id": "overview.activity", "function": activity},
    {"context": None, "id": "overview.time_on_task", "function": time_on_task},
    {"context": None, "id": "overview.writing", "function": writing},
]

FUNCTIONS = {PRESENCE: presence}

TICKS = {PRESENCE: 15.0}
"""Functions whose answer changes with time alone, and how often they run again, in seconds."""

DASHBOARD = {
    "id": "overview",
    "title": "Class overview",
    "icon": "📝",
    "panels": [
        {"query": "overview.class", "title": "Idle now", "chart": "categories", "field": "presence"},
        {
            "query": "overview.class",
            "title": "The class over time",
            "chart": "line",
            "field": "per_minute",
            "label": "events a minute",
        },
        {
            "query": "overview.class",
            "title": "Activity",
            "chart": "heatmap",
            "field": "per_minute",
            "label": "events a minute",
        },
        {
            "query": "overview.class",
            "title": "Time on task",
            "chart": "bar",
            "field": "minutes_on_task",
            "label": "minutes",
        },
        {
            "query": "overview.class",
            "title": "Amount written",
            "chart": "bar",
            "field": "characters",
            "label": "characters",
        },
    ],
    "columns": {
        "presence": {"title": "Now"},
        "last": {"title": "Last event", "format": "ago"},
        "minutes_on_task": {"title": "Minutes on task"},
        "characters": {"title": "Characters"},
        "per_minute": {"title": "Activity"},
        "events": {"title": "Events"},
        "documents": {"title": "Documents"},
        "sessions": {"show": False},
        "idle_minutes": {"show": False},
    },
}

COURSE_DASHBOARDS = [{"name": NAME, "url": "/dashboards/overview", "icon": DASHBOARD["icon"]}]
