"""The record as one page for a person who was not there: a parent, or a review board.

It needs nothing but a browser: no script, and nothing from elsewhere.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any, Final

from lo_kernel.kernel.audit.verify import Verdict
from lo_kernel.notebook.audit_words import plural, reads_of, title_of

__all__ = ["to_html"]

Event = Mapping[str, Any]

_LINE: Final = 110  # characters of the first line of code that are shown at once

_STYLE: Final = """
:root{color-scheme:light dark;--text:#1f2328;--line:#d0d7de;--soft:#59636e;--back:#f6f8fa;--page:#fff;
--good:#1a7f37;--bad:#b42318;--mark:#0969da}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--line:#3d444d;--soft:#9aa4af;--back:#1b222c;
--page:#0f141a;--good:#4cc45f;--bad:#ff8a80;--mark:#6cb6ff}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--page);max-width:52rem;
margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .2rem}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem;padding-bottom:.2rem;border-bottom:1px solid var(--line)}
p{margin:.5rem 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1.2rem 0;
padding:0}
.facts li{list-style:none;background:var(--back);border:1px solid var(--line);border-radius:8px;
padding:.6rem .8rem}
.facts strong{display:block;font-size:1.5rem;line-height:1.2}
.box{background:var(--back);border:1px solid var(--line);border-radius:8px;padding:.2rem 1rem;margin:1rem 0}
ol{list-style:none;margin:0;padding:0}
ol li{display:grid;grid-template-columns:4.6rem 1fr;gap:0 .8rem;padding:.55rem 0 .55rem .7rem;
border-left:3px solid transparent}
ol li+li{border-top:1px solid var(--line)}
ol li.reads{border-left-color:var(--mark)}
time{color:var(--soft);font-variant-numeric:tabular-nums}
ol p{margin:0}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--back);border-radius:6px;padding:.6rem;margin:.4rem 0;white-space:pre-wrap}
summary{cursor:pointer}summary code{color:var(--soft)}
@media(max-width:34rem){ol li{grid-template-columns:1fr}h1{font-size:1.4rem}}
@media print{body{margin:0;max-width:none}details>*{display:block}}
"""


def to_html(
    events: Sequence[Event],
    *,
    workspace: str,
    verdict: Verdict,
    student: str | None = None,
    others: Iterable[str] = (),
) -> str:
    """A page for a person who was not there: what was done with the data, by whom, and how to check that.

    With ``student`` it is for that learner's people, and ``others`` (safe ids) are not named, in code either.
    """
    escape = html.escape
    hide = _hiding(student, others)
    about = f"the data of {student}" if student is not None else "learners' data"
    told = [event for event in events if event["kind"] != "run"]
    days = groupby(told, key=lambda event: event["at"][:10])
    listed = "".join(
        f"<h3>{_day(day)}</h3>\n<ol>\n{''.join(_entry(each, hide) for each in found)}</ol>\n"
        for day, found in days
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>How {escape(about)} was used</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body>
<main>
<h1>How {escape(about)} was used</h1>
<p class="soft">{_span(told)} Workspace: {escape(workspace)}. All times are in UTC.</p>
{_summary(told, student)}
{_whole(verdict)}
<h2>What was done, in order of time</h2>
<p class="soft">A blue line marks what has read data of learners. Behind “all of it” stands the code as it was
run.</p>
{listed or "<p>Nothing.</p>"}
<h2>What this page can and can't say</h2>
<p>It lists what was asked of this installation of the Learning Observer, and whose data that read. Each
learner stands in the record under a made-up mark, and not by name. What is on screen or in a file that
somebody saved is beyond it, and so is somebody who reads the files of the installation by other means.</p>
</main>
</body></html>
"""


def _summary(told: Sequence[Event], student: str | None) -> str:
    reading = [event for event in told if event["learners"]]
    if student is not None and not told:
        return "<p>Nothing on record has read this learner's data.</p>"
    analyses = sum(event["kind"] == "execute" for event in reading)
    pages = sum(event["kind"] == "read" for event in reading)
    users = sorted({event["user"] for event in told if event["user"]})
    facts = [
        (analyses, "analysis has read it" if analyses == 1 else "analyses have read it"),
        (pages, "page has shown it" if pages == 1 else "pages have shown it"),
        (len(reading) - analyses - pages, "other uses"),
        (len(users), f"{'person' if len(users) == 1 else 'people'}: {html.escape(', '.join(users))}"),
    ]
    if student is None:
        facts.append((max((event["learners"] for event in reading), default=0), "learners at once, at most"))
    items = "".join(f"<li><strong>{count:,}</strong>{text}</li>" for count, text in facts)
    return f'<ul class="facts">{items}</ul>'


def _whole(verdict: Verdict) -> str:
    if verdict.ok:
        state = (
            '<strong class="good">This record is as it was written.</strong> '
            f"All {verdict.records:,} records were checked."
        )
    else:
        problems = "; ".join(html.escape(str(problem)) for problem in verdict.problems[:5])
        state = f'<strong class="bad">This record is not as it was written:</strong> {problems}.'
    head = ""
    if verdict.head is not None and verdict.head.n:
        head = (
            "<details><summary>How to check that later</summary><p>Each record is tied to the one before, so "
            f"a change shows. When this page was made, record {verdict.head.n} was the last one, with the "
            f"mark <code>{verdict.head.hash}</code>. The command <code>lo-kernel audit verify</code> checks "
            "all of them again; a record of this number with another mark has been replaced.</p></details>"
        )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in verdict.notes)
    told = f"<p>What the record itself says was left out of it:</p><ul>{notes}</ul>" if notes else ""
    return f'<div class="box"><p>{state}</p>{told}{head}</div>'


def _entry(event: Event, hide: Callable[[str], str]) -> str:
    parts = [
        f'<p><strong>{html.escape(title_of(event))}</strong> <span class="soft">{_who(event)}</span></p>'
    ]
    if event["learners"]:
        parts.append(f"<p>{_whose(event)}</p>")
    parts += [f"<p>{each}</p>" for each in _details(event, hide)]
    parts.append(_code(hide(str(event.get("code") or "").strip())))
    reads = ' class="reads"' if event["learners"] else ""
    clock = f'<time datetime="{event["at"]}">{event["at"][11:19]}</time>'
    return f"<li{reads}>{clock}<div>{''.join(parts)}</div></li>\n"


def _whose(event: Event) -> str:
    many = plural(event["learners"], "learner", "learners")
    if event["kind"] == "act":
        return f"It concerns {many}"
    what = html.escape(reads_of(event))
    return f"Read data of {many}: {what}" if what else f"Read data of {many}"


def _who(event: Event) -> str:
    by = event.get("by", "")
    where = f", {by}" if by and by not in ("request", "unattributed") else ""
    return html.escape(f"by {event['user'] or 'unknown'}{where}")


def _details(event: Event, hide: Callable[[str], str]) -> Iterator[str]:
    record = event.get("record", {})
    if reason := record.get("reason"):
        yield f"Reason: {html.escape(hide(str(reason)))}"
    if event["kind"] == "act" and (path := record.get("path")):
        yield f"Files: {html.escape(hide(', '.join(path) if isinstance(path, list) else str(path)))}"
    if event.get("status") == "error":
        yield f'It ended with an error: <span class="bad">{html.escape(str(event.get("error", "")))}</span>'
    elif event.get("status") == "aborted":
        yield "It was not run: something before it had failed"
    elif event.get("status") == "no outcome":
        yield "How it ended is not on record"


def _hiding(student: str | None, others: Iterable[str]) -> Callable[[str], str]:
    """What takes the ids of other learners out of a text that is for one learner's people."""
    named = sorted((each for each in others if each != student), key=len, reverse=True)
    if student is None or not named:
        return str
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, named))})(?!\w)")
    return lambda text: pattern.sub("(another learner)", text)


def _code(code: str) -> str:
    if not code:
        return ""
    first = next(line for line in code.split("\n") if line.strip())
    short = first if len(first) <= _LINE else f"{first[:_LINE]}…"
    if short == code:
        return f'<p class="soft"><code>{html.escape(code)}</code></p>'
    return (
        f'<details><summary><code>{html.escape(short)}</code> <span class="soft">all of it</span></summary>'
        f"<pre>{html.escape(code)}</pre></details>"
    )


def _span(told: Sequence[Event]) -> str:
    if not told:
        return ""
    first, last = (_day(told[place]["at"][:10]) for place in (0, -1))
    return f"{first}." if first == last else f"{first} to {last}."


def _day(day: str) -> str:
    found = date.fromisoformat(day)
    return f"{found.day} {found:%B %Y}"
