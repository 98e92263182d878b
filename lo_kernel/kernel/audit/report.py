"""The record as files for others: JSON lines, CSV, and a page that needs nothing but a browser."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lo_kernel.kernel.audit.reading import rows_of
from lo_kernel.kernel.audit.verify import Verdict

__all__ = ["FORMATS", "to_csv", "to_html", "to_jsonl"]

FORMATS: Final = ("jsonl", "csv", "html")

_KINDS: Final = {
    "execute": "analysis",
    "shell": "system command",
    "debug": "debugger",
    "comm_open": "widget",
    "comm_msg": "widget",
    "comm_close": "widget",
    "read": "page",
    "act": "deed",
    "run": "start",
    "gap": "gap",
    "redaction": "text deleted",
    "retention": "old records deleted",
}

_STYLE: Final = """
:root{color-scheme:light dark;--line:#d0d7de;--soft:#59636e;--back:#f6f8fa;--good:#1a7f37;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--line:#3d444d;--soft:#9198a1;--back:#151b23;--good:#3fb950;--bad:#ff7b72}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2rem}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
article{border:1px solid var(--line);border-radius:6px;padding:.7rem 1rem;margin:.7rem 0}
article p{margin:.2rem
0}pre{background:var(--back);padding:.6rem;border-radius:6px;overflow:auto;font-size:13px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:var(--soft)}dd{margin:0}
summary{cursor:pointer}
"""


def to_jsonl(events: Sequence[Mapping[str, Any]]) -> str:
    """One event a line."""
    kept = [
        {name: value for name, value in event.items() if name not in ("record", "sets")} for event in events
    ]
    return "".join(msgspec.json.encode(event, order="deterministic").decode() + "\n" for event in kept)


def to_csv(events: Sequence[Mapping[str, Any]]) -> str:
    """One event a row. What a spreadsheet would take for a formula is given a ``'`` before it."""
    rows = rows_of(events)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["n"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return out.getvalue()


def to_html(
    events: Sequence[Mapping[str, Any]], *, workspace: str, verdict: Verdict, student: str | None = None
) -> str:
    """A page for a person who was not there: what was done with the data, by whom, and how to check that."""
    about = f"the data of {student}" if student is not None else "learners' data"
    told = [event for event in events if event["kind"] not in ("run",)]
    reading = [event for event in told if event["learners"]]
    analyses = [event for event in reading if event["kind"] == "execute"]
    users = sorted({event["user"] for event in told if event["user"]})
    if student is not None and not told:
        first = "Nothing on record has read this learner's data."
    else:
        first = (
            f"{len(analyses)} analyses and {len(reading) - len(analyses)} other steps read it, by "
            f"{', '.join(map(html.escape, users)) or 'nobody'}."
        )
    span = f"{_day(told[0])} to {_day(told[-1])}" if told else "no entries"
    state = (
        f'<span class="good">whole</span>: {verdict.records:,} records checked, none changed or missing'
        if verdict.ok
        else '<span class="bad">not whole</span>: '
        + "; ".join(html.escape(str(problem)) for problem in verdict.problems[:5])
    )
    head = f"{verdict.head.n}, {verdict.head.hash}" if verdict.head else "none"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>How {html.escape(about)} was used</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>How {html.escape(about)} was used</h1>
<p class="soft">{html.escape(workspace)}, {span}</p>
<p>{first}</p>
<dl><dt>The record is</dt><dd>{state}</dd><dt>It ends with record</dt><dd><code>{head}</code></dd></dl>
<p class="soft">Each entry says when something ran, who ran it, what it was, and how many learners' data it
read.
Entries are chained: changing or removing one shows. What code in the same process does to the record
itself can't be excluded.</p>
<h2>In order of time</h2>
{"".join(_entry(event) for event in told) or "<p>No entries.</p>"}
</body></html>
"""


def _entry(event: Mapping[str, Any]) -> str:
    escape = html.escape
    kind = _KINDS.get(event["kind"], event["kind"])
    title = event["what"] if event["kind"] in ("act", "read", "gap") else ""
    if name := event.get("name"):
        title = f"{title} {name}"
    parts = [f"<strong>{escape(kind)}</strong> {escape(str(title))}"]
    by = escape(event.get("by", "")) if event.get("by") not in ("request", None) else ""
    who = escape(event["user"]) or "unknown"
    parts.append(f'<span class="soft">{_time(event)}, {who}{", " + by if by else ""}</span>')
    if event["learners"]:
        reads = "; ".join(dict.fromkeys(event["reads"]))
        parts.append(f"read {event['learners']} learners' data{': ' + escape(reads) if reads else ''}")
    if event.get("status") == "error":
        parts.append(f'ended with <span class="bad">{escape(event.get("error", ""))}</span>')
    elif event.get("status") in ("aborted", "no outcome"):
        parts.append(f"outcome: {escape(event['status'])}")
    code = event.get("code")
    shown = f"<details><summary>code</summary><pre>{escape(str(code))}</pre></details>" if code else ""
    return "<article>" + "".join(f"<p>{part}</p>" for part in parts) + shown + "</article>\n"


def _time(event: Mapping[str, Any]) -> str:
    return f"{event['at'][:10]} {event['at'][11:19]} UTC"


def _day(event: Mapping[str, Any]) -> str:
    return str(event["at"][:10])


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
