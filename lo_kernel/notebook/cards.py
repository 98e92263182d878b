"""What a notebook shows for `lo`, a job and the list of errors: HTML for JupyterLab, text for a console.

Pure functions of plain facts. The HTML needs no style sheet, script or file from elsewhere: JupyterLab's
own variables give it the colours of the theme, and without them (an untrusted notebook, a converted one) it
is ordinary tables. Every text is escaped: ids, messages and tracebacks come from learners' events and
users' code.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

__all__ = [
    "FOLDED",
    "AppFacts",
    "ErrorLike",
    "JobLike",
    "ReducerFacts",
    "errors_html",
    "errors_text",
    "job_html",
    "job_text",
    "observer_html",
    "observer_text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducerFacts:
    """One reducer: ``events`` folded since the start, ``errors`` among them, ``behind`` that wait for it.

    ``paused`` says of one that is paused how far its states are, and what to do.
    """

    id: str
    context: str
    status: str
    events: int
    errors: int = 0
    behind: int = 0
    last_error: str = ""
    paused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFacts:
    """What the card of `lo` tells.

    ``url`` is shown, ``link`` (which may carry a ticket) is where it leads; no token belongs in either.
    ``owner`` says whose the workspace is, such as ``"this notebook"``. ``connections`` are open ones of event
    sources, and none where another process has them.
    """

    url: str
    link: str = ""
    loop: str = "kernel"
    store: str = "sqlite"
    workspace: str = ""
    owner: str = "this notebook"
    events: int = 0
    learners: int = 0
    connections: int | None = 0
    reducers: Sequence[ReducerFacts] = ()
    errors: Sequence[str] = ()


class JobLike(Protocol):
    """What a card needs of a :class:`~lo_kernel.notebook.jobs.Job`."""

    name: str
    done: int
    total: int
    note: str

    @property
    def status(self) -> str:
        """``running``, ``done``, ``cancelled``, ``failed`` or ``replaced``."""

    @property
    def seconds(self) -> float:
        """How long it has been at it, or took."""

    @property
    def error(self) -> BaseException | None:
        """What it failed with."""


class ErrorLike(Protocol):
    """What a card needs of an :class:`~lo_kernel.engine.errorlog.ErrorEntry`."""

    where: str
    kind: str
    message: str
    last: float
    traceback: str

    @property
    def times(self) -> str:
        """How often it came, and how often with another message."""

    @property
    def also(self) -> list[str]:
        """Lines that say which other messages there are."""


_LOOPS = {
    "kernel": "the kernel's own: it answers between cells, and while a cell awaits",
    "thread": "a thread of its own: it answers while a cell is busy",
}
_CARD = (
    "border:1px solid var(--jp-border-color2,#9e9e9e);border-radius:6px;padding:10px 14px;max-width:60em;"
    "line-height:1.5"
)
_QUIET = "color:var(--jp-content-font-color2,inherit)"
_MORE = f"display:block;margin-left:16px;white-space:pre-wrap;{_QUIET}"
_ALERT = "color:var(--jp-error-color1,#c62828)"
_LEFT = "text-align:left;vertical-align:top"
_NUMBER = "text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"
FOLDED = 5  # errors shown on the card of `lo`; `lo.errors` has all


def observer_text(facts: AppFacts) -> str:
    """The card of `lo` for a console.

    >>> print(observer_text(AppFacts(url="http://127.0.0.1:9999/", store="memory", workspace="default")))
    Learning Observer at http://127.0.0.1:9999/
      loop       kernel
      store      memory
      workspace  default, owned by this notebook
      events     0 so far, from 0 learners; no source connected
      reducers   none yet: declare one with @lo.reducer(...)
    """
    lines = [
        f"Learning Observer at {facts.url}",
        f"  loop       {facts.loop}",
        f"  store      {facts.store}",
        f"  workspace  {_workspace(facts)}",
        f"  events     {_events(facts)}",
    ]
    if not facts.reducers:
        lines.append("  reducers   none yet: declare one with @lo.reducer(...)")
    for number, reducer in enumerate(facts.reducers):
        count = f", {_count(reducer.events, 'event')} of {reducer.context} since the start"
        said = f"{reducer.id}: {_state(reducer)}{'' if reducer.paused else count}"
        if reducer.errors:
            said += f", {_count(reducer.errors, 'error')}"
        lines.append(f"  {'' if number else 'reducers':<9}  {said}")
    for number, error in enumerate(facts.errors[-FOLDED:]):
        lines.append(f"  {'' if number else 'errors':<9}  {_one_line(error)}")
    if facts.errors:
        lines.append(f"  {'':<9}  lo.errors has all of them, with tracebacks")
    return "\n".join(lines)


def observer_html(facts: AppFacts) -> str:
    """The card of `lo` for a notebook."""
    link = escape(facts.link or facts.url, quote=True)
    head = (
        f'<b style="font-size:1.15em">Learning Observer</b> at '
        f'<a href="{link}" target="_blank" rel="noopener noreferrer">{escape(facts.url)}</a>'
    )
    about = _pairs(
        [
            ("Events", _events(facts)),
            ("Store", facts.store),
            ("Workspace", _workspace(facts)),
            ("Loop", _LOOPS.get(facts.loop, facts.loop)),
        ]
    )
    return _card(head, about, _reducers(facts.reducers), _problems(facts.errors))


def job_text(job: JobLike) -> str:
    """One line for a job.

    >>> from types import SimpleNamespace as Job
    >>> job = Job(name="replay", status="running", done=1200, total=5000, note="", seconds=2, error=None)
    >>> print(job_text(job))
    replay: running, 1,200 of 5,000 (24%), 2.0 s
    """
    parts = _stands(job)
    if job.error is not None:
        parts.append(_one_line(f"{type(job.error).__name__}: {job.error}"))
    return f"{job.name}: {', '.join(parts)}, {_duration(job.seconds)}"


def job_html(job: JobLike) -> str:
    """A job with its progress."""
    said = " · ".join(escape(part) for part in [*_stands(job), _duration(job.seconds)])
    head = f'<b>{escape(job.name)}</b> <span style="{_QUIET}">{said}</span>'
    bar = ""
    if job.status == "running":
        # Without a value the bar moves by itself: it goes on, and nobody knows how long.
        value = f' value="{min(job.done, job.total)}" max="{job.total}"' if job.total else ""
        name = escape(job.name, quote=True)
        bar = f'<progress{value} style="width:100%;max-width:32em" aria-label="{name}"></progress>'
    problem = ""
    if job.error is not None:
        text = escape(f"{type(job.error).__name__}: {job.error}")
        problem = f'<div style="{_ALERT}">{text}</div>'
    return _card(head, bar, problem)


def errors_text(entries: Iterable[ErrorLike]) -> str:
    """What went wrong in the background: a line each, with its whole traceback, which a text can't fold.

    The last line of a traceback alone would say again what the line above says, and not where.
    """
    lines = []
    for entry in entries:
        lines.append(
            f"{_clock(entry.last)}  {entry.where}: {entry.kind}: {_one_line(entry.message)}{entry.times}"
        )
        lines += [f"    {line}" for line in entry.also]
        if entry.traceback:
            lines += [f"    {line}" for line in entry.traceback.rstrip().splitlines()]
    return "\n".join(lines) or "nothing went wrong so far"


def errors_html(entries: Iterable[ErrorLike]) -> str:
    """What went wrong in the background: a line each, that unfolds to its traceback."""
    items = []
    for entry in entries:
        line = (
            f'<span style="{_QUIET}">{_clock(entry.last)}</span> <b>{escape(entry.where)}</b> '
            f'<span style="{_ALERT}">{escape(entry.kind)}</span>: {escape(entry.message)}'
            f'<span style="{_QUIET}">{entry.times}</span>'
        )
        line += "".join(f'<span style="{_MORE}">{escape(each)}</span>' for each in entry.also)
        if entry.traceback:
            trace = f'<pre style="margin:4px 0 8px 16px;overflow-x:auto">{escape(entry.traceback)}</pre>'
            items.append(f'<details><summary style="cursor:pointer">{line}</summary>{trace}</details>')
        else:
            items.append(f"<div>{line}</div>")
    return _card("<b>Errors</b>", *items) if items else _card("Nothing went wrong so far.")


def _card(*parts: str) -> str:
    body = "".join(f'<div style="margin:2px 0">{part}</div>' for part in parts if part)
    return f'<div style="{_CARD}">{body}</div>'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    # No table: a notebook would stripe and squeeze it as one of data.
    style = f"display:inline-block;flex-shrink:0;min-width:7.3em;{_QUIET}"
    return "".join(
        f'<div style="display:flex"><span style="{style}">{escape(name)}</span> '
        f'<span style="min-width:0;overflow-wrap:anywhere">{escape(value)}</span></div>'
        for name, value in pairs
    )


def _reducers(reducers: Sequence[ReducerFacts]) -> str:
    if not reducers:
        return (
            f'<span style="{_QUIET}">No reducers yet: declare one with <code>@lo.reducer(...)</code>.</span>'
        )
    head = "".join(
        f'<th scope="col" style="{style}">{name}</th>'
        for name, style in [
            ("Reducer", _LEFT),
            ("State", _LEFT),
            ("Events since the start", _NUMBER),
            ("Errors", _NUMBER),
            ("Hears", _LEFT),
        ]
    )
    rows = []
    for each in reducers:
        alert = f";{_ALERT}" if each.errors else ""
        title = f' title="{escape(each.last_error, quote=True)}"' if each.last_error else ""
        rows.append(
            f'<tr><td style="{_LEFT}"><code>{escape(each.id)}</code></td>'
            f'<td style="{_LEFT}">{escape(_state(each))}</td>'
            f'<td style="{_NUMBER}">{each.events:,}</td>'
            f'<td style="{_NUMBER}{alert}"{title}>{each.errors:,}</td>'
            f'<td style="{_LEFT}">{escape(each.context)}</td></tr>'
        )
    body = "".join(rows)
    return f'<table style="margin:6px 0 0 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _problems(errors: Sequence[str]) -> str:
    if not errors:
        return ""
    lines = "".join(f'<div style="{_ALERT}">{escape(_one_line(error))}</div>' for error in errors[-FOLDED:])
    rest = f"; {len(errors) - FOLDED} more" if len(errors) > FOLDED else ""
    return f'{lines}<span style="{_QUIET}"><code>lo.errors</code> has the tracebacks{rest}.</span>'


def _events(facts: AppFacts) -> str:
    told = f"{facts.events:,} so far, from {_count(facts.learners, 'learner')}"
    if facts.connections is None:
        return told
    sources = _count(facts.connections, "source") if facts.connections else "no source"
    return f"{told}; {sources} connected"


def _workspace(facts: AppFacts) -> str:
    return f"{facts.workspace}, owned by {facts.owner}" if facts.owner else facts.workspace


def _state(reducer: ReducerFacts) -> str:
    if reducer.paused:
        return reducer.paused
    return f"{reducer.status}, {reducer.behind:,} events behind" if reducer.behind else reducer.status


def _stands(job: JobLike) -> list[str]:
    """What has become of a job, and how far it is; of a replaced one how far it came is of no use."""
    return ["replaced by a newer one"] if job.status == "replaced" else [job.status, *_progress(job)]


def _progress(job: JobLike) -> list[str]:
    """How far it is; where there is no end to count to, the note says what is counted."""
    if job.total:
        return [f"{job.done:,} of {job.total:,} ({100 * job.done // job.total}%)", *filter(None, [job.note])]
    return list(filter(None, [f"{job.done:,} {job.note}".strip() if job.done else job.note]))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s'[: number != 1]}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _one_line(text: str, limit: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
