"""The record in plain words: what an entry was, and what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["first_line", "plural", "reads_of", "title_of"]

_RAN: Final = {
    "execute": "Ran code in a notebook",
    "shell": "Ran a command of the operating system",
    "debug": "Had the debugger do something",
    "comm_open": "Used a control in a notebook",
    "comm_msg": "Used a control in a notebook",
    "comm_close": "Closed a control in a notebook",
    "redaction": "Text was deleted from this record",
    "retention": "Old entries were deleted, as the settings say",
    "gap": "This record has a gap here",
    "run": "Began",
}
_DEEDS: Final = {
    "reducer": "Loaded an analysis that runs over all events:",
    "reducer removed": "Removed an analysis:",
    "reveal": "Asked for the learners' names",
    "value set": "Set a value in the store",
    "value removed": "Removed a value from the store",
    "store cleared": "Emptied the store: values went, and reducers began anew",
    "replay": "Read in events from files",
    "export": "Made an installable module of analyses:",
    "export student": "Wrote everything about one learner into a file",
    "erase": "Erased a learner",
    "inject": "Put a module into the server:",
}
_READ: Final = {
    "query": "the answer of the query",
    "events": "events:",
    "roster": "the list of learners",
    "store": "stored results of",
    "state": "stored results of",
}


def first_line(text: Any, width: int) -> str:
    """The first line of a text; ``…`` where there is more, or more than ``width`` characters of it.

    >>> first_line("\\nx = 1\\ny = 2", 20), first_line("x = 1", 3), first_line("", 20)
    ('x = 1 …', 'x =…', '(empty)')
    """
    lines = str(text).strip().split("\n")
    if not lines[0]:
        return "(empty)"
    if len(lines[0]) > width:
        return f"{lines[0][:width]}…"
    return f"{lines[0].rstrip()} …" if len(lines) > 1 else lines[0]


def title_of(event: Mapping[str, Any]) -> str:
    """What an entry of the record was, in a few words.

    >>> title_of({"kind": "act", "what": "reducer", "name": "count"})
    'Loaded an analysis that runs over all events: count'
    """
    kind = event["kind"]
    if kind == "act":
        deed = _DEEDS.get(event["what"], event["what"].capitalize())
        if event.get("record", {}).get("replaces"):
            deed = "Replaced an analysis by another version:"
        return f"{deed} {event['name']}" if event.get("name") else deed
    if kind == "read":
        return "Something in the background read" if event.get("by") == "unattributed" else "A page was shown"
    if event.get("silent"):
        return "A program beside the notebook ran code"
    if kind == "debug" and (command := event.get("record", {}).get("command")):
        return f"Asked the debugger: {command}"
    if kind == "run":
        return f"A {event['what']} began"
    return _RAN.get(kind, "Something in the background put out a message")


def reads_of(event: Mapping[str, Any]) -> str:
    """What an entry has read, in words; empty where it has read nothing.

    >>> reads_of({"reads": ["query: my_module: count", "roster: the roster of a course"]})
    'the answer of the query count (my_module); the list of learners'
    """
    found = []
    for each in dict.fromkeys(event["reads"]):
        kind, _, what = each.partition(": ")
        module, _, name = what.partition(": ")
        if kind == "query" and name:
            what = name if module == "jupyter-helper" else f"{name} ({module})"
        found.append(_READ.get(kind, kind) + ("" if kind == "roster" else f" {what}"))
    return "; ".join(dict.fromkeys(found))


def plural(count: int, one: str, many: str) -> str:
    """A number with its word: ``1 learner``, ``2 learners``."""
    return f"{count:,} {one if count == 1 else many}"
